"""Parts of `-q` with as many entries as there are: MIG devices, supported clocks, processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fake_gpu.derived import supported_clocks
from fake_gpu.mig import MigInstance
from fake_gpu.process import Process
from fake_gpu.smi.run import Reading
from fake_gpu.smi.texts import in_one_line, in_xml, line
from fake_gpu.units import MIB
from fake_gpu.view import Listed

_PROCESS_COLUMN: Final = 42
"""Where the colon stands in the list of processes, in every driver."""
WDDM_MEMORY: Final = "Not available in WDDM driver model"

Pairs = list[tuple[str, str, str]]
"""Label, element, value."""


def text(group: str, reading: Reading) -> Iterator[str]:
    """The lines of -q."""
    if group == "@mig_devices":
        for instance in reading.gpu.instances:
            yield from _mig_text(reading, instance)
    elif group == "@processes":
        yield from _processes_text(reading)
    elif "SUPPORTED_CLOCKS" in reading.run.request.display:
        yield from _clocks_text(reading)


def xml(group: str, depth: int, reading: Reading) -> Iterator[str]:
    """The lines of -q -x."""
    name, indent = group[1:], "\t" * depth
    yield f"{indent}<{name}>\n"
    if group == "@mig_devices":
        for instance in reading.gpu.instances:
            yield from _mig_xml(reading, instance, depth + 1)
        if not reading.gpu.instances:
            yield f"{indent}\tNone\n"
    elif group == "@processes":
        yield from _processes_xml(reading, depth + 1)
    else:
        yield from _clocks_xml(reading, depth + 1)
    yield f"{indent}</{name}>\n"


def listed(reading: Reading) -> list[tuple[Listed, str]]:
    """The living processes in the order of their PIDs, and what is said of their memory."""
    run, gpu = reading.run, reading.gpu
    known = run.measures(gpu)
    rows = sorted(gpu.listed_at(run.now_ns), key=lambda one: one.pid)
    return [
        (
            one._replace(name=in_one_line(one.name)),
            f"{run.mib(one.size)} MiB" if known and one.size is not None else "N/A",
        )
        for one in rows
    ]


def hides_memory(reading: Reading) -> bool:
    """Whether Windows manages the card's memory, so that nobody knows what a process holds."""
    return reading.said.get("driver_model.current") == "WDDM"


def place(process: Process) -> tuple[str, str]:
    """Its GPU instance and compute instance."""
    facts = None if process.instance is None else process.instance.facts
    return ("N/A", "N/A") if facts is None else (str(facts.gpu_instance), str(facts.compute_instance))


# -- MIG devices


def memory_of(reading: Reading, instance: MigInstance) -> tuple[int, int]:
    """Bytes used and free."""
    used = instance.used_at(reading.run.now_ns)
    return used, instance.total - used


def _mig_pairs(reading: Reading, instance: MigInstance) -> list[tuple[str, str, Pairs]]:
    """Each section's labels, elements and lines."""
    errors = "0" if reading.profile.ecc else "N/A"
    return [
        ("Device Attributes/Shared", "device_attributes/shared", _engines(instance)),
        (
            "ECC Errors/Volatile",
            "ecc_error_count/volatile_count",
            [("SRAM Uncorrectable", "sram_uncorrectable", errors)],
        ),
        ("Shared FB Memory Usage", "fb_memory_usage", _frame_buffer(reading, instance)),
        ("Shared BAR1 Memory", "bar1_memory_usage", _bar1(reading, instance)),
    ]


def _engines(instance: MigInstance) -> Pairs:
    facts = instance.facts
    return [
        ("Multiprocessor count", "multiprocessor_count", str(facts.multiprocessors)),
        ("Copy Engine count", "copy_engine_count", str(facts.copy_engines)),
        ("Encoder count", "encoder_count", str(facts.encoders)),
        ("Decoder count", "decoder_count", str(facts.decoders)),
        ("OFA count", "ofa_count", str(facts.ofa)),
        ("JPG count", "jpg_count", str(facts.jpeg)),
    ]


def _frame_buffer(reading: Reading, instance: MigInstance) -> Pairs:
    mib = reading.run.mib
    used, free = memory_of(reading, instance)
    return [
        ("Total", "total", f"{mib(instance.total)} MiB"),
        ("Reserved", "reserved", "0 MiB"),
        ("Used", "used", f"{mib(used)} MiB"),
        ("Free", "free", f"{mib(free)} MiB"),
    ]


