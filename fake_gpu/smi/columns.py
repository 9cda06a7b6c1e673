"""Comma-separated output: columns, header, rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from fake_gpu.smi.arguments import RefusedError, Request

NOT_AVAILABLE = "[N/A]"

Value = str | int | float | None
"""A number gets its unit, None is `[N/A]`, a text is printed as it is."""


def plain(text: str) -> str:
    """What is said, however it is bracketed."""
    return text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text


def has_no_value(text: str) -> bool:
    """Whether -q prints this in place of a value: the card has none."""
    return text == "N/A" or text.startswith("Requested functionality")


class Quantity(str):
    """A number that is kept as text, and gets its unit like one."""

    __slots__ = ()


class Column(NamedTuple):
    """One field. `read` is given whatever a query's rows are made of."""

    name: str
    unit: str
    read: Callable[[Any], Value]

    @property
    def header(self) -> str:
        """The name under which it is printed: the first of its names, and its unit even where units are left out."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    def cell(self, row: Any, units: bool) -> str:
        """One value as it is printed."""
        value = self.read(row)
        if value is None:
            return NOT_AVAILABLE
        if isinstance(value, str) and not isinstance(value, Quantity):
            return value
        text = f"{value:.2f}" if isinstance(value, float) else str(value)
        return f"{text} {self.unit}" if units and self.unit else text


def choose(columns: dict[str, Column], request: Request) -> tuple[Column, ...]:
    """The columns that a request names. Raises RefusedError for a field that there is not."""
    for field in request.fields:
        if field not in columns:
            raise RefusedError(f'Field "{field}" is not a valid field to query.\n\n')
    return tuple(columns[field] for field in request.fields)


def header_line(columns: Iterable[Column]) -> str:
    """The first line, where it is wanted."""
    return ", ".join([column.header for column in columns]) + "\n"


def row_line(columns: Iterable[Column], row: Any, units: bool, *, measured: bool = True) -> str:
    """One line of values; those that have a unit only where they are measured."""
    if measured:
        return ", ".join([column.cell(row, units) for column in columns]) + "\n"
    return ", ".join([NOT_AVAILABLE if column.unit else column.cell(row, units) for column in columns]) + "\n"
