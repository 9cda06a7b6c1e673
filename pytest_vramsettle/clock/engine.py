"""The clock's heart: who is blocked, what is due, and the jump from one deadline to the next.

The rule: the clock moves only while every thread that belongs to it waits on it, and nothing else holds it. What the
engine does not know (a raw lock, a raw read) counts as running. Of the threads whose wait is over, one runs at a time:
the one that has the baton. All state is guarded by one mutex, which is never held while anything waits or while a
callback runs. The mutex can be taken again by the thread that has it: a signal handler or a finaliser may set an event
in the middle of the engine's work.
"""

from __future__ import annotations

import _thread
import contextlib
import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_vramsettle.clock.baton import Baton
from pytest_vramsettle.clock.errors import ClockError, ClockStopped
from pytest_vramsettle.clock.timeline import Timeline
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

if TYPE_CHECKING:
    from pytest_vramsettle.clock.watchdog import Stray

# Waits for no time at all that a thread may make at one instant before the clock helps it along.
_ZERO_WAITS = 32


class Engine(Timeline):
    """`poke` has another thread move the clock, for callers that may hold locks of their own; `rouse` has it watch."""

    def __init__(self, poke: Callable[[], None], rouse: Callable[[], None], seed: int | None = None) -> None:
        super().__init__()
        self.mu = _thread.RLock()
        self.poke = poke
        self.rouse = rouse
        self.baton = Baton(seed)
        self.pid = os.getpid()
        self.closed = False
        self.members: set[Member] = set()
        self.idents: set[int] = set()
        self.parked: dict[int, Waiter] = {}
        # Waits of threads that do not belong: they have deadlines, and hold nothing.
        self.outsiders: dict[int, Waiter] = {}
        # What keeps the clock from moving besides a running thread: children at work, pauses.
        self.holders: set[object] = set()
        # Threads that run without the baton, and whether the clock takes them for blocked this moment.
        self.strays: dict[int, Stray] = {}
        self._beside_strays = False
        # Whether the thread with the baton does what takes its time.
        self.patient = False
        self.failures: list[BaseException] = []
        # Called, without the mutex, when the clock is about to move from one instant to another.
        self.before_jump: list[Callable[[], None]] = []
        # Threads that wait in selectors, in the order in which they came.
        self._polling: dict[PollWaiter, None] = {}
        self._settlers: list[Waiter] = []
        self._mover: int | None = None
        self._zero_waits = 0

    # Threads

    def enter(self, member: Member) -> None:
        """The calling thread, which enters the clock, is its first, and has the baton."""
        with self.mu:
            member.ident = self.baton.holder = _thread.get_ident()
            self.members.add(member)
            self.idents.add(member.ident)

    def join(self, member: Member) -> None:
        with self.mu:
            self.members.add(member)

    def enlist(self, member: Member, ident: int) -> None:
        """A new thread queues for its first turn. Its starter and the thread itself call this, whoever comes first."""
        with self.mu:
            if member.turn is None and not member.done:
                member.ident = ident
                member.turn = turn = Waiter(self, "start", ident=ident)
                self._queue(turn)

    def begin(self, member: Member) -> None:
        """The member's own thread has begun to run. Returns when it has the baton."""
        ident = _thread.get_ident()
        self.enlist(member, ident)
        with self.mu:
            if self.closed or member.turn is None:
                return
            self.idents.add(ident)
        self._hold(member.turn)

    def end(self, member: Member) -> None:
        """The member's own thread has nothing more to do."""
        with self.mu:
            member.done = True
            self.members.discard(member)
            if member.ident is not None:
                self.idents.discard(member.ident)
                self._stops(member.ident)
            for waiter in member.joiners:
                self.fire(waiter, NOTIFIED)
            self.advance()

    # Waits

    def park(self, waiter: Waiter, deadline: int | None) -> str:
        """Hold the calling thread until something lets it go, and it is its turn. Returns why."""
        ident = waiter.ident
        if self._mover == ident:
            raise ClockError("a callback of the clock must not wait: the clock stands still until it returns")
        waiter.belongs = ident in self.idents
        places = self.parked if waiter.belongs else self.outsiders
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
                        self._polling[waiter] = None
                    self._stops(ident)
                    self.advance()
                    if not waiter.go:
                        waiter.arm()
                else:
                    waiter.go = True
            if not waiter.go:
                waiter.hold()
        finally:
            if not waiter.go or waiter.polls or outer is not None:
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
            if isinstance(waiter, PollWaiter):
                self._polling.pop(waiter, None)
                waiter.disarm()
            if not waiter.go:
                self._interrupted(waiter, places)
            if outer is None:
                return
            # The handler is done; the wait that it interrupted goes on, without the baton.
            if outer.why is None:
                places[waiter.ident] = outer
                if self.closed:
                    self.fire(outer, CLOSED)
            elif outer.belongs:
                self.baton.ready.append(outer)
            if self.closed:
                self.baton.free_all()
            self.baton.drop(waiter.ident)
            self.advance()

    def _interrupted(self, waiter: Waiter, places: dict[int, Waiter]) -> None:
        """An exception came out of the wait itself. The thread runs, whoever has the baton. The mutex is held."""
        waiter.go = True
        if waiter.why is None:
            waiter.why = INTERRUPTED
        if places.get(waiter.ident) is waiter:
            del places[waiter.ident]
        with contextlib.suppress(ValueError):
            self.baton.ready.remove(waiter)
        if not self.baton.holder and waiter.belongs and not self.closed:
            self.baton.holder = waiter.ident

    def fire(self, waiter: Waiter, why: str) -> bool:
        """A thread's wait is over: it counts as running, and runs when its turn comes. The mutex is held."""
        if waiter.why is not None:
            return False
        waiter.why = why
        if not waiter.belongs:
            if self.outsiders.get(waiter.ident) is waiter:
                del self.outsiders[waiter.ident]
            waiter.open()
            waiter.go = True
        elif self.parked.get(waiter.ident) is waiter:
            del self.parked[waiter.ident]
            self.baton.ready.append(waiter)
        return True

    def wake(self, waiter: Waiter) -> bool:
        """`fire` for any thread: the woken one runs at once if nobody does."""
        with self.mu:
            fired = self.fire(waiter, NOTIFIED)
            self._go_on()
            return fired

    def heard(self, waiter: PollWaiter) -> None:
        """One of its descriptors is ready. The mutex is held."""
        if not self.baton.holder and self._mover is None:
            self.fire(waiter, READY)
            self._go_on()

    def _go_on(self) -> None:
        if self._mover is None:
            self.baton.give()

    # Turns

    def _stops(self, ident: int) -> None:
        """A thread does not run any longer. The mutex is held."""
        self.baton.drop(ident)
        if self.strays:
            self.strays.pop(ident, None)

    def _queue(self, turn: Waiter) -> None:
        """The mutex is held."""
        turn.belongs = True
        turn.why = NOTIFIED
        turn.arm()
        self.baton.ready.append(turn)
        if self.closed:
            self.baton.free_all()
        self._go_on()

    def _hold(self, turn: Waiter) -> None:
        try:
            turn.hold()
        finally:
            if not turn.go:
                with self.mu:
                    self._interrupted(turn, self.parked)

    def yield_turn(self) -> None:
        """Let those who are ready go first."""
        turn = Waiter(self, "its turn")
        with self.mu:
            if turn.ident in self.parked or any(waiter.ident == turn.ident for waiter in self.baton.ready):
                # A signal handler in the middle of a wait: it runs whenever it has to.
                return
            self._stops(turn.ident)
            self._queue(turn)
        self._hold(turn)

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
        if self.baton.ready or self.baton.holder != _thread.get_ident():
            self.yield_turn()
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

    def waiting(self) -> list[Waiter]:
        with self.mu:
            return [*self.parked.values(), *self.outsiders.values()]

    def pending(self) -> list[Due]:
        with self.mu:
            return self.pending_items()

    def quiet(self, beside: int = 0) -> bool:
        return not self.holders and len(self.parked) + beside >= len(self.members) and not self.closed

    def awaits_time(self) -> bool:
        """Whether anything would happen if the clock could move."""
        return bool(self._settlers) or self.next_deadline() is not None

    def advance(self) -> None:
        """Let the next thread run, or move the clock until there is one. The mutex is held, but not in callbacks."""
        asked = False
        while self._mover is None and not self.closed and not self.baton.holder:
            if self._polling and self._poll() and not self.baton.ready:
                continue
            if self.baton.ready:
                self.baton.give()
                return
            if not self.quiet(len(self.strays) if self._beside_strays else 0):
                return
            deadline = self.next_deadline()
            # What is due this instant is done before anybody is told that all is quiet.
            if self._settlers and (deadline is None or deadline > self.now):
                settlers, self._settlers = self._settlers, []
                for waiter in settlers:
                    self.fire(waiter, SETTLED)
            elif deadline is not None:
                if deadline > self.now:
                    if self.before_jump and not asked:
                        # They may notice something that happened by now, and set a timer for it: look again.
                        asked = True
                        for call in tuple(self.before_jump):
                            self._call(call)
                        continue
                    self._jump(deadline)
                    asked = False
                self._run_due()
            else:
                return

    def _jump(self, deadline: int) -> None:
        self.now = deadline
        self.seconds = deadline / 1e9
        self._zero_waits = 0
        # One jump, and they are looked at again.
        self._beside_strays = False

    def move_beside_strays(self) -> None:
        """The strays are taken for blocked until the clock has made a jump. The mutex is held."""
        self._beside_strays = True
        self.advance()
        self._beside_strays = False

    def _poll(self) -> bool:
        """Whether a thread waits for a descriptor that is ready. The thread itself may be about to say so."""
        found = False
        for waiter in tuple(self._polling):
            if waiter.why is None:
                if waiter.ready():
                    found = self.fire(waiter, READY) or found
                else:
                    waiter.listen()
        return found

    def _run_due(self) -> None:
        while (item := self.next_due()) is not None:
            if isinstance(item, Waiter):
                self.fire(item, DUE)
            elif isinstance(item, Callback):
                item.why = DUE
                item.due()
                self._call(item.call)

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
    def unseen(self) -> Iterator[None]:
        """The calling thread lives in real time inside the block, and keeps the baton: it waits for no other thread."""
        ident = _thread.get_ident()
        belongs = ident in self.idents
        self.idents.discard(ident)
        self.patient = True
        try:
            yield
        finally:
            self.patient = False
            if belongs and not self.closed:
                self.idents.add(ident)

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """The calling thread lives in real time inside the block, beside the thread that has the baton meanwhile.

        It goes on counting as one that runs.
        """
        ident = _thread.get_ident()
        belongs = ident in self.idents
        self.idents.discard(ident)
        try:
            if belongs:
                with self.mu:
                    self.baton.drop(ident)
                    self.advance()
            yield
        finally:
            if belongs and not self.closed:
                self.idents.add(ident)
                self.yield_turn()

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

    def close(self) -> list[Waiter]:
        """Let everybody go. Returns the waits of the threads that end by it."""
        with self.mu:
            self.closed = True
            self.idents.clear()
            ended = [waiter for waiter in self.waiting() if self.fire(waiter, CLOSED) and not waiter.lasting]
            self.baton.free_all()
            return ended
