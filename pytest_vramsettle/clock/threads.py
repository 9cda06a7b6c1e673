"""Threads on the clock: conditions (and all that is built on them), starting, joining, and the queue of executors.

`Condition.notify` needs no replacement: it calls `release` on what waits, and a `Waiter` has that method.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Any, Generic, TypeVar

from pytest_vramsettle.clock import real
from pytest_vramsettle.clock.active import mine, slot
from pytest_vramsettle.clock.deadlock import STARTED_UNDER
from pytest_vramsettle.clock.engine import Engine
from pytest_vramsettle.clock.errors import ClockStopped
from pytest_vramsettle.clock.waits import CLOSED, FOR_EVER, HALF_NS, NOTIFIED, Member, Waiter, nanoseconds

T = TypeVar("T")

# Where a thread keeps its engine and its place in it.
_BELONGING = "_vramsettle_belonging"


def deadline_after(engine: Engine, timeout: float | None) -> int | None:
    if timeout is None:
        return None
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    if timeout >= FOR_EVER:
        return None
    return engine.now + nanoseconds(timeout)


def wait_on(engine: Engine, condition: threading.Condition, waiter: Waiter, deadline: int | None) -> bool:
    """Wait for the condition's notification until an instant of the clock. The caller holds the condition's lock."""
    inner: Any = condition  # the parts that `Condition.wait` is made of, which the type stubs leave out
    inner._waiters.append(waiter)
    try:
        state = inner._release_save()
    except BaseException:
        # A signal's handler raised just as the lock was let go: the caller is going to release it once more.
        if not inner._is_owned():
            inner._lock.acquire()
        inner._waiters.remove(waiter)
        raise
    try:
        return engine.block(waiter, deadline) is NOTIFIED
    finally:
        try:
            inner._acquire_restore(state)
        except BaseException:
            # The same, just before it was taken back.
            if not inner._is_owned():
                inner._acquire_restore(state)
            raise
        if waiter.why is not NOTIFIED:
            # Gone already where a notification came too late.
            with contextlib.suppress(ValueError):
                inner._waiters.remove(waiter)


@functools.wraps(real.condition_wait)
def condition_wait(self: threading.Condition, timeout: float | None = None) -> bool:
    engine = mine()
    if engine is None:
        return real.condition_wait(self, timeout)
    if timeout is not None and timeout < HALF_NS:
        notified = real.condition_wait(self, 0)
        engine.instant(timeout)
        return notified
    if not self._is_owned():  # type: ignore[attr-defined]  # the stub leaves out what is private
        raise RuntimeError("cannot wait on un-acquired lock")
    return wait_on(engine, self, Waiter(engine, "Condition.wait"), deadline_after(engine, timeout))


@functools.wraps(real.thread_start)
def thread_start(self: threading.Thread) -> None:
    engine = mine()
    if engine is None or self.ident is not None:
        if slot.engine is not None:
            self.__dict__[STARTED_UNDER] = slot.engine.start
        real.thread_start(self)
        return
    member = Member(self)
    run = self.run

    def run_on_the_clock() -> None:
        _replace_run(self, run)
        try:
            engine.begin(member)
            run()
        except ClockStopped:
            # Ended with the clock; not an error of the thread's.
            pass
        finally:
            engine.end(member)

    # It counts as running before it is, so that no jump is made while it comes up.
    engine.join(member)
    self.__dict__[_BELONGING] = (engine, member)
    self.__dict__["run"] = run_on_the_clock
    try:
        # Its starter keeps the baton, so that threads queue for their first turn in the order of their starts.
        with engine.unseen():
            real.thread_start(self)
        if self.ident is not None:
            engine.enlist(member, self.ident)
        engine.rouse()
    except BaseException as error:
        # An interrupt takes nothing back of a thread that is there.
        if member.turn is not None and not isinstance(error, Exception):
            raise
        _replace_run(self, run)
        del self.__dict__[_BELONGING]
        engine.end(member)
        raise


def _replace_run(thread: threading.Thread, run: Callable[[], None]) -> None:
    thread.__dict__.pop("run", None)
    if thread.run != run:
        thread.__dict__["run"] = run


@functools.wraps(real.thread_join)
def thread_join(self: threading.Thread, timeout: float | None = None) -> None:
    engine = mine()
    its_engine, member = self.__dict__.get(_BELONGING, (None, None))
    if (
        engine is None
        or engine is not its_engine
        or self is threading.current_thread()
        or (timeout is not None and timeout <= 0)
    ):
        real.thread_join(self, timeout)
        return
    waiter = Waiter(engine, f"join {self.name}")
    with engine.mu:
        done = member.done
        if not done:
            member.joiners.append(waiter)
    if not done:
        engine.block(waiter, deadline_after(engine, timeout))
        if not member.done:
            with engine.mu:
                if waiter in member.joiners:
                    member.joiners.remove(waiter)
            return
    # What is left of it is the interpreter's own work, some microseconds.
    with engine.unseen():
        real.thread_join(self)


class SimpleQueue(Generic[T]):
    """`queue.SimpleQueue`, with a `get` that waits on the clock. The items lie in a real one.

    A thread that is still in `get` when the clock is left waits on in real time: the executors whose workers wait here
    may outlive the clock.
    """

    def __init__(self) -> None:
        self._items: Any = real.SimpleQueue()
        self._waiters: deque[Waiter] = deque()

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Never blocks; the arguments are there for compatibility with `Queue.put`."""
        self._items.put(item)
        self._wake_one()

    put_nowait = put

    def _wake_one(self) -> None:
        while self._waiters:
            try:
                waiter = self._waiters.popleft()
            except IndexError:
                return
            if waiter.engine.wake(waiter):
                return

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        engine = mine()
        if engine is None or not block:
            return self._get(block, timeout)
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        deadline = deadline_after(engine, timeout)
        while True:
            waiter = Waiter(engine, "SimpleQueue.get", lasting=True)
            self._waiters.append(waiter)
            try:
                return self._get(False, None)
            except Empty:
                if deadline is not None and engine.now >= deadline:
                    raise
                if timeout is not None and timeout < HALF_NS:
                    engine.instant(timeout)
                    raise
                if engine.park(waiter, deadline) is CLOSED:
                    return self._get(True, timeout)
            finally:
                self._retire(waiter)

    def _get(self, block: bool, timeout: float | None) -> T:
        item: T = self._items.get(block, timeout)
        return item

    def _retire(self, waiter: Waiter) -> None:
        # One that found its item by itself must not swallow the call that was meant for another.
        with waiter.engine.mu:
            if waiter.why is None:
                waiter.why = NOTIFIED
        try:
            self._waiters.remove(waiter)
        except ValueError:
            if not self._items.empty():
                self._wake_one()

    def get_nowait(self) -> T:
        return self.get(block=False)

    def empty(self) -> bool:
        return bool(self._items.empty())

    def qsize(self) -> int:
        return int(self._items.qsize())
