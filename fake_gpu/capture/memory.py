"""Bytes behind printed MiB: nvidia-smi rounds, and what it prints has to come out again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from fake_gpu.units import MIB

_STEPS: Final = 16
_EDGE: Final = 1 / 64
"""Of a MiB: so far from a figure at which the rounding changes."""


class Shown(NamedTuple):
    """Used and free memory as they are printed, in MiB."""

    used: int
    free: int


def used_mib(total: int, reserved: float, shown: Shown, *, cuts: bool) -> float | None:
    """MiB in use so that `shown` is printed; None where there are none. `cuts`: an old driver, which rounds down."""
    usable = total - reserved
    if cuts:
        low = max(shown.used, usable - shown.free - 1 + _EDGE)
        high = min(shown.used + 1 - _EDGE, usable - shown.free)
    else:
        low = max(shown.used - 1 + _EDGE, usable - shown.free)
        high = min(shown.used, usable - shown.free + 1 - _EDGE)
    low = max(low, 0.0)
    return (low + high) / 2 if low <= high else None


def reserved_mib(total: int, printed: int, all_shown: Iterable[Shown], *, cuts: bool) -> float:
    """MiB reserved so that as many as possible of these readings come out as they were printed."""
    readings = list(all_shown)

    def fitting(reserved: float) -> tuple[int, float]:
        fits = sum(used_mib(total, reserved, shown, cuts=cuts) is not None for shown in readings)
        return fits, -abs(abs(reserved - printed) - 0.375)

    steps = [step / _STEPS for step in range(_STEPS)]
    return max((printed + step if cuts else printed - step for step in steps), key=fitting)


def to_bytes(mib: float) -> int:
    """Bytes."""
    return round(mib * MIB)
