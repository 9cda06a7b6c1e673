"""Sizes and durations as people write them, as integers: bytes and nanoseconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from fractions import Fraction

from fake_gpu.errors import InvalidValue

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

Size = int | str
"""Bytes as an int, or a text such as "20 GiB", "512MiB", "1.5 GB"."""

Duration = int | float | str | timedelta
"""Seconds as a number, a timedelta, or a text such as "150ms", "1.2s", "2 min"."""

_SIZES = {
    "B": 1,
    "KIB": KIB,
    "MIB": MIB,
    "GIB": GIB,
    "TIB": 1024 * GIB,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_DURATIONS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµ]+)\s*")


def parse_size(size: Size) -> int:
    """Bytes. Raises InvalidValue for a negative number, a unit that is not one, or another type."""
    if isinstance(size, str):
        match = _QUANTITY.fullmatch(size)
        factor = _SIZES.get(match[2].upper()) if match else None
        if match is None or factor is None:
            raise InvalidValue(
                f"{size!r} is not a size: write a number and one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, "
                f"such as '20 GiB' (a bare int is bytes)"
            )
        return round(Fraction(match[1]) * factor)
    if isinstance(size, bool) or not isinstance(size, int):
        raise InvalidValue(f"{size!r} is not a size: give bytes as an int, or a text such as '20 GiB'")
    if size < 0:
        raise InvalidValue(f"{size} is not a size: memory cannot be negative")
    return size


def parse_duration(duration: Duration) -> int:
    """Nanoseconds, rounded to nearest. Raises InvalidValue for negative, infinite or unreadable durations."""
    if isinstance(duration, str):
        match = _QUANTITY.fullmatch(duration)
        factor = _DURATIONS.get(match[2]) if match else None
        if match is None or factor is None:
            raise InvalidValue(
                f"{duration!r} is not a duration: write a number and one of ns, us, ms, s, min, h, such as '150ms' "
                f"(a bare number is seconds)"
            )
        return round(Fraction(match[1]) * factor)
    if isinstance(duration, timedelta):
        nanoseconds = (duration.days * 86400 + duration.seconds) * 10**9 + duration.microseconds * 1000
    elif isinstance(duration, bool) or not isinstance(duration, int | float):
        raise InvalidValue(f"{duration!r} is not a duration: give seconds as a number, or a text such as '150ms'")
    elif not math.isfinite(duration):
        raise InvalidValue(f"{duration} is not a duration: it has to be finite")
    else:
        nanoseconds = round(Fraction(duration) * 10**9)
    if nanoseconds < 0:
        raise InvalidValue(f"{duration!r} is not a duration: it cannot be negative")
    return nanoseconds


def format_duration(nanoseconds: int) -> str:
    """'150ms', '1.2s': the shortest of the units above that loses nothing worth reading."""
    for name in ("s", "ms", "us"):
        factor = _DURATIONS[name]
        if nanoseconds >= factor:
            return f"{nanoseconds / factor:.6g}{name}"
    return f"{nanoseconds}ns"


def to_mib(size: int) -> int:
    """MiB, rounded up.

    Up, because that is what nvidia-smi prints: on an RTX 4080 SUPER reserved 434 + used 596 + free 15348 MiB is 2 MiB
    more than the total of 16376 MiB, which rounding to nearest cannot give. So it is with drivers 570, 590 and 595;
    515 and 535 cut: on a T4 reserved 388 + used 1032 + free 13939 MiB is 1 MiB less than the total of 15360 MiB.
    """
    return -(-size // MIB)


def format_size(size: int) -> str:
    """'20 GiB', '512 MiB', '1.5 GiB'."""
    for name, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= factor:
            return f"{size / factor:.4g} {name}"
    return f"{size} B"
