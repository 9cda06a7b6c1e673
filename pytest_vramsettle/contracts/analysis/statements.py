"""Control flow: what each statement makes of the states that reach it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from pytest_vramsettle.contracts.analysis import expressions, functions, loops, managers, tries
from pytest_vramsettle.contracts.analysis.engine import Escape, Frame, Run, Ways
from pytest_vramsettle.contracts.analysis.hotness import captured
from pytest_vramsettle.contracts.analysis.relevance import Summary, may_raise
from pytest_vramsettle.contracts.analysis.state import Fact, State, merge
from pytest_vramsettle.contracts.analysis.values import (
    UNKNOWN,
    Answer,
    ClassVal,
    Const,
    Func,
    Lock,
    Method,
    Obj,
    Path,
    Seq,
    Stack,
    Value,
    parts_of,
)
from pytest_vramsettle.contracts.source import BODY, Function


def block(body: Sequence[ast.stmt], states: list[State], frame: Frame) -> list[State]:
    """The states at its end; other ways out go to the frame's sink."""
    for node in body:
        if not states:
            break
        frame.run.step(frame, node, len(states))
        frame.run.enter(node, states, frame, whole=_is_whole(node, frame))
        states = merge(execute(node, frame.run.suspected(node, states, frame), frame))
    return states


def _is_whole(node: ast.stmt, frame: Frame) -> bool:
    """Whether what is inside is summed up, and not walked through."""
    return not frame.slice.is_hot(node) and not isinstance(node, ast.Return) and frame.slice.summary(node) is not None


def execute(node: ast.stmt, states: list[State], frame: Frame) -> list[State]:
    if not frame.slice.is_hot(node) and not isinstance(node, ast.Return):
        summary = frame.slice.summary(node)
        if summary is not None:
            return [after for state in states for after in _cold(node, summary, state, frame)]
    handler = _HANDLERS.get(type(node))
    if handler is None:
        return states
    ended: list[State] = handler(node, states, frame)
    return ended


def _cold(node: ast.stmt, summary: Summary, state: State, frame: Frame) -> list[State]:
    if summary.raises:
        frame.raises(state, node)
    if summary.variables or summary.attributes:
        state = state.drop((frame.number, name) for name in summary.variables)
        state = state.drop(("attribute", name) for name in summary.attributes)
    if summary.calls:
        state = state.age(frame.run.lasting)
    if summary.returns:
        frame.leave("return", state, _first(node, ast.Return))
    if summary.breaks:
        frame.leave("break", state, node)
    if summary.continues:
        frame.leave("continue", state, node)
    return [state] if summary.falls else []


def _first(node: ast.stmt, kind: type[ast.stmt]) -> ast.AST:
    return next((each for each in ast.walk(node) if isinstance(each, kind)), node)


def _expression(node: ast.Expr, states: list[State], frame: Frame) -> list[State]:
    return [after for state in states for after, _ in expressions.evaluate(node.value, state, frame)]


def _assign(node: ast.Assign, states: list[State], frame: Frame) -> list[State]:
    ended = []
    for state in states:
        for after, value in expressions.evaluate(node.value, state, frame):
            following = [after]
            for target in node.targets:
                following = [each for before in following for each in assign(target, value, before, frame)]
            ended += following
    return ended


def _annotated(node: ast.AnnAssign, states: list[State], frame: Frame) -> list[State]:
    if node.value is None:
        return states
    return [
        each
        for state in states
        for after, value in expressions.evaluate(node.value, state, frame)
        for each in assign(node.target, value, after, frame)
    ]


def _augmented(node: ast.AugAssign, states: list[State], frame: Frame) -> list[State]:
    ended = []
    read = [after for state in states for after, _ in _read(node.target, state, frame)]
    for state in merge(read):
        for after, _ in expressions.evaluate(node.value, state, frame):
            if may_raise(node):
                frame.raises(after, node)
            ended += assign(node.target, UNKNOWN, after, frame)
    return ended


