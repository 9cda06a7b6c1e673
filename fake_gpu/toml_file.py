"""Data files: decoded into their types, and what does not fit told by key and line."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from fake_gpu.errors import InvalidValue

T = TypeVar("T")

_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_NAMED = re.compile(r"(?:unknown|required) field `([^`]+)`")


def decode(text: str, kind: type[T], what: str) -> T:
    """TOML as a value of `kind`. Raises InvalidValue: `what` is not valid, why, at which key and in which line."""
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.DecodeError as error:  # ValidationError is one of these
        raise InvalidValue(f"{what} is not valid: {_told(str(error), text)}") from error


def _told(message: str, text: str) -> str:
    at = _AT.search(message)
    named = _NAMED.search(message)
    keys = [key for key in (at[1] if at else "", named[1] if named else "") if key]
    return message + (place(text, ".".join(keys)) if keys else "")


def place(text: str, key: str) -> str:
    """Such as " (line 12)": where "memory.total_mib" stands, or the table that lacks it; "" for neither."""
    *tables, last = re.sub(r"\[[^]]*\]", "", key).split(".")
    inside: tuple[str, ...] = ()
    table_line = 0
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"\s*\[+\s*([^]]+?)\s*\]+", line)
        if header:
            inside = tuple(part.strip(" \"'") for part in header[1].split("."))
            if inside == (*tables, last):
                return f" (line {number})"
        elif inside == tuple(tables) and re.match(rf"\s*[\"']?{re.escape(last)}[\"']?\s*=", line):
            return f" (line {number})"
        if tables and (inside == tuple(tables) or re.match(rf"\s*{re.escape(tables[-1])}\s*=", line)):
            table_line = table_line or number
    quoted = re.search(rf"^\s*[\"']{re.escape(key.removeprefix('smi.'))}[\"']\s*=", text, re.MULTILINE)
    if quoted:
        table_line = text.count("\n", 0, quoted.start()) + 1
    return f" (line {table_line})" if table_line else ""
