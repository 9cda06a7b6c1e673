"""From what is asked to the module that prints it. Each is imported when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fake_gpu.smi import arguments as asked
from fake_gpu.smi import query_gpu
from fake_gpu.smi.run import Output, Run

NEED_NO_GPU: Final = asked.HELP_QUERIES | {asked.HELP, asked.VERSION, asked.EXCLUDED}
"""Modes that print the same with and without GPUs."""


def render(run: Run) -> Output:
    """The whole output of one run."""
    return _MODES[run.request.mode](run)


def _table(run: Run) -> Output:
    from fake_gpu.smi import table

    return table.render(run)


def _list(run: Run) -> Output:
    from fake_gpu.smi import listing

    return listing.render(run)


def _query_apps(run: Run) -> Output:
    from fake_gpu.smi import query_apps

    return query_apps.render(run)


def _query_list(run: Run) -> Output:
    from fake_gpu.smi import query_lists

    return query_lists.render(run)


def _log(run: Run) -> Output:
    from fake_gpu.smi import log

    return log.render(run)


def _monitor(run: Run) -> Output:
    from fake_gpu.smi import monitors

    return monitors.render(run)


def _topology(run: Run) -> Output:
    from fake_gpu.smi import topology

    return topology.render(run)


def _excluded(run: Run) -> Output:
    return Output("No excluded devices found.\n")


def _version(run: Run) -> Output:
    from fake_gpu.smi import version

    return version.render(run)


def _help(run: Run) -> Output:
    from fake_gpu.smi import help as texts

    return texts.render(run)


_MODES: Final[dict[str, Callable[[Run], Output]]] = {
    asked.TABLE: _table,
    asked.LIST: _list,
    asked.VERSION: _version,
    asked.HELP: _help,
    **dict.fromkeys(asked.QUERIES, _query_list),
    asked.LOG: _log,
    asked.EXCLUDED: _excluded,
    "dmon": _monitor,
    "pmon": _monitor,
    "topo": _topology,
    "nvlink": _topology,
    "query-gpu": query_gpu.render,
    "query-compute-apps": _query_apps,
    **dict.fromkeys(asked.HELP_QUERIES, _help),
}


def cards_know(run: Run) -> bool:
    """Whether the profiles of the cards have the fields that `check` refuses."""
    try:
        query_gpu.columns_for(run.request, run.counted, run.major)
    except asked.RefusedError:
        return False
    return True


def check(request: asked.Request) -> None:
    """Raises RefusedError for fields that a query does not have."""
    if request.mode == "query-gpu":
        query_gpu.columns_of(request)
    elif request.mode == "query-compute-apps":
        from fake_gpu.smi import query_apps

        query_apps.columns_of(request)
    elif request.mode in asked.QUERIES:
        from fake_gpu.smi import query_lists

        query_lists.columns_of(request)
