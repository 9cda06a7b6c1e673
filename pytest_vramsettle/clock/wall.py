"""Wall time in lockstep with the virtual clock, through freezegun: one jump moves both by the same amount.

freezegun looks through all modules when it starts (44 ms at first, 240 ms once torch is imported), so this module is
imported only where a test asks for wall time.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from typing import Any

import freezegun.api

from pytest_vramsettle.clock import patches
from pytest_vramsettle.clock.virtual import VirtualClock

api: Any = freezegun.api  # its own parts, which its types leave out

# Modules that keep the real time. freezegun's own list matches by prefix ("gi" hits git_tools) and has `threading` in
# it: the target of a thread read another year from time.time() than from datetime.now().
_IGNORE = ("_pytest.timing", "pytest_timeout", "six.moves", "django.utils.six.moves")
_EPOCH = datetime.datetime(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)


class Lockstep(freezegun.api.FrozenDateTimeFactory):
    """The frozen time plus what the clock has moved, in whole microseconds: sums of rounded jumps would drift."""

    def __init__(self, start: datetime.datetime, elapsed_ns: Callable[[], int]) -> None:
        super().__init__(start)
        self._elapsed_ns: Callable[[], int] = elapsed_ns
        self._from_ns = elapsed_ns()

    def _moved_ns(self) -> int:
        return self._elapsed_ns() - self._from_ns

    def __call__(self) -> datetime.datetime:
        return self.time_to_freeze + datetime.timedelta(microseconds=self._moved_ns() // 1000)

    def time_ns(self) -> int:
        start: datetime.datetime = self.time_to_freeze
        return (start - _EPOCH) // _MICROSECOND * 1000 + self._moved_ns()


@contextlib.contextmanager
def frozen_wall(clock: VirtualClock, start: str | datetime.date) -> Iterator[None]:
    """Freezes `time.time`, `datetime.now` and their like at `start`, and moves them with an active clock.

    A `start` without a zone is in UTC. Raises ValueError where it is no time. Child processes keep the real wall time.
    """
    freezer = freezegun.freeze_time(start)
    freezer.ignore = _IGNORE
    with _own_monotonic(), contextlib.ExitStack() as stack:
        factory = Lockstep(freezer.time_to_freeze, lambda: clock.elapsed_ns)
        stack.enter_context(_replaced("fake_time_ns", _exact_time_ns(factory)))
        freezer.start()
        stack.callback(freezer.stop)
        api.freeze_factories[-1] = factory
        yield


def _exact_time_ns(factory: Lockstep) -> Callable[[], int]:
    """freezegun's goes through a float, whose steps are 256 ns these days."""
    rounded: Callable[[], int] = api.fake_time_ns

    def fake_time_ns() -> int:
        if api.freeze_factories[-1:] == [factory] and not api._should_use_real_time():
            return factory.time_ns()
        return rounded()

    return fake_time_ns


@contextlib.contextmanager
def _own_monotonic() -> Iterator[None]:
    """freezegun must neither freeze the clock's functions nor, in any `stop()`, put others in their place."""
    with contextlib.ExitStack() as stack:
        for function in patches.MONOTONIC:
            stack.enter_context(_replaced(f"fake_{function.__name__}", function))
            stack.enter_context(_replaced(f"real_{function.__name__}", function))
        yield


@contextlib.contextmanager
def _replaced(name: str, replacement: object) -> Iterator[None]:
    original = getattr(api, name)
    setattr(api, name, replacement)
    try:
        yield
    finally:
        setattr(api, name, original)
