"""`traced_locks`: named locks of an object or a class, wrapped while a test runs."""

from __future__ import annotations

import _thread
import asyncio
import functools
import inspect
import sys
import threading
from _thread import get_ident
from collections.abc import Callable, Iterable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from pytest_vramsettle.clock.active import slot
from pytest_vramsettle.contracts.errors import ContractError, HoldFailure
from pytest_vramsettle.contracts.holds import Hold, Holder, LockTrace, WatchedCall, now_ns
from pytest_vramsettle.contracts.verdicts import Outcome, Verdict

if TYPE_CHECKING:
    import pytest

    from pytest_vramsettle.contracts.contract import Contract

_MISSING = object()
_frame = sys._getframe
current_thread = threading.current_thread


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
        caller = _frame(1)
        self._trace.began(self.name, current_thread(), caller.f_code, caller.f_lasti)
        return True

    def release(self) -> None:
        # The interval ends before another thread can begin one.
        self._trace.finished(self.name, current_thread())
        self._release()

    def __enter__(self) -> bool:
        self._acquire()
        caller = _frame(1)
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
    threads: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # current_thread() reads it

    def enter(self: object) -> bool:
        acquire()
        holder = threads.get(ident()) or thread()
        caller = frame(1)
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
        caller = _frame(1)
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
        caller = _frame(level)
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


def wrap(real: Any, name: str, trace: LockTrace) -> Any:
    """Raises `ContractError` for what is no lock."""
    if isinstance(real, TracedLock | TracedAsyncLock):
        return real
    if isinstance(real, asyncio.Lock):
        return TracedAsyncLock(real, name, trace)
    if isinstance(real, threading.Condition):
        return _condition(real, wrap(real._lock, name, trace))  # type: ignore[attr-defined]  # where it keeps its lock
    if not (hasattr(real, "acquire") and hasattr(real, "release")):
        raise ContractError(f"{name!r} is {real!r}: no lock, it has no acquire() and release()")
    return _quick(TracedRLock if hasattr(real, "_release_save") else TracedLock, real, name, trace)


def _condition(real: threading.Condition, lock: Any) -> threading.Condition:
    """Those that wait on the real one are woken through this one too."""
    made = threading.Condition(lock)
    made._waiters = real._waiters  # type: ignore[attr-defined]  # a condition has no other name for them
    return made


class _OnSet:
    """In a class: wraps what instances assign to the name."""

    def __init__(self, name: str, trace: LockTrace) -> None:
        self._name = name
        self._trace = trace

    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return self
        try:
            return vars(owner)[self._name]
        except KeyError:
            raise AttributeError(f"{kind.__name__!r} object has no attribute {self._name!r}") from None

    def __set__(self, owner: Any, value: Any) -> None:
        vars(owner)[self._name] = value if value is None else wrap(value, self._name, self._trace)


