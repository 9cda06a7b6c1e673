"""The clock's heart: who is blocked, what is due, and the jump from one deadline to the next.

The rule: the clock moves only while every thread that belongs to it waits on it, and nothing else holds it. What the
engine does not know (a raw lock, a raw read) counts as running. All state is guarded by one mutex, which is never held
while anything waits or while a callback runs. The mutex can be taken again by the thread that has it: a signal handler
or a finaliser may set an event in the middle of the engine's work.
"""

from __future__ import annotations

import _thread
import contextlib
import heapq
import itertools
import math
import os
from collections.abc import Callable, Iterator

from pytest_vramsettle.clock import real
from pytest_vramsettle.clock.errors import ClockError, ClockStopped
from pytest_vramsettle.clock.waits import (
    CLOSED,
    DUE,
    INTERRUPTED,
    NOTIFIED,
    READY,
    SETTLED,
    Callback,
    Due,
    Member,
    PollWaiter,
    Waiter,
)

# Waits for no time at all that a thread may make at one instant before the clock helps it along.
_ZERO_WAITS = 32


class Engine:
    """`poke` has another thread move the clock, for callers that may hold locks of their own."""

    def __init__(self, poke: Callable[[], None]) -> None:
        self.mu = _thread.RLock()
        self.poke = poke
        self.now = self.start = real.monotonic_ns()
        # The clock as a float, ahead of `now` by less than a nanosecond where a wait was shorter than that.
        self.seconds = self.now / 1e9
        self.pid = os.getpid()
        self.closed = False
        self.members: set[Member] = set()
        self.idents: set[int] = set()
        self.parked: dict[int, Waiter] = {}
        # Waits of threads that do not belong: they have deadlines, and hold nothing.
        self.outsiders: dict[int, Waiter] = {}
        # What keeps the clock from moving besides a running thread: children at work, pauses.
        self.holders: set[object] = set()
        self.notes: list[str] = []
        self.failures: list[BaseException] = []
        # Called, without the mutex, when the clock is about to move from one instant to another.
        self.before_jump: list[Callable[[], None]] = []
        self._heap: list[tuple[int, int, Due]] = []
        self._compact_at = 256
        self._order = itertools.count()
        self._polling: set[PollWaiter] = set()
        self._settlers: list[Waiter] = []
        self._mover: int | None = None
        self._zero_waits = 0

    # Threads

    def join(self, member: Member) -> None:
        with self.mu:
            self.members.add(member)

    def begin(self, member: Member) -> None:
        """The member's own thread has begun to run."""
        with self.mu:
            member.ident = _thread.get_ident()
            if not self.closed:
                self.idents.add(member.ident)

    def end(self, member: Member) -> None:
        """The member's own thread has nothing more to do."""
        with self.mu:
            if member.ident is not None:
                self.idents.discard(member.ident)
            self.members.discard(member)
            member.done = True
            for waiter in member.joiners:
                self.fire(waiter, NOTIFIED)
            self.advance()

    # Waits

    def park(self, waiter: Waiter, deadline: int | None) -> str:
        """Hold the calling thread until something lets it go. Returns why."""
        ident = waiter.ident
        if self._mover == ident:
            raise ClockError("a callback of the clock must not wait: the clock stands still until it returns")
        places = self.parked if ident in self.idents else self.outsiders
        # A signal handler may wait while the thread it interrupted does.
        outer = places.get(ident)
        try:
            with self.mu:
                if self.closed and waiter.why is None:
                    waiter.why = CLOSED
                if waiter.why is None:
                    places[ident] = waiter
                    if deadline is not None:
                        self.push(deadline, waiter)
                    if isinstance(waiter, PollWaiter):
                        self._polling.add(waiter)
                    self.advance()
                    if waiter.why is None:
                        waiter.arm()
            if waiter.why is None:
                waiter.hold()
        finally:
            if waiter.why is None or waiter.polls or outer is not None:
                self._leave(waiter, places, outer)
        return waiter.why or INTERRUPTED

    def block(self, waiter: Waiter, deadline: int | None) -> str:
        """`park` for a thread that has no life outside the clock: it is ended when the clock is."""
        why = self.park(waiter, deadline)
        if why is CLOSED:
            raise ClockStopped
        return why

    def _leave(self, waiter: Waiter, places: dict[int, Waiter], outer: Waiter | None) -> None:
        with self.mu:
            if waiter.why is None:
                waiter.why = INTERRUPTED
            if places.get(waiter.ident) is waiter:
                del places[waiter.ident]
            if isinstance(waiter, PollWaiter):
                self._polling.discard(waiter)
                waiter.disarm()
            if outer is not None and outer.why is None:
                places[waiter.ident] = outer

    def fire(self, waiter: Waiter, why: str) -> bool:
        """Let a waiting thread go: it counts as running from here on. The mutex is held."""
        if waiter.why is not None:
            return False
        waiter.why = why
        if self.parked.get(waiter.ident) is waiter:
            del self.parked[waiter.ident]
        elif self.outsiders.get(waiter.ident) is waiter:
            del self.outsiders[waiter.ident]
        waiter.open()
        return True

    def settle(self) -> None:
        """Until everybody else is blocked, at no virtual time."""
        waiter = Waiter(self, "settle")
        with self.mu:
            self._settlers.append(waiter)
        self.block(waiter, None)

    def instant(self, seconds: float) -> None:
        """A thread waited for less than half a nanosecond, or not at all.

        Loops of the `while rest >= 0: wait(rest)` kind (`as_completed`, `Popen.communicate`) spin for ever on a clock
        that lands exactly on their deadline, and sums of floats leave a rest of some 1e-11 s. So the float clock creeps
        by what was asked for, or by its smallest step, and only when that makes a nanosecond does the integer move.
        """
        if seconds <= 0.0:
            self._zero_waits += 1
            if self._zero_waits < _ZERO_WAITS:
                return
            seconds = 0.0
        crept = math.nextafter(self.seconds + seconds, math.inf)
        if crept - self.now / 1e9 < 1e-9:
            self.seconds = crept
            return
        with self.mu:
            alone = not self.holders and len(self.parked) + 1 >= len(self.members)
        if alone:
            self.block(Waiter(self, "shortest wait"), self.now + 1)

    # Time

    def push(self, deadline: int, item: Due) -> None:
        """The mutex is held."""
        item.deadline = deadline
        heapq.heappush(self._heap, (deadline, next(self._order), item))
        if len(self._heap) > self._compact_at:
            self._heap = [entry for entry in self._heap if entry[2].why is None]
            heapq.heapify(self._heap)
            self._compact_at = max(256, 2 * len(self._heap))

    def waiting(self) -> list[Waiter]:
        with self.mu:
            return [*self.parked.values(), *self.outsiders.values()]

    def pending(self) -> list[Due]:
        with self.mu:
            return [item for _, _, item in sorted(self._heap) if item.why is None]

    def quiet(self) -> bool:
        return not self.holders and len(self.parked) >= len(self.members) and not self.closed

    def advance(self) -> None:
        """Move the clock for as long as nobody runs. The mutex is held, and let go around callbacks."""
        asked = False
        while self._mover is None and self.quiet():
            if self._polling and self._poll():
                continue
            heap = self._heap
            while heap and heap[0][2].why is not None:
                heapq.heappop(heap)
            # What is due this instant is done before anybody is told that all is quiet.
            if self._settlers and not (heap and heap[0][0] <= self.now):
                settlers, self._settlers = self._settlers, []
                for waiter in settlers:
                    self.fire(waiter, SETTLED)
            elif heap:
                if heap[0][0] > self.now:
                    if self.before_jump and not asked:
                        # They may notice something that happened by now, and set a timer for it: look again.
                        asked = True
                        for call in tuple(self.before_jump):
                            self._call(call)
                        continue
                    self._jump(heap[0][0])
                    asked = False
                self._run_due()
            else:
                return

    def _jump(self, deadline: int) -> None:
        self.now = deadline
        self.seconds = deadline / 1e9
        self._zero_waits = 0

    def _poll(self) -> bool:
        return sum(self.fire(waiter, READY) for waiter in self._polling.copy() if waiter.ready()) > 0

    def _run_due(self) -> None:
        heap = self._heap
        while heap and heap[0][0] <= self.now:
            item = heapq.heappop(heap)[2]
            if item.why is not None:
                continue
            if isinstance(item, Waiter):
                self.fire(item, DUE)
            elif isinstance(item, Callback):
                item.why = DUE
                item.due()
                self._call(item.call)
                heap = self._heap  # a timer that the callback set may have had it compacted

    def _call(self, call: Callable[[], None]) -> None:
        """A callback runs on virtual time, whichever thread moves the clock, and with the mutex free."""
        ident = _thread.get_ident()
        guest = ident not in self.idents
        self._mover = ident
        if guest:
            self.idents.add(ident)
        self.mu.release()
        try:
            call()
        except Exception as error:
            # It is no business of the thread that happened to be the last to wait: raised when the clock is left.
            self.failures.append(error)
        finally:
            self.mu.acquire()
            self._mover = None
            if guest:
                self.idents.discard(ident)

    # Holding

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """The calling thread lives in real time inside the block. It goes on counting as one that runs."""
        ident = _thread.get_ident()
        belongs = ident in self.idents
        self.idents.discard(ident)
        try:
            yield
        finally:
            if belongs and not self.closed:
                self.idents.add(ident)

    def retain(self, holder: object) -> None:
        with self.mu:
            self.holders.add(holder)

    def let_go(self, holder: object) -> None:
        with self.mu:
            self.holders.discard(holder)
        self.reconsider()

    def reconsider(self) -> None:
        """Called after a change by a thread that does not wait. If it belongs, its next wait moves the clock."""
        if _thread.get_ident() not in self.idents:
            self.poke()

    def note(self, text: str) -> None:
        self.notes.append(f"+{(self.now - self.start) / 1e9:.9f} {text}")

    def close(self) -> list[Waiter]:
        """Let everybody go. Returns the waits of the threads that end by it."""
        with self.mu:
            self.closed = True
            self.idents.clear()
            return [waiter for waiter in self.waiting() if self.fire(waiter, CLOSED) and not waiter.lasting]
