"""Ramps: how much of a dead process's memory the driver has given back, as a pure function of the time since death.

A ramp is a list of shapes to choose from, all of them immutable, and all integer arithmetic at the ends: before a ramp
begins exactly nothing is back, once it is over exactly everything is.
"""

from __future__ import annotations

import math
import os
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fake_gpu.errors import InvalidValue
from fake_gpu.units import Duration, format_duration, parse_duration

_Shape = Literal["line", "half_life", "points", "never"]


@dataclass(frozen=True, slots=True)
class Ramp:
    """The share of a dead process's memory that is back, by time since its death.

    Made by the class methods: `immediate`, `step`, `linear`, `exponential`, `points`, `never`, `from_trace`. Compares
    and hashes by value. Durations are seconds as numbers, or texts such as "150ms".
    """

    _shape: _Shape
    _after_ns: int = 0
    _span_ns: int = 0
    _times_ns: tuple[int, ...] = ()
    _shares: tuple[float, ...] = ()

    @classmethod
    def immediate(cls) -> Ramp:
        """Everything is back in the instant of death."""
        return cls("line")

    @classmethod
    def step(cls, after: Duration) -> Ramp:
        """Nothing until `after`, then everything at once."""
        return cls("line", parse_duration(after))

    @classmethod
    def linear(cls, duration: Duration, after: Duration = 0) -> Ramp:
        """Nothing until `after`, then evenly during `duration`."""
        return cls("line", parse_duration(after), parse_duration(duration))

    @classmethod
    def exponential(cls, half_life: Duration, after: Duration = 0) -> Ramp:
        """Nothing until `after`, then half of what is missing in every `half_life`, to the last byte."""
        span = parse_duration(half_life)
        if span == 0:
            raise InvalidValue("Ramp.exponential: half_life has to be positive; for all at once use Ramp.immediate()")
        return cls("half_life", parse_duration(after), span)

    @classmethod
    def never(cls) -> Ramp:
        """Nothing ever comes back: a driver that leaks, or an orphan that still holds the memory."""
        return cls("never")

    @classmethod
    def points(cls, points: Sequence[tuple[Duration, float]]) -> Ramp:
        """Straight lines between (time since death, share reclaimed) points.

        Before the first point its share holds, after the last one its share holds: a ramp that ends below 1.0 leaves
        the rest reserved for ever. Two points at one time make a step. Raises InvalidValue, naming the point, where
        the share falls or leaves 0..1 or time runs back.
        """
        if not points:
            raise InvalidValue("Ramp.points: give at least one (seconds since death, share reclaimed) point")
        times: list[int] = []
        shares: list[float] = []
        for number, point in enumerate(points):
            try:
                time, share = point
            except (TypeError, ValueError):
                raise InvalidValue(
                    f"Ramp.points: point {number} is {point!r}; a point is (seconds since death, share reclaimed)"
                ) from None
            time_ns = parse_duration(time)
            share_given = share
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
                raise InvalidValue(
                    f"Ramp.points: point {number} reclaims a share of {share_given!r}; a share is between 0.0 and 1.0"
                )
            if times and time_ns < times[-1]:
                raise InvalidValue(
                    f"Ramp.points: time runs back at point {number}: {time!r} comes after {points[number - 1][0]!r}; "
                    f"sort the points by time"
                )
            if shares and share < shares[-1]:
                raise InvalidValue(
                    f"Ramp.points: the share falls at point {number}: from {shares[-1]} to {share} at {time!r}; memory "
                    f"that was given back stays back (to model somebody who takes it, add a second process)"
                )
            times.append(time_ns)
            shares.append(float(share))
        return cls("points", _times_ns=tuple(times), _shares=tuple(shares))

    @classmethod
    def from_trace(cls, path: str | os.PathLike[str], gpu: str | int | None = None) -> Ramp:
        """The ramp of a recorded reclaim trace (see `fake_gpu.trace`); `gpu` is a UUID or an index where the trace
        holds several.

        Raises InvalidValue where the file is not a trace, or shows no kill or no memory coming back. Warns where it is
        torn: the ramp ends there.
        """
        from fake_gpu.trace import ReclaimTrace  # msgspec is not needed by those who script their ramps

        trace = ReclaimTrace.read(path)
        if trace.torn:
            warnings.warn(f"{path}: its last line was cut off and left out", stacklevel=2)
        return cls.points(trace.shares(gpu))

    def reclaimed(self, held: int, elapsed_ns: int) -> int:
        """Bytes that are back, out of `held`, `elapsed_ns` after the death. Never falls as time goes on."""
        if self._shape == "never" or elapsed_ns < 0:
            return 0
        if self._shape == "points":
            return self._reclaimed_between_points(held, elapsed_ns)
        since = elapsed_ns - self._after_ns
        if since < 0:
            return 0
        if self._shape == "half_life":
            return held - int(held * math.exp2(-since / self._span_ns))
        return held if since >= self._span_ns else held * since // self._span_ns

    def _reclaimed_between_points(self, held: int, elapsed_ns: int) -> int:
        times, shares = self._times_ns, self._shares
        after = bisect_right(times, elapsed_ns)
        if after == 0:
            return int(held * shares[0])
        if after == len(times):
            return int(held * shares[-1])
        low, high = int(held * shares[after - 1]), int(held * shares[after])
        return low + (high - low) * (elapsed_ns - times[after - 1]) // (times[after] - times[after - 1])

    def share(self, elapsed_ns: int) -> float:
        """The share that is back, 0.0 to 1.0, to one part in 2**53."""
        return self.reclaimed(1 << 53, elapsed_ns) / (1 << 53)

    def done_after_ns(self, held: int) -> int | None:
        """Nanoseconds after death at which nothing more comes back; None where that never is (`never`)."""
        if self._shape == "never":
            return None
        if self._shape == "points":
            last = self._shares[-1]
            return next(time for time, share in zip(self._times_ns, self._shares, strict=True) if share == last)
        if self._shape == "half_life":
            # held * 2**-x < 1 from x = log2(held) on; one nanosecond more covers the rounding of the logarithm.
            return self._after_ns + (math.ceil(math.log2(held) * self._span_ns) + 1 if held else 0)
        return self._after_ns + self._span_ns

    def __repr__(self) -> str:
        after = f", after={format_duration(self._after_ns)!r}" if self._after_ns else ""
        match self._shape:
            case "never":
                return "Ramp.never()"
            case "points":
                pairs = ", ".join(
                    f"({time / 1e9:g}, {share:g})" for time, share in zip(self._times_ns, self._shares, strict=True)
                )
                return f"Ramp.points([{pairs}])"
            case "half_life":
                return f"Ramp.exponential(half_life={format_duration(self._span_ns)!r}{after})"
        if self._span_ns:
            return f"Ramp.linear({format_duration(self._span_ns)!r}{after})"
        if self._after_ns:
            return f"Ramp.step(after={format_duration(self._after_ns)!r})"
        return "Ramp.immediate()"


DEFAULT_RECLAIM = Ramp.linear("600ms", after="150ms")
"""What a process's memory does after its death unless the test says otherwise: the 0.4 to 0.8 s that is reported for
device-only memory on an H100, with a late start in which a hasty wait is fooled."""


def checked_ramp(value: object) -> Ramp:
    """The ramp that is given. Raises InvalidValue, also for the duration that one might take for one."""
    if not isinstance(value, Ramp):
        raise InvalidValue(
            f"reclaim={value!r} is not a ramp: give one, such as Ramp.linear('600ms') or Ramp.step(after='400ms')"
        )
    return value