def _bar1(reading: Reading, instance: MigInstance) -> Pairs:
    mib, used = reading.run.mib, instance.bar1_used
    total = instance.facts.bar1_mib * MIB
    return [
        ("Total", "total", f"{mib(total)} MiB"),
        ("Used", "used", f"{mib(used)} MiB"),
        ("Free", "free", f"{mib(total - used)} MiB"),
    ]


def _numbers(instance: MigInstance) -> Pairs:
    facts = instance.facts
    return [
        ("Index", "index", str(instance.index)),
        ("GPU Instance ID", "gpu_instance_id", str(facts.gpu_instance)),
        ("Compute Instance ID", "compute_instance_id", str(facts.compute_instance)),
    ]


def _mig_text(reading: Reading, instance: MigInstance) -> Iterator[str]:
    column = reading.run.label_column
    yield f"{'':4}MIG Device\n"
    for label, _, value in _numbers(instance):
        yield line(2, label, value, column)
    for labels, _, pairs in _mig_pairs(reading, instance):
        depth = 2
        for part in labels.split("/"):
            yield f"{' ' * 4 * depth}{part}\n"
            depth += 1
        for label, _, value in pairs:
            yield line(depth, label, value, column)


def _mig_xml(reading: Reading, instance: MigInstance, depth: int) -> Iterator[str]:
    indent = "\t" * depth
    yield f"{indent}<mig_device>\n"
    for _, tag, value in _numbers(instance):
        yield f"{indent}\t<{tag}>{value}</{tag}>\n"
    for _, tags, pairs in _mig_pairs(reading, instance):
        parts = tags.split("/")
        for level, part in enumerate(parts, 1):
            yield f"{indent}{chr(9) * level}<{part}>\n"
        for _, tag, value in pairs:
            yield f"{indent}{chr(9) * (len(parts) + 1)}<{tag}>{value}</{tag}>\n"
        for level in range(len(parts), 0, -1):
            yield f"{indent}{chr(9) * level}</{parts[level - 1]}>\n"
    yield f"{indent}</mig_device>\n"


# -- processes


def _processes_text(reading: Reading) -> Iterator[str]:
    rows = listed(reading)
    if not rows:
        yield line(1, "Processes", "None", reading.run.label_column)
        return
    yield "    Processes\n"
    for one, memory in rows:
        instance, compute = place(one.process)
        said = WDDM_MEMORY if hides_memory(reading) else memory
        yield line(2, "GPU instance ID", instance, _PROCESS_COLUMN)
        yield line(2, "Compute instance ID", compute, _PROCESS_COLUMN)
        yield line(2, "Process ID", str(one.pid), _PROCESS_COLUMN)
        yield line(3, "Type", one.process.compute_type, _PROCESS_COLUMN)
        yield line(3, "Name", one.name, _PROCESS_COLUMN)
        yield line(3, "Used GPU Memory", said, _PROCESS_COLUMN)


def _processes_xml(reading: Reading, depth: int) -> Iterator[str]:
    indent = "\t" * depth
    for one, memory in listed(reading):
        instance, compute = place(one.process)
        yield f"{indent}<process_info>\n"
        for tag, value in (
            ("gpu_instance_id", instance),
            ("compute_instance_id", compute),
            ("pid", str(one.pid)),
            ("type", one.process.compute_type),
            ("process_name", one.name),
            ("used_memory", memory),
        ):
            yield f"{indent}\t<{tag}>{in_xml(value)}</{tag}>\n"
        yield f"{indent}</process_info>\n"


# -- supported clocks


def _clocks_text(reading: Reading) -> Iterator[str]:
    clocks, column = supported_clocks(reading.profile), reading.run.label_column
    if not clocks:
        yield line(1, "Supported Clocks", "N/A", column)
        return
    yield "    Supported Clocks\n"
    for memory, graphics in clocks:
        yield line(2, "Memory", f"{memory} MHz", column)
        for one in graphics:
            yield line(3, "Graphics", f"{one} MHz", column)


def _clocks_xml(reading: Reading, depth: int) -> Iterator[str]:
    indent = "\t" * depth
    for memory, graphics in supported_clocks(reading.profile):
        yield f"{indent}<supported_mem_clock>\n{indent}\t<value>{memory} MHz</value>\n"
        for one in graphics:
            yield f"{indent}\t<supported_graphics_clock>{one} MHz</supported_graphics_clock>\n"
        yield f"{indent}</supported_mem_clock>\n"
