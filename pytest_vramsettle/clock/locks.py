"""`threading.Lock` and `RLock` whose wait is one on the clock where the holder belongs to it.

A lock that a thread of the clock holds is let go by that thread alone, so who wants it is blocked as in a sleep. What
anybody else holds is waited for in real time. The lock goes from hand to hand: the first that waits has it before its
turn comes, so that a thread which lets go and takes it again at once cannot starve the others for ever.
"""

from __future__ import annotations

import contextlib
import threading
from _thread import allocate_lock, get_ident
from collections import deque
from typing import Any, NoReturn

from pytest_vramsettle.clock.active import mine
from pytest_vramsettle.clock.engine import Engine
from pytest_vramsettle.clock.waits import CLOSED, FOR_EVER, HALF_NS, NOTIFIED, Waiter, nanoseconds

# `_thread.TIMEOUT_MAX` is what the real ones take at most.
_TOO_LONG = threading.TIMEOUT_MAX


class Lock:
    """Like the real one, which it is outside of a clock's threads, and after the clock was left."""

    __slots__ = ("__weakref__", "_holder", "_real", "_waiters")

    def __init__(self) -> None:
        self._real = allocate_lock()
        # Who took it; nobody where that does not matter because it is free.
        self._holder = 0
        self._waiters: deque[Waiter] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if timeout != -1:
            _check(blocking, timeout)
        try:
            if self._real.acquire(False):
                self._holder = get_ident()
                return True
        except BaseException:
            # A signal's handler raised between the two lines: nobody would ever let it go.
            if self._real.locked() and not self._holder:
                self._real.release()
            raise
        engine = mine()
        if not blocking:
            if engine is not None and self._holder in engine.idents:
                # Who tries again and again gives its turn to the holder, and is counted.
                engine.instant(0.0)
            return False
        if engine is not None and timeout != 0 and self._holder in engine.idents:
            return self._wait(engine, timeout)
        if not self._real.acquire(True, timeout):
            return False
        self._holder = get_ident()
        return True

    __enter__ = acquire

    def _wait(self, engine: Engine, timeout: float) -> bool:
        if 0 < timeout < HALF_NS:
            engine.instant(timeout)
            return self._real.acquire(False)
        deadline = None if timeout < 0 or timeout >= FOR_EVER else engine.now + nanoseconds(timeout)
        waiter = Waiter(engine, f"a lock that {_name(self._holder)} holds")
        self._waiters.append(waiter)
        try:
            # Let go by a thread outside of the clock, just before it could see this one wait.
            if self._real.acquire(False):
                self._holder = waiter.ident
                self._passed_by(engine, waiter)
                return True
            return engine.block(waiter, deadline) is NOTIFIED
        except BaseException:
            if waiter.why is NOTIFIED:
                self.release()
            raise
        finally:
            if waiter.why is not NOTIFIED:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)

    def _passed_by(self, engine: Engine, waiter: Waiter) -> None:
        """It has the lock without being handed it: nobody must do that now."""
        with engine.mu:
            if waiter.why is None:
                waiter.why = CLOSED

    def release(self) -> None:
        while True:
            while self._waiters:
                waiter = self._waiters.popleft()
                before, self._holder = self._holder, waiter.ident
                if waiter.engine.wake(waiter):
                    return
                self._holder = before
            self._holder = 0
            self._real.release()
            # Somebody outside of the clock may have come to wait in between.
            if not self._waiters or not self._real.acquire(False):
                return

    def __exit__(self, *_: object) -> None:
        self.release()

    def locked(self) -> bool:
        return self._real.locked()

    def _is_owned(self) -> bool:
        # What `Condition` would find out by taking it.
        return self._real.locked()

    def _at_fork_reinit(self) -> None:
        self._real = allocate_lock()
        self._waiters.clear()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} lock, on a virtual clock while one is active>"


class RLock(threading._PyRLock):  # type: ignore[misc,name-defined]  # the interpreter's own in Python
    """The standard library's, over a `Lock` of the clock's."""

    _block: Any

    def __init__(self) -> None:
        super().__init__()
        self._block = Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")


def _name(ident: int) -> str:
    thread = threading._active.get(ident)  # type: ignore[attr-defined]  # `enumerate` takes a lock
    return f"thread {ident}" if thread is None else str(thread.name)


def _check(blocking: bool, timeout: float) -> None:
    if not blocking and timeout != -1:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0 and timeout != -1:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > _TOO_LONG:
        raise OverflowError("timeout value is too large")
