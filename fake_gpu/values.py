"""What fits nvidia-smi's output and NVML's buffers."""

from __future__ import annotations

import re
import reprlib
from typing import Final

from fake_gpu.errors import InvalidValue

NAME_LIMIT = 95
"""Bytes of a GPU's name that fit NVML's buffer: NVML_DEVICE_NAME_V2_BUFFER_SIZE is 96, with the closing zero."""

UUID_LIMIT = 79
"""The same of a UUID: NVML_DEVICE_UUID_BUFFER_SIZE is 80."""

VBIOS_LIMIT = 31
"""NVML_DEVICE_VBIOS_VERSION_BUFFER_SIZE is 32."""

PART_NUMBER_LIMIT = 79
"""NVML_DEVICE_PART_NUMBER_BUFFER_SIZE is 80."""

DRIVER_VERSION: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}")
"""590.48.01, 384.81; other platforms have other lengths. NVML's buffer has 80 bytes."""
CUDA_VERSION: Final = re.compile(r"[0-9]{1,3}\.[0-9]{1,2}")
CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What ends a line or moves the cursor."""


def is_one_line(value: str) -> bool:
    """Whether it has no character that ends a line or moves the cursor."""
    return not CONTROLS.search(value)


def text(value: object, limit: int = NAME_LIMIT, forbidden: str = "") -> str:
    """A text that fits one cell of nvidia-smi's output. Raises InvalidValue."""
    if (
        not isinstance(value, str)
        or not value
        or len(value.encode(errors="replace")) > limit
        or not value.isprintable()
    ):
        raise InvalidValue(f"{reprlib.repr(value)} does not fit: give a printable text of 1 to {limit} bytes")
    if any(mark in value for mark in forbidden):
        raise InvalidValue(f"{value!r}: none of {forbidden!r} can be in it, they separate nvidia-smi's fields")
    return value


def name(value: object) -> str:
    """A product name. Raises InvalidValue for one that would be two cells of CSV."""
    return text(value, forbidden=',"')


def uuid(value: object) -> str:
    """Raises InvalidValue for a UUID that would not be one cell, or one of several options, of nvidia-smi."""
    return text(value, UUID_LIMIT, forbidden=', "')


def driver_version(value: object) -> str:
    """Raises InvalidValue for what no driver is called."""
    if not isinstance(value, str) or not DRIVER_VERSION.fullmatch(value):
        raise InvalidValue(f"{reprlib.repr(value)}: give a text of two to four numbers, such as '590.48.01'")
    return value


def cuda_version(value: object) -> tuple[int, int]:
    """Major and minor, of a text such as "13.1". Raises InvalidValue."""
    if not isinstance(value, str) or not CUDA_VERSION.fullmatch(value):
        raise InvalidValue(f"{reprlib.repr(value)}: give a text such as '13.1'")
    major, _, minor = value.partition(".")
    return int(major), int(minor)
