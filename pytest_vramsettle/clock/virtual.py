"""`VirtualClock`: what a test, a fixture and the driver see of the clock."""

from __future__ import annotations

import contextlib
import math
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pytest_vramsettle._clock_arguments import check_grace, check_seed
from pytest_vramsettle.clock import patches, real
from pytest_vramsettle.clock.active import mine, slot
from pytest_vramsettle.clock.children import Children
from pytest_vramsettle.clock.errors import ClockError, ClockStopped
from pytest_vramsettle.clock.threads import wait_on
from pytest_vramsettle.clock.waits import ANSWER, CANCELLED, FOR_EVER, Callback, Member, Waiter, nanoseconds

# How long, in real seconds, leaving the clock waits for the threads that it ends.
_ENDING = 0.5


@dataclass(frozen=True, slots=True)
class Timer:
    """Something that is due at `at`, in seconds since the clock was entered."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """A thread that waits on the clock; `until` in seconds since the clock was entered, None without a deadline."""

    thread: str
    what: str
    until: float | None


class VirtualClock:
    """Monotonic time that stands still while anybody works and jumps to the next deadline when nobody does.

    `with VirtualClock() as clock:` rules the thread that enters it, the threads and child processes started from
    there, and what they wait with; everybody else lives in real time. `child_grace` is in real seconds: a child that
    has used no processor for so long no longer holds the clock. A clock is entered once.

    Of the threads that could run one does, in an order that is the same in every run; another `seed` is another order.

    What the clock does not know of (a lock taken directly, a raw read, `select.select`, a C extension that sleeps)
    counts as work: time stands still until it is over. Leaving the clock ends the threads that still wait on it
    (`ClockStopped`), and raises what callbacks have raised.
    """

    is_real_time = False

    def __init__(self, *, seed: int | None = None, child_grace: float = 1.0) -> None:
        check_seed(seed)
        check_grace(child_grace)
        self._children = Children(child_grace, seed)
        self._engine = self._children.engine
        self._entered = False

    def __enter__(self) -> VirtualClock:
        """Raises `ClockError` where another clock, freezegun or time-machine is active."""
        if self._entered:
            raise ClockError("a VirtualClock can be entered once: make another")
        patches.refuse_conflicts()
        self._entered = True
        engine = self._engine
        engine.begin_now()
        member = Member(threading.current_thread())
        engine.enter(member)
        try:
            patches.install(self._children)
            return self
        except BaseException:
            patches.restore()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        engine = self._engine
        if slot.engine is not engine:
            # After a fork: the child has none.
            return
        try:
            self._last_turns()
        finally:
            try:
                patches.restore()
            finally:
                members = list(engine.members)
                ended = {waiter.ident for waiter in engine.close()}
                self._children.close()
        limit = real.monotonic() + _ENDING
        for member in members:
            if member.ident in ended:
                real.thread_join(member.thread, max(0.0, limit - real.monotonic()))
        if error is not None:
            for failure in engine.failures:
                error.add_note(f"Meanwhile a callback of the virtual clock raised {failure!r}.")
        elif engine.failures:
            raise engine.failures[0]

    def _last_turns(self) -> None:
        """Who could run, runs until it is blocked; who was started has begun. No time passes."""
        engine = self._engine
        limit = real.monotonic() + _ENDING
        while engine.baton.ready and real.monotonic() < limit:
            engine.yield_turn()

    # What the driver asks

    def monotonic_ns(self) -> int:
        """Now, for every thread. The real time before the clock is entered; where it stopped once it was left."""
        return self._engine.now if self._entered else real.monotonic_ns()

    def wait(self, released: threading.Event, deadline_ns: int | None) -> None:
        """Hold the calling thread until the deadline (None: for ever) or until `released` is set.

        A thread that does not belong to the clock is let go at the deadline too, but does not keep the clock from
        going on.
        """
        engine = self._engine
        if slot.engine is not engine:
            released.wait(None if deadline_ns is None else max(0, deadline_ns - engine.now) / 1e9)
            return
        condition: threading.Condition = released._cond  # type: ignore[attr-defined]  # to wait until an exact instant
        try:
            with condition:
                while not released.is_set() and (deadline_ns is None or engine.now < deadline_ns):
                    wait_on(engine, condition, Waiter(engine, ANSWER), deadline_ns)
        except ClockStopped:
            if threading.get_ident() in {member.ident for member in list(engine.members)}:
                raise

    def call_at(self, deadline_ns: int, callback: Callable[[], None]) -> Callable[[], None]:
        """Have the clock call `callback` at an instant, before it goes on. Returns what cancels it.

        It runs in the thread that moves the clock, on virtual time, with none of the clock's locks held, and must not
        wait. What it raises is raised when the clock is left.
        """
        engine = self._engine
        item = Callback(getattr(callback, "__qualname__", None) or repr(callback), callback)
        with engine.mu:
            engine.push(deadline_ns, item)
        if slot.engine is engine:
            engine.reconsider()

        def cancel() -> None:
            with engine.mu:
                if item.why is None:
                    item.why = CANCELLED

        return cancel

    def before_jump(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have the clock call `callback` whenever it is about to leave an instant. Returns what ends that.

        As with `call_at`: in the thread that moves the clock, with none of its locks held, and it must not wait.
        """
        calls = self._engine.before_jump
        calls.append(callback)
        return lambda: calls.remove(callback) if callback in calls else None

    def client_waits(self, pid: int, deadline_ns: int | None, wake: Callable[[], None]) -> Callable[[], None]:
        """Process `pid` waits for an answer that is due at the deadline (None: never).

        Until then it does not hold the clock; when the clock gets there it calls `wake`, and the process holds it
        again until it exits or asks once more. Returns what cancels the wait (the client went away).
        """
        if slot.engine is not self._engine:
            return _nothing
        return self._children.client_waits(pid, deadline_ns, wake)

    # What a test asks

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the clock was entered."""
        return self.elapsed_ns / 1e9

    @property
    def elapsed_ns(self) -> int:
        """The same in nanoseconds, exact."""
        return self._engine.now - self._engine.start

    def sleep(self, seconds: float) -> None:
        """`time.sleep` on this clock, also for a thread that does not belong to it."""
        self._require_active()
        if not seconds >= 0:
            raise ValueError(f"a time to sleep must not be negative: {seconds!r}")
        if seconds:
            self._engine.block(Waiter(self._engine, "sleep"), self._engine.now + nanoseconds(seconds))

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, with every timer on the way and at the very end, then `settle`.

        Raises TypeError or ValueError for what is no duration below 31 years, and `ClockError` in a thread that does
        not belong to the clock.
        """
        self._require_member("advanced")
        if not isinstance(seconds, (int, float)):
            raise TypeError(f"the clock is advanced by a number of seconds, not {seconds!r}")
        if not 0 <= seconds < FOR_EVER:
            raise ValueError(f"the clock is advanced by a duration from 0 to {FOR_EVER:.0e} s, not {seconds!r}")
        if seconds:
            self._engine.block(Waiter(self._engine, "advance"), self._engine.now + nanoseconds(seconds))
        self.settle()

    def settle(self) -> None:
        """Let everybody else run until they are blocked, in no virtual time. What is due this instant is done too.

        Raises `ClockError` in a thread that does not belong to the clock.
        """
        self._require_member("settled")
        self._engine.settle()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No jumps inside the block: whoever waits for an instant waits until the block is left."""
        self._require_active()
        pause = object()
        try:
            self._engine.retain(pause)
            yield
        finally:
            # First of all, and in one step: an interrupt in `let_go` would leave the clock held for ever.
            self._engine.holders.discard(pause)
            self._engine.reconsider()

    @contextlib.contextmanager
    def real_time(self) -> Iterator[None]:
        """The calling thread, and the threads it starts, live in real time inside the block; the clock is held.

        For what must not belong to the test: the driver's server thread, a timer that guards the test.
        """
        with self._engine.outside():
            yield

    def real_sleep(self, seconds: float) -> None:
        """Sleep in real time, with the clock held. Other threads may run meanwhile."""
        with self._engine.outside():
            real.sleep(seconds)

    def detach(self, what: subprocess.Popen[Any] | int | threading.Thread) -> None:
        """A child process (or its PID) or a running thread that does not hold the clock, whatever it does.

        The thread still reads the clock and waits on it, and runs beside whoever has the baton.
        """
        self._require_active()
        if isinstance(what, threading.Thread):
            self._engine.detach(what)
        else:
            self._children.detach(what if isinstance(what, int) else what.pid)

    def timers(self) -> tuple[Timer, ...]:
        """What is pending, soonest first."""
        return tuple(Timer(self._since_start(item.deadline), item.what) for item in self._engine.pending())

    def blocked(self) -> tuple[Blocked, ...]:
        """The threads that wait on the clock, without the caller."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return tuple(
            Blocked(
                names.get(waiter.ident, f"thread {waiter.ident}"),
                waiter.what,
                None if waiter.deadline is None else self._since_start(waiter.deadline),
            )
            for waiter in self._engine.waiting()
            if waiter.ident != threading.get_ident()
        )

    @property
    def trace(self) -> tuple[str, ...]:
        """What happened, in order, each line with its virtual time.

        Children that were started, ended, detached or found idle, and what ran out of order.
        """
        return tuple(self._engine.notes)

    def _since_start(self, deadline: int | None) -> float:
        return math.inf if deadline is None else (deadline - self._engine.start) / 1e9

    def _require_member(self, done: str) -> None:
        self._require_active()
        if mine() is not self._engine:
            raise ClockError(
                f"the clock cannot be {done} by {threading.current_thread().name}, which does not belong to it: it "
                "would wait for the thread that may be waiting for it. Do it in a thread of the clock; to sleep on it "
                "from outside there is clock.sleep()"
            )

    def _require_active(self) -> None:
        if slot.engine is not self._engine:
            raise ClockError(f"{self!r} is not active")

    def __repr__(self) -> str:
        engine = self._engine
        if slot.engine is not engine:
            state = f"left at +{self.elapsed:.9f} s" if self._entered else "not entered"
            return f"<VirtualClock, {state}>"
        with engine.mu:
            threads = f"{len(engine.members)} threads, {len(engine.parked)} of them blocked"
            held = ["paused()" if type(holder) is object else repr(holder) for holder in engine.holders]
        following = next((f"next timer at +{timer.at:.9f} s" for timer in self.timers()), "no timer")
        holders = ", held by " + ", ".join(held) if held else ""
        return f"<VirtualClock at +{self.elapsed:.9f} s, {threads}, {following}{holders}>"


def virtual_clock(*, seed: int | None = None, child_grace: float = 1.0) -> Iterator[VirtualClock]:
    """What a fixture needs: yields an active clock, and leaves it."""
    with VirtualClock(seed=seed, child_grace=child_grace) as clock:
        yield clock


def _nothing() -> None:
    pass
