"""How long a probe has, and what it raises when it cannot answer."""

from __future__ import annotations

import threading
import time

from pytest_vramsettle._interrupts import Interrupts
from pytest_vramsettle._quantities import MILLISECOND, to_seconds

# A cancel event is seen within this time while a probe runs.
POLL_NS = 4 * MILLISECOND


class ProbeFailed(Exception):
    """A probe gave no usable answer. The text says what was asked and what came."""


class ProbeTimeout(ProbeFailed):
    """A probe did not answer in the time it had, and was abandoned."""


class ProbeMissing(ProbeFailed):
    """What the probe asks is not installed here: on a host without a GPU, that is the normal case."""


class GpuLost(ProbeFailed):
    """The driver says that a GPU fell off the bus; it will not come back by waiting."""


class ProbeInterrupted(Exception):
    """Nobody wants the answer any more: the wait was cancelled or superseded."""


class ProbeBudget:
    """What a probe is given: a deadline on the monotonic clock, and whether anyone still wants the answer.

    A probe that waits for something calls `check` around its waits and lets none of them last longer than `timeout`.
    """

    __slots__ = ("deadline_ns", "interrupts")

    def __init__(self, deadline_ns: int, interrupts: Interrupts | None = None) -> None:
        self.deadline_ns = deadline_ns
        self.interrupts = interrupts

    @classmethod
    def lasting(cls, nanoseconds: int) -> ProbeBudget:
        """A budget that ends so many nanoseconds from now and cannot be interrupted."""
        return cls(time.monotonic_ns() + nanoseconds)

    def rest_ns(self) -> int:
        """Nanoseconds left; 0 or less when the time is up."""
        return self.deadline_ns - time.monotonic_ns()

    def check(self) -> None:
        """Raises ProbeInterrupted when nobody waits any more, ProbeTimeout when the time is up."""
        if self.interrupts is not None and self.interrupts.reason() is not None:
            raise ProbeInterrupted
        if self.rest_ns() <= 0:
            raise ProbeTimeout("the probe did not answer in the time it had")

    def timeout(self, *, woken: bool = False) -> float:
        """Seconds that one blocking call may last. `woken`: it also ends when `interrupts.fileno()` is readable."""
        rest = self.rest_ns()
        interrupts = self.interrupts
        if interrupts is not None and (interrupts.must_be_polled or not woken):
            rest = min(rest, POLL_NS)
        return to_seconds(rest)

    def wait(self, event: threading.Event) -> None:
        """Return when `event` is set. Raises as `check` does."""
        while not event.is_set():
            self.check()
            event.wait(self.timeout())

    def __repr__(self) -> str:
        return f"ProbeBudget({to_seconds(self.rest_ns()):.3f} s left)"
