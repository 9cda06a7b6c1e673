"""The table that nvidia-smi prints without arguments: three lines for each GPU, MIG devices, the processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fake_gpu.mig import MigInstance
from fake_gpu.smi import log_groups
from fake_gpu.smi.columns import NOT_AVAILABLE
from fake_gpu.smi.ctime import ctime
from fake_gpu.smi.failures import as_a_whole
from fake_gpu.smi.frames import Frame, GpuRows, MigRows, ProcessRows, frame_of
from fake_gpu.smi.run import Output, Reading, Run
from fake_gpu.view import Listed

_COMPUTE_MODES: Final = {"Exclusive_Process": "E. Process", "Exclusive_Thread": "E. Thread", "Prohibited": "Prohibited"}


def render(run: Run) -> Output:
    """The whole output. In an older driver one GPU that fails keeps the table from being drawn at all."""
    return as_a_whole(run, _table)


def _table(run: Run) -> str:
    frame = frame_of(run.major)
    rule = _rule((frame.width,))
    gpu_rule = _rule(frame.gpus.widths)
    parts = [f"{ctime(run)}       \n", rule, frame.banner.format(driver=run.driver_version, cuda=run.cuda_version)]
    parts += (frame.corner, gpu_rule[1:], *_headings(run, frame.gpus))
    for gpu in run.gpus:
        parts += (_gpu_lines(Reading(run, gpu), frame.gpus, measured=run.measures(gpu)), gpu_rule)
    parts += _mig_box(run, frame)
    parts += (f"{frame.between}\n", rule, _across(frame, " Processes:"), frame.processes.heading)
    parts.append(f"|{'=' * frame.width}|\n")
    lines = [
        _process_line(frame.processes, run.index(gpu), one, held.replace(" ", ""))
        for gpu in run.gpus
        for one, held in log_groups.listed(Reading(run, gpu))
    ]
    parts += lines or [_across(frame, "  No running processes found")]
    parts.append(rule)
    return "".join(parts)


def _rule(widths: tuple[int, ...], line: str = "-", end: str = "+") -> str:
    return f"{end}{'+'.join(line * width for width in widths)}{end}\n"


def _across(frame: Frame, text: str) -> str:
    return f"|{text:<{frame.width}}|\n"


def _headings(run: Run, rows: GpuRows) -> Iterator[str]:
    on_windows = any(log_groups.hides_memory(Reading(run, gpu)) for gpu in run.gpus)
    yield rows.headings.replace(rows.persistence, rows.wddm) if on_windows else rows.headings
    yield f"|{'':{rows.widths[0]}}|{'':{rows.widths[1]}}|{'MIG M. ':>{rows.widths[2]}}|\n"
    yield _rule(rows.widths, "=", "|")


def _gpu_lines(reading: Reading, rows: GpuRows, *, measured: bool) -> str:
    gpu, profile = reading.gpu, reading.profile
    name = gpu.name if len(gpu.name) <= rows.name else gpu.name[: rows.name - 3] + "..."
    persistence = "On" if profile.persistence else "Off"
    display = "On" if profile.display else "Off"
    mode = rows.wddm_mode if log_groups.hides_memory(reading) else rows.mode.format(persistence)
    return (
        f"| {reading.run.index(gpu):3d}  {name:<{rows.name}}{mode}|{'':{rows.bus_indent}}"
        f"{gpu.pci_bus_id} {display:>3} | {_ecc(reading):>20} |\n"
        f"|{_status(reading, rows, measured)}|{_memory(reading, rows, measured)}"
        f"|{_utilization(reading, measured):>8}{_compute_mode(reading):>13} |\n"
        f"|{'':{rows.widths[0]}}|{'':{rows.widths[1]}}| {_mig(reading):>20} |\n"
    )


def _status(reading: Reading, rows: GpuRows, measured: bool) -> str:
    activity, profile = reading.gpu.activity, reading.profile
    fan = f"{activity.fan_percent}%" if profile.fans else "N/A"
    # Watts are cut, not rounded: with 77.67 W drawn, and 25.92 W, the table shows 77W and 25W.
    power = f"{int(activity.power)}W" if measured and not _absent(reading, "power.draw") else "N/A"
    told = measured and not _absent(reading, "enforced.power.limit")
    limit = f"{int(profile.power.default_limit)}W" if told else rows.no_limit
    return (
        f"{fan:>4}{activity.temperature:>5}C    P{activity.pstate:<2}{power:>{rows.power}} / "
        f"{limit:>{rows.limit}}{'':{rows.end}}"
    )


def _absent(reading: Reading, field: str) -> bool:
    return reading.said.get(field) == NOT_AVAILABLE


def _memory(reading: Reading, rows: GpuRows, measured: bool) -> str:
    if not measured or not reading.gpu.view.memory:
        return f" {'Not Supported':<{rows.widths[1] - 1}}"
    memory = reading.memory
    mib = reading.run.mib
    return f"{mib(memory.used):{rows.used}d}MiB / {mib(memory.total):{rows.total}d}MiB "


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


def _process_line(rows: ProcessRows, index: int, listed: Listed, held: str) -> str:
    name = listed.name
    if len(name) > rows.longest:
        name = "..." + name[3 - rows.longest :]
    memory = f"{held:<8}" if held == "N/A" else f"{held:>8}"  # Windows' N/A stands at the left
    # In the middle of their columns: N/A fills three places, a number the first two.
    instance, compute = (f"{one:>2} " if one.isdigit() else one for one in log_groups.place(listed.process))
    return (
        f"| {index:4d}   {instance}  {compute}{listed.pid:>{rows.pid}}   {listed.process.compute_type:>4}   "
        f"{name:<{rows.name}}{memory} |\n"
    )


def _mig_box(run: Run, frame: Frame) -> list[str]:
    gpus = [gpu for gpu in run.gpus if gpu.profile.mig]
    if not gpus:
        return []
    rows = frame.mig
    rule = _rule(rows.widths)
    title = [f"{frame.between}\n", _rule((frame.width,)), _across(frame, " MIG devices:")]
    headings = [rule, *_mig_headings(rows)]
    lines = []
    for gpu in gpus:
        reading = Reading(run, gpu)
        for instance in gpu.instances:
            lines += [_mig_lines(reading, rows, instance), rule]
    if lines:
        return [*title, *headings, *lines]
    shown = headings if rows.headed_if_empty else []
    return [*title, *shown, _across(frame, "  No MIG devices found"), _rule((frame.width,))]


def _mig_headings(rows: MigRows) -> Iterator[str]:
    width = rows.widths[1]
    yield f"| GPU  GI  CI  MIG |{rows.memory + ' ':>{width}}|        Vol|{rows.engines[0]}|\n"
    yield f"|      ID  ID  Dev |{rows.bar1 + ' ':>{width}}| SM     Unc|{rows.engines[1]}|\n"
    yield f"|{'':18}|{'':{width}}|        ECC|{'':23}|\n"
    yield _rule(rows.widths, "=", "|")


def _mig_lines(reading: Reading, rows: MigRows, instance: MigInstance) -> str:
    facts, mib = instance.facts, reading.run.mib
    used, _ = log_groups.memory_of(reading, instance)
    errors = "0" if reading.profile.ecc else "N/A"
    return (
        f"|{reading.run.index(reading.gpu):>3}{facts.gpu_instance:>5}{facts.compute_instance:>4}{instance.index:>4}  |"
        f"{mib(used):>{rows.used}}MiB / {mib(instance.total):>5}MiB{'':{rows.memory_end}}"
        f"|{facts.multiprocessors:>3}{errors:>7} |"
        f"{facts.copy_engines:>3}{facts.encoders:>4}{facts.decoders:>5}{facts.ofa:>5}{facts.jpeg:>5} |\n"
        f"|{'':18}|{mib(instance.bar1_used):>{rows.bar1_used}}MiB / {facts.bar1_mib:>5}MiB{'':{rows.bar1_end}}"
        f"|{'':11}|{'':23}|\n"
    )
