"""From Python values to what NVML functions write, and the checks that many of them share."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, TypeVar

from fake_gpu.nvml.codes import NvmlError

U32: Final = struct.Struct("<I")
I32: Final = struct.Struct("<i")
U64: Final = struct.Struct("<Q")
PAIR: Final = struct.Struct("<II")

u32 = U32.pack
i32 = I32.pack
u64 = U64.pack

_T = TypeVar("_T")


def known(value: _T | None) -> _T:
    """A fact of a card's profile. Raises NOT_SUPPORTED where this card has no such thing."""
    if value is None:
        raise NvmlError("NOT_SUPPORTED")
    return value


def number(value: int | None) -> bytes:
    """An unsigned int. Raises NOT_SUPPORTED for None."""
    return u32(known(value))


def one_of(value: int, count: int) -> int:
    """An enumerator from 0 to count - 1. Raises INVALID_ARGUMENT for any other."""
    if value >= count:
        raise NvmlError("INVALID_ARGUMENT")
    return value


def text(value: str | None, room: int | None) -> bytes:
    """A C string for a buffer of `room` bytes. Raises INSUFFICIENT_SIZE where it does not fit."""
    data = known(value).encode() + b"\0"
    if room is None:
        raise NvmlError("INVALID_ARGUMENT")
    if len(data) > room:
        raise NvmlError("INSUFFICIENT_SIZE")
    return data


def counted(items: Sequence[bytes], count: int, room: int | None) -> tuple[bytes, bytes]:
    """How many items there are, and the items, for an array of `count` elements (`room` None: NULL was passed).

    Raises INSUFFICIENT_SIZE, which tells how many there are, where they do not fit: nvidia-ml-py asks with NULL and 0
    first, and takes SUCCESS for "none".
    """
    found = u32(len(items))
    if len(items) > count:
        raise NvmlError("INSUFFICIENT_SIZE", (found, None))
    if items and room is None:
        raise NvmlError("INVALID_ARGUMENT")
    return found, b"".join(items)


def expect_version(data: bytes, size: int, version: int = 1) -> None:
    """Checks the first word of a versioned structure. Raises ARGUMENT_VERSION_MISMATCH where it is another one."""
    if data[:4] != u32(size | version << 24):
        raise NvmlError("ARGUMENT_VERSION_MISMATCH")
