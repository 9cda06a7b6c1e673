"""`traced_locks`: named locks of an object or a class, wrapped while a test runs."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from threading import current_thread
from typing import TYPE_CHECKING, Any

from pytest_vramsettle.contracts.errors import ContractError, HoldFailure
from pytest_vramsettle.contracts.holds import Hold, Holder, LockTrace, WatchedCall, now_ns, place_of
from pytest_vramsettle.contracts.source import closest
from pytest_vramsettle.contracts.traced import caller_frame, condition_over, could_take, is_condition, wrap
from pytest_vramsettle.contracts.verdicts import Outcome, Verdict

if TYPE_CHECKING:
    import pytest

    from pytest_vramsettle.contracts.contract import Contract

_MISSING = object()


class _OnSet:
    """In a class: wraps what instances assign to the name. `real` is what the class has: a default, or a slot."""

    def __init__(self, name: str, trace: TracedLocks, real: Any) -> None:
        self._name = name
        self._trace = trace
        self._real = real

    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return self._real if self._real is not _MISSING else self
        if hasattr(self._real, "__set__"):
            return self._real.__get__(owner, kind)
        try:
            return vars(owner)[self._name]
        except KeyError:
            if self._real is not _MISSING:
                return self._real
            raise AttributeError(f"{kind.__name__!r} object has no attribute {self._name!r}") from None

    def __set__(self, owner: Any, value: Any) -> None:
        if value is not None:
            value = wrap(value, self._name, self._trace)
            self._trace.awaited.discard(self._name)
        if hasattr(self._real, "__set__"):
            self._real.__set__(owner, value)
        else:
            vars(owner)[self._name] = value


class TracedLocks(LockTrace):
    """The fixture: `trace = traced_locks(backend, "_lock", watch="_wait_for_vram_settle")`. Also a context manager.

    On a class it wraps the class's own lock or, where that has none, what instances made from now on assign.
    """

    def __init__(self) -> None:
        super().__init__()
        self._undo: list[Callable[[], None]] = []
        self._owners: dict[str, Any] = {}

    def __call__(self, owner: Any, *names: str, watch: str | Iterable[str] = ()) -> TracedLocks:
        """Raises `ContractError` where an attribute is not there, is no lock or cannot be replaced; all stays then."""
        before = len(self.names), len(self.watched), len(self._undo), set(self.awaited)
        try:
            for name in names:
                self._trace_one(owner, name)
            for name in (watch,) if isinstance(watch, str) else watch:
                self._watch(owner, name)
        except BaseException:
            self._put_back(before[2])
            del self.names[before[0] :], self.watched[before[1] :]
            self._owners = {name: each for name, each in self._owners.items() if name in self.names}
            self.awaited = before[3]
            raise
        return self

    def __enter__(self) -> TracedLocks:
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back(0)

    def _put_back(self, count: int) -> None:
        while len(self._undo) > count:
            self._undo.pop()()

    def _trace_one(self, owner: Any, name: str) -> None:
        other = self._owners.get(name, owner)
        if other is not owner:
            kind = (other if isinstance(other, type) else type(other)).__qualname__
            raise ContractError(
                f"{name!r} of another {kind} is traced already, and they would be taken for one lock: "
                "use another TracedLocks() for it"
            )
        real = inspect.getattr_static(owner, name, _MISSING)
        if isinstance(owner, type) and (real is _MISSING or not (hasattr(real, "acquire") or is_condition(real))):
            if callable(real) or isinstance(real, property):
                raise ContractError(f"{owner.__qualname__}.{name} is {real!r}: no lock")
            self._put(owner, name, _OnSet(name, self, real))
            self.awaited.add(name)
        else:
            if real is _MISSING and name not in _attributes(owner):
                raise ContractError(f"{_named(owner)} has no attribute {name!r}{closest(name, _attributes(owner))}")
            self._wrap(owner, name)
        if name not in self.names:
            self.names.append(name)
        self._owners[name] = owner

    def _wrap(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)
        made = wrap(real, name, self)
        if made is real:
            return
        self._put(owner, name, made)
        for other in _attributes(owner):
            # A condition over the lock takes it behind the back of the one that stands in for it.
            value = inspect.getattr_static(owner, other, None) if isinstance(owner, type) else getattr(owner, other)
            if is_condition(value) and value._lock is real:
                self._put(owner, other, condition_over(value, made))

    def _watch(self, owner: Any, name: str) -> None:
        real = getattr(owner, name, None)
        if not callable(real):
            there = [each for each in dir(owner) if not each.startswith("__") and callable(getattr(owner, each, None))]
            raise ContractError(f"{_named(owner)} has no function {name!r} to watch{closest(name, there)}")

        is_async = inspect.iscoroutinefunction(real)

        @functools.wraps(real)
        def watched(*args: Any, **keywords: Any) -> Any:
            instance = owner if not isinstance(owner, type) else args[0]
            frame = caller_frame(1)
            call = self._called(instance, name, place_of(frame.f_code, frame.f_lasti))
            if is_async:
                # Coroutines can be named; their type in typeshed does not say so.
                awaiting: Any = self._while_awaited(call, instance, lambda: real(*args, **keywords))
                awaiting.__name__, awaiting.__qualname__ = name, getattr(real, "__qualname__", name)
                return awaiting
            before = len(self.ended)
            try:
                return real(*args, **keywords)
            finally:
                self._amend(call, free=self._free(instance, since=before))

        if is_async and hasattr(inspect, "markcoroutinefunction"):  # from Python 3.12 on
            inspect.markcoroutinefunction(watched)
        self._put(owner, name, watched)
        if name not in self.watched:
            self.watched.append(name)

    def _called(self, owner: Any, name: str, where: str) -> WatchedCall:
        holder = _holder()
        call = WatchedCall(name, holder, now_ns(), where, self._held(holder), self._free(owner))
        self.calls.append(call)
        return call

    async def _while_awaited(self, call: WatchedCall, owner: Any, start: Callable[[], Awaitable[Any]]) -> Any:
        """Another task may await it than the one that called, under other locks."""
        holder, before = _holder(), len(self.ended)
        held = {**dict(self._held(holder)), **dict(call.held)}
        call = self._amend(
            call, holder=call.holder if call.held else holder, held=tuple(held.items()), free=self._free(owner)
        )
        try:
            return await start()
        finally:
            self._amend(call, free=self._free(owner, since=before))

    def _held(self, holder: Holder) -> tuple[tuple[str, str], ...]:
        """By this thread, and by the task that runs in it."""
        return tuple({**dict(self.held_by(current_thread())), **dict(self.held_by(holder))}.items())

    def _free(self, owner: Any, since: int | None = None) -> tuple[str, ...]:
        """Those that could be taken now, or that somebody has let go of since then."""
        ended = {taken[0] for taken in self.ended[since:]} if since is not None else set()
        return tuple(each for each in self.names if each in ended or could_take(getattr(owner, each, None)))

    def _amend(self, call: WatchedCall, *, free: tuple[str, ...], **changes: Any) -> WatchedCall:
        amended = replace(call, free=tuple(dict.fromkeys((*call.free, *free))), **changes)
        # From the end: most calls are short. What other threads add meanwhile moves nothing.
        index = next(number for number in reversed(range(len(self.calls))) if self.calls[number] is call)
        self.calls[index] = amended
        return amended

    def _put(self, owner: Any, name: str, value: Any) -> None:
        own = vars(owner).get(name, _MISSING) if hasattr(owner, "__dict__") else getattr(owner, name, _MISSING)
        try:
            setattr(owner, name, value)
        except (AttributeError, TypeError) as error:
            what = f"watch={name!r}" if name in dir(type(owner)) and callable(value) else repr(name)
            instead = f"; trace the class instead: traced_locks({type(owner).__qualname__}, {what})"
            told = "" if isinstance(owner, type) else instead
            raise ContractError(f"{_named(owner)}: {name!r} cannot be replaced ({error}){told}") from None

        def undo() -> None:
            if own is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

        self._undo.append(undo)


def _attributes(owner: Any) -> list[str]:
    """Of an object, slots included; of a class, its own."""
    found = list(getattr(owner, "__dict__", {}))
    for kind in () if isinstance(owner, type) else type(owner).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        found += [each for each in ((slots,) if isinstance(slots, str) else slots) if hasattr(owner, each)]
    return sorted(each for each in dict.fromkeys(found) if not each.startswith("__"))


def _named(owner: Any) -> str:
    return f"class {owner.__qualname__}" if isinstance(owner, type) else f"this {type(owner).__qualname__}"


def _holder() -> Holder:
    try:
        return asyncio.current_task() or current_thread()
    except RuntimeError:  # no loop runs here
        return current_thread()


def limits_of(item: pytest.Item) -> list[tuple[str, float]]:
    """Of all its markers max_hold. Raises `ContractError` that names the test and how the marker is used."""
    limits = []
    for marker in item.iter_markers("max_hold"):
        try:
            limits.append(_limit(*marker.args, **marker.kwargs))
        except TypeError as error:
            given = [*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())]
            raise ContractError(
                f"{item.nodeid}: @pytest.mark.max_hold({', '.join(given)}): {str(error).removeprefix('_limit() ')}; "
                "write @pytest.mark.max_hold('_lock', 0.5): a lock's name, and seconds"
            ) from None
    return limits


def _limit(lock: str, seconds: float) -> tuple[str, float]:
    if not isinstance(lock, str) or isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError("they are of another kind")
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
    elif contract.lock in trace.awaited:
        verdict, note = Verdict.VACUOUS, f"no instance has assigned {contract.lock!r} since it is traced"
    elif not any(each.name == call for each in trace.calls):
        verdict, note = Verdict.VACUOUS, f"{call}() was never called in this run"
    else:
        try:
            trace.assert_not_held(during=call, locks=[contract.lock])
        except HoldFailure as failure:
            verdict, note = Verdict.VIOLATED, str(failure)
    return Outcome(contract.id, contract.text, verdict, (), note, contract.waive)


__all__ = ["Hold", "LockTrace", "TracedLocks", "check_trace", "could_take", "limits_of"]