def _read(target: ast.expr, state: State, frame: Frame) -> Ways:
    """`self.x += 1` looks it up first, and so runs a property."""
    return expressions.evaluate(target, state, frame) if isinstance(target, ast.Attribute) else [(state, UNKNOWN)]


def assign(target: ast.expr, value: Value, state: State, frame: Frame) -> list[State]:
    """`target = value`."""
    if isinstance(target, ast.Name):
        return [_assign_name(target.id, value, state, frame)]
    if isinstance(target, ast.Attribute):
        frame.run.seen.add(id(target))
        return [
            assign_attribute(owner, target.attr, value, after, frame, target)
            for after, owner in expressions.evaluate(target.value, state, frame)
        ]
    if isinstance(target, ast.Tuple | ast.List):
        return _assign_all(target, value, state, frame)
    if isinstance(target, ast.Starred):
        return assign(target.value, UNKNOWN, state, frame)
    if isinstance(target, ast.Subscript):
        ended = []
        for after, (owner, key) in expressions.evaluate_all([target.value, target.slice], state, frame):
            frame.run.escape(key, frame.place(target), "is the key of something that is stored")
            if not isinstance(owner, Lock):
                reason = "is put into a container that this analysis does not follow"
                frame.run.escape(value, frame.place(target), reason)
                if isinstance(owner, Seq):
                    frame.run.escape(owner, frame.place(target), "is in a container that is changed here")
            ended.append(after)
        return ended
    return [state]


def _assign_all(target: ast.Tuple | ast.List, value: Value, state: State, frame: Frame) -> list[State]:
    items: Sequence[Value] = [UNKNOWN] * len(target.elts)
    starred = any(isinstance(each, ast.Starred) for each in target.elts)
    if isinstance(value, Seq) and len(value.items) == len(target.elts) and not starred:
        items = value.items
    else:
        frame.run.escape(value, frame.place(target), "is unpacked in a way that this analysis does not follow")
    states = [state]
    for each, item in zip(target.elts, items, strict=True):
        states = [after for before in states for after in assign(each, item, before, frame)]
    return states


def _assign_name(name: str, value: Value, state: State, frame: Frame) -> State:
    run, node = frame.run, frame.node
    if frame.unit.name == BODY and not isinstance(node, Function | ast.Lambda):
        owner = functions.body_owner(frame.unit)
        run.keep_field((owner, name), value, state)
    elif name in frame.outer:
        number = next((each for each in frame.closure if (each, name) in state.store), None)
        if number is None and not (frame.closure and name in functions.local_names(frame.unit.node)):
            run.keep_field((frame.unit.module.name, name), value, state)
            return state
        return state.put((frame.closure[0] if number is None else number, name), value)
    if isinstance(value, Path) and not value.attrs and value.root == UNKNOWN:
        value = UNKNOWN
    return state.put((frame.number, name), value)


def assign_attribute(owner: Value, name: str, value: Value, state: State, frame: Frame, node: ast.AST) -> State:
    """`owner.name = value`."""
    run, place = frame.run, frame.place(node)
    path = Path(owner, (name,)) if isinstance(owner, Obj) else None
    if path is None:
        base = owner if isinstance(owner, Path) else Path(UNKNOWN, ())
        path = Path(base.root, (*base.attrs, name))
    state = run.touched(path, state, place)
    for role, sure in run.matches(path, call=False):
        if sure == "maybe":
            state = state.doubted(place, "whether this is the attribute that is meant is not known")
        elif isinstance(owner, Obj) and _runs_code(owner, name, run):
            state = state.doubted(place, "an assignment to it runs code, which may store something else")
            state = run.rule.written(run, role, state, place, UNKNOWN)
        else:
            state = run.rule.written(run, role, state, place, value)
    if any(isinstance(part, Answer) for part in parts_of(value)):
        state = state.doubted(place, "the answer is stored, and what becomes of it is not followed")
    state = state.put(("attribute", name), UNKNOWN)
    if isinstance(owner, ClassVal):
        run.keep_field((f"{owner.cls.module.name}.{owner.cls.name}", name), value, state)
        return state
    if not isinstance(owner, Obj):
        run.escape(value, place, "is stored on an object that this analysis does not know")
        return state
    if run.is_family(owner.cls) and (name,) in run.locks:
        return state
    run.keep_field((owner, name), value, state)
    return _store_field(owner, name, value, state, frame, node)


