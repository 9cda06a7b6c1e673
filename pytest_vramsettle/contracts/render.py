"""Outcomes as text: what is wrong, both places with their code, the calls between them, the way that was taken."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any

from pytest_vramsettle.contracts.analysis.rules import Finding
from pytest_vramsettle.contracts.analysis.state import Place
from pytest_vramsettle.contracts.verdicts import Outcome, Verdict

_AROUND = 1
_HELP = {
    Verdict.CANNOT_TELL: "rewrite the place in a way that can be followed, or waive the contract with a reason",
    Verdict.VACUOUS: "correct the name, or drop the contract: as it stands it cannot fail",
}


def render(outcome: Outcome) -> str:
    """The whole report on one contract."""
    lines = [f"{outcome.verdict.value}: {outcome.text}"]
    if outcome.note:
        lines.append(f"  {outcome.note}")
    for finding in outcome.findings:
        lines += _finding(finding)
    if outcome.is_waived:
        lines.append(f"  waived: {outcome.waived}")
        return "\n".join(lines)
    if outcome.waived is not None:
        lines.append(f"  {unmatched(outcome)}; take the waiver away")
    if outcome.verdict in _HELP:
        lines.append(f"  to mend it: {_HELP[outcome.verdict]}")
    return "\n".join(lines)


def summary(outcome: Outcome) -> str:
    """'violated: _wait() is reached while _lock is held (app/backend.py:36)'."""
    said = outcome.note or outcome.text
    if outcome.findings:
        first = outcome.findings[0]
        said = f"{first.message} ({_spot(first.places[-1][1])})"
    elif outcome.verdict is not Verdict.KEPT:
        said = said.replace(f"{FilePath.cwd()}{os.sep}", "")  # assertions leave the middle of longer lines out
    if outcome.waived is not None:
        return f"{outcome.verdict.value}: {said}; {_waiver(outcome)}"
    return f"{outcome.verdict.value}: {said}"


def _waiver(outcome: Outcome) -> str:
    return f"waived: {outcome.waived}" if outcome.is_waived else unmatched(outcome)


def unmatched(outcome: Outcome) -> str:
    """What is said of a waiver that matches nothing."""
    return f"the waiver ({outcome.waived!r}) matches nothing: the contract is {outcome.verdict.value}"


def as_json(outcomes: Iterable[Outcome]) -> str:
    """A list with one object for each contract: id, text, verdict, passes, waived, note, findings."""
    return json.dumps([_plain(outcome) for outcome in outcomes], indent=2)


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "id": outcome.contract,
        "text": outcome.text,
        "verdict": outcome.verdict.value,
        "passes": outcome.passes,
        "waived": outcome.waived,
        "note": outcome.note,
        "findings": [
            {
                "message": finding.message,
                "doubt": finding.doubt.reason if finding.doubt else None,
                "places": [_plain_place(label, place) for label, place in finding.places],
                "calls": [_plain_place("called here", place) for place in finding.chain],
            }
            for finding in outcome.findings
        ],
    }


def _plain_place(label: str, place: Place) -> dict[str, Any]:
    return {"label": label, "path": place.path, "line": place.line, "function": place.unit.qualified}


def _finding(finding: Finding) -> list[str]:
    lines = [f"  {finding.message}"]
    if finding.doubt is not None and finding.doubt.reason != finding.message:
        place = finding.doubt.place
        lines.append(f"  not certain: {finding.doubt.reason} ({_spot(place)})")
    for label, place in finding.places:
        lines += frame(label, place)
    if finding.chain:
        lines.append("  by these calls:")
        lines += [f"    {_where(place)}: {source_line(place).strip()}" for place in finding.chain]
    ways = [(place, taken) for place, taken in finding.trail if source_line(place).strip()]
    if ways:
        lines.append("  on this way:")
        lines += [f"    {_spot(place)}: {source_line(place).strip()}  [{taken}]" for place, taken in ways]
    return lines


def _where(place: Place) -> str:
    return f"{_spot(place)} in {place.unit.qualified}"


def _spot(place: Place) -> str:
    """'src/app/backend.py:12', from the working directory where it is below that."""
    path = FilePath(place.path)
    with contextlib.suppress(OSError):
        path = path.relative_to(FilePath.cwd()) if path.is_relative_to(FilePath.cwd()) else path
    return f"{path}:{place.line}"


def frame(label: str, place: Place) -> list[str]:
    """The line with its neighbours, and marks under the node."""
    source = place.unit.module.lines
    lines = [f"  {_where(place)}: {label}"]
    for number in range(max(1, place.line - _AROUND), min(len(source), place.line + _AROUND) + 1):
        lines.append(f"    {'>' if number == place.line else ' '} {number:5} | {source[number - 1]}")
        if number == place.line:
            start, end = columns(place)
            lines.append(f"      {'':5} | {' ' * start}{'^' * max(1, end - start)}")
    return lines


def source_line(place: Place) -> str:
    lines = place.unit.module.lines
    return lines[place.line - 1] if 0 < place.line <= len(lines) else ""


def columns(place: Place) -> tuple[int, int]:
    """Where the node begins and ends in its line, in characters: the syntax tree counts bytes."""
    line = source_line(place)
    if line.isascii():
        return place.column, place.end or len(line)
    data = line.encode()
    start = len(data[: place.column].decode(errors="replace"))
    return start, len(data[: place.end].decode(errors="replace")) if place.end else len(line)
