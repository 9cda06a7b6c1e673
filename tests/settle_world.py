"""A machine with one GPU for the tests of the wait: its clock moves only when somebody waits, its probe costs time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pytest_vramsettle.expectations import Kill
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.probes import GpuReading, ProbeBudget, ProbeTimeout, Reading

MIB = 1024 * 1024
GIB = 1024 * MIB
SECOND = 1_000_000_000
GPU = "GPU-one"
SERVER, TENANT = 4_300_000, 4_300_001


class SteppedClock:
    """`time.monotonic_ns` that moves by the timeouts of waits on events, and by what the probes below say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start_ns = self.now_ns = 5_000 * SECOND + 1
        self.waits: list[float] = []
        self.due: list[tuple[int, Callable[[], None]]] = []
        self.thread = threading.current_thread()
        real_wait = threading.Event.wait

        def wait(event: threading.Event, timeout: float | None = None) -> bool:
            if timeout is None or threading.current_thread() is not self.thread:
                return real_wait(event, timeout)
            self.waits.append(timeout)
            self.advance_to(self.now_ns + max(1, round(timeout * SECOND)), until=event.is_set)
            return event.is_set()

        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_ns / SECOND)
        monkeypatch.setattr(threading.Event, "wait", wait)

    @property
    def elapsed(self) -> float:
        return (self.now_ns - self.start_ns) / SECOND

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((self.start_ns + round(seconds * SECOND), call))
        self.due.sort(key=lambda item: item[0])

    def advance_to(self, instant_ns: int, until: Callable[[], bool] = lambda: False) -> None:
        while self.due and self.due[0][0] <= instant_ns:
            when, call = self.due.pop(0)
            self.now_ns = max(self.now_ns, when)
            call()
            if until():
                return
        self.now_ns = max(self.now_ns, instant_ns)


class World:
    """A killed server gives `held` bytes back as `share` of time says; a co-tenant holds `tenant` bytes meanwhile.

    `cost` is what a probe takes; with `split`, free memory is read halfway through it, and the holders at its end.
    """

    def __init__(
        self,
        clock: SteppedClock,
        share: Callable[[float], float],
        *,
        held: int = 20 * GIB,
        cost: float = 0.0,
        tenant: Callable[[float], int] = lambda t: 0,
        split: bool = False,
        expected: int | None = None,
    ) -> None:
        self.clock, self.share, self.held, self.cost, self.tenant, self.split = clock, share, held, cost, tenant, split
        self.free_before = 40 * GIB
        self.tenant_before = tenant(-1.0) + GIB
        self.calls = 0
        self.kills = KillRecord(probe=self)
        self.kills.add(
            Kill(
                frozenset({SERVER}),
                clock.now_ns,
                {GPU: held if expected is None else expected},
                {GPU: self.free_before},
                {GPU: {TENANT: self.tenant_before}},
            )
        )

    def missing(self, t: float) -> int:
        return self.held - int(self.held * self.share(t))

    def free(self, t: float) -> int:
        free = self.free_before + self.held - self.missing(t) - (self.tenant(t) + GIB - self.tenant_before)
        return free // MIB * MIB

    def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
        self.calls += 1
        end_ns = self.clock.now_ns + round(self.cost * SECOND)
        if end_ns >= budget.deadline_ns:
            self.clock.advance_to(budget.deadline_ns)
            raise ProbeTimeout("too slow")
        self.clock.advance_to(end_ns)
        t = self.clock.elapsed
        free = self.free(t - self.cost / 2 if self.split else t)
        tenant = {TENANT: self.tenant(t) + GIB} if holders else None
        return Reading((GpuReading(0, GPU, free, 400 * GIB, tenant),))


def step(at: float) -> Callable[[float], float]:
    return lambda t: 1.0 if t >= at else 0.0


def points(*known: tuple[float, float]) -> Callable[[float], float]:
    def share(t: float) -> float:
        before = (float("-inf"), known[0][1])
        for after in known:
            if t < after[0] and before[1] == after[1]:
                return after[1]
            if t < after[0]:
                return before[1] + (after[1] - before[1]) * (t - before[0]) / (after[0] - before[0])
            before = after
        return before[1]

    return share


def linear(duration: float, after: float = 0.0) -> Callable[[float], float]:
    return points((after, 0.0), (after + duration, 1.0))


# Each shape of reclaim with the moment at which it is over.
SHAPES: dict[str, tuple[Callable[[float], float], float]] = {
    "immediate": (step(0.0), 0.0),
    "step 0.3": (step(0.3), 0.3),
    "step 0.9": (step(0.9), 0.9),
    "step 1.7": (step(1.7), 1.7),
    "linear 0.6 after 0.15": (linear(0.6, 0.15), 0.75),
    "linear 5": (linear(5.0), 5.0),
    "linear 9": (linear(9.0), 9.0),
    "linear 26": (linear(26.0), 26.0),
    "two stages": (points((0.0, 0.0), (0.1, 0.02), (0.9, 0.02), (1.0, 1.0)), 1.0),
    "late tail of 15 %": (points((0.0, 0.0), (0.4, 0.85), (5.0, 0.85), (5.3, 1.0)), 5.3),
    "late tail of 8 %": (points((0.0, 0.0), (0.4, 0.92), (5.0, 0.92), (5.3, 1.0)), 5.3),
}
