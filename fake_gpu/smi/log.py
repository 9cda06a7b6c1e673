"""`-q` and `-q -x`: everything about each GPU, as text or as XML, from one tree."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from fake_gpu.derived import tells_margin
from fake_gpu.smi import log_groups, samples
from fake_gpu.smi.ctime import ctime
from fake_gpu.smi.failures import as_a_whole
from fake_gpu.smi.layout import OLDER, Node, Template, columns, of_log, template
from fake_gpu.smi.run import Output, Reading, Run
from fake_gpu.smi.texts import in_xml, labelled, line
from fake_gpu.smi.version import OF_LOG, versions

_HEADING: Final = "\n==============NVSMI LOG==============\n\n"
_FIRST_DTD: Final = ((580, "nvsmi_device_v13.dtd"), (525, "nvsmi_device_v12.dtd"), (0, "nvsmi_device_v11.dtd"))
"""The document types by the first driver that is known to name them: 515 has v11, 535 v12, 595 v13."""

SECTIONS: Final[dict[str, frozenset[str]]] = {
    "MEMORY": frozenset({"fb_memory_usage", "bar1_memory_usage", "cc_protected_memory_usage"}),
    "UTILIZATION": frozenset({"utilization"}),
    "ECC": frozenset({"ecc_mode", "ecc_errors"}),
    "TEMPERATURE": frozenset({"temperature"}),
    "POWER": frozenset({"power_readings", "gpu_power_readings", "gpu_memory_power_readings", "module_power_readings"}),
    "CLOCK": frozenset(
        [
            "clocks",
            "applications_clocks",
            "default_applications_clocks",
            "deferred_clocks",
            "max_clocks",
            "max_customer_boost_clocks",
            "clock_policy",
        ]
    ),
    "COMPUTE": frozenset({"compute_mode"}),
    "PIDS": frozenset({"processes"}),
    "PERFORMANCE": frozenset(
        [
            "performance_state",
            "clocks_event_reasons",
            "clocks_throttle_reasons",
            "clocks_event_reasons_counters",
            "sparse_operation_mode",
        ]
    ),
    "SUPPORTED_CLOCKS": frozenset({"supported_clocks"}),
    "PAGE_RETIREMENT": frozenset({"retired_pages"}),
    "ACCOUNTING": frozenset({"accounting_mode", "accounting_mode_buffer_size"}),
    "ENCODER_STATS": frozenset({"encoder_stats"}),
    "SUPPORTED_GPU_TARGET_TEMP": frozenset({"supported_gpu_target_temp"}),
    "VOLTAGE": frozenset({"voltage"}),
    "FBC_STATS": frozenset({"fbc_stats"}),
    "ROW_REMAPPER": frozenset({"remapped_rows"}),
    "GSP_FIRMWARE_VERSION": frozenset({"gsp_firmware_version"}),
    "POWER_SMOOTHING": frozenset({"power_smoothing"}),
    "POWER_PROFILES": frozenset({"power_profiles"}),
}
"""What -d takes, and the sections that it leaves."""


class Entry(NamedTuple):
    """A line, or the place of several. `after` follows the value; without one `before` is all of it."""

    section: str
    conditions: tuple[str, ...]
    before: str
    value: str | Template | None
    after: str
    depth: int


def render(run: Run) -> Output:
    """The whole output."""
    return as_a_whole(run, _xml if run.request.xml else _text)


def holds(conditions: tuple[str, ...], reading: Reading) -> bool:
    """Whether a line with these conditions is printed of this card."""
    for condition in conditions:
        if condition in ("tlimit", "absolute"):
            holding = tells_margin(reading.profile) == (condition == "tlimit")
        elif condition in ("remapped", "no-remapped"):
            rows = reading.said.get("remapped_rows.correctable", "[N/A]") != "[N/A]" and not reading.profile.mig
            holding = rows == (condition == "remapped")
        elif condition == OLDER:
            holding = False
        else:
            holding = reading.run.major >= int(condition)
        if not holding:
            return False
    return True


def shown(value: str | Template, reading: Reading) -> str:
    """A value as it is printed."""
    if isinstance(value, str):
        return value
    column = columns()[value.name]
    if column.unit and not reading.run.measures(reading.gpu):
        return "N/A"
    return value.fill(column.cell(reading, not value.bare))


# -- text


def _text(run: Run) -> str:
    column = run.label_column
    head = [
        line(0, "Timestamp", ctime(run), column),
        *(line(0, label, version, column) for label, version in versions(run, OF_LOG)),
    ]
    parts = [_HEADING, *head, "\n", line(0, "Attached GPUs", str(len(run.counted)), column)]
    for gpu in run.gpus:
        reading = Reading(run, gpu)
        parts += (f"GPU {gpu.pci_bus_id}\n", *_gpu_text(reading), "\n")
    return "".join(parts)


def _gpu_text(reading: Reading) -> Iterator[str]:
    wanted = reading.run.request.display
    sections = frozenset[str]().union(*(SECTIONS[name] for name in wanted))
    for entry in text_entries(reading.profile.log, reading.run.label_column):
        if (wanted and entry.section not in sections) or (entry.conditions and not holds(entry.conditions, reading)):
            continue
        if entry.value is None:
            yield entry.before
        elif isinstance(entry.value, str) and entry.value.startswith("@"):
            yield from log_groups.text(entry.value, reading)
        else:
            yield f"{entry.before}{shown(entry.value, reading)}\n"
    if wanted:
        yield from samples.text(wanted, reading)


@lru_cache(maxsize=64)
def text_entries(log: str | None, column: int) -> tuple[Entry, ...]:
    """What -q prints of a GPU with this layout; `column`: where the colons stand."""
    return tuple(_text_of(of_log(log), column, 1, "", ()))


def _text_of(nodes: list[Node], column: int, depth: int, section: str, conditions: tuple[str, ...]) -> Iterator[Entry]:
    for node in nodes:
        top = section or node.tag or node.label
        held = (*conditions, node.condition) if node.condition else conditions
        value = node.value
        if value is not None and value.startswith("@"):
            yield Entry(top, held, "", value, "", depth)
        elif node.label and value is not None:
            before = labelled(depth, node.label, column)
            yield Entry(top, held, before, template(value) or value, "\n", depth)
        elif node.label:
            yield Entry(top, held, f"{' ' * (4 * depth)}{node.label}\n", None, "", depth)
        if node.label:
            yield from _text_of(node.children, column, depth + 1, top, held)


# -- XML


def _xml(run: Run) -> str:
    dtd = next((gpu.profile.dtd for gpu in run.gpus if gpu.profile.dtd), None) or dtd_of(run.major)
    parts = [
        f'<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "{dtd}">\n<nvidia_smi_log>\n'
        f"\t<timestamp>{ctime(run)}</timestamp>\n\t<driver_version>{in_xml(run.driver_version)}</driver_version>\n"
        f"\t<cuda_version>{run.cuda_version}</cuda_version>\n\t<attached_gpus>{len(run.counted)}</attached_gpus>\n"
    ]
    for gpu in run.gpus:
        parts += (f'\t<gpu id="{gpu.pci_bus_id}">\n', *_gpu_xml(Reading(run, gpu)), "\t</gpu>\n\n")
    parts.append("</nvidia_smi_log>\n")
    return "".join(parts)


def dtd_of(major: int) -> str:
    """The document type that a driver of this branch names."""
    return next(name for first, name in _FIRST_DTD if major >= first)


def _gpu_xml(reading: Reading) -> Iterator[str]:
    for entry in xml_entries(reading.profile.log):
        if entry.conditions and not holds(entry.conditions, reading):
            continue
        if entry.value is None:
            yield entry.before
        elif isinstance(entry.value, str) and entry.value.startswith("@"):
            yield from log_groups.xml(entry.value, entry.depth, reading)
        else:
            value = shown(entry.value, reading)
            yield f"{entry.before}{in_xml(value.removeprefix('0x') if entry.section == 'pci' else value)}{entry.after}"


@lru_cache(maxsize=64)
def xml_entries(log: str | None) -> tuple[Entry, ...]:
    """What -q -x prints of a GPU with this layout."""
    return tuple(_xml_of(of_log(log), 2, "", ()))


def _xml_of(nodes: list[Node], depth: int, section: str, conditions: tuple[str, ...]) -> Iterator[Entry]:
    for node in nodes:
        if not node.tag:
            continue
        top = section or node.tag
        held = (*conditions, node.condition) if node.condition else conditions
        indent = "\t" * depth
        if node.value is not None and node.value.startswith("@"):
            yield Entry(top, held, "", node.value, "", depth)
        elif node.value is None or any(child.tag for child in node.children):
            yield Entry(top, held, f"{indent}<{node.tag}>\n", None, "", depth)
            yield from _xml_of(node.children, depth + 1, top, held)
            yield Entry(top, held, f"{indent}</{node.tag}>\n", None, "", depth)
        else:
            value = template(node.value) or node.value
            yield Entry(top, held, f"{indent}<{node.tag}>", value, f"</{node.tag}>\n", depth)
