"""What is done to a lock."""

from __future__ import annotations

import ast
from dataclasses import replace

from pytest_vramsettle.contracts.analysis import lookup
from pytest_vramsettle.contracts.analysis.engine import Frame, Keywords, Run, Ways
from pytest_vramsettle.contracts.analysis.state import State
from pytest_vramsettle.contracts.analysis.values import (
    FALSE,
    NONE,
    TRUE,
    UNKNOWN,
    Const,
    Deferred,
    Lock,
    LockMethod,
    Seq,
    Value,
)
from pytest_vramsettle.contracts.source import dotted

_TAKES = frozenset({"acquire", "__enter__", "__aenter__", "acquire_lock"})
_LETS_GO = frozenset({"release", "__exit__", "__aexit__", "release_lock"})
_WAITS = frozenset({"wait", "wait_for"})
_ELEMENTS = frozenset({"get", "setdefault", "pop", "__getitem__"})
_HARMLESS = frozenset({"notify", "notify_all", "clear", "update", "keys", "__len__", "_is_owned", "__contains__"})


def lock_call(
    method: LockMethod, args: tuple[Value, ...], keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways:
    """`lock.acquire(...)` and its like, which may be the very call that a contract is about."""
    run, place = frame.run, frame.place(node)
    roles = [role for role in run.rule.patterns if _is_meant(role, method.name, run, node)]
    for role in roles:
        # A Condition lets go of its lock while it waits.
        held = tuple(each for each in state.held if method.name not in _WAITS or each.lock.name != method.lock.name)
        reached = run.rule.reach(run, role, replace(state, held=held), place, frame.chain)
        state = replace(reached, held=state.held)
    ways = _lock_call(method, args, keywords, state, frame, node)
    for role in roles:
        ways = [way for after, value in ways for way in run.rule.done(run, role, after, place, value)]
    return ways


def _is_meant(role: str, name: str, run: Run, node: ast.AST) -> bool:
    """`at='not_full.wait'`, where `not_full` is the lock too: it has to be called by that name."""
    parts = run.rule.patterns[role].parts
    said = dotted(node.func) if isinstance(node, ast.Call) else ()
    return len(parts) > 1 and parts[-1] == name and said[-2:] == parts[-2:]


def _lock_call(
    method: LockMethod, args: tuple[Value, ...], keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways:
    """A dict of locks is treated as the lock whose elements are taken."""
    lock, name, run = method.lock, method.name, frame.run
    if name in _TAKES:
        return _take(lock, args, keywords, state, frame, node)
    if name in _LETS_GO:
        released: Ways = [(run.release(lock, state, frame.place(node)), NONE)]
        if lock.key == "?" and state.held:
            reason = "whether this is the lock of that key is not known"
            released.append((state.doubted(frame.place(node), reason), NONE))
        return released
    if name == "locked":
        return [(state, TRUE if any(held.lock == lock for held in state.held) else UNKNOWN)]
    if name in _WAITS:
        for value in args:
            run.escape(value, frame.place(node), "is asked under it by wait_for(), which is not followed")
        frame.raises(state, node)
        again = run.rule.acquired(run, lock, state, frame.place(node)) if state.held else state
        return [(again.age(run.lasting), UNKNOWN)]
    if name in _ELEMENTS:
        key = args[0] if args else UNKNOWN
        return [(state, value) for value in lookup.element(lock, key, frame, node)]
    if name in ("values", "items"):
        item: Value = Lock(lock.name, key="?", sure=lock.sure)
        return [(state, Seq((item if name == "values" else Seq((UNKNOWN, item)),)))]
    if name not in _HARMLESS:
        run.escape(lock, frame.place(node), f"is used by .{name}(), which this analysis does not know")
    return [(state, UNKNOWN)]


def _take(lock: Lock, args: tuple[Value, ...], keywords: Keywords, state: State, frame: Frame, node: ast.AST) -> Ways:
    run = frame.run
    if frame.is_async and run.async_locks and id(node) not in run.awaited:
        return [(state, Deferred("acquire", lock))]
    taken = run.acquire(lock, state, frame, node)
    if not may_fail(args, keywords):
        return [(taken, TRUE)]
    return [(taken, TRUE), (state, FALSE)]


def may_fail(args: tuple[Value, ...], keywords: Keywords) -> bool:
    """Whether this is a try: not blocking, or with a timeout."""
    blocking = args[0] if args else dict(keywords).get("blocking", TRUE)
    limited = len(args) > 1 or "timeout" in dict(keywords)
    return limited or blocking != Const(True)


def acquired_late(value: Deferred, state: State, frame: Frame, node: ast.AST) -> Ways:
    """`await lock.acquire()`, also through `asyncio.wait_for`, which may give up."""
    if not isinstance(value.callee, Lock):
        return [(state, UNKNOWN)]
    frame.raises(state, node)
    return [(frame.run.acquire(value.callee, state, frame, node), TRUE)]
