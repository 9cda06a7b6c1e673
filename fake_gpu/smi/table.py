"""The table that nvidia-smi prints without arguments: 91 columns, three lines for each GPU, then the processes."""

from __future__ import annotations

from typing import Final

from fake_gpu.mig import MigInstance
from fake_gpu.smi import log_groups
from fake_gpu.smi.columns import NOT_AVAILABLE
from fake_gpu.smi.ctime import ctime
from fake_gpu.smi.failures import as_a_whole
from fake_gpu.smi.run import Output, Reading, Run
from fake_gpu.view import Listed

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
_MIG_TITLE: Final = (
    "\n" + _RULE + "| MIG devices:                                                                            |\n"
)
_MIG_RULE: Final = "+" + "-" * 18 + "+" + "-" * 34 + "+" + "-" * 11 + "+" + "-" * 23 + "+\n"
_MIG_HEADINGS: Final = (
    _MIG_TITLE
    + _MIG_RULE
    + "| GPU  GI  CI  MIG |              Shared Memory-Usage |        Vol|        Shared         |\n"
    "|      ID  ID  Dev |                Shared BAR1-Usage | SM     Unc| CE ENC  DEC  OFA  JPG |\n"
    "|                  |                                  |        ECC|                       |\n"
    "|==================+==================================+===========+=======================|\n"
)
_NO_MIG: Final = "|  No MIG devices found                                                                   |\n"
_COMPUTE_MODES: Final = {"Exclusive_Process": "E. Process", "Exclusive_Thread": "E. Thread", "Prohibited": "Prohibited"}
_NAME_WIDTH: Final = 27
_PROCESS_NAME_LONGEST: Final = 32
"""Of a longer one the end is shown, such as "...ma.cpp/build/bin/llama-server"."""


def render(run: Run) -> Output:
    """The whole output. In an older driver one GPU that fails keeps the table from being drawn at all."""
    return as_a_whole(run, _table)


def _table(run: Run) -> str:
    parts = [f"{ctime(run)}       \n", _RULE, _versions(run), _headings(run)]
    for gpu in run.gpus:
        parts += (_gpu_lines(Reading(run, gpu), measured=run.measures(gpu)), _GPU_RULE)
    parts += _mig_box(run)
    parts.append(_PROCESS_HEADINGS)
    lines = [
        _process_line(run.index(gpu), one, held.replace(" ", ""))
        for gpu in run.gpus
        for one, held in log_groups.listed(Reading(run, gpu))
    ]
    parts += lines or [_NO_PROCESSES]
    parts.append(_RULE)
    return "".join(parts)


def _versions(run: Run) -> str:
    driver = run.driver_version
    return f"| NVIDIA-SMI {driver:<23}Driver Version: {driver:<15}CUDA Version: {run.cuda_version:<9}|\n"


def _headings(run: Run) -> str:
    on_windows = any(log_groups.hides_memory(Reading(run, gpu)) for gpu in run.gpus)
    return _HEADINGS.replace("Persistence-M |", " Driver-Model |") if on_windows else _HEADINGS


def _gpu_lines(reading: Reading, *, measured: bool) -> str:
    gpu, profile = reading.gpu, reading.profile
    name = gpu.name if len(gpu.name) <= _NAME_WIDTH else gpu.name[: _NAME_WIDTH - 3] + "..."
    persistence = "On" if profile.persistence else "Off"
    display = "On" if profile.display else "Off"
    mode = "  WDDM " if log_groups.hides_memory(reading) else f"    {persistence:<3}"
    return (
        f"| {reading.run.index(gpu):3d}  {name:<{_NAME_WIDTH}}{mode} |   {gpu.pci_bus_id} {display:>3} "
        f"| {_ecc(reading):>20} |\n"
        f"|{_status(reading, measured)}|{_memory(reading, measured)}"
        f"|{_utilization(reading, measured):>8}{_compute_mode(reading):>13} |\n"
        f"|{'':41}|{'':24}| {_mig(reading):>20} |\n"
    )


