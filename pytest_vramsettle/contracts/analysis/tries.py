"""Exceptions: `raise`, `try`, which handler takes what."""

from __future__ import annotations

import ast
import builtins
from dataclasses import replace

from pytest_vramsettle.contracts.analysis import expressions, statements
from pytest_vramsettle.contracts.analysis.engine import Exit, Frame
from pytest_vramsettle.contracts.analysis.state import State, merge
from pytest_vramsettle.contracts.analysis.values import EXT, UNKNOWN, ClassVal, Obj, Path, Result, Value
from pytest_vramsettle.contracts.source import dotted

_OUTSIDE = frozenset({"KeyboardInterrupt", "SystemExit", "GeneratorExit", "CancelledError", "BaseException"})
"""Not caught by `except Exception`."""


def exception_name(value: Value) -> str:
    """'' where it is not known."""
    if isinstance(value, ClassVal | Obj):
        return value.cls.name
    if isinstance(value, Result):
        return exception_name(value.path)
    return value.attrs[-1] if isinstance(value, Path) and value.attrs else ""


def catches(types: tuple[str, ...], error: str) -> bool | None:
    """Whether a handler for these types takes the error; None where it may or may not."""
    if not types or "BaseException" in types:
        return True
    answers = [_catches(name, error) for name in types]
    if True in answers:
        return True
    return None if None in answers else False


def _catches(name: str, error: str) -> bool | None:
    if name == "Exception":
        return error not in _OUTSIDE
    if not error or not name:
        return None
    if error == name:
        return True
    if error == "BaseException" and (name in _OUTSIDE or not hasattr(builtins, name)):
        return None
    caught, raised = getattr(builtins, name, None), getattr(builtins, error, None)
    if isinstance(caught, type) and isinstance(raised, type):
        return issubclass(raised, caught)
    if error in _OUTSIDE or name in _OUTSIDE:
        return False
    return None


def _is_outside(value: Value, frame: Frame) -> bool:
    """A class of the project that `except Exception` does not catch."""
    if not isinstance(value, ClassVal | Obj):
        return False
    bases = [dotted(base) for cls in frame.run.mro(value.cls) for base in cls.node.bases]
    return any(parts and parts[-1] in _OUTSIDE for parts in bases)


def raise_statement(node: ast.Raise, states: list[State], frame: Frame) -> list[State]:
    for state in states:
        if node.exc is None:
            frame.raises(state, node, frame.handling[-1] if frame.handling else "")
            continue
        for after, value in expressions.evaluate(node.exc, state, frame):
            name = "BaseException" if _is_outside(value, frame) else exception_name(value)
            if not name:
                callee = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                parts = dotted(callee)
                name = parts[-1] if parts and parts[-1][:1].isupper() else ""
            frame.raises(after, node, name)
    return []


def try_statement(node: ast.Try | ast.TryStar, states: list[State], frame: Frame) -> list[State]:
    outer, frame.sink = frame.sink, []
    try:
        normal, exits = _guarded(node, states, frame)
    finally:
        frame.sink = outer
    if not node.finalbody:
        frame.sink += exits
        return normal
    ended = statements.block(node.finalbody, normal, frame)
    for egress in _distinct(exits):
        for after in statements.block(node.finalbody, [egress.state], frame):
            frame.sink.append(replace(egress, state=after))
    return ended


def _guarded(node: ast.Try | ast.TryStar, states: list[State], frame: Frame) -> tuple[list[State], list[Exit]]:
    normal = statements.block(node.body, states, frame)
    raised, frame.sink = frame.sink, []
    normal = statements.block(node.orelse, normal, frame)
    exits = [egress for egress in raised if egress.kind != "raise"]
    for egress in _distinct([egress for egress in raised if egress.kind == "raise"]):
        caught, missed = _handled(node, egress, frame)
        normal += caught
        exits += missed
    return merge(normal), [*exits, *frame.sink]


def _handled(node: ast.Try | ast.TryStar, egress: Exit, frame: Frame) -> tuple[list[State], list[Exit]]:
    ended: list[State] = []
    for handler in node.handlers:
        types = handler_types(handler.type)
        answer = catches(types, egress.error)
        if answer is False:
            continue
        frame.handling.append(egress.error or (types[0] if len(types) == 1 else ""))
        state = egress.state.step(frame.place(handler), True)
        slot = (frame.number, handler.name or "")
        if handler.name:
            known = handler.name in frame.slice.names
            error = Path(EXT, (egress.error or (types[0] if len(types) == 1 else ""),))
            state = state.put(slot, Result(error, caught=True) if known else UNKNOWN)
        after = statements.block(handler.body, [state], frame)
        ended += [each.put(slot, UNKNOWN) for each in after] if handler.name else after
        frame.handling.pop()
        if answer is True:
            if egress.error or not types or "BaseException" in types:
                return ended, []
            reason = "only what is no Exception (KeyboardInterrupt, say) goes past this handler"
            return ended, [
                replace(egress, state=egress.state.doubted(frame.place(handler), reason), error="BaseException")
            ]
    return ended, [egress]


def handler_types(node: ast.expr | None) -> tuple[str, ...]:
    """() for a bare `except:`."""
    if node is None:
        return ()
    if isinstance(node, ast.Tuple):
        return tuple(name for item in node.elts for name in handler_types(item))
    parts = dotted(node)
    return (parts[-1] if parts else "",)


def _distinct(exits: list[Exit]) -> list[Exit]:
    found: dict[object, Exit] = {}
    for egress in exits:
        key = (egress.kind, egress.value, egress.error, egress.state.key)
        known = found.get(key)
        if known is None or (known.state.doubt and not egress.state.doubt):
            found[key] = egress
    return list(found.values())
