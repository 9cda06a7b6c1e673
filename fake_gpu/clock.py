"""What the driver asks of time: a real clock, or one that jumps.

All times are integer nanoseconds on a monotonic scale: a sum of floats drifts, and a wait that compares drifted sums
with a deadline can miss it for ever.
"""

from __future__ import annotations

import functools
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Protocol

Cancel = Callable[[], None]


class Clock(Protocol):
    """The interface between the driver and a clock. The driver holds none of its locks while it calls `wait`."""

    @property
    def is_real_time(self) -> bool:
        """True where the clock moves by itself, so that a deadline can be waited for with a real timeout."""

    def monotonic_ns(self) -> int:
        """Now. Takes no lock."""

    def wait(self, released: threading.Event, deadline_ns: int | None) -> None:
        """Hold the calling thread until the deadline (None: for ever) or until `released` is set."""

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Cancel:
        """Have a clock that jumps call `callback` when it reaches the deadline, before it goes on.

        The clock holds no lock of its own meanwhile. A real clock ignores this: whoever reads the driver's state next
        runs what has come due. Returns what cancels it.
        """

    def before_jump(self, callback: Callable[[], None]) -> Cancel:
        """Have a clock that jumps call `callback` each time it is about to leave an instant, as `call_at` does.

        So that what happened outside by then (a process died) is noticed at the time at which it happened. A real clock
        ignores this. Returns what ends it.
        """

    def detach(self, process: subprocess.Popen[bytes] | int) -> None:
        """A child process that keeps a clock from jumping never. A real clock ignores this."""

    def client_waits(self, pid: int, deadline_ns: int | None, wake: Callable[[], None]) -> Cancel:
        """Process `pid` waits for an answer that is due at the deadline (None: never).

        While it waits it does not keep a clock that jumps from jumping. When the clock reaches the deadline it calls
        `wake`, and from then on the process keeps the clock from jumping again until it exits or waits once more. A
        real clock ignores this. Returns what cancels it (the client went away).
        """


def _nothing() -> None:
    pass


# What time.monotonic_ns reads, by a name that clocks for tests leave alone: they may be active already.
_REAL_NS: Callable[[], int] = functools.partial(time.clock_gettime_ns, time.CLOCK_MONOTONIC)


def time_stands_still() -> bool:
    """Whether `time.monotonic` does not move in this thread: a virtual clock or a freezer of time is active."""
    before, begun = time.monotonic_ns(), _REAL_NS()
    while _REAL_NS() - begun < 2_000:
        pass
    return time.monotonic_ns() == before


_REAL_WALL_NS: Callable[[], int] = functools.partial(time.clock_gettime_ns, time.CLOCK_REALTIME)
_FROZEN_S, _MOVED_S = 0.01, 1.0
"""Seconds by which `time.time` differs from the system's clock where freezegun rules it, and from what that was some
time ago where time-machine does, which rules the system's clock as well."""


class WallTime:
    """Wall time beside a clock: what `time.time` says, a test's frozen one included.

    On a clock that jumps, where nobody froze wall time, it goes on from what it was when this was made, as far as the
    clock went since: stamps of a loop of nvidia-smi are as far apart as its rounds.
    """

    __slots__ = ("_begun_ns", "_real_ns", "_wall_s")

    def __init__(self, clock: Clock) -> None:
        self._begun_ns = clock.monotonic_ns()
        self._real_ns = _REAL_NS()
        self._wall_s = _REAL_WALL_NS() / 1e9

    def at(self, clock: Clock) -> float:
        """Seconds since the epoch, now."""
        said = time.time()
        if clock.is_real_time:
            return said
        expected = self._wall_s + (_REAL_NS() - self._real_ns) / 1e9
        if abs(said - _REAL_WALL_NS() / 1e9) > _FROZEN_S or abs(said - expected) > _MOVED_S:
            return said  # in lockstep with the clock, or as the test will have it
        return self._wall_s + (clock.monotonic_ns() - self._begun_ns) / 1e9


class RealClock:
    """Real monotonic time, whatever is patched in `time`; or any function that returns nanoseconds."""

    is_real_time = True

    def __init__(self, monotonic_ns: Callable[[], int] = _REAL_NS) -> None:
        self.monotonic_ns = monotonic_ns

    def wait(self, released: threading.Event, deadline_ns: int | None) -> None:
        while not released.is_set():
            if deadline_ns is None:
                # A bounded slice keeps Ctrl-C responsive on every platform.
                released.wait(60.0)
                continue
            rest = deadline_ns - self.monotonic_ns()
            if rest <= 0:
                return
            released.wait(rest / 1e9)

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Cancel:
        return _nothing

    def before_jump(self, callback: Callable[[], None]) -> Cancel:
        return _nothing

    def detach(self, process: subprocess.Popen[bytes] | int) -> None:
        pass

    def client_waits(self, pid: int, deadline_ns: int | None, wake: Callable[[], None]) -> Cancel:
        return _nothing

    def __repr__(self) -> str:
        return "RealClock()"
