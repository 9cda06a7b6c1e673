"""The clock's heart: who is blocked, what is due, and the jump from one deadline to the next.

The rule: the clock moves only while every thread that belongs to it waits on it, and nothing else holds it. What the
engine does not know (a raw lock, a raw read) counts as running.
"""

from __future__ import annotations

import _thread
import math
import os
from collections.abc import Callable
from itertools import repeat

from pytest_vramsettle.clock import busy, deadlock, real
from pytest_vramsettle.clock.errors import BusyLoop, ClockError, ClockStopped, VirtualDeadlock
from pytest_vramsettle.clock.mutex import Mutex
from pytest_vramsettle.clock.traffic import Traffic
from pytest_vramsettle.clock.turns import Turns
from pytest_vramsettle.clock.waits import (
    CLOSED,
    DEADLOCK,
    DUE,
    INTERRUPTED,
    READY,
    SETTLED,
    Callback,
    PollWaiter,
    Waiter,
)

# Waits for no time at all that a thread may make at one instant before the clock helps it along.
_ZERO_WAITS = 32
# And that all threads together may make while nothing else happens, before that is an error.
BUSY = 100_000
# And how often the time may be read at one instant.
READS = 5_000_000
# Every how many of them threads outside of the clock are let at the interpreter.
_REAL_YIELD = 16


