"""`topo -m` and `nvlink -s`: how the GPUs are connected."""

from __future__ import annotations

import os
from typing import Final

from fake_gpu.gpu import Gpu
from fake_gpu.smi.failures import as_a_whole, line_by_line
from fake_gpu.smi.run import Output, Run

_LEGEND: Final = (
    ("X", "Self"),
    (
        "SYS",
        "Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)",
    ),
    (
        "NODE",
        "Connection traversing PCIe as well as the interconnect between PCIe Host Bridges within a NUMA node",
    ),
    ("PHB", "Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)"),
    ("PXB", "Connection traversing multiple PCIe bridges (without traversing the PCIe Host Bridge)"),
    ("PIX", "Connection traversing at most a single PCIe bridge"),
    ("NV#", "Connection traversing a bonded set of # NVLinks"),
)
_LINK_SPEEDS: Final = {"volta": "25.781", "turing": "25.781", "ampere": "25", "hopper": "26.562", "blackwell": "50"}
"""GB/s of one link; Hopper's as an H200 shows it."""


def render(run: Run) -> Output:
    """The whole output."""
    if run.request.mode == "topo":
        return as_a_whole(run, _matrix)
    return line_by_line(run, lambda gpu: _links(run, gpu))


def _matrix(run: Run) -> str:
    names = [f"GPU{run.index(gpu)}" for gpu in run.gpus]
    lines = ["\t\x1b[4m" + "\t".join((*names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID")) + "\x1b[0m"]
    for name, gpu in zip(names, run.gpus, strict=True):
        cells = [_connection(gpu, other) for other in run.gpus]
        lines.append("\t".join((name, *cells, _cpus(gpu), "0\t", "N/A")))
    lines += ["", "Legend:", ""]
    lines += [f"  {name:<4} = {meaning}" for name, meaning in _LEGEND]
    return "\n".join(lines) + "\n"


def _connection(gpu: Gpu, other: Gpu) -> str:
    if gpu is other:
        return " X "
    connected = gpu.profile.nvlinks_active and other.profile.nvlinks_active
    links = min(gpu.profile.nvlinks, other.profile.nvlinks) if connected else 0
    return f"NV{links}" if links else "NODE"


def _cpus(gpu: Gpu) -> str:
    return gpu.activity.said.get("cpu_affinity") or f"0-{(os.cpu_count() or 1) - 1}"


def _links(run: Run, gpu: Gpu) -> str:
    head = f"GPU {run.index(gpu)}: {gpu.name} (UUID: {gpu.uuid})\n"
    if gpu.profile.mig:
        return head + "Nvlink queries are not supported for Devices in MIG mode\n"
    if not gpu.profile.nvlinks:
        return head + "Device does not have or support Nvlink\n"
    if not gpu.profile.nvlinks_active:
        return head + "NVML: Unable to retrieve Nvlink information as all links are inActive\n"
    speed = _LINK_SPEEDS.get(gpu.profile.architecture, "20")
    return head + "".join(f"\t Link {link}: {speed} GB/s\n" for link in range(gpu.profile.nvlinks))
