"""Reads what `nvidia-smi -q` and `-q -x` have printed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from xml.etree.ElementTree import Element

from fake_gpu.capture.match import matched
from fake_gpu.capture.seen import Seen, SeenCard, SeenInstance, SeenProcess, number
from fake_gpu.errors import InvalidValue
from fake_gpu.process import ComputeType
from fake_gpu.smi.layout import Node

CTIME: Final = "%a %b %d %H:%M:%S %Y"
_LINE: Final = re.compile(r"( *)(.*?)(?: *: (.*))?")
_COUNTS: Final = {
    "multiprocessors": ("Multiprocessor count", "multiprocessor_count"),
    "copy_engines": ("Copy Engine count", "copy_engine_count"),
    "encoders": ("Encoder count", "encoder_count"),
    "decoders": ("Decoder count", "decoder_count"),
    "ofa": ("OFA count", "ofa_count"),
    "jpeg": ("JPG count", "jpg_count"),
}


@dataclass(frozen=True, slots=True)
class Log:
    """One output: what it says at its head, and of each GPU."""

    driver_version: str
    cuda_version: tuple[int, int]
    seen: Seen
    dtd: str | None = None


@dataclass(slots=True)
class _Raw:
    """A line of the text with those below it; an element of the XML in the same form."""

    label: str
    value: str | None
    children: list[_Raw] = field(default_factory=list)

    def find(self, *names: str) -> _Raw | None:
        """The first child with one of these labels."""
        return next((child for child in self.children if child.label in names), None)

    def text(self, *names: str) -> str:
        """What the first such node anywhere below says; "" where there is none."""
        return next((node.value or "" for node in self.below() if node.label in names), "")

    def below(self) -> Iterator[_Raw]:
        """Every node below."""
        for child in self.children:
            yield child
            yield from child.below()


def when(text: str, layout: str = CTIME) -> float:
    """Seconds since the epoch of a local time; half a millisecond on, because cutting to milliseconds follows."""
    return datetime.strptime(text.strip(), layout).timestamp() + 0.0005


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


# -- text


def read_text(text: str) -> Log:
    """What `nvidia-smi -q` has printed. Raises InvalidValue where it is nothing of the kind."""
    top = _tree(text)
    head = {node.label: node.value or "" for node in top.children if node.value is not None}
    gpus = [node for node in top.children if node.label.startswith("GPU ") and node.value is None]
    if not gpus or "Driver Version" not in head:
        raise InvalidValue("this is not what `nvidia-smi -q` prints: it has no Driver Version, or no GPU")
    return Log(
        head["Driver Version"],
        _version(head.get("CUDA Version", "")),
        Seen(tuple(_card_of_text(gpu) for gpu in gpus), when(head["Timestamp"]) if "Timestamp" in head else None),
    )


def _tree(text: str) -> _Raw:
    top = _Raw("", None)
    open_: list[tuple[int, _Raw]] = [(-1, top)]
    for line in text.split("\n"):
        found = _LINE.fullmatch(line)
        if found is None or not line.strip() or line.startswith("="):
            continue
        indent = len(found[1])
        while open_[-1][0] >= indent:
            open_.pop()
        node = _Raw(found[2], found[3])
        open_[-1][1].children.append(node)
        open_.append((indent, node))
    return top


def _card_of_text(gpu: _Raw) -> SeenCard:
    parts = [_instance(node) for node in gpu.children if node.label == "MIG Device"]
    listed = gpu.find("Processes")
    nodes = [_node(node, xml=False) for node in gpu.children if node.label not in ("MIG Device", "Processes")]
    shape, fields = matched(nodes, xml=False)
    processes = () if listed is None else tuple(_processes_of_text(listed))
    return SeenCard(fields, processes, tuple(parts), tuple(shape))


def _node(raw: _Raw, *, xml: bool) -> Node:
    children = [_node(child, xml=xml) for child in raw.children]
    return Node("" if xml else raw.label, raw.label if xml else "", raw.value, children=children)


def _instance(node: _Raw) -> SeenInstance:
    memory = node.find("Shared FB Memory Usage", "FB Memory Usage", "fb_memory_usage") or _Raw("", None)
    bar1 = node.find("Shared BAR1 Memory", "BAR1 Memory Usage", "bar1_memory_usage") or _Raw("", None)
    return SeenInstance(
        number(node.text("GPU Instance ID", "gpu_instance_id")),
        number(node.text("Compute Instance ID", "compute_instance_id")),
        {name: number(node.text(*labels)) for name, labels in _COUNTS.items()},
        number(memory.text("Total", "total")),
        number(memory.text("Used", "used")),
        number(memory.text("Free", "free")),
        number(bar1.text("Total", "total")),
        number(bar1.text("Used", "used")),
    )


def _processes_of_text(listed: _Raw) -> Iterator[SeenProcess]:
    instance = compute = ""
    for node in listed.children:
        if node.label == "GPU instance ID":
            instance = node.value or ""
        elif node.label == "Compute instance ID":
            compute = node.value or ""
        elif node.label == "Process ID":
            yield _process(
                node.value or "0", node.text("Type"), node.text("Name"), node.text("Used GPU Memory"), instance, compute
            )


def _process(pid: str, kind: str, name: str, memory: str, instance: str, compute: str) -> SeenProcess:
    kinds: dict[str, ComputeType] = {"C": "C", "G": "G", "C+G": "C+G"}
    return SeenProcess(
        int(pid),
        name,
        kinds.get(kind, "C"),
        number(memory) if memory[:1].isdigit() else None,
        (int(instance), int(compute)) if instance.isdigit() and compute.isdigit() else None,
    )


# -- XML


def read_xml(text: str) -> Log:
    """What `nvidia-smi -q -x` has printed. Raises InvalidValue where it is nothing of the kind."""
    if "<!ENTITY" in text:
        raise InvalidValue("this XML declares entities, which nvidia-smi never does")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InvalidValue(f"this is no XML: {error}") from error
    gpus = root.findall("gpu")
    if root.tag != "nvidia_smi_log" or not gpus:
        raise InvalidValue(f"this is not what `nvidia-smi -q -x` prints: <{root.tag}> with {len(gpus)} <gpu>")
    stamp = root.findtext("timestamp")
    dtd = re.search(r'<!DOCTYPE nvidia_smi_log SYSTEM "([^"]+)"', text)
    return Log(
        root.findtext("driver_version", ""),
        _version(root.findtext("cuda_version", "")),
        Seen(tuple(_card_of_xml(gpu) for gpu in gpus), when(stamp) if stamp else None),
        dtd[1] if dtd else None,
    )


_GROUPS: Final = ("mig_devices", "processes", "supported_clocks")


def _card_of_xml(gpu: Element) -> SeenCard:
    raw = _raw(gpu)
    nodes = [_node(node, xml=True) for node in raw.children]
    for node in nodes:
        if node.tag in _GROUPS:
            node.value, node.children = f"@{node.tag}", []
    shape, fields = matched(nodes, xml=True)
    return SeenCard(
        fields,
        tuple(_process_of_xml(process) for process in gpu.iterfind("processes/process_info")),
        tuple(_instance(_raw(device)) for device in gpu.iterfind("mig_devices/mig_device")),
        tuple(shape),
        tuple(_clocks(clock) for clock in gpu.iterfind("supported_clocks/supported_mem_clock")),
    )


def _raw(element: Element) -> _Raw:
    children = [_raw(child) for child in element]
    text = element.text or ""
    value = text if text.strip() and not children else None  # an empty element is a section without entries
    if value and element.tag.startswith("pci_") and element.tag != "pci_bus_id":
        value = f"0x{value}"
    return _Raw(element.tag, value, children)


def _process_of_xml(process: Element) -> SeenProcess:
    def said(tag: str) -> str:
        return process.findtext(tag, "")

    return _process(
        said("pid") or "0",
        said("type"),
        said("process_name"),
        said("used_memory"),
        said("gpu_instance_id"),
        said("compute_instance_id"),
    )


def _clocks(clock: Element) -> tuple[int, tuple[int, ...]]:
    graphics = tuple(number(one.text or "") for one in clock.iterfind("supported_graphics_clock"))
    return number(clock.findtext("value", "")), graphics
