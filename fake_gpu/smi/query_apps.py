"""`--query-compute-apps`: one line for each living process with a compute context on a reported GPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from fake_gpu.gpu import Gpu
from fake_gpu.smi.arguments import Request
from fake_gpu.smi.columns import Column, choose, header_line, row_line
from fake_gpu.smi.failures import line_by_line
from fake_gpu.smi.run import Output, Run
from fake_gpu.smi.texts import in_one_line
from fake_gpu.view import Listed


class App(NamedTuple):
    """One process on one GPU."""

    run: Run
    gpu: Gpu
    listed: Listed


COLUMNS: Final[tuple[Column, ...]] = (
    Column("timestamp", "", lambda app: app.run.timestamp),
    Column("gpu_name", "", lambda app: app.gpu.name),
    Column("gpu_bus_id", "", lambda app: app.gpu.pci_bus_id),
    Column("gpu_serial", "", lambda app: app.gpu.serial),
    Column("gpu_uuid", "", lambda app: app.gpu.uuid),
    Column("pid", "", lambda app: app.listed.pid),
    Column("process_name", "", lambda app: in_one_line(app.listed.name)),
    Column("used_gpu_memory", "MiB", lambda app: None if app.listed.size is None else app.run.mib(app.listed.size)),
)

ALIASES: Final[dict[str, str]] = {"name": "process_name", "used_memory": "used_gpu_memory"}

_BY_NAME: Final[dict[str, Column]] = {column.name: column for column in COLUMNS}
_BY_NAME.update({alias: _BY_NAME[name] for alias, name in ALIASES.items()})


@lru_cache(maxsize=256)
def columns_of(request: Request) -> tuple[Column, ...]:
    """The columns that are asked for. Raises RefusedError for a field that there is not."""
    return choose(_BY_NAME, request)


def render(run: Run) -> Output:
    """The whole output: without processes, the header only."""
    columns, units = columns_of(run.request), run.request.units

    def rows(gpu: Gpu) -> str:
        return "".join(
            row_line(columns, App(run, gpu, listed), units, measured=run.measures(gpu))
            for listed in gpu.listed_at(run.now_ns)
            if listed.process.compute_type != "G"
        )

    return line_by_line(run, rows, header_line(columns) if run.request.header else "")