def _runs_code(owner: Obj, name: str, run: Run) -> bool:
    return bool(run.methods(owner.cls, name) or run.setter(owner.cls, name) or run.method(owner.cls, "__setattr__"))


def _store_field(owner: Obj, name: str, value: Value, state: State, frame: Frame, node: ast.AST) -> State:
    setter = frame.run.setter(owner.cls, name)
    if setter is not None and setter in frame.run.relevance.units and isinstance(setter.node, Function):
        ways = functions.invoke(Func(setter, setter.node, (owner,)), (value,), (), state, frame, node)
        return ways[0][0] if ways else state
    tracked = isinstance(value, Obj | Method | Seq | Stack) or frame.run.tracks(value)
    state = state.put((owner, name), value if tracked else UNKNOWN)
    text, needs = f"{owner.cls.name}{owner.site}.{name}", frozenset({("attribute", name)})
    if isinstance(value, Const) and (value.value is None or isinstance(value.value, bool)):
        state = state.learn(Fact(text, needs), bool(value.value))
        state = state.learn(Fact(f"{text} is None", needs), value.value is None)
    return state


def _return(node: ast.Return, states: list[State], frame: Frame) -> list[State]:
    for state in states:
        if node.value is None:
            frame.leave("return", state, node, Const(None))
            continue
        for after, value in expressions.evaluate(node.value, state, frame):
            frame.leave("return", after, node, value)
    return []


def _leave(node: ast.stmt, states: list[State], frame: Frame) -> list[State]:
    for state in states:
        frame.leave("break" if isinstance(node, ast.Break) else "continue", state, node)
    return []


def _if(node: ast.If, states: list[State], frame: Frame) -> list[State]:
    ended = []
    for state in states:
        yes, no = expressions.branch(node.test, state, frame)
        ended += block(node.body, yes, frame) if yes else []
        ended += block(node.orelse, no, frame) if no else []
    return ended


def _assert(node: ast.Assert, states: list[State], frame: Frame) -> list[State]:
    ended = []
    for state in states:
        yes, no = expressions.branch(node.test, state, frame)
        ended += yes
        for failed in no:
            frame.raises(failed, node, "AssertionError")
        ended.append(state.doubted(frame.place(node), "python -O leaves this assert out"))
    return ended


def _function(node: Function, states: list[State], frame: Frame) -> list[State]:
    made = functions.nested(node, frame)
    states = merge(after for state in states for after in _defaults(node, state, frame))
    ended = []
    for state in states:
        for after, value in functions.decorated(made, state, frame, node) if node.decorator_list else [(state, made)]:
            ended.append(after.put((frame.number, node.name), value))
    return ended


def _defaults(node: Function, state: State, frame: Frame) -> list[State]:
    ways = [state]
    for default in (*node.args.defaults, *node.args.kw_defaults):
        if default is not None and not isinstance(default, ast.Constant):
            evaluated = [way for each in ways for way in expressions.evaluate(default, each, frame)]
            slot = functions.default_slot(default)
            ways = [each.put(slot, value) if frame.run.tracks(value) else each for each, value in evaluated]
    return ways


def _class(node: ast.ClassDef, states: list[State], frame: Frame) -> list[State]:
    run = frame.run
    if frame.slice.is_hot(node) and run.root is not None and not isinstance(frame.node, ast.Module | ast.ClassDef):
        place = frame.place(node)
        reason = "a class inside a function uses what the contract names, which this analysis does not follow"
        run.escapes.setdefault(Escape(place, reason, run.root))
    return states


