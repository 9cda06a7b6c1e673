"""The table of NVML's functions (functions.txt, structs.txt), read once. The one source of the C entry points too."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_BASE_SIZES = {"u8": 1, "bytes": 1, "u32": 4, "i32": 4, "u64": 8, "handle": 8}
_ARRAY = re.compile(r"(?P<both>inout:)?(?P<type>\w+)\[(?P<pointed>\*)?(?P<count>\d)\]")
_NESTED = re.compile(r"nested:(?P<type>\w+)\[(?P<argument>\d)@(?P<pointer>\d+)\*(?P<count>\d+)\]")


class Kind(IntEnum):
    """How one argument travels; native/nvml.c has the same numbers."""

    VALUE = 0
    STRING = 1
    COUNT = 2
    OUT = 3
    INOUT = 4
    VERSIONED = 5
    ARRAY_BY_VALUE = 6
    ARRAY_BY_POINTER = 7
    INOUT_ARRAY = 8
    NESTED = 9


OUTPUTS = frozenset(Kind) - {Kind.VALUE, Kind.STRING}
"""The kinds of argument that come back to the caller."""

INPUTS = frozenset({Kind.STRING, Kind.COUNT, Kind.INOUT, Kind.VERSIONED, Kind.INOUT_ARRAY})
"""The kinds of pointer whose bytes travel to the driver."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument. `size`: bytes of the thing, or of one element. `reference`: the argument that holds the count."""

    kind: Kind
    type: str
    size: int = 0
    reference: int = 0
    pointer_offset: int = 0
    count_offset: int = 0


@dataclass(frozen=True, slots=True)
class Function:
    """One exported function; `index` is its place in the table, by which the library names it."""

    index: int
    name: str
    arguments: tuple[Argument, ...]


def _lines(path: Path) -> list[list[str]]:
    rows = (line.split() for line in path.read_text("utf-8").splitlines() if not line.startswith("#"))
    return [row for row in rows if row]


@cache
def struct_sizes() -> dict[str, int]:
    """Bytes of every type that functions.txt names."""
    return _BASE_SIZES | {name: int(size) for name, size in _lines(_HERE / "structs.txt")}


def _size(name: str) -> int:
    if name.startswith("bytes") and name != "bytes":
        return int(name.removeprefix("bytes"))
    return struct_sizes()[name]


def _argument(spec: str) -> Argument:
    if spec in ("device", "unit", "handle", "u32", "i32", "u64"):
        return Argument(Kind.VALUE, spec, 4 if spec in ("u32", "i32") else 8)
    if spec == "str":
        return Argument(Kind.STRING, spec)
    if spec == "count":
        return Argument(Kind.COUNT, "u32", 4)
    if match := _NESTED.fullmatch(spec):
        name = match["type"]
        places = (int(match[group]) for group in ("argument", "pointer", "count"))
        return Argument(Kind.NESTED, name, _size(name), *places)
    if match := _ARRAY.fullmatch(spec):
        kind = Kind.ARRAY_BY_POINTER if match["pointed"] else Kind.ARRAY_BY_VALUE
        return Argument(
            Kind.INOUT_ARRAY if match["both"] else kind, match["type"], _size(match["type"]), int(match["count"])
        )
    way, _, name = spec.partition(":")
    return Argument(Kind[way.upper()], name, _size(name))


@cache
def functions() -> tuple[Function, ...]:
    """Every exported function, in the order of their indices. Raises KeyError or ValueError on a broken table."""
    rows = _lines(_HERE / "functions.txt")
    return tuple(
        Function(index, name, tuple(_argument(spec) for spec in specs)) for index, (name, *specs) in enumerate(rows)
    )


@cache
def checksum() -> int:
    """Tells a library and a driver with different tables apart."""
    return zlib.crc32((_HERE / "functions.txt").read_bytes() + (_HERE / "structs.txt").read_bytes())
