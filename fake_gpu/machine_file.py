"""A machine's file, checked when it is read: what is wrong in it is named with the file, the line and the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import msgspec

from fake_gpu.errors import InvalidValue

_T = TypeVar("_T")
Step = str | int
"""A key, or a place in an array of tables, counted from 0."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=(.*)$")
_WHERE = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")
_FENCES = ('"' * 3, "'" * 3)


def read_toml(path: Path, kind: type[_T], what: str) -> _T:
    """What a file says, as `kind`. `what` is its name in messages: "the machine".

    Raises InvalidValue where it cannot be read, is no TOML, or does not fit: with the line and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidValue(f"{what} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{what} {path} is not valid: it is not UTF-8 (byte {error.start})") from error
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidValue(_located(what, path, text, str(error))) from error
    except msgspec.DecodeError as error:
        raise InvalidValue(f"{what} {path} is not valid TOML: {error}") from error


def _located(what: str, path: Path, text: str, message: str) -> str:
    where = _WHERE.search(message)
    steps = _steps(where[1]) if where else []
    unknown = _UNKNOWN.search(message)
    if unknown:
        steps = [*steps, unknown[1]]
    missing = _MISSING.search(message)
    shown = [*steps, missing[1]] if missing else steps
    told = message[: where.start()] if where else message
    return f"{what} {path}, line {line_of(text, steps) or line_of(text, steps[:1]) or 1}, {dotted(shown)}: {told}"


def _steps(path: str) -> list[Step]:
    """Of msgspec's ".gpu[0].memory"; "[...]" stands for a key of a mapping, which it does not name."""
    found: list[Step] = []
    for name, place in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path):
        found.append(name or int(place))
    return found


def dotted(steps: list[Step]) -> str:
    """Such as "gpu[0].memory"; the whole file is "the file"."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    return text or "the file"


def line_of(text: str, steps: list[Step]) -> int | None:
    """The line, counted from 1, on which the value at `steps` begins, or what is nearest of what holds it.

    None where the file has nothing of it, not even that element of an array of tables.
    """
    lines = _lines(text)
    least = 2 if any(isinstance(step, int) for step in steps[1:2]) else 1
    for length in range(len(steps), least - 1, -1):
        line = lines.get(tuple(steps[:length]))
        if line is not None:
            return line
    return None


def _lines(text: str) -> dict[tuple[Step, ...], int]:
    """Where each key and table of a file begins. Keys inside a value that spans lines are not found.

    tomllib keeps no positions, and a reader of TOML that does would be one more dependency.
    """
    found: dict[tuple[Step, ...], int] = {}
    counts: dict[tuple[Step, ...], int] = {}
    table: tuple[Step, ...] = ()
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        if fence:
            fence = "" if fence in line else fence
            continue
        header, assignment = _HEADER.match(line), _ASSIGNMENT.match(line)
        if header:
            table = _table(_keys(header[2]), counts, is_array=header[1] == "[[")
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], number)
        elif assignment:
            keys = _keys(assignment[1])
            for length in range(1, len(keys) + 1):
                found.setdefault((*table, *keys[:length]), number)
            fence = next((mark for mark in _FENCES if assignment[2].count(mark) % 2), "")
    return found


def _keys(text: str) -> list[str]:
    return [key.strip("\"'") for key in re.findall(_KEY, text)]


def _table(keys: list[str], counts: dict[tuple[Step, ...], int], *, is_array: bool) -> tuple[Step, ...]:
    """Where a header leads, counting the elements of the arrays of tables on the way."""
    at: tuple[Step, ...] = ()
    for key in keys[:-1]:
        at = (*at, key)
        if at in counts:
            at = (*at, counts[at])
    at = (*at, keys[-1])
    if is_array:
        counts[at] = counts.get(at, -1) + 1
        return (*at, counts[at])
    return at
