"""How a field of `--query-gpu` gets its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fake_gpu.smi.columns import Column, Quantity, Value
from fake_gpu.smi.run import Reading

DEPRECATED: Final = "[Requested functionality has been deprecated]"
Read = Callable[[Reading], Value]


def field(name: str, unit: str, read: Read) -> Column:
    """A field of the driver's state or of the profile's facts, unless it is quoted (`Reading.said`)."""

    def read_or_quote(reading: Reading) -> Value:
        said = reading.said.get(name)
        if said is None:
            return read(reading)
        return Quantity(said.removesuffix(f" {unit}")) if unit and said[:1].isdigit() else said

    return Column(name, unit, read_or_quote)


def fixed(name: str, unit: str = "", value: Value = None) -> Column:
    """A field that most cards answer alike, unless the profile's `smi` table says otherwise. None: `[N/A]`."""
    return field(name, unit, lambda _: value)


def fixed_all(names: str, unit: str = "", value: Value = None) -> tuple[Column, ...]:
    """Several of those, by their names in one text."""
    return tuple(fixed(name, unit, value) for name in names.split())


def switch(on: bool | None) -> Value:
    """Enabled, Disabled, or what a card without the feature answers."""
    return None if on is None else "Enabled" if on else "Disabled"
