"""`--query-gpu`: one line for each GPU. The fields are those of drivers 590 and 595, as far as the driver has them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from fake_gpu.gpu import Gpu
from fake_gpu.smi import fields_load, fields_place
from fake_gpu.smi.arguments import RefusedError, Request
from fake_gpu.smi.columns import Column, Value, choose, header_line, row_line
from fake_gpu.smi.failures import line_by_line
from fake_gpu.smi.fields import field
from fake_gpu.smi.run import Output, Reading, Run
from fake_gpu.smi.since import FIRST_EVENT_REASONS, has_field

COLUMNS: Final[tuple[Column, ...]] = (
    *fields_place.IDENTITY,
    *fields_place.PCI,
    *fields_place.SETUP,
    *fields_place.CLOCK_REASONS,
    *fields_load.MEMORY,
    *fields_load.ERRORS,
    *fields_load.POWER,
    *fields_load.CLOCKS,
    *fields_load.MODES,
)

ALIASES: Final[dict[str, str]] = {
    "gpu_name": "name",
    "gpu_serial": "serial",
    "gpu_uuid": "uuid",
    "gpu_bus_id": "pci.bus_id",
    "inforom.image": "inforom.img",
    "inforom.power": "inforom.pwr",
    "gpu_operation_mode.current": "gom.current",
    "gpu_operation_mode.pending": "gom.pending",
    "retired_pages.sbe": "retired_pages.single_bit_ecc.count",
    "retired_pages.dbe": "retired_pages.double_bit.count",
    "remapped_rows.sbe": "remapped_rows.correctable",
    "remapped_rows.dbe": "remapped_rows.uncorrectable",
    "gpu.power.draw.average": "power.draw.average",
    "gpu.power.draw.instant": "power.draw.instant",
    "gpu.power.requested_limit": "power.limit",
    "gpu.power.current_limit": "enforced.power.limit",
    "gpu.power.default_limit": "power.default_limit",
    "gpu.power.min_limit": "power.min_limit",
    "gpu.power.max_limit": "power.max_limit",
    "module.power.requested_limit": "module.power.limit",
    "module.power.current_limit": "module.enforced.power.limit",
    "clocks.gr": "clocks.current.graphics",
    "clocks.sm": "clocks.current.sm",
    "clocks.mem": "clocks.current.memory",
    "clocks.video": "clocks.current.video",
    "clocks.applications.gr": "clocks.applications.graphics",
    "clocks.applications.mem": "clocks.applications.memory",
    "clocks.default_applications.gr": "clocks.default_applications.graphics",
    "clocks.default_applications.mem": "clocks.default_applications.memory",
    "clocks.max.gr": "clocks.max.graphics",
    "clocks.max.mem": "clocks.max.memory",
    **{
        column.name.replace("clocks_event_reasons.", "clocks_throttle_reasons."): column.name
        for column in fields_place.CLOCK_REASONS
        if column.name.startswith("clocks_event_reasons.")
    },
}
"""Second names that --help-query-gpu gives. The header shows the first."""

_BY_NAME: Final[dict[str, Column]] = {column.name: column for column in COLUMNS}
_BY_NAME.update({alias: _BY_NAME[name] for alias, name in ALIASES.items()})


@lru_cache(maxsize=256)
def columns_of(request: Request) -> tuple[Column, ...]:
    """The columns that are asked for. Raises RefusedError for a field that there is not."""
    return choose(_BY_NAME, request)


def columns_for(request: Request, gpus: Iterable[Gpu], branch: int) -> tuple[Column, ...]:
    """The same, with the fields that only these cards' profiles know, and without those that the driver has not yet."""
    return _columns(request, tuple(header for gpu in gpus for header in gpu.profile.smi_more), branch)


@lru_cache(maxsize=256)
def _columns(request: Request, headers: tuple[str, ...], branch: int) -> tuple[Column, ...]:
    known = {name: column for name, column in _BY_NAME.items() if has_field(branch, name)}
    if 0 < branch < FIRST_EVENT_REASONS:
        known |= {name: known[name]._replace(name=name) for name in known if name.startswith("clocks_throttle_")}
    return choose({**{column.name: column for column in map(_quoted, headers)}, **known}, request)


def _quoted(header: str) -> Column:
    name, _, unit = header.removesuffix("]").partition(" [")

    def read(reading: Reading) -> Value:
        return reading.said.get(name, reading.profile.smi_more.get(header))

    return field(name, unit, read)


def render(run: Run) -> Output:
    """The whole output."""
    try:
        columns = columns_for(run.request, run.counted, run.major)
    except RefusedError as refused:
        return Output(refused.text, refused.code)
    units = run.request.units
    return line_by_line(
        run,
        lambda gpu: row_line(columns, Reading(run, gpu), units, measured=run.measures(gpu)),
        header_line(columns) if run.request.header else "",
    )