class Engine(Turns):
    """`poke` has another thread move the clock, for callers that may hold locks of their own; `rouse` has it watch."""

    def __init__(
        self, poke: Callable[[], None], rouse: Callable[[], None], grace: float, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self.poke = poke
        self.rouse = rouse
        self.has_children: Callable[[], bool] = bool
        # Real seconds for which anybody may keep the clock from moving without doing anything.
        self.grace = grace
        self.pid = os.getpid()
        # Whether all wait for ever, unless a thread from before the clock wakes one.
        self.doubtful = False
        # Whether something may be on its way from another process.
        self.expecting = False
        # Real time, until when it certainly may, and since when it is waited for at this instant of the clock.
        self._expected_until = self._expecting_since = 0.0
        self.traffic = Traffic()
        # What keeps the clock from moving besides a running thread: children at work, pauses.
        self.holders: set[object] = set()
        # Whether the strays are taken for blocked this moment.
        self._beside_strays = False
        self.failures: list[BaseException] = []
        # Called, without the mutex, when the clock is about to move from one instant to another.
        self.before_jump: list[Callable[[], None]] = []
        # Threads that wait in selectors, in the order in which they came.
        self._polling: dict[PollWaiter, None] = {}
        self._settlers: list[Waiter] = []
        # Runs out where the clock is read without end.
        self.reads = repeat(True, READS)
        self._zero_waits = 0
        # The same, for the whole clock, since anything else has happened on it.
        self._spins = 0

    # Waits

    def park(self, waiter: Waiter, deadline: int | None) -> str:
        """Hold the calling thread until something lets it go, and it is its turn. Returns why."""
        ident = waiter.ident
        if self._mover == ident:
            raise ClockError("a callback of the clock must not wait: the clock stands still until it returns")
        waiter.belongs = ident in self.idents and ident not in self.detached
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
        if waiter.why is DEADLOCK:
            raise VirtualDeadlock(deadlock.report(self, waiter))
        return waiter.why or INTERRUPTED

    def block(self, waiter: Waiter, deadline: int | None) -> str:
        """`park` for a thread that has no life outside the clock: it is ended when the clock is."""
        why = self.park(waiter, deadline)
        if why is CLOSED or (self.closed and waiter.ident != self.main):
            raise ClockStopped("the virtual clock was left while this thread waited on it")
        return why

    def _leave(self, waiter: Waiter, places: dict[int, Waiter], outer: Waiter | None) -> None:
        with self.mu:
            if isinstance(waiter, PollWaiter):
                self._polling.pop(waiter, None)
                self.expecting = self.expecting and bool(self._polling)
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

    def settle(self) -> None:
        """Until everybody else is blocked, at no virtual time."""
        waiter = Waiter(self, "settle")
        with self.mu:
            self._settlers.append(waiter)
        self.block(waiter, None)

    def instant(self, seconds: float, counts: bool = True) -> None:
        """A thread waited for less than half a nanosecond, or not at all.

        Loops of the `while rest >= 0: wait(rest)` kind (`as_completed`, `Popen.communicate`) spin for ever on a clock
        that lands exactly on their deadline, and sums of floats leave a rest of some 1e-11 s. So the float clock creeps
        by what was asked for, or by its smallest step, and only when that makes a nanosecond does the integer move.
        """
        if self.baton.ready or self.baton.holder != _thread.get_ident():
            self.yield_turn()
        self._spins += counts
        if counts and not self._spins % _REAL_YIELD:
            real.sleep(0)
        if self._spins >= BUSY:
            self._spins = 0
            with self.mu:
                if not (self.holders or deadlock.may_be_woken(self)):
                    raise BusyLoop(busy.text(f"{BUSY} waits of no length"))
        if seconds <= 0.0:
            self._zero_waits += 1
            if self._zero_waits < _ZERO_WAITS:
                return
            seconds = 0.0
        crept = math.nextafter(self.seconds + seconds, math.inf)
        if crept - self.landed < 1e-9:
            self.seconds = crept
            return
        with self.mu:
            alone = not self.holders and len(self.parked) + 1 >= len(self.members)
        if alone:
            self.block(Waiter(self, "shortest wait"), self.now + 1)

    def overread(self) -> None:
        """Somebody has read the clock so often that nothing can be meant by it but to wait until it moves."""
        self.reads = repeat(True, READS)
        with self.mu:
            watched = len(self.members) > 1 and self.awaits_time()
            if not (watched or self.holders or deadlock.may_be_woken(self)):
                raise BusyLoop(busy.text(f"{READS} looks at the time"))

    # Time

    def quiet(self, beside: int = 0) -> bool:
        return not self.holders and len(self.parked) + beside >= len(self.members) and not self.closed

    def awaits_time(self) -> bool:
        """Whether anything would happen if the clock could move."""
        return bool(self._settlers) or self.next_deadline() is not None

    def polls(self) -> bool:
        """Whether a thread waits in a selector: what it waits for may be there already, whoever has the baton."""
        return bool(self._polling)

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
            if self._polling and self._expects(deadline):
                return
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
            elif not self._is_stuck():
                return

    def _expects(self, deadline: int | None) -> bool:
        """Whether something may be on its way that has to come before the clock goes on."""
        self.expecting = False
        if (deadline is None and not self._settlers) or (deadline is not None and deadline <= self.now):
            return False
        now = real.monotonic()
        if now >= self._expected_until and not any(
            self.traffic.under_way(tuple(waiter.registered), waiter.since, self._beside_others)
            for waiter in self._polling
            if waiter.belongs
        ):
            return False
        if not self._expecting_since:
            self._expecting_since = now
        if now - self._expecting_since >= self.grace:
            self.note(f"something has come for {self.grace} s of real time: it is no longer waited for")
            return False
        self.expecting = True
        self.rouse()
        return True

    def expect_until(self, instant: float) -> None:
        """A thread that waits in a selector is going to hear of something by that real time. The mutex is held."""
        self._expected_until = instant

    def _beside_others(self) -> bool:
        return bool(deadlock.foreigners(self))

    def _is_stuck(self) -> bool:
        """Nothing is due. Whether that was told to the thread that entered the clock."""
        self.doubtful = False
        if self._beside_strays or self.main not in self.parked or deadlock.may_be_woken(self):
            return False
        if deadlock.foreigners(self):
            self.doubtful = True
            self.rouse()
            return False
        return self.tell_deadlock()

    def tell_deadlock(self) -> bool:
        """The mutex is held."""
        self.doubtful = False
        waiter = self.parked.get(self.main)
        return waiter is not None and self.fire(waiter, DEADLOCK)

    def _jump(self, deadline: int) -> None:
        if deadline > self.now + 1:
            self._spins = 0
            self.reads = repeat(True, READS)
        self._expecting_since = 0.0
        self.move_to(deadline)
        self._zero_waits = 0
        # One jump, and they are looked at again.
        self._beside_strays = False

    def move_beside_strays(self) -> None:
        """The strays are taken for blocked until the clock has made a jump. The mutex is held."""
        self._beside_strays = True
        self.advance()
        self._beside_strays = False

    def heard(self, waiter: PollWaiter) -> None:
        """One of its descriptors is ready. The mutex is held."""
        self.traffic.came(tuple(waiter.registered))
        super().heard(waiter)

    def _poll(self) -> bool:
        """Whether a thread waits for a descriptor that is ready. The thread itself may be about to say so."""
        found = False
        for waiter in tuple(self._polling):
            if waiter.why is None:
                if waiter.ready():
                    self.traffic.came(tuple(waiter.registered))
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
        try:
            self.mu.release()
            call()
        except Exception as error:
            # It is no business of the thread that happened to be the last to wait: raised when the clock is left.
            self.failures.append(error)
        finally:
            # What a signal's handler raises here comes once the mutex is back: the caller is going to release it.
            interrupt: BaseException | None = None
            while True:
                try:
                    if not self.mu._is_owned():  # type: ignore[attr-defined]  # the stub leaves out what is private
                        self.mu.acquire()
                    break
                except BaseException as error:
                    interrupt = error
            self._mover = None
            if guest:
                self.idents.discard(ident)
            if interrupt is not None:
                raise interrupt

    # Holding

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

    def forget(self) -> None:
        """In a forked child: nobody is there to give a turn to, or to let go of the mutex."""
        self.mu = Mutex()
        self.closed = True
        self.idents.clear()
        self.poke = self.rouse = _nothing


def _nothing() -> None:
    pass
