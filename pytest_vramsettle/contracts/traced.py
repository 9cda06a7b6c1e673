"""Stand-ins for locks: they write down who takes them and when they are let go, and leave the rest to the real ones."""

from __future__ import annotations

import _thread
import asyncio
import os
import sys
import threading
from _thread import get_ident
from time import monotonic_ns
from types import FrameType
from typing import Any

from pytest_vramsettle.clock import active as slot_module
from pytest_vramsettle.clock.active import slot
from pytest_vramsettle.contracts.errors import ContractError
from pytest_vramsettle.contracts.holds import LockTrace, now_ns

_frame = sys._getframe
current_thread = threading.current_thread
_WAITING = frozenset(
    {threading.__file__, *(module.__file__ for name, module in sys.modules.items() if name.startswith("asyncio."))}
)
"""Files through which a condition takes its lock: it was not taken there, but where the condition was entered."""
_CLOCK = os.path.dirname(slot_module.__file__ or "?") + os.sep
_CONDITION_ENTER = threading.Condition.__enter__.__code__
_COUNTING = frozenset({"Semaphore", "CapacityLimiter"})


def caller_frame(level: int) -> FrameType:
    """The caller of the function that asks, at level 1, or who called that one: no code of conditions or the clock."""
    frame = inner = _frame(level + 1)
    while frame.f_code.co_filename in _WAITING or frame.f_code.co_filename.startswith(_CLOCK):
        if frame.f_back is None:
            return inner
        frame = frame.f_back
    return frame


class TracedLock:
    """Stands in for a `threading.Lock` or anything with its methods; everything else goes to the real one."""

    def __init__(self, real: Any, name: str, trace: LockTrace) -> None:
        self.real = real
        self.name = name
        self._trace = trace
        self._acquire = real.acquire
        self._release = real.release

    def acquire(self, *args: Any, **keywords: Any) -> bool:
        if not self._acquire(*args, **keywords):
            return False
        caller = caller_frame(1)
        self._trace.began(self.name, current_thread(), caller.f_code, caller.f_lasti)
        return True

    def release(self) -> None:
        # The interval ends before another thread can begin one.
        self._trace.finished(self.name, current_thread())
        self._release()

    def __enter__(self) -> bool:
        self._acquire()
        caller = caller_frame(1)
        self._trace.began(self.name, current_thread(), caller.f_code, caller.f_lasti)
        return True

    def __exit__(self, *_: object) -> None:
        self._trace.finished(self.name, current_thread())
        self._release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __repr__(self) -> str:
        return f"<traced {self.name}: {self.real!r}>"


def _quick(kind: type[TracedLock], real: Any, name: str, trace: LockTrace) -> TracedLock:
    """With a `with` of its own that has all at hand: `with lock:` is what runs often."""
    acquire, release = real.acquire, real.release
    stacks, ended, ordered, finished = trace.stacks, trace.ended, trace.ordered, trace.finished
    frame, ident, thread, monotonic, clock = _frame, get_ident, current_thread, monotonic_ns, slot
    within_condition = _CONDITION_ENTER
    threads: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # current_thread() reads it

    def enter(self: object) -> bool:
        acquire()
        holder = threads.get(ident()) or thread()
        caller = frame(1)
        if caller.f_code is within_condition and caller.f_back is not None:
            caller = caller.f_back
        stack = stacks.get(holder)
        if stack is None:
            stack = stacks[holder] = []
        elif stack:
            ordered(stack, name, caller.f_code, caller.f_lasti)
        stack.append((name, monotonic() if clock.engine is None else now_ns(), caller.f_code, caller.f_lasti))
        return True

    def leave(self: object, kind: object, error: object, traceback: object) -> None:
        holder = threads.get(ident()) or thread()
        stack = stacks.get(holder)
        if stack and len(stack) == 1 and stack[0][0] is name:
            _, start, code, at = stack.pop()
            ended.append((name, holder, start, monotonic() if clock.engine is None else now_ns(), code, at))
        else:
            finished(name, holder)
        release()

    made: type[TracedLock] = type(kind.__name__, (kind,), {"__enter__": enter, "__exit__": leave})
    return made(real, name, trace)


