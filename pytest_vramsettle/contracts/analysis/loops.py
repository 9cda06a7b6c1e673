"""Loops: round after round until no new state turns up."""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable
from dataclasses import replace

from pytest_vramsettle.contracts.analysis import calls, expressions, managers, statements
from pytest_vramsettle.contracts.analysis.engine import Exit, Frame
from pytest_vramsettle.contracts.analysis.state import State, merge
from pytest_vramsettle.contracts.analysis.values import UNKNOWN, Const, Deferred, Seq, Value

Loop = ast.For | ast.AsyncFor | ast.While
MOST_ITEMS = 8


def _round(node: Loop, states: list[State], frame: Frame) -> tuple[list[State], list[State]]:
    """One run of the body: the states that go on with the loop, and those that broke out of it."""
    outer, frame.sink = frame.sink, []
    try:
        going = statements.block(node.body, states, frame)
    finally:
        exits, frame.sink = frame.sink, outer
    broken = []
    for egress in exits:
        if egress.kind == "continue":
            going.append(egress.state)
        elif egress.kind == "break":
            broken.append(egress.state)
        else:
            frame.sink.append(egress)
    return merge(going), broken


def _repeat(
    node: Loop, states: list[State], frame: Frame, test: Callable[[State], tuple[list[State], list[State]]]
) -> list[State]:
    seen: set[Hashable] = set()
    ended: list[State] = []
    broken: list[State] = []
    going = states
    while going:
        entered: list[State] = []
        for state in merge(going):
            known = (state.key, state.doubt is None)
            if known not in seen:
                seen.add(known)
                yes, no = test(state)
                entered += yes
                ended += no
        frame.run.step(frame, node, len(entered) + len(ended))
        going, out = _round(node, merge(entered), frame) if entered else ([], [])
        broken += out
    return merge([*statements.block(node.orelse, merge(ended), frame), *broken])


def while_loop(node: ast.While, states: list[State], frame: Frame) -> list[State]:
    return _repeat(node, states, frame, lambda state: expressions.branch(node.test, state, frame))


def for_loop(node: ast.For | ast.AsyncFor, states: list[State], frame: Frame) -> list[State]:
    ended: list[State] = []
    for state in states:
        for after, value in expressions.iterated(node.iter, state, frame):
            if isinstance(value, Seq) and value.keys is None and len(value.items) <= MOST_ITEMS:
                ended += _unrolled(node, after, value.items, frame)
            elif isinstance(value, Deferred) and value.kind == "generator":
                ended += _generated(node, value, after, frame)
            elif isinstance(value, Deferred):
                ran = [each for each, _ in calls.run_deferred(value, after, frame, node)]
                ended += _unknown(node, merge([after, *ran]), frame)
            else:
                frame.run.escape(
                    value, frame.place(node.iter), "is iterated in a way that this analysis does not follow"
                )
                ended += _unknown(node, [after], frame)
    return merge(ended)


def _unknown(node: ast.For | ast.AsyncFor, states: list[State], frame: Frame) -> list[State]:
    place = frame.place(node.iter)

    def test(state: State) -> tuple[list[State], list[State]]:
        if isinstance(node, ast.AsyncFor):
            frame.raises(state, node)
        return statements.assign(node.target, UNKNOWN, state.step(place, True), frame), [state.step(place, False)]

    return _repeat(node, states, frame, test)


def _unrolled(node: ast.For | ast.AsyncFor, state: State, items: tuple[Value, ...], frame: Frame) -> list[State]:
    going, broken = [state], []
    for item in items:
        bound = [after for each in going for after in statements.assign(node.target, item, each, frame)]
        going, out = _round(node, merge(bound), frame)
        broken += out
    return merge([*statements.block(node.orelse, going, frame), *broken])


def _generated(node: ast.For | ast.AsyncFor, value: Deferred, state: State, frame: Frame) -> list[State]:
    """The body runs where the generator yields. A loop that is left closes the generator there."""
    pending: list[Exit] = []
    slot = ("pending", str(id(node)))

    def on_yield(back: State, item: Value, inner: Frame, where: ast.AST) -> list[State]:
        outer, frame.sink = frame.sink, []
        try:
            bound = statements.assign(node.target, item, back, frame)
            going = statements.block(node.body, bound, frame)
        finally:
            exits, frame.sink = frame.sink, outer
        for egress in exits:
            if egress.kind == "continue":
                going.append(egress.state)
            else:
                pending.append(egress)
                closed = egress.state.put(slot, Const(len(pending) - 1))
                inner.raises(closed, where, "GeneratorExit")
        return merge(going)

    outer, frame.sink = frame.sink, []
    try:
        ways = calls.perform(value.callee, value.args, value.keywords, state, frame, node.iter, on_yield)
    finally:
        raised, frame.sink = frame.sink, outer
    normal = managers.settle_pending([after for after, _ in ways], raised, pending, frame, node)
    exits, frame.sink[:] = list(frame.sink), [egress for egress in frame.sink if egress.kind != "break"]
    broken = [replace(egress).state for egress in exits if egress.kind == "break"]
    return merge([*statements.block(node.orelse, normal, frame), *broken])
