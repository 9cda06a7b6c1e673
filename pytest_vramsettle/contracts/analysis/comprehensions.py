"""Comprehensions are loops; a generator expression that nobody iterates does nothing."""

from __future__ import annotations

import ast

from pytest_vramsettle.contracts.analysis import calls, expressions
from pytest_vramsettle.contracts.analysis.engine import Frame
from pytest_vramsettle.contracts.analysis.state import State, merge
from pytest_vramsettle.contracts.analysis.values import UNKNOWN, Deferred, Func, Seq, Value

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def comprehension(node: Comprehension, state: State, frame: Frame) -> list[tuple[State, Value]]:
    """Zero times or more, or once for each item where the items are known."""
    return [(after, UNKNOWN) for after in _walk(node, 0, [state], frame)]


def generator(node: ast.GeneratorExp, state: State, frame: Frame) -> list[tuple[State, Value]]:
    """One that does what the contract watches runs where it is used up.

    Another is taken to be iterated there and then as far as danger goes, and not at all as far as merit does.
    """
    made = Func(frame.unit, node, closure=(frame.number, *frame.closure))
    if frame.run.carries(made):
        frame.run.lambdas.add(id(node))
        return [(state, Deferred("genexp", made))]
    ran = _walk(node, 0, [state], frame)
    reason = "whether this generator expression is iterated is not followed"
    return [(after.doubted(frame.place(node), reason), UNKNOWN) for after in merge([*ran, state])]


def consume(made: Func, state: State, inner: Frame) -> list[tuple[State, Value]]:
    """Runs to its end a generator expression that was made before."""
    if not isinstance(made.node, ast.GeneratorExp):
        raise TypeError(f"{made.node!r} is no generator expression")
    for part in ast.iter_child_nodes(made.node):
        inner.run.enter(part, [state], inner, whole=True)
    return [(after, UNKNOWN) for after in _walk(made.node, 0, [state], inner)]


def _walk(node: Comprehension, level: int, states: list[State], frame: Frame) -> list[State]:
    if level == len(node.generators):
        elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        ways = [way for state in states for way in expressions.evaluate_all(elements, state, frame)]
        for _, values in ways:
            for value in values:
                reason = "is put into a container that this analysis does not follow"
                frame.run.escape(value, frame.place(node), reason)
        return merge(after for after, _ in ways)
    part = node.generators[level]
    found: list[State] = []
    for state in states:
        for after, iterable in expressions.iterated(part.iter, state, frame):
            if isinstance(iterable, Deferred):
                ran = [each for each, _ in calls.run_deferred(iterable, after, frame, part.iter)]
                before = _rounds(node, level, after, None, frame)
                found += [end for each in merge(ran) for end in _rounds(node, level, each, None, frame)]
                # Only a generator expression may be left before what it runs over has ended.
                found += before if isinstance(node, ast.GeneratorExp) or not ran else []
                continue
            items = iterable.items if isinstance(iterable, Seq) and iterable.keys is None else None
            found += _rounds(node, level, after, items, frame)
    return merge(found)


def _rounds(
    node: Comprehension, level: int, state: State, items: tuple[Value, ...] | None, frame: Frame
) -> list[State]:
    part = node.generators[level]
    states, seen = [state], [state]
    for item in items if items is not None else (UNKNOWN, UNKNOWN):
        bound = []
        for each in states:
            bound += bind(part.target, item, each, frame)
        for test in part.ifs:
            bound = [yes for each in bound for yes in expressions.branch(test, each, frame)[0]]
        states = _walk(node, level + 1, bound, frame)
        if part.ifs or items is None:
            states = merge([*states, *seen])
        seen = states
    return states


def bind(target: ast.expr, value: Value, state: State, frame: Frame) -> list[State]:
    """The variable of a comprehension."""
    if not isinstance(target, ast.Name):
        frame.run.escape(value, frame.place(target), "is unpacked in a way that this analysis does not follow")
    for each in ast.walk(target):
        if isinstance(each, ast.Name):
            state = state.put((frame.number, each.id), value if each is target else UNKNOWN)
    return [state]
