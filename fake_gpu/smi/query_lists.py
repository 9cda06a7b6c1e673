"""Queries whose rows are entries of a list: accounted processes, retired pages, remapped rows, supported clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from fake_gpu.derived import supported_clocks
from fake_gpu.gpu import Gpu
from fake_gpu.smi.arguments import Request
from fake_gpu.smi.columns import Column, Value, choose, header_line, row_line
from fake_gpu.smi.failures import line_by_line
from fake_gpu.smi.run import Output, Reading, Run


class Entry(NamedTuple):
    """One row: a GPU, and what the list says."""

    reading: Reading
    values: Mapping[str, Value]


def _own(name: str, unit: str = "") -> Column:
    return Column(name, unit, lambda entry: entry.values.get(name))


_CARD: Final = (
    Column("timestamp", "", lambda entry: entry.reading.run.timestamp),
    Column("gpu_name", "", lambda entry: entry.reading.gpu.name),
    Column("gpu_bus_id", "", lambda entry: entry.reading.gpu.pci_bus_id),
    Column("gpu_serial", "", lambda entry: entry.reading.gpu.serial),
    Column("gpu_uuid", "", lambda entry: entry.reading.gpu.uuid),
)
_ROWS: Final = [
    "remapped_rows.correctable",
    "remapped_rows.uncorrectable",
    "remapped_rows.pending",
    "remapped_rows.failure",
    "remapped_rows.histogram.max",
    "remapped_rows.histogram.high",
    "remapped_rows.histogram.partial",
    "remapped_rows.histogram.low",
    "remapped_rows.histogram.none",
]

COLUMNS: Final[dict[str, tuple[Column, ...]]] = {
    "query-accounted-apps": (
        *_CARD,
        _own("vgpu_instance"),
        _own("pid"),
        _own("gpu_utilization", "%"),
        _own("mem_utilization", "%"),
        _own("max_memory_usage", "MiB"),
        _own("time", "ms"),
    ),
    "query-retired-pages": (
        *_CARD,
        _own("retired_pages.address"),
        _own("retired_pages.timestamp"),
        _own("retired_pages.cause"),
    ),
    "query-remapped-rows": (*_CARD, *(_own(name) for name in _ROWS)),
    "query-supported-clocks": (*_CARD, _own("memory", "MHz"), _own("graphics", "MHz")),
}
ALIASES: Final[dict[str, dict[str, str]]] = {
    "query-accounted-apps": {"gpu_util": "gpu_utilization", "mem_util": "mem_utilization"},
    "query-retired-pages": {},
    "query-remapped-rows": {},
    "query-supported-clocks": {"mem": "memory", "gr": "graphics"},
}


def _accounted(reading: Reading) -> Iterable[Mapping[str, Value]]:
    return ()  # accounting is off, as it is unless somebody with rights turns it on


def _retired(reading: Reading) -> Iterable[Mapping[str, Value]]:
    counts = ("retired_pages.single_bit_ecc.count", "retired_pages.double_bit.count")
    for name, cause in zip(counts, ("Single Bit ECC", "Double Bit ECC"), strict=True):
        if reading.said.get(name, "[N/A]") == "[N/A]":
            yield {"retired_pages.cause": cause}


def _remapped(reading: Reading) -> Iterable[Mapping[str, Value]]:
    yield {name: reading.said.get(name) for name in _ROWS}


def _clocks(reading: Reading) -> Iterable[Mapping[str, Value]]:
    for memory, graphics in supported_clocks(reading.profile):
        for one in graphics:
            yield {"memory": memory, "graphics": one}


_ENTRIES: Final[dict[str, Callable[[Reading], Iterable[Mapping[str, Value]]]]] = {
    "query-accounted-apps": _accounted,
    "query-retired-pages": _retired,
    "query-remapped-rows": _remapped,
    "query-supported-clocks": _clocks,
}


@lru_cache(maxsize=256)
def columns_of(request: Request) -> tuple[Column, ...]:
    """The columns that are asked for. Raises RefusedError for a field that there is not."""
    by_name = {column.name: column for column in COLUMNS[request.mode]}
    by_name.update({alias: by_name[name] for alias, name in ALIASES[request.mode].items()})
    return choose(by_name, request)


def render(run: Run) -> Output:
    """The whole output: without entries, the header only."""
    columns, units = columns_of(run.request), run.request.units
    entries = _ENTRIES[run.request.mode]

    def rows(gpu: Gpu) -> str:
        reading = Reading(run, gpu)
        return "".join(row_line(columns, Entry(reading, values), units) for values in entries(reading))

    return line_by_line(run, rows, header_line(columns) if run.request.header else "")
