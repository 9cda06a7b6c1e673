"""What can be in the clock's heap, and how a thread is held and let go."""

from __future__ import annotations

import _thread
import math
import os
import select
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from pytest_vramsettle.clock import real

if TYPE_CHECKING:
    from pytest_vramsettle.clock.turns import Turns

# Why a wait is over.
NOTIFIED = "notified"
DUE = "due"
READY = "ready"
SETTLED = "settled"
INTERRUPTED = "interrupted"
CANCELLED = "cancelled"
CLOSED = "closed"
DEADLOCK = "deadlock"

# What a thread waits for that has asked the driver in this process.
ANSWER = "an answer of the driver"

# What is shorter rounds to no nanosecond at all: the rest that sums of floats leave.
HALF_NS = 0.5e-9
# A wait this long (31 years) stands for "for ever": `threading.TIMEOUT_MAX` does.
FOR_EVER = 1e9


def nanoseconds(seconds: float) -> int:
    """A duration to the nearest nanosecond, at least 1."""
    if isinstance(seconds, int):
        return max(1, seconds * 1_000_000_000)
    if math.isnan(seconds):
        raise ValueError("Invalid value NaN (not a number)")
    return max(1, round(seconds * 1e9))


class Due:
    """Something that may have a deadline. `why` is None for as long as it is neither due nor over otherwise."""

    __slots__ = ("deadline", "what", "why")

    def __init__(self, what: str) -> None:
        self.what = what
        self.why: str | None = None
        self.deadline: int | None = None


class Callback(Due):
    """A call that the clock makes on its way. Also the base of a client's wait, whose call is `wake`."""

    __slots__ = ("call",)

    def __init__(self, what: str, call: Callable[[], None]) -> None:
        super().__init__(what)
        self.call = call

    def due(self) -> None:
        """Called with the clock's mutex held, before `call`, which is made without it."""


class Waiter(Due):
    """A thread that waits. It has the face of the lock that `Condition.notify` releases."""

    __slots__ = ("belongs", "engine", "gate", "go", "ident", "lasting")

    # Whether it waits for file descriptors too.
    polls = False

    def __init__(self, engine: Turns, what: str, lasting: bool = False, ident: int | None = None) -> None:
        self.what = what
        self.why = None
        self.deadline = None
        self.engine = engine
        self.ident = _thread.get_ident() if ident is None else ident
        self.gate: _thread.LockType | None = None
        # Whether it waits as a thread of the clock, which takes turns with the others.
        self.belongs = False
        # Whether the thread may run: `why` says that its wait is over, this that it is its turn.
        self.go = False
        # Whether the thread goes on in real time when the clock is left; the others are ended.
        self.lasting = lasting

    def release(self) -> None:
        """What `Condition.notify` calls: from this moment on the thread counts as running."""
        if not self.engine.wake(self):
            raise RuntimeError("this wait is over already")

    def arm(self) -> None:
        """Prepare to hold the thread for real. The mutex is held."""
        self.gate = _thread.allocate_lock()
        self.gate.acquire()

    def hold(self) -> None:
        if self.gate is not None:
            self.gate.acquire()

    def open(self) -> None:
        """Let the thread go, if it is held. The mutex is held."""
        if self.gate is not None and self.gate.locked():
            self.gate.release()

    def disarm(self) -> None:
        """Give back what `arm` took. The mutex is held."""


class PollWaiter(Waiter):
    """A thread that waits in a selector: for descriptors as well as for the clock."""

    __slots__ = ("_check", "_eventfd", "_fds", "deaf", "registered", "since")

    polls = True

    def __init__(self, engine: Turns, what: str, fds: list[tuple[int, int]], registered: Collection[int]) -> None:
        super().__init__(engine, what, lasting=True)
        self._fds = fds
        # What the selector knows: an epoll object stands for all of its descriptors.
        self.registered = registered
        # Real time.
        self.since = real.monotonic()
        # Not the poll object that the thread blocks in: one cannot be used by two threads at once.
        self._check = self._poll()
        self._eventfd: int | None = None
        # Whether the thread leaves the descriptors to whoever gives up the baton next.
        self.deaf = False

    def _poll(self) -> select.poll:
        poll = select.poll()
        for fd, events in self._fds:
            poll.register(fd, events)
        return poll

    def ready(self) -> bool:
        """Whether a descriptor is ready this moment. No jump may be made over what has already arrived."""
        return bool(self._check.poll(0))

    def arm(self) -> None:
        self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def hold(self) -> None:
        eventfd = self._eventfd
        if eventfd is None:
            return
        turn, both = select.poll(), self._poll()
        turn.register(eventfd, select.POLLIN)
        both.register(eventfd, select.POLLIN)
        while not self.go:
            found = [fd for fd, _ in (turn if self.deaf else both).poll()]
            with self.engine.mu:
                if eventfd in found:
                    os.eventfd_read(eventfd)
                elif not self.go and not self.deaf:
                    # While another thread runs, the moment at which this one notices is chance: it is looked at again
                    # at the next moment that is not.
                    self.deaf = True
                    self.engine.heard(self)

    def open(self) -> None:
        if self._eventfd is not None:
            os.eventfd_write(self._eventfd, 1)

    def listen(self) -> None:
        """Nothing was ready after all. The mutex is held."""
        if self.deaf:
            self.deaf = False
            self.open()

    def disarm(self) -> None:
        if self._eventfd is not None:
            os.close(self._eventfd)
            self._eventfd = None


class Member:
    """A thread that belongs to a clock. It counts from before its start until after its `run`."""

    __slots__ = ("done", "ident", "joiners", "thread", "turn")

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self.ident: int | None = thread.ident
        self.done = False
        self.joiners: list[Waiter] = []
        # What it waits with for its first turn.
        self.turn: Waiter | None = None
