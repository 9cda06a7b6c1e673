"""The score as CSV: a row for each reload."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import TextIO

from pytest_vramsettle._quantities import SECOND
from pytest_vramsettle.score.reload import Reload
from pytest_vramsettle.score.scenarios import GROUPS, Group

COLUMNS = (
    "scenario",
    "class",
    "group",
    "policy",
    "outcome",
    "flagged",
    "misread_mib",
    "waste_s",
    "elapsed_s",
    "probes",
    "note",
)
"""Seconds in decimals, to the nanosecond; `waste_s` is empty where nothing comes back."""


def written(reloads: Iterable[Reload], file: TextIO) -> Iterator[Reload]:
    """The same reloads, each written as it passes."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for reload in reloads:
        writer.writerow(_row(reload))
        yield reload


def _row(reload: Reload) -> tuple[object, ...]:
    return (
        reload.scenario,
        reload.kind,
        reload.group,
        reload.policy,
        reload.outcome,
        int(reload.flagged),
        reload.misread_mib,
        "" if reload.waste_ns is None else f"{reload.waste_ns / SECOND:.9f}",
        f"{reload.elapsed_ns / SECOND:.9f}",
        reload.probes,
        reload.note,
    )


def read(file: TextIO) -> Iterator[Reload]:
    """The reloads of such a sheet. Raises ValueError, with the line, where it is none."""
    rows = csv.reader(file)
    head = next(rows, None)
    if head is None or tuple(head) != COLUMNS:
        raise ValueError(f"this is no sheet of `vramsettle score --csv`: it begins with {head!r}")
    for row in rows:
        try:
            yield _reload(row)
        except (ValueError, KeyError) as error:
            raise ValueError(f"line {rows.line_num} is no row of `vramsettle score --csv`: {error}") from error


def _reload(row: list[str]) -> Reload:
    scenario, kind, group, policy, outcome, flagged, misread, waste, elapsed, probes, note = row
    return Reload(
        scenario=scenario,
        kind=kind,
        group=_GROUPS[group],
        policy=policy,
        outcome=outcome,
        flagged=bool(int(flagged)),
        misread_mib=int(misread),
        waste_ns=round(float(waste) * SECOND) if waste else None,
        elapsed_ns=round(float(elapsed) * SECOND),
        probes=int(probes),
        note=note,
    )


_GROUPS: dict[str, Group] = {group: group for group in GROUPS}
