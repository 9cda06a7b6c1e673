"""Data that is checked wherever it comes from: tables of a TOML file, and the same made in Python."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import msgspec

from fake_gpu.errors import FakeGpuError, InvalidValue
from fake_gpu.toml.write import written_key

Step = str | int
"""A key, or a place in an array, counted from 0."""

_WHERE = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")


class Refused(InvalidValue):
    """A value that cannot be. `steps` lead to it from the outermost table, `reason` says what is possible."""

    def __init__(self, steps: Sequence[Step], reason: str) -> None:
        super().__init__(f"{dotted(steps)}: {reason}" if steps else reason)
        self.steps = tuple(steps)
        self.reason = reason


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table with the types and limits of its annotations, in a file and in Python alike.

    Raises Refused, with the key, when it is made. `check` is for what the annotations cannot say.
    """

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)):
            value = getattr(self, name)
            try:
                fitting = msgspec.convert(value, type=kind)
            except msgspec.ValidationError as error:
                raise refusal(error, (name,)) from error
            for step, number in _numbers(fitting):
                if not math.isfinite(number):
                    raise Refused((name, *step), f"{number} is no figure: it has to be finite")
            msgspec.structs.force_setattr(self, name, fitting)
        self.check()

    def check(self) -> None:
        """Raises Refused for values that fit their types and yet cannot be."""


@cache
def _kinds(table: type[Table]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in msgspec.structs.fields(table))


def _numbers(value: object) -> Iterator[tuple[tuple[Step, ...], float]]:
    if isinstance(value, float):
        yield (), value
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            for step, number in _numbers(one):
                yield (place, *step), number


@contextmanager
def refusing(*steps: Step) -> Iterator[None]:
    """Whatever is refused in here is the value at `steps`: raised as Refused.

    A ValueError too, which is how Python refuses a path with a NUL in it.
    """
    try:
        yield
    except Refused as error:
        raise Refused((*steps, *error.steps), error.reason) from error
    except (FakeGpuError, ValueError) as error:
        raise Refused(steps, str(error)) from error


def refusal(error: msgspec.ValidationError, above: Sequence[Step] = ()) -> Refused:
    """What msgspec refuses, with the place that it names. `above`: what leads to the value that it was given."""
    message = str(error)
    where = _WHERE.search(message)
    steps = [*above, *(_steps(where[1]) if where else ())]
    if isinstance(error.__cause__, Refused):  # of a table's own check, whose place is that table
        return Refused((*steps, *error.__cause__.steps), error.__cause__.reason)
    told = message[: where.start()] if where else message
    named = _UNKNOWN.search(told) or _MISSING.search(told)
    return Refused((*steps, named[1]) if named else steps, told)


def _steps(path: str) -> Iterator[Step]:
    """Of msgspec's ".gpu[0].memory"; "[...]" stands for a key of a mapping, which it does not name."""
    for name, place in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path):
        yield name or int(place)


def dotted(steps: Sequence[Step]) -> str:
    """Such as "gpu[0].memory", as a TOML file has keys; the whole file is "the file"."""
    shown = (f"[{step}]" if isinstance(step, int) else f".{written_key(step)}" for step in steps)
    return "".join(shown).lstrip(".") or "the file"