def _delete(node: ast.Delete, states: list[State], frame: Frame) -> list[State]:
    for target in node.targets:
        for state in states:
            if may_raise(target):
                frame.raises(state, node)
        states = [after for state in states for after in assign(target, UNKNOWN, state, frame)]
    return states


def _match(node: ast.Match, states: list[State], frame: Frame) -> list[State]:
    ended = []
    for state in states:
        for after, subject in expressions.evaluate(node.subject, state, frame):
            ended += _cases(node, after, subject, frame)
    return ended


def _cases(node: ast.Match, state: State, subject: Value, frame: Frame) -> list[State]:
    ended = []
    going = [state]
    for case in node.cases:
        fits = _fits(case.pattern, subject)
        if fits is False:
            continue
        entered = [_captured(case.pattern, subject, each, frame) for each in going]
        refused: list[State] = [] if fits else list(going)
        if case.guard is not None:
            pairs = [expressions.branch(case.guard, each, frame) for each in entered]
            entered = [each for yes, _ in pairs for each in yes]
            refused += [each for _, no in pairs for each in no]
        ended += block(case.body, [each.step(frame.place(case.pattern), True) for each in merge(entered)], frame)
        going = merge(refused)
    return [*ended, *(each.step(frame.place(node.subject), False) for each in going)]


def _fits(pattern: ast.pattern, subject: Value) -> bool | None:
    if isinstance(pattern, ast.MatchAs):
        return True if pattern.pattern is None else _fits(pattern.pattern, subject)
    if isinstance(pattern, ast.MatchOr):
        answers = {_fits(each, subject) for each in pattern.patterns}
        return True if True in answers else (False if answers == {False} else None)
    if isinstance(subject, Const | Answer):
        if isinstance(pattern, ast.MatchValue) and isinstance(pattern.value, ast.Constant):
            return bool(pattern.value.value == subject.value)
        if isinstance(pattern, ast.MatchSingleton):
            return pattern.value is subject.value
    return None


def _captured(pattern: ast.pattern, subject: Value, state: State, frame: Frame) -> State:
    names = set(captured(pattern))
    state = state.drop((frame.number, name) for name in names)
    if isinstance(pattern, ast.MatchAs) and pattern.name is not None:
        state = state.put((frame.number, pattern.name), subject)
        names.discard(pattern.name)
    if names:
        frame.run.escape(subject, frame.place(pattern), "is taken apart in a way that this analysis does not follow")
    return state


def _raise(node: ast.Raise, states: list[State], frame: Frame) -> list[State]:
    return tries.raise_statement(node, states, frame)


def _try(node: ast.Try | ast.TryStar, states: list[State], frame: Frame) -> list[State]:
    return tries.try_statement(node, states, frame)


def _with(node: ast.With | ast.AsyncWith, states: list[State], frame: Frame) -> list[State]:
    return managers.with_statement(node, states, frame)


def _while(node: ast.While, states: list[State], frame: Frame) -> list[State]:
    return loops.while_loop(node, states, frame)


def _for(node: ast.For | ast.AsyncFor, states: list[State], frame: Frame) -> list[State]:
    return loops.for_loop(node, states, frame)


Handler = Callable[[Any, list[State], Frame], list[State]]

_HANDLERS: dict[type[ast.stmt], Handler] = {
    ast.Expr: _expression,
    ast.Assign: _assign,
    ast.AnnAssign: _annotated,
    ast.AugAssign: _augmented,
    ast.Return: _return,
    ast.Break: _leave,
    ast.Continue: _leave,
    ast.Raise: _raise,
    ast.If: _if,
    ast.Assert: _assert,
    ast.FunctionDef: _function,
    ast.AsyncFunctionDef: _function,
    ast.ClassDef: _class,
    ast.Delete: _delete,
    ast.Match: _match,
    ast.With: _with,
    ast.AsyncWith: _with,
    ast.Try: _try,
    ast.TryStar: _try,
    ast.While: _while,
    ast.For: _for,
    ast.AsyncFor: _for,
}
