"""What NVML says about the machine: versions, process names, topology."""

from __future__ import annotations

import os
from pathlib import Path

from fake_gpu.gpu import Gpu
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import counted, i32, one_of, text, u32, u64
from fake_gpu.process import process_name

_INTERNAL, _NODE, _SYSTEM = 0, 40, 50
_LEVELS = (_INTERNAL, 10, 20, 30, _NODE, _SYSTEM)

_READ, _WRITE, _NVLINK, _ATOMICS, _PCI = range(5)
_P2P_OK, _P2P_CHIPSET_NOT_SUPPORTED, _P2P_NOT_SUPPORTED = 0, 1, 5

_BITS = 64
"""Of an unsigned long, in which NVML gives sets of CPUs and NUMA nodes."""


@nvml("nvmlSystemGetDriverVersion")
def driver_version(call: Call, room: int | None, length: int) -> bytes:
    return text(call.driver.driver_version, room)


@nvml("nvmlSystemGetNVMLVersion")
def nvml_version(call: Call, room: int | None, length: int) -> bytes:
    """The major version of CUDA that it came with, and the driver's version: "13.590.48.01"."""
    return text(f"{call.driver.cuda_version[0]}.{call.driver.driver_version}", room)


@nvml("nvmlSystemGetCudaDriverVersion", "nvmlSystemGetCudaDriverVersion_v2")
def cuda_driver_version(call: Call) -> bytes:
    """13.1 is 13010."""
    major, minor = call.driver.cuda_version
    return i32(major * 1000 + minor * 10)


@nvml("nvmlSystemGetProcessName")
def name_of_process(call: Call, pid: int, room: int | None, length: int) -> bytes:
    """Cropped to what fits, as nvml.h says."""
    if not room:
        raise NvmlError("INVALID_ARGUMENT")
    name = next((one.name for one in call.driver.processes if one.pid == pid and one.alive_in_model), None)
    if name is None:
        if not Path(f"/proc/{pid}").exists():
            raise NvmlError("NOT_FOUND")
        name, _ = process_name(pid)
    return name.encode()[: room - 1] + b"\0"


@nvml("nvmlSystemGetHicVersion")
def host_interface_cards(call: Call, count: int, room: int | None) -> tuple[bytes, bytes]:
    return counted([], count, room)


# -- where the cards are: all of them hang on one NUMA node, each on its own host bridge


def _mask(numbers: range, words: int) -> bytes:
    if not words:
        raise NvmlError("INVALID_ARGUMENT")
    members = sum(1 << number for number in numbers if number < words * _BITS)
    return members.to_bytes(words * _BITS // 8, "little")


@nvml("nvmlDeviceGetCpuAffinity")
def cpu_affinity(call: Call, gpu: Gpu, size: int, room: int | None) -> bytes:
    """Every CPU of the machine."""
    return _mask(range(os.cpu_count() or 1), room or 0)


@nvml("nvmlDeviceGetCpuAffinityWithinScope")
def cpu_affinity_within(call: Call, gpu: Gpu, size: int, room: int | None, scope: int) -> bytes:
    one_of(scope, 2)
    return cpu_affinity(call, gpu, size, room)


@nvml("nvmlDeviceGetMemoryAffinity")
def memory_affinity(call: Call, gpu: Gpu, size: int, room: int | None, scope: int) -> bytes:
    """NUMA node 0."""
    one_of(scope, 2)
    return _mask(range(1), room or 0)


@nvml("nvmlDeviceGetTopologyCommonAncestor")
def common_ancestor(call: Call, gpu: Gpu, other: Gpu) -> bytes:
    return u32(_INTERNAL if gpu is other else _NODE)


@nvml("nvmlDeviceGetTopologyNearestGpus")
def nearest_gpus(call: Call, gpu: Gpu, level: int, count: int, room: int | None) -> tuple[bytes, bytes]:
    """A count of 0 asks how many there are, and that is no error: nvml.h."""
    if level not in _LEVELS:
        raise NvmlError("INVALID_ARGUMENT")
    others = [u64(other.handle) for other in call.driver.enumerated if other is not gpu and level >= _NODE]
    return (u32(len(others)), b"") if count == 0 else counted(others, count, room)


@nvml("nvmlDeviceOnSameBoard")
def on_same_board(call: Call, gpu: Gpu, other: Gpu) -> bytes:
    return i32(gpu is other)


@nvml("nvmlDeviceGetP2PStatus")
def p2p_status(call: Call, gpu: Gpu, other: Gpu, capability: int) -> bytes:
    """As `nvidia-smi topo -p2p` shows it: GeForce cards do not reach each other, NVLink and atomics need NVLink."""
    if capability > _PCI or gpu is other:
        raise NvmlError("INVALID_ARGUMENT")
    linked = gpu.profile.nvlinks > 0 and other.profile.nvlinks > 0
    if linked:
        return u32(_P2P_OK)
    if capability in (_NVLINK, _ATOMICS):
        return u32(_P2P_NOT_SUPPORTED)
    return u32(_P2P_CHIPSET_NOT_SUPPORTED if "geforce" in (gpu.profile.brand, other.profile.brand) else _P2P_OK)
