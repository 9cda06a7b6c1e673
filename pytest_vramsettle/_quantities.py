"""Seconds and MiB as people give them; nanoseconds and bytes as the code counts them, whole, so that none drifts."""

from __future__ import annotations

import math

MIB = 1024 * 1024

MILLISECOND = 1_000_000
SECOND = 1_000_000_000

_LONGEST = 1e9
"""31 years: what the interpreter's own waits can take, with room for a sum of two."""


def to_ns(seconds: float) -> int:
    """Nanoseconds, rounded to nearest, at least 1.

    To nearest, because rounding up makes a sum of waits miss its deadline by a nanosecond; at least 1, because a wait
    of zero is a busy loop.
    """
    return max(1, round(seconds * SECOND))


def to_seconds(nanoseconds: int) -> float:
    """Seconds, for calls that take a timeout; never negative."""
    return max(0, nanoseconds) / SECOND


def _number(name: str, value: object, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} has to be a number of {unit}; got {value!r}")


def duration_ns(name: str, seconds: float, *, zero: bool = False) -> int:
    """`seconds` as nanoseconds. Raises ValueError, with the argument's `name`, for what cannot be a duration."""
    _number(name, seconds, "seconds")
    if not seconds < _LONGEST or seconds < 0 or (seconds == 0 and not zero):
        wanted = "a finite number of seconds, not negative" if zero else "a finite number of seconds above 0"
        wanted += f" and below {_LONGEST:g}"
        raise ValueError(f"{name} has to be {wanted}; got {seconds!r}")
    return to_ns(seconds) if seconds else 0


def size_mib(name: str, mib: float) -> float:
    """`mib`, checked. Raises ValueError, with the argument's `name`, for what cannot be a size."""
    _number(name, mib, "MiB")
    if not math.isfinite(mib) or mib < 0:
        raise ValueError(f"{name} has to be a finite number of MiB, not negative; got {mib!r}")
    return mib
