"""Waits of somebody's own, good, bad and broken, that the tests of the score name by this module."""

from __future__ import annotations

import time
from collections.abc import Callable
from time import sleep

from pytest_vramsettle.policies import TwoSamples

Probe = Callable[[], list[tuple[int, int]]]


def upstream(
    *, max_wait: float = 2.0, interval: float = 0.25, tolerance_mib: int = 256, since_kill: float = 0.0, probe: Probe
) -> None:
    """As the common wait is described."""
    if since_kill <= 0.0 or time.monotonic() - since_kill > 15.0:
        return
    deadline = time.monotonic() + max_wait
    before = dict(probe())
    while time.monotonic() < deadline:
        time.sleep(min(interval, deadline - time.monotonic()))
        if time.monotonic() >= deadline:
            return
        now = dict(probe())
        if all(abs(now[gpu] - mib) < max(tolerance_mib, int(0.02 * max(now[gpu], mib))) for gpu, mib in before.items()):
            return
        before = now


def at_once(probe: Probe) -> None:
    """No wait at all."""


def for_long(probe: Probe) -> None:
    """Right, and dear."""
    time.sleep(60.0)


def bound_early(probe: Probe) -> None:
    """Sleeps by a name that was bound when this module was imported."""
    sleep(60.0)


def doubts(probe: Probe) -> bool:
    """Trusts nothing."""
    return False


def demanding(max_wait: float, interval: float, tolerance_mib: int, since_kill: float, probe: Probe) -> None:
    """Has no defaults."""
    if (max_wait, interval, tolerance_mib) != (2.0, 0.25, 256) or time.monotonic() - since_kill > 1.0:
        raise ValueError((max_wait, interval, tolerance_mib, since_kill))


def raises(**keywords: object) -> None:
    raise RuntimeError(f"given {sorted(keywords)}")


def never_returns(probe: Probe) -> None:
    while True:
        time.sleep(1.0)


def spins_at_small_cards(probe: Probe) -> None:
    """Gets stuck in real time where little is free."""
    while sum(mib for _, mib in probe()) < 500:
        while True:
            pass


def no_probe(max_wait: float = 2.0) -> None: ...


def wants_more(backend: object, probe: Probe) -> None: ...


class Own(TwoSamples):
    """A policy's class."""


class NoPolicy: ...


class Unmade:
    def __init__(self, needed: int) -> None: ...


own = TwoSamples(name="own", share=0.5)
number = 5