def _status(reading: Reading, measured: bool) -> str:
    activity, profile = reading.gpu.activity, reading.profile
    fan = f"{activity.fan_percent}%" if profile.fans else "N/A"
    # Watts are cut, not rounded: with 77.67 W drawn, and 25.92 W, the table shows 77W and 25W.
    power = f"{int(activity.power)}W" if measured and not _absent(reading, "power.draw") else "N/A"
    told = measured and not _absent(reading, "enforced.power.limit")
    limit = f"{int(profile.power.default_limit)}W" if told else "N/A "
    return f"{fan:>4}{activity.temperature:>5}C    P{activity.pstate:<2}{power:>15} / {limit:>5} "


def _absent(reading: Reading, field: str) -> bool:
    return reading.said.get(field) == NOT_AVAILABLE


def _memory(reading: Reading, measured: bool) -> str:
    if not measured or not reading.gpu.view.memory:
        return f" {'Not Supported':<23}"
    memory = reading.memory
    return f"{reading.run.mib(memory.used):8d}MiB / {reading.run.mib(memory.total):6d}MiB "


def _utilization(reading: Reading, measured: bool) -> str:
    if reading.profile.mig or not measured or _absent(reading, "utilization.gpu"):
        return "N/A"
    return f"{reading.gpu.activity.gpu_percent}%"


def _ecc(reading: Reading) -> str:
    if reading.profile.mig:
        return "On"  # as an H100 with MIG shows it: the counters belong to the instances
    counted = reading.said.get("ecc.errors.uncorrected.volatile.total", "0")
    return {None: "N/A", False: "Off", True: counted}[reading.profile.ecc]


def _compute_mode(reading: Reading) -> str:
    return _COMPUTE_MODES.get(reading.said.get("compute_mode", ""), "Default")


def _mig(reading: Reading) -> str:
    return {None: "N/A", False: "Disabled", True: "Enabled"}[reading.profile.mig]


def _process_line(index: int, listed: Listed, held: str) -> str:
    name = listed.name
    if len(name) > _PROCESS_NAME_LONGEST:
        name = "..." + name[3 - _PROCESS_NAME_LONGEST :]
    # In the middle of their columns: N/A fills three places, a number the first two.
    instance, compute = (f"{one:>2} " if one.isdigit() else one for one in log_groups.place(listed.process))
    return (
        f"| {index:4d}   {instance}  {compute}    {listed.pid:>12}   {listed.process.compute_type:>4}   "
        f"{name:<38}{held:>8} |\n"
    )


def _mig_box(run: Run) -> list[str]:
    gpus = [gpu for gpu in run.gpus if gpu.profile.mig]
    if not gpus:
        return []
    parts = [_MIG_HEADINGS]
    for gpu in gpus:
        reading = Reading(run, gpu)
        for instance in gpu.instances:
            parts += (_mig_lines(reading, instance), _MIG_RULE)
    return parts if len(parts) > 1 else [_MIG_TITLE, _NO_MIG, _RULE]


def _mig_lines(reading: Reading, instance: MigInstance) -> str:
    facts, mib = instance.facts, reading.run.mib
    used, _ = log_groups.memory_of(reading, instance)
    errors = "0" if reading.profile.ecc else "N/A"
    return (
        f"|{reading.run.index(reading.gpu):>3}{facts.gpu_instance:>5}{facts.compute_instance:>4}{instance.index:>4}  |"
        f"{mib(used):>16}MiB / {mib(instance.total):>5}MiB    |{facts.multiprocessors:>3}{errors:>7} |"
        f"{facts.copy_engines:>3}{facts.encoders:>4}{facts.decoders:>5}{facts.ofa:>5}{facts.jpeg:>5} |\n"
        f"|{'':18}|{mib(instance.bar1_used):>16}MiB / {facts.bar1_mib:>5}MiB    |{'':11}|{'':23}|\n"
    )
