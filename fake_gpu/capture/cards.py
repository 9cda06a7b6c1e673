"""Reads the entries of one GPU, from `nvidia-smi -q` or `-q -x`: its fields, partitions, processes and clocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from fake_gpu.capture.entries import Entry
from fake_gpu.capture.findings import OutputFindings
from fake_gpu.capture.match import Said, fields_of, matched
from fake_gpu.capture.quantities import CLOCK, COUNT, MIB, PID, Quantity, form_of
from fake_gpu.capture.seen import KINDS, Place, SeenCard, SeenInstance, SeenProcess, number, tells_nothing

LAST: Final = ("Processes", "Compute Processes")
"""What comes last of a GPU in the text, but for Capabilities; the latter with old drivers."""
_XML_LISTS: Final = ("mig_devices", "processes", "supported_clocks")
_COUNTS: Final = {
    "multiprocessors": ("Multiprocessor count", "multiprocessor_count"),
    "copy_engines": ("Copy Engine count", "copy_engine_count"),
    "encoders": ("Encoder count", "encoder_count"),
    "decoders": ("Decoder count", "decoder_count"),
    "ofa": ("OFA count", "ofa_count"),
    "jpeg": ("JPG count", "jpg_count"),
}


def value_of(entry: Entry | None) -> str:
    """What an entry says; "" for a section, and for one that is not there."""
    return "" if entry is None else (entry.value or "").strip()


def card_of_text(gpu: Entry, findings: OutputFindings) -> SeenCard:
    """A GPU's block of `-q`."""
    devices = [entry for entry in gpu.children if entry.label == "MIG Device" and entry.children]
    listed = [entry for entry in gpu.children if entry.label in LAST]
    clocks = gpu.find("Supported Clocks")
    shape, said = matched([entry for entry in gpu.children if not _is_list(entry)], xml=False)
    _check_essential(gpu, said, findings)
    return SeenCard(
        _checked(said, findings),
        tuple(process for section in listed for process in _processes_of_text(section, findings)),
        tuple(_instance(device, findings) for device in devices),
        tuple(shape),
        tuple(_clocks_of_text(clocks, findings)) if clocks else (),
        places=_places(said, findings),
    )


def card_of_xml(gpu: Entry, findings: OutputFindings) -> SeenCard:
    """A <gpu> of `-q -x`."""
    devices, processes, clocks = ((gpu.find(tag) or Entry(tag, None, gpu.line)).children for tag in _XML_LISTS)
    shape, said = matched([_without_list(entry) for entry in gpu.children], xml=True)
    _check_essential(gpu, said, findings)
    return SeenCard(
        _checked(said, findings),
        tuple(_process_of_xml(one, findings) for one in processes if one.label == "process_info"),
        tuple(_instance(device, findings) for device in devices if device.label == "mig_device"),
        tuple(shape),
        tuple(_clocks_of_xml(one, findings) for one in clocks if one.label == "supported_mem_clock"),
        places=_places(said, findings),
    )


def _is_list(entry: Entry) -> bool:
    """Whether the fake has entries of its own for it, as many as there are."""
    return entry.label in ("MIG Device", *LAST) or (entry.label == "Supported Clocks" and bool(entry.children))


def _without_list(entry: Entry) -> Entry:
    """Lists are shown as the card has them; identifiers of PCI stand in the text as 0x1234."""
    if entry.label in _XML_LISTS:
        return Entry(entry.label, f"@{entry.label}", entry.line)
    if entry.label != "pci":
        return entry
    children = [
        Entry(one.label, f"0x{one.value}", one.line)
        if one.value and one.label.startswith("pci_") and one.label != "pci_bus_id"
        else one
        for one in entry.children
    ]
    return Entry(entry.label, entry.value, entry.line, children)


# -- fields


def _check_essential(gpu: Entry, said: list[Said], findings: OutputFindings) -> None:
    """Refuses a block in which nothing stands that no profile can do without."""
    names = {one.name for one in said if one.text is not None and not (one.name == "name" and tells_nothing(one.text))}
    for name, what in (("name", "no product name"), ("memory.total", "no total memory")):
        if name not in names:
            findings.refuse(gpu.line, f"{gpu.label} has {what}: give all of nvidia-smi -q -x")


def _checked(said: list[Said], findings: OutputFindings) -> dict[str, str]:
    """What is said of each field first; every value that is not of its field's form is refused and left out."""
    good = []
    for one in said:
        form = form_of(one.name)
        fault = None
        if form is not None:
            fault = form.expected if one.text is None else form.fault(one.text)
        if fault is None:
            good.append(one)
        else:
            findings.refuse(one.entry.line, f"{one.entry.label} is {value_of(one.entry)!r}: {fault}")
    return fields_of(good)


