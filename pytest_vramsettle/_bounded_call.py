"""A call that cannot be interrupted, made in a thread that can be left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any

from pytest_vramsettle._budget import ProbeBudget, ProbeFailed


class _Call:
    def __init__(self, function: Callable[[], Any], key: Hashable) -> None:
        self._function = function
        self._key = key
        self.finished = threading.Event()
        self.abandoned = False
        self._value: Any = None
        self._error: BaseException | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="vram-probe", daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # whatever it is belongs to the caller
            self._error = error
        finally:
            self.give_up_key()
            self.finished.set()

    def give_up_key(self) -> None:
        _in_flight.pop(self._key, None)

    def result(self) -> Any:
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None  # or the traceback and this object keep each other alive


# The calls that run at this moment, and no others: a fact about this process, which therefore has one place.
_in_flight: dict[Hashable, _Call] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_flight.clear)  # a child inherits none of the threads


def key_of(function: Callable[..., Any]) -> Hashable:
    """What makes two callables the same probe: a bound method is a new object each time it is looked up."""
    return id(getattr(function, "__self__", None)), id(getattr(function, "__func__", function))


def call_within(budget: ProbeBudget, function: Callable[[], Any], *, key: Hashable) -> Any:
    """`function()`, made in a daemon thread; its exceptions are raised here.

    There is never more than one thread for a `key`: a second caller waits for the first one's call, and as long as an
    abandoned call has not come back, further ones fail at once. Raises ProbeTimeout and ProbeInterrupted as
    `ProbeBudget.check` does, and ProbeFailed for the abandoned call.
    """
    mine = _Call(function, key)
    # setdefault decides atomically who runs, without a lock that would be held while a thread starts.
    while (running := _in_flight.setdefault(key, mine)) is not mine:
        if running.abandoned:
            raise ProbeFailed("an earlier call of this probe was abandoned and has not come back yet")
        budget.wait(running.finished)
    try:
        budget.check()
        mine.start()
    except BaseException:
        mine.give_up_key()
        mine.finished.set()
        raise
    try:
        budget.wait(mine.finished)
    except BaseException:
        mine.abandoned = True
        raise
    return mine.result()
