"""`traced_locks`: named locks of an object or a class, wrapped while a test runs."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable
from threading import current_thread
from typing import TYPE_CHECKING, Any

from pytest_vramsettle.contracts.errors import ContractError, HoldFailure
from pytest_vramsettle.contracts.holds import Hold, Holder, LockTrace, WatchedCall, now_ns
from pytest_vramsettle.contracts.source import closest
from pytest_vramsettle.contracts.traced import condition_over, could_take, is_condition, wrap
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

        @functools.wraps(real)
        def watched(*args: Any, **keywords: Any) -> Any:
            self._called(owner if not isinstance(owner, type) else args[0], name)
            return real(*args, **keywords)

        self._put(owner, name, watched)
        if name not in self.watched:
            self.watched.append(name)

    def _called(self, owner: Any, name: str) -> None:
        holder = _holder()
        held = {**dict(self.held_by(current_thread())), **dict(self.held_by(holder))}
        free = tuple(each for each in self.names if could_take(getattr(owner, each, None)))
        self.calls.append(WatchedCall(name, holder, now_ns(), tuple(held.items()), free))

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