class TracedLocks(LockTrace):
    """The fixture: `trace = traced_locks(backend, "_lock", watch="_wait_for_vram_settle")`. Also a context manager.

    On a class it wraps the class's own lock or, where that has none, what instances made from now on assign.
    """

    def __init__(self) -> None:
        super().__init__()
        self._undo: list[Callable[[], None]] = []

    def __call__(self, owner: Any, *names: str, watch: str | Iterable[str] = ()) -> TracedLocks:
        """Raises `ContractError` where an attribute is not there, or is no lock."""
        for name in names:
            self._trace_one(owner, name)
        for name in (watch,) if isinstance(watch, str) else watch:
            self._watch(owner, name)
        return self

    def __enter__(self) -> TracedLocks:
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            self._undo.pop()()

    def _trace_one(self, owner: Any, name: str) -> None:
        real = inspect.getattr_static(owner, name, _MISSING)
        if real is _MISSING and not isinstance(owner, type):
            there = ", ".join(sorted(vars(owner))) or "nothing"
            raise ContractError(f"{owner!r} has no attribute {name!r}; there are {there}")
        self.names.append(name)
        if isinstance(owner, type) and (real is _MISSING or not hasattr(real, "acquire")):
            self._put(owner, name, _OnSet(name, self))
            return
        real = getattr(owner, name)
        self._put(owner, name, wrap(real, name, self))
        for other, value in list(vars(owner).items()):
            # A condition over the lock takes it behind the back of the one that stands in for it.
            if isinstance(value, threading.Condition) and value._lock is real:  # type: ignore[attr-defined]  # as above
                self._put(owner, other, _condition(value, getattr(owner, name)))

    def _watch(self, owner: Any, name: str) -> None:
        real = getattr(owner, name, None)
        if not callable(real):
            raise ContractError(f"{owner!r} has no function {name!r} to watch")
        self.watched.append(name)

        @functools.wraps(real)
        def watched(*args: Any, **keywords: Any) -> Any:
            self._called(owner if not isinstance(owner, type) else args[0], name)
            return real(*args, **keywords)

        self._put(owner, name, watched)

    def _called(self, owner: Any, name: str) -> None:
        holder = _holder()
        held = {**dict(self.held_by(current_thread())), **dict(self.held_by(holder))}
        free = tuple(each for each in self.names if could_take(getattr(owner, each, None)))
        self.calls.append(WatchedCall(name, holder, now_ns(), tuple(held.items()), free))

    def _put(self, owner: Any, name: str, value: Any) -> None:
        own = vars(owner).get(name, _MISSING)

        def undo() -> None:
            if own is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

        setattr(owner, name, value)
        self._undo.append(undo)


def _holder() -> Holder:
    try:
        return asyncio.current_task() or current_thread()
    except RuntimeError:  # no loop runs here
        return current_thread()


def could_take(lock: Any) -> bool:
    """Whether a thread that is not this one can take the lock now; it lets go of it at once."""
    if isinstance(lock, TracedAsyncLock):
        return not lock.real.locked()
    if isinstance(lock, threading.Condition):
        lock = lock._lock  # type: ignore[attr-defined]  # where a condition keeps it
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


def limits_of(item: pytest.Item) -> list[tuple[str, float]]:
    """Of all its markers max_hold. Raises TypeError with what is wrong."""
    limits = []
    for marker in item.iter_markers("max_hold"):
        try:
            limits.append(_limit(*marker.args, **marker.kwargs))
        except TypeError as error:
            reason = str(error).removeprefix("_limit() ")
            raise TypeError(f"@pytest.mark.max_hold('_lock', 0.5) is how it is used: {reason}") from None
    return limits


def _limit(lock: str, seconds: float) -> tuple[str, float]:
    if not isinstance(lock, str) or isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"max_hold takes a lock's name and seconds, not {lock!r} and {seconds!r}")
    return lock, float(seconds)


def check_trace(contract: Contract, trace: LockTrace) -> Outcome:
    """Of `must_not_hold`. Raises `ContractError` for a rule that says nothing of a run."""
    if contract.rule != "must_not_hold":
        raise ContractError(f"{contract.text}: a trace of locks tells nothing of {contract.rule}; check_static() does")
    call = contract.patterns["at"].parts[-1]
    note = ""
    verdict = Verdict.KEPT
    if contract.lock not in trace.names or call not in trace.watched:
        verdict, note = Verdict.VACUOUS, f"traced_locks(owner, {contract.lock!r}, watch={call!r}) was not used"
    elif not any(each.name == call for each in trace.calls):
        verdict, note = Verdict.VACUOUS, f"{call}() was never called in this run"
    else:
        try:
            trace.assert_not_held(during=call, locks=[contract.lock])
        except HoldFailure as failure:
            verdict, note = Verdict.VIOLATED, str(failure)
    return Outcome(contract.id, contract.text, verdict, (), note, contract.waive)


__all__ = ["Hold", "LockTrace", "TracedLocks", "check_trace", "could_take", "limits_of"]
