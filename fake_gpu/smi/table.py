"""The table that nvidia-smi prints without arguments: 91 columns, three lines for each GPU, then the processes."""

from __future__ import annotations

import time
from typing import Final

from fake_gpu.process import Process
from fake_gpu.smi.failures import report
from fake_gpu.smi.run import Output, Reading, Run
from fake_gpu.units import to_mib

_RULE: Final = "+" + "-" * 89 + "+\n"
_GPU_RULE: Final = "+" + "-" * 41 + "+" + "-" * 24 + "+" + "-" * 22 + "+\n"
_HEADINGS: Final = (
    _GPU_RULE + "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |\n"
    "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |\n"
    "|                                         |                        |               MIG M. |\n"
    "|=========================================+========================+======================|\n"
)
_PROCESS_HEADINGS: Final = (
    "\n" + _RULE + "| Processes:                                                                              |\n"
    "|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |\n"
    "|        ID   ID                                                               Usage      |\n"
    "|=========================================================================================|\n"
)
_NO_PROCESSES: Final = "|  No running processes found                                                             |\n"
_NAME_WIDTH: Final = 27
_PROCESS_NAME_LONGEST: Final = 32
"""Of a longer one the end is shown, such as "...ma.cpp/build/bin/llama-server"."""


def render(run: Run) -> Output:
    """The whole output. One GPU that fails keeps the real one from drawing the table at all."""
    reports = [report(gpu, error) for gpu in run.gpus if (error := run.failure(gpu))]
    if reports:
        return Output("".join(text for text, _ in reports), reports[-1][1])
    parts = [_timestamp(run), _RULE, _versions(run), _HEADINGS]
    for gpu in run.gpus:
        parts += (_gpu_lines(Reading(run, gpu), measured=run.measures(gpu)), _GPU_RULE)
    parts.append(_PROCESS_HEADINGS)
    lines = [
        _process_line(run.index(gpu), process, f"{to_mib(held)}MiB" if run.measures(gpu) else "N/A")
        for gpu in run.gpus
        for process, held in sorted(gpu.processes_at(run.now_ns), key=lambda pair: pair[0].pid)
    ]
    parts += lines or [_NO_PROCESSES]
    parts.append(_RULE)
    return Output("".join(parts))


def _timestamp(run: Run) -> str:
    # As C's ctime has it, whatever the locale: the day is padded with a space, and seven more follow.
    now = time.localtime(run.driver.wall_time())
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[now.tm_wday]
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[now.tm_mon - 1]
    return f"{day} {month} {now.tm_mday:2d} {now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d} {now.tm_year}       \n"


def _versions(run: Run) -> str:
    driver = run.driver_version
    cuda = "{}.{}".format(*run.driver.cuda_version)
    return f"| NVIDIA-SMI {driver:<23}Driver Version: {driver:<15}CUDA Version: {cuda:<9}|\n"


def _gpu_lines(reading: Reading, *, measured: bool) -> str:
    gpu, profile = reading.gpu, reading.profile
    name = gpu.name if len(gpu.name) <= _NAME_WIDTH else gpu.name[: _NAME_WIDTH - 3] + "..."
    persistence = "On" if profile.persistence else "Off"
    display = "On" if profile.display else "Off"
    return (
        f"| {reading.run.index(gpu):3d}  {name:<{_NAME_WIDTH}}    {persistence:<3} |   {gpu.pci_bus_id} {display:>3} "
        f"| {_ecc(reading):>20} |\n"
        f"|{_status(reading, measured)}|{_memory(reading, measured)}"
        f"|{_utilization(reading, measured):>8}{'Default':>13} |\n"
        f"|{'':41}|{'':24}| {_mig(reading):>20} |\n"
    )


def _status(reading: Reading, measured: bool) -> str:
    activity, profile = reading.gpu.activity, reading.profile
    fan = f"{activity.fan_percent}%" if profile.fans else "N/A"
    # Watts are cut, not rounded: with 77.67 W drawn, and 25.92 W, the table shows 77W and 25W.
    power = f"{int(activity.power)}W" if measured else "N/A"
    limit = f"{int(profile.power.default_limit)}W" if measured else "N/A "
    return f"{fan:>4}{activity.temperature:>5}C    P{activity.pstate:<2}{power:>15} / {limit:>5} "


def _memory(reading: Reading, measured: bool) -> str:
    if not measured:
        return f" {'Not Supported':<23}"
    memory = reading.memory
    return f"{to_mib(memory.used):8d}MiB / {to_mib(memory.total):6d}MiB "


def _utilization(reading: Reading, measured: bool) -> str:
    if reading.profile.mig or not measured:
        return "N/A"
    return f"{reading.gpu.activity.gpu_percent}%"


def _ecc(reading: Reading) -> str:
    if reading.profile.mig:
        return "On"  # as an H100 with MIG shows it: the counters belong to the instances
    return {None: "N/A", False: "Off", True: "0"}[reading.profile.ecc]


def _mig(reading: Reading) -> str:
    return {None: "N/A", False: "Disabled", True: "Enabled"}[reading.profile.mig]


def _process_line(index: int, process: Process, held: str) -> str:
    name = process.name
    if len(name) > _PROCESS_NAME_LONGEST:
        name = "..." + name[3 - _PROCESS_NAME_LONGEST :]
    return f"| {index:4d}   N/A  N/A    {process.pid:>12}   {process.compute_type:>4}   {name:<38}{held:>8} |\n"
