"""The threads of a clock: which belong to it, which of them wait, and whose turn it is.

All state is guarded by one mutex, which is never held while anything waits or while a callback runs. The mutex can be
taken again by the thread that has it: a signal handler or a finaliser may set an event in the middle of this work.
"""

from __future__ import annotations

import _thread
import abc
import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_vramsettle.clock.baton import Baton
from pytest_vramsettle.clock.errors import ClockError, ClockStopped
from pytest_vramsettle.clock.mutex import Mutex
from pytest_vramsettle.clock.timeline import Timeline
from pytest_vramsettle.clock.waits import INTERRUPTED, NOTIFIED, READY, Due, Member, PollWaiter, Waiter

if TYPE_CHECKING:
    from pytest_vramsettle.clock.watchdog import Stray


class Turns(Timeline, abc.ABC):
    """Of the threads whose wait is over, one runs at a time: the one that has the baton."""

    def __init__(self, seed: int | None) -> None:
        super().__init__()
        self.mu = Mutex()
        self.baton = Baton(seed)
        # The thread that entered the clock.
        self.main = 0
        self.closed = False
        self.members: set[Member] = set()
        self.idents: set[int] = set()
        # Threads on virtual time that hold nothing.
        self.detached: set[int] = set()
        self.parked: dict[int, Waiter] = {}
        # Waits of threads that do not belong: they have deadlines, and hold nothing.
        self.outsiders: dict[int, Waiter] = {}
        # Threads that run without the baton.
        self.strays: dict[int, Stray] = {}
        # Whether the thread with the baton does what takes its time.
        self.patient = False
        # The thread that moves the clock this moment, and calls callbacks.
        self._mover: int | None = None

    @abc.abstractmethod
    def advance(self) -> None:
        """Let the next thread run, or move the clock until there is one. The mutex is held, but not in callbacks."""

    # Coming and going

    def enter(self, member: Member) -> None:
        """The calling thread, which enters the clock, is its first, and has the baton."""
        with self.mu:
            member.ident = self.main = self.baton.holder = _thread.get_ident()
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
        """The member's own thread has begun to run. Returns when it has the baton.

        Raises `ClockStopped` where the clock was left before.
        """
        ident = _thread.get_ident()
        self.enlist(member, ident)
        with self.mu:
            if not (self.closed or member.done):
                self.idents.add(ident)
        if member.turn is not None:
            self._hold(member.turn)
        if self.closed or member.done:
            raise ClockStopped("the virtual clock was left before this thread had its first turn")

    def end(self, member: Member) -> None:
        """The member's own thread has nothing more to do."""
        with self.mu:
            member.done = True
            self.members.discard(member)
            if member.ident is not None:
                self.detached.discard(member.ident)
                self.idents.discard(member.ident)
                self._stops(member.ident)
            for waiter in member.joiners:
                self.fire(waiter, NOTIFIED)
            self.advance()

    def detach(self, thread: threading.Thread) -> None:
        """Raises `ClockError` for a thread that does not belong to the clock, and for the one that entered it."""
        with self.mu:
            member = next((member for member in self.members if member.thread is thread), None)
            if member is None or member.ident is None or member.ident == self.main:
                raise ClockError(f"{thread!r} cannot be detached: only threads that were started on the clock can")
            ident = member.ident
            self.members.discard(member)
            self.detached.add(ident)
            waiter = self.parked.pop(ident, None)
            if waiter is not None:
                waiter.belongs = False
                self.outsiders[ident] = waiter
            for turn in [turn for turn in self.baton.ready if turn.ident == ident]:
                self.baton.ready.remove(turn)
                turn.open()
                turn.go = True
            self._stops(ident)
            self.note(f"{thread.name} was detached")
            if ident != _thread.get_ident():
                self._go_on()
            else:
                self.advance()

    # Waking

    def pending(self) -> list[Due]:
        with self.mu:
            return self.pending_items()

    def waiting(self) -> list[Waiter]:
        with self.mu:
            return [*self.parked.values(), *self.outsiders.values()]

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

    def _hold(self, turn: Waiter, queue: bool = False) -> None:
        try:
            if queue:
                with self.mu:
                    self._stops(turn.ident)
                    self._queue(turn)
            turn.hold()
        finally:
            if not turn.go:
                with self.mu:
                    self._interrupted(turn, self.parked)

    def yield_turn(self) -> None:
        """Let those who are ready go first."""
        turn = Waiter(self, "its turn")
        with self.mu:
            waits = turn.ident in self.parked or any(waiter.ident == turn.ident for waiter in self.baton.ready)
            if waits or turn.ident in self.detached:
                # A signal handler in the middle of a wait: it runs whenever it has to.
                return
        self._hold(turn, queue=True)

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

    # In real time

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        """The calling thread lives in real time inside the block, and keeps the baton: it waits for no other thread."""
        ident = _thread.get_ident()
        belongs = ident in self.idents
        try:
            self.idents.discard(ident)
            self.patient = True
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
        try:
            self.idents.discard(ident)
            if belongs:
                with self.mu:
                    self.baton.drop(ident)
                    self.advance()
            yield
        finally:
            if belongs and not self.closed:
                self.idents.add(ident)
                self.yield_turn()
