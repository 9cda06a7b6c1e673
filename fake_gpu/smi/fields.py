"""How a field of `--query-gpu` gets its value: three kinds of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fake_gpu.smi.columns import Column, Quantity, Value
from fake_gpu.smi.run import Reading

DEPRECATED: Final = "[Requested functionality has been deprecated]"
Read = Callable[[Reading], Value]


def live(name: str, unit: str, read: Read) -> Column:
    """A field of the driver's state. A profile that quotes it knows why: its card does not say, say."""
    return Column(name, unit, _or_quoted(name, unit, read))


def fact(name: str, unit: str, read: Read) -> Column:
    """A field that the profile's `smi` table may give; else what `read` makes of the profile's other facts."""
    return Column(name, unit, _or_quoted(name, unit, read))


def _or_quoted(name: str, unit: str, read: Read) -> Read:
    def read_or_quote(reading: Reading) -> Value:
        said = reading.said.get(name)
        if said is None:
            return read(reading)
        return Quantity(said.removesuffix(f" {unit}")) if unit and said[:1].isdigit() else said

    return read_or_quote


def fixed(name: str, unit: str = "", value: Value = None) -> Column:
    """A field that most cards answer alike, unless the profile's `smi` table says otherwise. None: `[N/A]`."""
    return fact(name, unit, lambda _: value)


def fixed_all(names: str, unit: str = "", value: Value = None) -> tuple[Column, ...]:
    """Several of those, by their names in one text."""
    return tuple(fixed(name, unit, value) for name in names.split())


def switch(on: bool | None) -> Value:
    """Enabled, Disabled, or what a card without the feature answers."""
    return None if on is None else "Enabled" if on else "Disabled"