class TracedRLock(TracedLock):
    """With what a `threading.Condition` over an RLock needs: it lets go of all levels at once."""

    def _release_save(self) -> Any:
        thread = current_thread()
        depth = self._trace.depth(self.name, thread)
        for _ in range(depth):
            self._trace.finished(self.name, thread)
        return depth, self.real._release_save()

    def _acquire_restore(self, state: Any) -> None:
        depth, inner = state
        self.real._acquire_restore(inner)
        caller = caller_frame(1)
        for _ in range(depth):
            self._trace.began(self.name, current_thread(), caller.f_code, caller.f_lasti)

    def _is_owned(self) -> bool:
        return bool(self.real._is_owned())


class TracedAsyncLock:
    """Stands in for an `asyncio.Lock`; its holder is a task."""

    def __init__(self, real: asyncio.Lock, name: str, trace: LockTrace) -> None:
        self.real = real
        self.name = name
        self._trace = trace

    async def acquire(self) -> bool:
        await self.real.acquire()
        self._began(2)
        return True

    def _began(self, level: int) -> None:
        caller = caller_frame(level)
        self._trace.began(self.name, asyncio.current_task(), caller.f_code, caller.f_lasti)

    async def __aenter__(self) -> None:
        await self.real.acquire()
        self._began(2)

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        self.real.release()
        self._trace.finished(self.name, asyncio.current_task())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __repr__(self) -> str:
        return f"<traced {self.name}: {self.real!r}>"


def wrap(real: Any, name: str, trace: LockTrace) -> Any:
    """Raises `ContractError` for what is no lock, and for what many may hold at a time."""
    if isinstance(real, TracedLock | TracedAsyncLock):
        return real
    if is_condition(real):
        return condition_over(real, wrap(real._lock, name, trace))
    if isinstance(real, asyncio.Lock):
        return TracedAsyncLock(real, name, trace)
    kinds = {kind.__name__.removeprefix("Bounded") for kind in type(real).__mro__}
    if kinds & _COUNTING:
        raise ContractError(
            f"{name!r} is {real!r}: a semaphore counts, nobody holds it, so no interval of it can be told; "
            "trace the lock that guards the state, or watch the call itself"
        )
    if not (hasattr(real, "acquire") and hasattr(real, "release")):
        raise ContractError(f"{name!r} is {real!r}: no lock, it has no acquire() and release()")
    return _quick(TracedRLock if hasattr(real, "_release_save") else TracedLock, real, name, trace)


def is_condition(value: object) -> bool:
    """Of threads or of asyncio."""
    return isinstance(value, threading.Condition | asyncio.Condition)


def condition_over(real: Any, lock: Any) -> Any:
    """Those that wait on the real one are woken through this one too. Conditions have no other names for these."""
    made: Any = object.__new__(type(real))
    made.__dict__.update(vars(real))
    kind = threading.Condition if isinstance(real, threading.Condition) else asyncio.Condition
    fresh: Any = kind(lock)
    for name in vars(fresh):
        if name not in ("_waiters", "_loop"):
            made.__dict__[name] = vars(fresh)[name]
    return made


def could_take(lock: Any) -> bool:
    """Whether a thread that is not this one can take the lock now; it lets go of it at once."""
    if is_condition(lock):
        lock = lock._lock
    if isinstance(lock, TracedAsyncLock):
        return not lock.real.locked()
    if not isinstance(lock, TracedLock):
        return False
    real, answers, done = lock.real, [], _thread.allocate_lock()
    done.acquire()

    def attempt() -> None:
        if real.acquire(False):
            answers.append(True)
            real.release()
        done.release()

    # Not a threading.Thread: the virtual clock would have it wait its turn.
    _thread.start_new_thread(attempt, ())
    done.acquire()
    return bool(answers)
