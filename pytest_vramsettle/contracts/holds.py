"""What traced locks write down. Times are nanoseconds of the virtual clock, where the thread is on one."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from time import monotonic_ns
from types import CodeType
from typing import Any

from pytest_vramsettle.clock.active import slot
from pytest_vramsettle.contracts.errors import HoldFailure

Holder = Any
"""A `threading.Thread`, or the `asyncio.Task` that holds an asyncio lock."""

Taken = tuple[str, int, CodeType, int]
"""A lock's name, since when it is held, and the code and the offset in it that took it."""

Ended = tuple[str, Holder, int, int, CodeType, int]
"""A lock's name, its holder, from when to when, and what took it."""


def now_ns() -> int:
    """Not through `time`, which the clock counts as a look at it."""
    engine = slot.engine
    if engine is not None and get_ident() in engine.idents:
        return engine.now
    return monotonic_ns()


@dataclass(frozen=True, slots=True)
class Hold:
    """One interval: from the outermost acquisition to the release that freed the lock."""

    lock: str
    holder: Holder
    start_ns: int
    end_ns: int
    where: str

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True)
class WatchedCall:
    """A call that was watched: who made it and where, and the traced locks that its thread or task held around it.

    `free` are those that another thread could take at some moment of it: when it began, when it ended, or as somebody
    let go of them in between.
    """

    name: str
    holder: Holder
    at_ns: int
    where: str
    held: tuple[tuple[str, str], ...]
    free: tuple[str, ...]


