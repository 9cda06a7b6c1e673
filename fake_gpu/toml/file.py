"""Data files: decoded into their tables, and what does not fit told by key and line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fake_gpu.errors import InvalidValue
from fake_gpu.toml.lines import line_of
from fake_gpu.toml.table import Refused, Step, dotted, refusal

T = TypeVar("T")


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The text of a file. `what` is its name in messages. Raises InvalidValue where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidValue(f"{what} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{what} is not valid: it is not UTF-8 (byte {error.start})") from error
    except ValueError as error:  # a NUL in its name
        raise InvalidValue(f"{what} cannot be read: {error}") from error


def decode(text: str, kind: type[T], what: str) -> T:
    """TOML as a value of `kind`. Raises InvalidValue: it is no TOML, or the value of a key does not fit, in which line.

    `what` is the file's name in messages: "the machine lab.toml".
    """
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise located(_named(error, text, kind), text, what) from error
    except msgspec.DecodeError as error:
        raise InvalidValue(f"{what} is not valid TOML: {error}") from error


def located(error: Refused, text: str, what: str) -> InvalidValue:
    """The same, said with the file and the line."""
    return InvalidValue(f"{what}, line {line_of(text, error.steps) or 1}, {dotted(error.steps)}: {error.reason}")


def _named(error: msgspec.ValidationError, text: str, kind: type[Any]) -> Refused:
    """With the key of a mapping, which msgspec leaves out: the one whose value is refused when it stands alone."""
    refused = refusal(error)
    if "[...]" not in str(error):
        return refused
    data = msgspec.toml.decode(text)
    mapping = _at(data, refused.steps)
    for key, value in dict(mapping).items():
        mapping.clear()
        mapping[key] = value
        try:
            msgspec.convert(data, type=kind)
        except msgspec.ValidationError as alone:
            if str(alone) == str(error):
                return Refused((*refused.steps, key), refused.reason)
    return refused


def _at(data: Any, steps: tuple[Step, ...]) -> Any:  # of a file's values, which have any type
    for step in steps:
        data = data[step]
    return data
