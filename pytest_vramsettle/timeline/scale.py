"""Round times on an axis."""

from __future__ import annotations

from pytest_vramsettle.timeline.model import Timeline
from pytest_vramsettle.timeline.quantities import seconds


def ticks(timeline: Timeline, about: int = 5) -> list[tuple[int, str]]:
    """Round times on the axis, counted from zero, as (nanoseconds, text)."""
    step_s = _round_step((timeline.end_ns - timeline.begin_ns) / 1e9 / about)
    number = -int(-timeline.seconds(timeline.begin_ns) // step_s)
    found = []
    while timeline.seconds(timeline.begin_ns) <= number * step_s <= timeline.seconds(timeline.end_ns):
        found.append((timeline.zero_ns + round(number * step_s * 1e9), seconds(number * step_s)))
        number += 1
    return found


def _round_step(least: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 1e-9
    while power * 10 < least:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least or factor == 10)