class LockTrace:
    """Who held what, and in which order locks were taken. Filled by traced locks, from any thread."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.watched: list[str] = []
        # Locks of a class that no instance has assigned yet.
        self.awaited: set[str] = set()
        self.calls: list[WatchedCall] = []
        # By holder, not by thread number, which is given out again.
        self.stacks: dict[Holder, list[Taken]] = {}
        self.ended: list[Ended] = []
        # The parts of holds that lasted as the clock changed: nobody let go of the lock.
        self._parts: list[Ended] = []
        self.edges: dict[tuple[str, str], str] = {}

    def began(self, name: str, holder: Holder, code: CodeType, at: int) -> None:
        stack = self.stacks.get(holder)
        if stack is None:
            stack = self.stacks[holder] = []
        elif stack:
            self.ordered(stack, name, code, at)
        stack.append((name, now_ns(), code, at))

    def ordered(self, stack: list[Taken], name: str, code: CodeType, at: int) -> None:
        if any(taken[0] == name for taken in stack):
            return
        for taken in stack:
            if (taken[0], name) not in self.edges:
                self.edges[taken[0], name] = place_of(code, at)

    def finished(self, name: str, holder: Holder) -> None:
        stack = self.stacks.get(holder)
        if not stack or all(taken[0] != name for taken in stack):
            # A plain lock may be let go by another thread than the one that took it.
            found = [who for who, each in list(self.stacks.items()) if any(taken[0] == name for taken in each)]
            if not found:
                return
            holder, stack = found[0], self.stacks[found[0]]
        index = len(stack) - 1
        while stack[index][0] != name:
            index -= 1
        _, start, code, line = stack.pop(index)
        if not stack or all(taken[0] != name for taken in stack):
            self.ended.append((name, holder, start, now_ns(), code, line))

    def depth(self, name: str, holder: Holder) -> int:
        return sum(taken[0] == name for taken in self.stacks.get(holder, ()))

    def held_by(self, holder: Holder) -> tuple[tuple[str, str], ...]:
        """(name, where it was taken), the outermost first."""
        found: dict[str, str] = {}
        for name, _, code, line in self.stacks.get(holder, ()):
            found.setdefault(name, place_of(code, line))
        return tuple(found.items())

    @contextmanager
    def changing_clocks(self) -> Iterator[None]:
        """What is held while the time becomes that of another clock is two holds: no number spans both."""
        self._parts += self._lasting()
        try:
            yield
        finally:
            current = now_ns()
            for stack in list(self.stacks.values()):
                stack[:] = [(name, current, code, line) for name, _, code, line in stack]

    def _lasting(self) -> list[Ended]:
        current = now_ns()
        return [
            (name, holder, start, current, code, line)
            for holder, stack in list(self.stacks.items())
            for name, start, code, line in stack
        ]

    @property
    def holds(self) -> list[Hold]:
        """All that have ended, in the order of their ends, and those that last until now."""
        return [
            Hold(name, holder, start, end, place_of(code, line))
            for name, holder, start, end, code, line in [*self.ended, *self._parts, *self._lasting()]
        ]

    def longest(self, lock: str) -> Hold | None:
        """None where it was never held. Raises `HoldFailure` where no lock of that name is traced."""
        self._known(lock)
        return max((hold for hold in self.holds if hold.lock == lock), key=lambda hold: hold.seconds, default=None)

    def cycles(self) -> list[tuple[str, ...]]:
        """Locks that were taken in orders which can deadlock: each once, the first name being the least."""
        following: dict[str, list[str]] = {}
        for before, after in self.edges:
            following.setdefault(before, []).append(after)
        found: dict[tuple[str, ...], None] = {}

        def walk(path: tuple[str, ...]) -> None:
            for name in following.get(path[-1], ()):
                if name == path[0]:
                    found.setdefault(path)
                elif name not in path and name > path[0]:
                    walk((*path, name))

        for name in sorted(following):
            walk((name,))
        return list(found)

    def assert_no_cycles(self) -> None:
        """Raises `HoldFailure` that names the locks, and where the later of each two was taken."""
        __tracebackhide__ = True
        for cycle in self.cycles():
            pairs = zip(cycle, (*cycle[1:], cycle[0]), strict=True)
            lines = [f"  {after} while {before} is held: {self.edges[before, after]}" for before, after in pairs]
            raise HoldFailure("\n".join([f"{' → '.join((*cycle, cycle[0]))}: this order can deadlock", *lines]))

    def assert_not_held(self, *, during: str, locks: Iterable[str] = ()) -> None:
        """None of `locks` (default: all that are traced) was held by the thread that made the watched call.

        An `async def` is looked at when it is called and again when it is awaited, by the task that does. A lock that
        the call takes itself does not count. Raises `HoldFailure`; also where that call was not watched, or never
        made: then nothing was seen.
        """
        __tracebackhide__ = True
        if during not in self.watched:
            raise HoldFailure(f"{during!r} is not watched: traced_locks(owner, ..., watch={during!r}) does it")
        calls = [call for call in self.calls if call.name == during]
        if not calls:
            raise HoldFailure(f"{during!r} was never called, so nothing was seen")
        wanted = tuple(locks) or tuple(name for name in self.names if name not in self.awaited) or tuple(self.names)
        if not wanted:
            raise HoldFailure("no lock is traced, so nothing was seen: traced_locks(owner, '_lock')")
        for name in wanted:
            self._known(name)
        for call in calls:
            for name, where in call.held:
                if name in wanted:
                    who = call.holder.name if isinstance(call.holder, Thread) else call.holder.get_name()
                    raise HoldFailure(
                        f"{who} called {during}() while it held {name}, taken at {where}; it was called at {call.where}"
                    )

    def assert_free(self, *, during: str, lock: str) -> None:
        """Another thread could take the lock at some moment of each watched call. Raises `HoldFailure`.

        When it began, when it ended, or as somebody let go of it in between: that others use it meanwhile is what it
        is free for.
        """
        __tracebackhide__ = True
        self.assert_not_held(during=during, locks=[lock])
        for call in self.calls:
            if call.name == during and lock not in call.free:
                raise HoldFailure(f"another thread could not take {lock} while {during}() ran, called at {call.where}")

    def check_holds(self, limits: Iterable[tuple[str, float]]) -> None:
        """Raises `HoldFailure` for a lock that was held for longer than so many seconds, or that is not traced."""
        __tracebackhide__ = True
        for lock, seconds in limits:
            self._known(lock)
            longest = self.longest(lock)
            if longest is not None and longest.seconds > seconds:
                raise HoldFailure(
                    f"{lock} was held for {longest.seconds:.6g} s, taken at {longest.where}; "
                    f"max_hold({lock!r}, {seconds:g}) allows {seconds:g} s"
                )

    def _known(self, lock: str) -> None:
        __tracebackhide__ = True
        if lock not in self.names:
            raise HoldFailure(f"no lock {lock!r} is traced; there are {', '.join(self.names) or 'none'}")
        if lock in self.awaited:
            raise HoldFailure(f"no instance has assigned {lock!r} since it is traced, so nothing was seen of it")


def place_of(code: CodeType, at: int) -> str:
    """'/src/app/backend.py:12 in Backend.load' of an offset in a function's code."""
    line = next((line for start, end, line in code.co_lines() if start <= at < end), None)
    return f"{code.co_filename}:{line} in {code.co_qualname}"
