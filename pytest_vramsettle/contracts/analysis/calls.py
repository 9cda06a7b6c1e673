"""Calls: of the project's functions, of locks, of what is deferred, and of everything else."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from pytest_vramsettle.contracts.analysis import expressions, functions, locking, lookup, managers, outside
from pytest_vramsettle.contracts.analysis.engine import Frame, Keywords, OnYield, Ways
from pytest_vramsettle.contracts.analysis.relevance import COMMON, is_quiet
from pytest_vramsettle.contracts.analysis.state import State, merge
from pytest_vramsettle.contracts.analysis.values import (
    EXT,
    UNKNOWN,
    Answer,
    ClassVal,
    Const,
    Deferred,
    Ext,
    Func,
    Local,
    Lock,
    LockMethod,
    Method,
    Obj,
    Partial,
    Path,
    Result,
    Seq,
    Unknown,
    Value,
    parts_of,
)
from pytest_vramsettle.contracts.source import ClassInfo, Unit

_CHANGES = frozenset(
    {"append", "appendleft", "add", "insert", "extend", "update", "setdefault"}
    | {"pop", "popleft", "popitem", "remove", "discard", "clear"}
)
"""Methods after which a container may be empty, or not be empty any more."""


def call(node: ast.Call, state: State, frame: Frame) -> Ways:
    """`f(a, b=c)`."""
    ways: Ways = []
    if isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES and isinstance(node.func.value, ast.Name):
        state = state.changed((frame.number, node.func.value.id))
    callees = _of_several(expressions.evaluate(node.func, state, frame), frame, node)
    for after, callee in callees:
        frame.run.understood(node, known=_is_known(callee))
        for ready, args, keywords in _arguments(node, after, frame):
            frame.run.step(frame, node, 1)
            ways += apply(callee, args, keywords, ready, frame, node)
    return ways


def _of_several(callees: Ways, frame: Frame, node: ast.Call) -> Ways:
    """Where one name stands for several things, and some of them do what is required, which one it is decides."""
    run = frame.run
    if len(callees) < 2 or not run.rule.required:
        return callees
    doing = [run.may_do(callee) for _, callee in callees]
    if not any(doing):
        return callees
    reason = "which of several values this name has here is not known"
    return [
        (after if does else after.missed(frame.place(node), reason), callee)
        for (after, callee), does in zip(callees, doing, strict=True)
    ]


def _is_known(callee: Value) -> bool:
    if isinstance(callee, Path):
        return isinstance(callee.root, Ext)
    return not isinstance(callee, Unknown | Result | Answer | Const | Seq)


def _arguments(node: ast.Call, state: State, frame: Frame) -> list[tuple[State, tuple[Value, ...], Keywords]]:
    plain = list(node.args)
    named = [keyword.value for keyword in node.keywords]
    found = []
    entering = isinstance(node.func, ast.Attribute) and node.func.attr in ("enter_context", "enter_async_context")
    if entering and len(plain) == 1 and not named:
        return [(after, (value,), ()) for after, value in managers.entered(plain[0], state, frame)]
    for after, values in expressions.evaluate_all([*plain, *named], state, frame):
        args: list[Value] = []
        for each, value in zip(node.args, values, strict=False):
            if isinstance(each, ast.Starred) and isinstance(value, Seq):
                args += value.items
            else:
                if any(isinstance(other, ast.Starred) for other in node.args[: len(args)]):
                    reason = "stands behind arguments whose number is not known"
                    frame.run.escape(value, frame.place(node), reason)
                args.append(value)
        keywords: list[tuple[str, Value]] = []
        for keyword, value in zip(node.keywords, values[len(plain) :], strict=True):
            if keyword.arg is not None:
                keywords.append((keyword.arg, value))
            elif isinstance(value, Seq) and value.keys is not None:
                keywords += [
                    (str(key.value) if isinstance(key, Const) else "?", item)
                    for key, item in zip(value.keys, value.items, strict=True)
                ]
            else:
                keywords.append(("**", value))
        found.append((after, tuple(args), tuple(keywords)))
    return found


def apply(
    callee: Value, args: tuple[Value, ...], keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways:
    """What a call of this value does."""
    if isinstance(callee, LockMethod):
        return locking.lock_call(callee, args, keywords, state, frame, node)
    if isinstance(callee, Func):
        return _call_function(callee, args, keywords, state, frame, node)
    if isinstance(callee, Partial):
        return apply(callee.callee, (*callee.args, *args), (*callee.keywords, *keywords), state, frame, node)
    if isinstance(callee, ClassVal):
        return perform(callee, args, keywords, state, frame, node)
    if isinstance(callee, Lock) and state.held:
        frame.run.escape(callee, frame.place(node), "or any method may be what getattr() finds by a computed name")
    if isinstance(callee, Method):
        return outside.method_call(callee, args, keywords, state, frame, node)
    if isinstance(callee, Obj):
        unit = frame.run.method(callee.cls, "__call__")
        if unit is not None:
            return apply(replace(_plain(unit), bound=(callee,)), args, keywords, state, frame, node)
    if isinstance(callee, Path):
        if callee.attrs[-1:] in (("set",), ("clear",)):
            state = frame.run.touched(Path(callee.root, callee.attrs[:-1]), state, frame.place(node))
        if isinstance(callee.root, Ext):
            known = outside.known_call(callee, args, keywords, state, frame, node)
            if known is not None:
                return known
        if callee.attrs and _is_unawaited(callee, frame, node):
            return [(state, Deferred("coroutine", callee, args, keywords))]
        known = outside.known_method(callee, args, keywords, state, frame, node) if callee.attrs else None
        if known is not None:
            return known
        return perform(callee, args, keywords, state, frame, node)
    return unknown_call(callee, args, keywords, state, frame, node)


def _plain(unit: Unit) -> Func:
    if isinstance(unit.node, ast.Module | ast.ClassDef):
        raise TypeError(f"{unit!r} is no function")
    return Func(unit, unit.node)


def _is_unawaited(callee: Path, frame: Frame, node: ast.AST) -> bool:
    """A watched call in a coroutine that others of the project await, and this one does not."""
    if not frame.is_async or id(node) in frame.run.awaited or not frame.run.matches(callee):
        return False
    awaited = re.compile(rf"await\s+[\w.]*\b{re.escape(callee.attrs[-1])}\(")
    return any(
        callee.attrs[-1] in module.identifiers and awaited.search(module.text) for module in frame.run.scope.modules
    )


def _call_function(
    callee: Func, args: tuple[Value, ...], keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways:
    if callee.manager:
        return [(state, Deferred("manager", callee, args, keywords))]
    if callee.is_generator:
        return [(state, Deferred("generator", callee, args, keywords))]
    if callee.is_async:
        return [(state, Deferred("coroutine", callee, args, keywords))]
    return perform(callee, args, keywords, state, frame, node)


def perform(
    callee: Value,
    args: tuple[Value, ...],
    keywords: Keywords,
    state: State,
    frame: Frame,
    node: ast.AST,
    on_yield: OnYield | None = None,
) -> Ways:
    """Runs it, and tells the rule before, after, and when it raises."""
    run, rule, place = frame.run, frame.run.rule, frame.place(node)
    roles = run.matches(callee)
    if any(sure == "maybe" for _, sure in roles):
        state = state.doubted(place, "whether this is the call that is meant is not known")
    begun = state
    for role, _ in roles:
        begun = rule.reach(run, role, begun, place, frame.chain)
    outer, frame.sink = frame.sink, []
    try:
        ways = _body(callee, args, keywords, begun, frame, node, on_yield)
        if roles:
            frame.raises(begun, node)
    finally:
        raised, frame.sink = frame.sink, outer
    for egress in raised:
        for role, _ in roles:
            egress.state = rule.failed(run, role, egress.state, place)
    frame.sink += raised
    for role, sure in roles:
        ways = [way for after, value in ways for way in rule.done(run, role, after, place, value)]
        if sure == "maybe":
            ways.append((state, UNKNOWN))
    return ways


def _body(
    callee: Value,
    args: tuple[Value, ...],
    keywords: Keywords,
    state: State,
    frame: Frame,
    node: ast.AST,
    on_yield: OnYield | None,
) -> Ways:
    run = frame.run
    if isinstance(callee, Func):
        if not callee.sure:
            state = state.doubted(frame.place(node), "its decorator is not of this project, and may not call it")
        if on_yield is not None or functions.worth_walking(callee, args, keywords, run):
            ways = functions.invoke(callee, args, keywords, state, frame, node, on_yield)
            if callee.node is callee.unit.node and lookup.has_decorator(callee.unit, lookup.CACHES):
                ways.append((state.doubted(frame.place(node), "its answer may be kept from an earlier call"), UNKNOWN))
            return ways if callee.sure else [*ways, (state, UNKNOWN)]
        run.skip(callee.unit, node)
        frame.raises(state.age(run.lasting), node)
        return [(state.age(run.lasting), UNKNOWN)]
    if isinstance(callee, ClassVal):
        return construct(callee, args, keywords, state, frame, node)
    if isinstance(callee, Path) and isinstance(callee.root, Local | Unknown) and callee.attrs:
        return _maybe_ours(callee, args, keywords, state, frame, node)
    return unknown_call(callee, args, keywords, state, frame, node)


def _maybe_ours(
    callee: Path, args: tuple[Value, ...], keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways:
    """A method of an unknown object, which may be one of the class that the contract is about."""
    run, name = frame.run, callee.attrs[-1]
    ways = unknown_call(callee, args, keywords, state, frame, node)
    cls = run.scope.cls
    unit = run.method(cls, name) if cls is not None and name not in COMMON and not run.matches(callee) else None
    if cls is None or unit is None or unit not in run.targets.units or not functions.is_plain(unit):
        return ways
    doubted = state.doubted(frame.place(node), f"whether this is {cls.name}.{name} is not known")
    return [*ways, *apply(replace(_plain(unit), bound=(Obj(cls, ""),)), args, keywords, doubted, frame, node)]


def _instance(cls: ClassInfo, frame: Frame, node: ast.AST) -> Obj:
    """One that a method of the same class makes is another object than its own."""
    if frame.run.is_family(cls):
        me = frame.me
        return Obj(cls, "other" if isinstance(me, Obj) and frame.run.is_family(me.cls) else "")
    return Obj(cls, f"{getattr(node, 'lineno', 0)}:{getattr(node, 'col_offset', 0)}")


def construct(
    callee: ClassVal, args: tuple[Value, ...], keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways:
    """An instance of a class of the project."""
    run, cls = frame.run, callee.cls
    made = _instance(cls, frame, node)
    unit = run.method(cls, "__init__")
    for other in run.makers(cls):
        run.skip(other, node)
    if unit is None:
        for name, value in (*zip(functions.fields_in_order(cls), args, strict=False), *keywords):
            if not isinstance(value, Const) and value != UNKNOWN:
                state = state.put((made, name), value)
        frame.raises(state, node)
        return [(state, made)]
    function = replace(_plain(unit), bound=(made,))
    if functions.worth_walking(function, args, keywords, run) or any(isinstance(value, Obj) for value in args):
        return [(after, made) for after, _ in functions.invoke(function, args, keywords, state, frame, node)]
    run.skip(unit, node)
    frame.raises(state, node)
    return [(state.age(run.lasting), made)]


def unknown_call(
    callee: Value, args: tuple[Value, ...], keywords: Keywords, state: State, frame: Frame, node: ast.AST
) -> Ways:
    """It may raise and change attributes; what it is given has gone where nothing is followed."""
    run, place = frame.run, frame.place(node)
    quiet = isinstance(node, ast.Call) and is_quiet(node)
    if quiet and isinstance(callee, Path) and callee.attrs[-1:] in (("append",), ("add",)):
        for value in args:
            run.escape(value, place, "is put into a container that this analysis does not follow")
    if not quiet:
        state = functions.forget_rebound(args, state)
        frame.raises(state.age(run.lasting), node)
        state = state.age(run.lasting)
        for value in (*args, *(value for _, value in keywords)):
            run.escape(value, place, "is handed to a call that this analysis does not follow")
            if any(isinstance(part, Answer) for part in parts_of(value)):
                state = state.doubted(place, "what becomes of the answer is not followed")
    if isinstance(callee, Path) and callee.root == EXT:
        return [(state, Result(callee, run.rule.is_late(state)))]
    return [(state, UNKNOWN)]


def run_deferred(value: Deferred, state: State, frame: Frame, node: ast.AST, passing: OnYield | None = None) -> Ways:
    """Runs to its end what was put off: a coroutine that is awaited, a generator that is used up, a thread joined."""
    if value.kind == "acquire":
        return locking.acquired_late(value, state, frame, node)
    if value.kind == "gather":
        states = _together([item for item in value.args if isinstance(item, Deferred)], state, frame, node)
        for each in states:
            frame.raises(each, node)
        return [(each, UNKNOWN) for each in states]
    if value.kind == "wait":
        return _waited_for(value, state, frame, node)
    if value.kind == "genexp" and isinstance(value.callee, Func):
        return functions.invoke(value.callee, (), (), state, frame, node)
    if value.kind in ("coroutine", "generator", "manager"):
        on_yield = passing or (lambda back, item, inner, where: [back])
        return perform(value.callee, value.args, value.keywords, state, frame, node, on_yield)
    if value.kind == "map":
        seen, ran = [state], [state]
        for item in value.args:
            ran = merge(after for each in ran for after, _ in apply(value.callee, (item,), (), each, frame, node))
            seen += ran
        return [(each, UNKNOWN) for each in merge(seen)]
    if isinstance(value.callee, Deferred):
        return run_deferred(value.callee, state, frame, node)
    ways: Ways = []
    for after, result in apply(value.callee, value.args, value.keywords, state, frame, node):
        ways += run_deferred(result, after, frame, node) if isinstance(result, Deferred) else [(after, result)]
    return ways


def _waited_for(value: Deferred, state: State, frame: Frame, node: ast.AST) -> Ways:
    """`wait` goes on where one of them has failed, and says nothing of it."""
    outer, frame.sink = frame.sink, []
    try:
        states = _together([item for item in value.args if isinstance(item, Deferred)], state, frame, node)
    finally:
        raised, frame.sink = frame.sink, outer
    reason = "whether what is waited for has failed is not known"
    failed = merge(egress.state.doubted(frame.place(node), reason) for egress in raised)
    return [(each, UNKNOWN) for each in (*states, *failed)]


def _together(items: list[Deferred], state: State, frame: Frame, node: ast.AST) -> list[State]:
    """Any of them may come first."""
    ended: list[State] = []
    for first in items:
        states = [state]
        for item in (first, *(other for other in items if other is not first)):
            states = merge(after for each in states for after, _ in run_deferred(item, each, frame, node))
        ended += states
    return merge(ended) if items else [state]


def explore(value: Deferred, state: State, frame: Frame, node: ast.AST) -> None:
    """What another thread or task runs, with no lock of this one; this path goes on without it."""
    if not frame.run.carries(value) and not functions.touches_locks(value, frame.run):
        return
    outer, frame.sink = frame.sink, []
    try:
        run_deferred(value, replace(state, held=()), frame, node)
    finally:
        frame.sink = outer


__all__ = ["apply", "call", "explore", "perform", "run_deferred", "unknown_call"]
