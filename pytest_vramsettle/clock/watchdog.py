"""The watchdog: no thread keeps the baton, and none keeps the clock for ever, by waiting or spinning outside of it.

It looks from the watcher's thread, only while a clock has two threads or more, and reads no more than a counter while
they make calls to the clock. A thread that makes none and uses no processor is blocked in what the clock does not know
(a raw read, a lock from before); one that does is given `_SPINNING` looks. Then the baton goes on without it. Time
stands still for it, as for any thread that runs, but not for ever: once it has used no processor for `grace` real
seconds the clock jumps, and beside one that spins, deadlines come at the pace of real time.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_vramsettle.clock import deadlock, proc, real

if TYPE_CHECKING:
    from pytest_vramsettle.clock.engine import Engine

PERIOD = 0.005
"""Real seconds from one look to the next."""

# Looks. A thread that waits for the interpreter's lock tries again in every switch interval (5 ms), which uses the
# processor: two of them without any tell it from one that is blocked. Looks, not seconds: on a machine that stands
# still there are none.
_BLOCKED, _SPINNING = 2, 20
# The same while it does what takes its time and needs none of the other threads: starting a process, say, or coming by
# the engine's mutex, which another thread may hold that waits for the interpreter's lock.
_PATIENT = 100
# Once the clock has jumped beside a blocked thread: real seconds in which it may react before the next jump.
_REACTION = 0.01


# Where a thread of the clock comes by the mutex.
_ENGINE = frozenset(f"pytest_vramsettle.clock.{name}" for name in ("baton", "engine", "turns", "waits"))


class Stray:
    """A thread that belongs to the clock and runs, or is blocked, without the baton."""

    __slots__ = ("_clock", "_native", "_used", "ident", "moved_at", "tolerated")

    def __init__(self, ident: int, native: int) -> None:
        self.ident = ident
        self._native = native
        # The clock of a thread's processor time, as pthread_getcpuclockid makes it, which must not be asked about a
        # thread that has ended (linux/posix-timers_types.h).
        self._clock = ~native << 3 | 6
        self._used = -1
        self.moved_at = real.monotonic()
        # Whether the clock has moved beside it.
        self.tolerated = False

    def still(self) -> bool:
        """Whether it has used no processor since the last call, and does not wait for one."""
        try:
            used = real.clock_gettime_ns(self._clock)
        except OSError:
            # It has ended.
            used = -1
        moved, self._used = used != self._used, used
        if moved or proc.thread_runs(self._native):
            self.moved_at = real.monotonic()
            return False
        return True


class Watchdog:
    """All of it with the engine's mutex held, which is also what keeps the threads alive that are looked at."""

    def __init__(self, engine: Engine, grace: float) -> None:
        self._engine = engine
        self._grace = grace
        self._moves = -1
        self._since = 0.0
        self._looks = self._still = 0
        self._suspect: Stray | None = None
        self._foreigners: dict[int, Stray] = {}

    def look(self) -> None:
        engine = self._engine
        moves, holder = engine.baton.moves, engine.baton.holder
        if moves != self._moves:
            self._moves, self._since = moves, real.monotonic()
            self._looks = self._still = 0
            self._suspect = None
            self._foreigners = {}
        elif holder:
            self._look_at_holder(holder)
        elif engine.baton.ready or not engine.quiet(beside=len(engine.strays)):
            pass
        elif engine.strays and engine.awaits_time():
            self._look_at_strays()
        elif engine.doubtful:
            self._look_at_foreigners()

    def _look_at_holder(self, ident: int) -> None:
        engine = self._engine
        if not (engine.baton.ready or engine.awaits_time() or engine.polls()):
            return
        if self._suspect is None:
            self._suspect = self.stray(ident)
            if self._suspect is None:
                return
        self._looks += 1
        self._still = self._still + 1 if self._suspect.still() else 0
        if self._looks < _PATIENT and (engine.patient or _in_the_engine(ident)):
            return
        if self._still >= _BLOCKED or self._looks >= _SPINNING:
            self._pass_on(self._suspect)

    def stray(self, ident: int) -> Stray | None:
        """None for a thread that is just coming up, or that is none of the clock's."""
        member = next((member for member in self._engine.members if member.ident == ident), None)
        native = None if member is None else member.thread.native_id
        return None if native is None else Stray(ident, native)

    def _pass_on(self, stray: Stray) -> None:
        engine = self._engine
        if engine.baton.ready:
            self._note(stray, self._still >= _BLOCKED, "and others run beside it")
        engine.strays[stray.ident] = stray
        engine.baton.drop(stray.ident)
        engine.advance()

    def _look_at_strays(self) -> None:
        """Nothing but them keeps the clock from moving."""
        engine, now = self._engine, real.monotonic()
        strays = list(engine.strays.values())
        still = sum(stray.still() for stray in strays) == len(strays)
        need = _REACTION if all(stray.tolerated for stray in strays) else self._grace
        since = self._since
        if still:
            since = max(since, *(stray.moved_at for stray in strays))
        else:
            need = max(0.0 if need == _REACTION else need, engine.until_next() / 1e9)
        if now - since < need:
            return
        for stray in strays:
            if not stray.tolerated:
                stray.tolerated = True
                goes = "no longer waits for it" if still else "goes on at the pace of real time"
                self._note(stray, still, f"which {goes}")
        self._since = now
        engine.move_beside_strays()

    def _look_at_foreigners(self) -> None:
        """A thread from before the clock that uses no processor for so long is about to wake nobody."""
        found = {thread.native_id: thread.ident for thread in deadlock.foreigners(self._engine)}
        for native, ident in found.items():
            if native is not None and ident is not None and native not in self._foreigners:
                self._foreigners[native] = Stray(ident, native)
        strays = self._foreigners.values()
        if sum(stray.still() for stray in strays) < len(strays):
            return
        since = max([self._since, *(stray.moved_at for stray in strays)])
        if real.monotonic() - since >= self._grace and self._engine.tell_deadlock():
            self._engine.advance()

    def _note(self, stray: Stray, still: bool, goes: str) -> None:
        does = "is blocked outside of the clock" if still else "makes no call to the clock"
        self._engine.note(f"unordered: {self._name(stray)} {does}, {goes}. It is at\n{_stack(stray)}")

    def _name(self, stray: Stray) -> str:
        return next((member.thread.name for member in self._engine.members if member.ident == stray.ident), "?")


def _in_the_engine(ident: int) -> bool:
    frame = sys._current_frames().get(ident)
    return frame is not None and frame.f_globals.get("__name__") in _ENGINE


def _stack(stray: Stray) -> str:
    return deadlock.stack(sys._current_frames().get(stray.ident))
