"""What an expression does to the state, and what it stands for: one answer for each way that it can go."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from pytest_vramsettle.contracts.analysis import calls, comprehensions, lookup, outside
from pytest_vramsettle.contracts.analysis.engine import Frame, Ways
from pytest_vramsettle.contracts.analysis.relevance import may_raise
from pytest_vramsettle.contracts.analysis.state import Fact, Slot, State, merge
from pytest_vramsettle.contracts.analysis.values import (
    EXT,
    NONE,
    UNKNOWN,
    Answer,
    Const,
    Deferred,
    Func,
    Lock,
    Obj,
    Path,
    Result,
    Seq,
    Value,
    parts_of,
    truth,
)
from pytest_vramsettle.contracts.source import dotted

MOST_SHOWN = 4
"""Of a display that is looped over: what more rounds meet, these meet too."""


def evaluate(node: ast.expr, state: State, frame: Frame) -> Ways:
    """The states after it, each with its value. Where it raises goes to the frame's sink."""
    handler = _HANDLERS.get(type(node))
    known = isinstance(node, ast.Call) and (dotted(node.func) or ("",))[-1] in outside.NAMES
    if handler is not None and (known or frame.slice.is_hot(node) or type(node) in _ALWAYS):
        if isinstance(node, ast.Name | ast.Attribute | ast.Constant):
            frame.run.seen.add(id(node))
        ways: Ways = handler(node, state, frame)
        return ways
    if not frame.slice.is_hot(node):
        return cold(node, state, frame)
    return _parts(node, state, frame)


def cold(node: ast.expr, state: State, frame: Frame) -> Ways:
    """Nothing of interest in it: it may raise, and change what it likes."""
    raises, calling, assigned = frame.slice.expression(node)
    if raises:
        frame.raises(state, node)
    if calling:
        state = state.age(frame.run.lasting)
    for name in assigned:
        state = state.put((frame.number, name), UNKNOWN)
    return [(state, _cold_value(node, state, frame))]


def _cold_value(node: ast.expr, state: State, frame: Frame) -> Value:
    """A call of an imported function is known by its name."""
    parts = dotted(node.func) if isinstance(node, ast.Call) else ()
    module = frame.unit.module
    if len(parts) < 1 or parts[0] not in module.imports or parts[0] in frame.locals:
        return UNKNOWN
    values = lookup.global_name(parts[0], module, frame.run)
    if len(values) != 1 or not isinstance(values[0], Path) or values[0].root != EXT:
        return UNKNOWN
    return Result(Path(EXT, (*values[0].attrs, *parts[1:])), frame.run.rule.is_late(state))


def evaluate_all(nodes: Sequence[ast.expr], state: State, frame: Frame) -> list[tuple[State, tuple[Value, ...]]]:
    ways: list[tuple[State, tuple[Value, ...]]] = [(state, ())]
    for node in nodes:
        ways = [(after, (*values, value)) for before, values in ways for after, value in evaluate(node, before, frame)]
    return ways


def iterated(node: ast.expr, state: State, frame: Frame) -> Ways:
    """What a loop runs over. A display is so many items, whether they matter or not."""
    display = lookup.display(node, frame)
    if display is None or frame.slice.is_hot(display):
        return evaluate(node, state, frame)
    items = [Const(each.value) if isinstance(each, ast.Constant) else UNKNOWN for each in display.elts]
    return [(after, Seq(tuple(items[:MOST_SHOWN]))) for after, _ in evaluate(node, state, frame)]