def _places(said: list[Said], findings: OutputFindings) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for one in said:
        places.setdefault(one.name, Place(findings.line(one.entry.line), one.entry.label))
    return places


def _figure(entry: Entry | None, form: Quantity, findings: OutputFindings, *, told: bool = False) -> int:
    """The number in an entry; 0 for none. One that cannot be read is refused; `told`: N/A, too."""
    if entry is None:
        return 0
    text = value_of(entry)
    fault = form.fault(text)
    if told and (fault == form.expected or tells_nothing(text)):
        fault = form.expected_told
    if fault is not None:
        findings.refuse(entry.line, f"{entry.label} is {text!r}: {fault}")
    return number(text)


# -- MIG devices


def _instance(device: Entry, findings: OutputFindings) -> SeenInstance:
    def figure(above: Entry, form: Quantity, *labels: str) -> int:
        return _figure(above.first(*labels), form, findings)

    none = Entry("", None, device.line)
    memory = device.find("Shared FB Memory Usage", "FB Memory Usage", "fb_memory_usage") or none
    bar1 = device.find("Shared BAR1 Memory", "BAR1 Memory Usage", "bar1_memory_usage") or none
    seen = SeenInstance(
        figure(device, COUNT, "GPU Instance ID", "gpu_instance_id"),
        figure(device, COUNT, "Compute Instance ID", "compute_instance_id"),
        {name: figure(device, COUNT, *labels) for name, labels in _COUNTS.items()},
        *(figure(memory, MIB, *labels) for labels in (("Total", "total"), ("Used", "used"), ("Free", "free"))),
        *(figure(bar1, MIB, *labels) for labels in (("Total", "total"), ("Used", "used"))),
    )
    if not seen.total and not findings.has_problems:
        total = memory.first("Total", "total")
        findings.refuse(
            (total or device).line, f"Total of the MIG device is {value_of(total)!r}: expected a number of MiB above 0"
        )
    return seen


# -- processes


def _processes_of_text(section: Entry, findings: OutputFindings) -> Iterator[SeenProcess]:
    place: dict[str, str] = {}
    for entry in section.children:
        if entry.label in ("GPU instance ID", "Compute instance ID"):
            place[entry.label] = value_of(entry)
        elif entry.label == "Process ID":
            parts = (entry.find("Type"), entry.find("Name"), entry.find("Used GPU Memory"))
            yield _process(entry, parts, tuple(place.values()), findings)


def _process_of_xml(process: Entry, findings: OutputFindings) -> SeenProcess:
    parts = (process.find("type"), process.find("process_name"), process.find("used_memory"))
    place = (value_of(process.find("gpu_instance_id")), value_of(process.find("compute_instance_id")))
    return _process(process.find("pid") or process, parts, place, findings)


def _process(
    pid: Entry, parts: tuple[Entry | None, ...], place: tuple[str, ...], findings: OutputFindings
) -> SeenProcess:
    kind, name, memory = parts
    if memory is None:
        findings.refuse(pid.line, f"process {value_of(pid)!r} has no Used GPU Memory: the output is cut: take it again")
    told = value_of(memory)
    mib = None if not told or told.startswith("Not available in WDDM") else _figure(memory, MIB, findings)
    return SeenProcess(
        _figure(pid, PID, findings, told=True),
        value_of(name),
        KINDS.get(value_of(kind), "C"),
        mib if told[:1].isdigit() else None,
        (int(place[0]), int(place[1])) if len(place) == 2 and all(one.isdigit() for one in place) else None,
    )


# -- clocks that a card can be set to


def _clocks_of_text(section: Entry, findings: OutputFindings) -> Iterator[tuple[int, tuple[int, ...]]]:
    for memory in section.children:
        if memory.label == "Memory":
            yield _clock(memory, memory.children, findings)


def _clocks_of_xml(memory: Entry, findings: OutputFindings) -> tuple[int, tuple[int, ...]]:
    graphics = (one for one in memory.children if one.label == "supported_graphics_clock")
    return _clock(memory.find("value") or memory, graphics, findings)


def _clock(memory: Entry, graphics: Iterable[Entry], findings: OutputFindings) -> tuple[int, tuple[int, ...]]:
    at = _figure(memory, CLOCK, findings, told=True)
    return at, tuple(_figure(one, CLOCK, findings, told=True) for one in graphics)