def branch(test: ast.expr, state: State, frame: Frame) -> tuple[list[State], list[State]]:
    """The states in which the test is true, and in which it is not."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yes, no = branch(test.operand, state, frame)
        return no, yes
    if isinstance(test, ast.BoolOp):
        return _branch_all(test, state, frame)
    true: list[State] = []
    false: list[State] = []
    for after, value in evaluate(test, state, frame):
        known = truth(value)
        if known is None:
            _branch_unknown(test, after, frame, true, false)
        else:
            (true if known else false).append(after)
    return merge(true), merge(false)


def _branch_all(test: ast.BoolOp, state: State, frame: Frame) -> tuple[list[State], list[State]]:
    is_and = isinstance(test.op, ast.And)
    going, ended = [state], []
    for value in test.values:
        following: list[State] = []
        for each in going:
            yes, no = branch(value, each, frame)
            following += yes if is_and else no
            ended += no if is_and else yes
        going = merge(following)
    return (going, merge(ended)) if is_and else (merge(ended), going)


def _branch_unknown(test: ast.expr, state: State, frame: Frame, true: list[State], false: list[State]) -> None:
    place = frame.place(test)
    normal = normal_form(test, state, frame)
    if normal is None:
        true.append(state.step(place, True))
        false.append(state.step(place, False))
        return
    fact, positive = normal
    known = _known(fact, state)
    for outcome, states in ((True, true), (False, false)):
        value = outcome == positive
        after = state
        if known is not None and known[0] != value:
            if known[1]:
                continue
            after = after.doubted(place, f"it needs {fact.text!r} to have changed since it was looked at")
        if frame.slice.tested_twice({name for _, name in fact.needs}):
            after = after.learn(fact, value)
        states.append(after.step(place, outcome))


def _known(fact: Fact, state: State) -> tuple[bool, bool] | None:
    known = state.facts.get(fact)
    if known is not None:
        return known
    # `x` and `x is None` exclude each other.
    if fact.text.endswith(" is None"):
        other = state.facts.get(Fact(fact.text.removesuffix(" is None"), fact.needs))
        return (False, other[1]) if other is not None and other[0] else None
    other = state.facts.get(Fact(f"{fact.text} is None", fact.needs))
    return (False, other[1]) if other is not None and other[0] else None


def normal_form(test: ast.expr, state: State, frame: Frame) -> tuple[Fact, bool] | None:
    """A test over names, attributes and constants as a fact, and whether the test says so or the contrary."""
    positive = True
    if isinstance(test, ast.NamedExpr):
        test = test.target
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        left, right = _operand(test.left, state, frame), _operand(test.comparators[0], state, frame)
        if left is None or right is None:
            return None
        symbol, positive = _OPERATORS.get(type(test.ops[0]), ("", True))
        if not symbol:
            return None
        return Fact(f"{left[0]} {symbol} {right[0]}", left[1] | right[1]), positive
    operand = _operand(test, state, frame)
    return None if operand is None or not operand[1] else (Fact(*operand), positive)


_OPERATORS: dict[type[ast.cmpop], tuple[str, bool]] = {
    ast.Is: ("is", True),
    ast.IsNot: ("is", False),
    ast.Eq: ("==", True),
    ast.NotEq: ("==", False),
    ast.Lt: ("<", True),
    ast.GtE: ("<", False),
    ast.Gt: (">", True),
    ast.LtE: (">", False),
    ast.In: ("in", True),
    ast.NotIn: ("in", False),
}


def _operand(node: ast.expr, state: State, frame: Frame) -> tuple[str, frozenset[Slot]] | None:
    if isinstance(node, ast.Constant):
        return repr(node.value), frozenset()
    if isinstance(node, ast.Name):
        value = state.get((frame.number, node.id))
        if isinstance(value, Obj):
            return value.cls.name + value.site, frozenset()
        number = next((each for each in (frame.number, *frame.closure) if _has(each, node.id, frame)), frame.number)
        return f"{node.id}@{number}" if number != frame.number else node.id, frozenset({(number, node.id)})
    if isinstance(node, ast.Attribute):
        inner = _operand(node.value, state, frame)
        if inner is None:
            return None
        return f"{inner[0]}.{node.attr}", inner[1] | {("attribute", node.attr)}
    return None


def _has(number: int, name: str, frame: Frame) -> bool:
    return number == frame.number and name in frame.locals


def _parts(node: ast.expr, state: State, frame: Frame) -> Ways:
    """Arithmetic, f-strings, subscripts of unknown things: the parts are evaluated, the whole is unknown."""
    children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    if isinstance(node, ast.FormattedValue | ast.JoinedStr):
        return [(after, UNKNOWN) for after, _ in evaluate_all(children, state, frame)]
    ways: Ways = []
    for after, values in evaluate_all(children, state, frame):
        for value in values:
            frame.run.escape(value, frame.place(node), "is used in a way that this analysis does not follow")
            if any(isinstance(part, Answer) for part in parts_of(value)):
                after = after.doubted(frame.place(node), "what becomes of the answer is not followed")
        if may_raise(node):
            frame.raises(after, node)
        ways.append((after, UNKNOWN))
    return ways


def _name(node: ast.Name, state: State, frame: Frame) -> Ways:
    return [(state, value) for value in lookup.look_up(node.id, state, frame)]


def _attribute(node: ast.Attribute, state: State, frame: Frame) -> Ways:
    return [
        way
        for after, owner in evaluate(node.value, state, frame)
        for way in lookup.attribute(owner, node.attr, after, frame, node)
    ]


def _constant(node: ast.Constant, state: State, frame: Frame) -> Ways:
    return [(state, Const(node.value))]


def _boolean(node: ast.BoolOp, state: State, frame: Frame) -> Ways:
    is_and = isinstance(node.op, ast.And)
    ways: Ways = []
    going = [state]
    for operand in node.values[:-1]:
        following: list[State] = []
        for each in going:
            for after, value in evaluate(operand, each, frame):
                known = truth(value)
                true: list[State] = []
                false: list[State] = []
                if known is None:
                    _branch_unknown(operand, after, frame, true, false)
                else:
                    (true if known else false).append(after)
                following += true if is_and else false
                ways += [(end, value) for end in (false if is_and else true)]
        going = merge(following)
    for each in going:
        ways += evaluate(node.values[-1], each, frame)
    return ways


def _unary(node: ast.UnaryOp, state: State, frame: Frame) -> Ways:
    if not isinstance(node.op, ast.Not):
        return _parts(node, state, frame)
    ways: Ways = []
    for after, value in evaluate(node.operand, state, frame):
        known = truth(value)
        if known is None:
            ways.append((after, UNKNOWN))
        else:
            ways.append((after, Answer(not known) if isinstance(value, Answer) else Const(not known)))
    return ways


def _conditional(node: ast.IfExp, state: State, frame: Frame) -> Ways:
    yes, no = branch(node.test, state, frame)
    ways: Ways = []
    for states, chosen in ((yes, node.body), (no, node.orelse)):
        for each in states:
            ways += evaluate(chosen, each, frame)
    return ways


def _compare(node: ast.Compare, state: State, frame: Frame) -> Ways:
    ways: Ways = []
    for after, values in _compared_parts(node, state, frame):
        if len(node.ops) == 1:
            known = _compared(node.ops[0], values[0], values[1])
            if known is not None:
                marked = any(isinstance(value, Answer) for value in values)
                ways.append((after, Answer(known) if marked else Const(known)))
                continue
        if any(isinstance(value, Answer) for value in values):
            after = after.doubted(frame.place(node), "what becomes of the answer is not followed")
        ways.append((after, UNKNOWN))
    return ways


def _compared_parts(node: ast.Compare, state: State, frame: Frame) -> list[tuple[State, tuple[Value, ...]]]:
    """`a < b < c` does not come to `c` where `a < b` is false."""
    going = evaluate_all([node.left, node.comparators[0]], state, frame)
    ended: list[tuple[State, tuple[Value, ...]]] = []
    for each in node.comparators[1:]:
        ended += going
        going = [(after, (value,)) for before, _ in going for after, value in evaluate(each, before, frame)]
    return [*ended, *going]


def _compared(operator: ast.cmpop, left: Value, right: Value) -> bool | None:
    if not isinstance(operator, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
        return None
    same: bool | None = None
    if isinstance(left, Const | Answer) and isinstance(right, Const | Answer):
        same = left.value == right.value
    elif right == NONE and (isinstance(left, Func | Seq | Deferred) or (isinstance(left, Result) and left.caught)):
        same = False
    elif right == NONE and isinstance(left, Lock) and not left.key:
        return None
    if same is None:
        return None
    return same if isinstance(operator, ast.Is | ast.Eq) else not same


def _named(node: ast.NamedExpr, state: State, frame: Frame) -> Ways:
    slot = (frame.number, node.target.id)
    return [(after.put(slot, value), value) for after, value in evaluate(node.value, state, frame)]


def _sequence(node: ast.Tuple | ast.List | ast.Set, state: State, frame: Frame) -> Ways:
    return [(after, Seq(values)) for after, values in evaluate_all(node.elts, state, frame)]


def _starred(node: ast.Starred, state: State, frame: Frame) -> Ways:
    """`*generator` uses it up."""
    ways: Ways = []
    for after, value in evaluate(node.value, state, frame):
        if isinstance(value, Deferred) and value.kind in ("generator", "genexp", "map"):
            ways += calls.run_deferred(value, after, frame, node)
        else:
            ways.append((after, value))
    return ways


def _dictionary(node: ast.Dict, state: State, frame: Frame) -> Ways:
    if any(key is None for key in node.keys):
        return _parts(node, state, frame)
    keys = [key for key in node.keys if key is not None]
    ways: Ways = []
    for after, values in evaluate_all([*keys, *node.values], state, frame):
        ways.append((after, Seq(values[len(keys) :], values[: len(keys)])))
    return ways


def _subscript(node: ast.Subscript, state: State, frame: Frame) -> Ways:
    ways: Ways = []
    for after, (owner, key) in evaluate_all([node.value, node.slice], state, frame):
        found = lookup.element(owner, key, frame, node)
        if not isinstance(owner, Seq):
            frame.raises(after, node)
        ways += [(after, value) for value in found]
    return ways


def _lambda(node: ast.Lambda, state: State, frame: Frame) -> Ways:
    frame.run.lambdas.add(id(node))
    return [(state, Func(frame.unit, node, closure=(frame.number, *frame.closure)))]


def _await(node: ast.Await, state: State, frame: Frame) -> Ways:
    ways: Ways = []
    for after, value in evaluate(node.value, state, frame):
        if isinstance(value, Deferred):
            ways += calls.run_deferred(value, after, frame, node)
        else:
            if not isinstance(value, Const):
                frame.raises(after, node)
            ways.append((after.age(frame.run.lasting), value if isinstance(value, Answer | Const) else UNKNOWN))
    return ways


def _yield(node: ast.Yield, state: State, frame: Frame) -> Ways:
    ways: Ways = [(state, NONE)] if node.value is None else evaluate(node.value, state, frame)
    if frame.on_yield is None:
        for after, value in ways:
            frame.run.escape(value, frame.place(node), "is handed out by a generator")
            if after.held:
                frame.run.yields_under_lock(after, frame.place(node))
            frame.raises(after, node, "GeneratorExit")
        return [(after.age(frame.run.lasting), UNKNOWN) for after, _ in ways]
    return [
        (back, UNKNOWN)
        for after, value in ways
        for back in frame.on_yield(after.age(frame.run.lasting), value, frame, node)
    ]


def _yield_from(node: ast.YieldFrom, state: State, frame: Frame) -> Ways:
    ways: Ways = []
    for after, value in evaluate(node.value, state, frame):
        if isinstance(value, Deferred):
            ways += calls.run_deferred(value, after, frame, node, passing=frame.on_yield)
        else:
            frame.raises(after, node)
            ways.append((after.age(frame.run.lasting), UNKNOWN))
    return ways


def _call(node: ast.Call, state: State, frame: Frame) -> Ways:
    return calls.call(node, state, frame)


def _comprehension(node: comprehensions.Comprehension, state: State, frame: Frame) -> Ways:
    return comprehensions.comprehension(node, state, frame)


def _generator(node: ast.GeneratorExp, state: State, frame: Frame) -> Ways:
    return comprehensions.generator(node, state, frame)


Handler = Callable[[Any, State, Frame], Ways]

_ALWAYS = (ast.Name, ast.Constant, ast.Attribute, ast.Lambda, ast.Yield, ast.YieldFrom)

_HANDLERS: dict[type[ast.expr], Handler] = {
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Constant: _constant,
    ast.BoolOp: _boolean,
    ast.UnaryOp: _unary,
    ast.IfExp: _conditional,
    ast.Compare: _compare,
    ast.NamedExpr: _named,
    ast.Tuple: _sequence,
    ast.List: _sequence,
    ast.Set: _sequence,
    ast.Starred: _starred,
    ast.Dict: _dictionary,
    ast.Subscript: _subscript,
    ast.Lambda: _lambda,
    ast.Await: _await,
    ast.Yield: _yield,
    ast.YieldFrom: _yield_from,
    ast.Call: _call,
    ast.ListComp: _comprehension,
    ast.SetComp: _comprehension,
    ast.DictComp: _comprehension,
    ast.GeneratorExp: _generator,
}

__all__ = ["branch", "evaluate", "evaluate_all", "iterated"]
