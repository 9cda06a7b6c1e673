"""What a piece of code may call: what it says, and what the language does on its behalf."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_vramsettle.contracts.analysis.state import Place
from pytest_vramsettle.contracts.source import Function, Unit, dotted

BY_TEXT = frozenset({"hasattr", "getattr", "attrgetter", "methodcaller"})
COMPUTING = frozenset({"exec", "eval"})
_BLOCKS = frozenset({"body", "orelse", "finalbody", "handlers", "items", "cases"})
"""What a compound statement holds: it runs later, each part as a region of its own."""


@dataclass(frozen=True, slots=True)
class Region:
    """Code that was walked through: a statement or expression; of a compound statement its head, unless `whole`."""

    unit: Unit
    node: ast.AST
    whole: bool

    @property
    def place(self) -> Place:
        return Place.of(self.unit, self.node)

    def parts(self) -> list[ast.AST]:
        """The trees that ran as part of it. What a nested function does is not among them."""
        node = self.node
        if isinstance(node, Function):
            return [*_applied(node), *node.args.defaults, *(each for each in node.args.kw_defaults if each)]
        if self.whole or not isinstance(node, ast.stmt) or not _BLOCKS.intersection(node._fields):
            return [node]
        found: list[ast.AST] = []
        for name, value in ast.iter_fields(node):
            if name not in _BLOCKS:
                found += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, ast.AST)]
        for case in node.cases if isinstance(node, ast.Match) else ():
            found += [case.pattern, *([case.guard] if case.guard is not None else [])]
        return found


@dataclass(frozen=True, slots=True)
class Use:
    """`kind`: 'call', 'look' or 'store' of `base.name` (of the global `name` without a base); 'named', a method by a
    text; 'enter' of a manager; 'compute' of a name or of code at run time."""

    kind: str
    node: ast.AST
    name: str
    base: ast.expr | None = None


def uses(nodes: Iterable[ast.AST], skipped: set[int]) -> Iterator[Use]:
    """`skipped`: lambdas and such, of which the analysis knows where they are called."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if id(node) in skipped:
            # Its default values are looked at where it is made.
            waiting += ast.iter_child_nodes(node.args) if isinstance(node, ast.Lambda) else []
            continue
        yield from _of_node(node)
        waiting += ast.iter_child_nodes(node)


def _of_node(node: ast.AST) -> Iterator[Use]:
    if isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Attribute):
        yield Use("look" if isinstance(node.ctx, ast.Load) else "store", node, node.attr, node.value)
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
        yield Use("look", node.target, node.target.attr, node.target.value)
    elif isinstance(node, ast.MatchClass):
        yield from (Use("look", node, name, node.cls) for name in node.kwd_attrs)
    elif isinstance(node, ast.withitem):
        yield Use("enter", node.context_expr, "", node.context_expr)
    elif isinstance(node, Function):
        yield from (use for each in _applied(node) for use in _of_call(each))


def _applied(node: Function) -> list[ast.Call]:
    """The calls of its decorators, which run where it is defined."""
    return [
        ast.copy_location(ast.Call(func=decorator, args=[], keywords=[]), decorator)
        for decorator in node.decorator_list
    ]


def _of_call(node: ast.Call) -> Iterator[Use]:
    function = node.func
    if isinstance(function, ast.Name):
        yield Use("call", node, function.id)
        yield Use("call", node, "__call__", function)
    elif isinstance(function, ast.Attribute):
        yield Use("call", node, function.attr, function.value)
    else:
        yield Use("call", node, "__call__", function)
    name = (dotted(function) or ("",))[-1]
    if name in COMPUTING and isinstance(function, ast.Name):
        yield Use("compute", node, name)
    if name not in BY_TEXT or not node.args:
        return
    text = node.args[-1] if name in ("attrgetter", "methodcaller") else (node.args[1:2] or [node])[0]
    base = node.args[0] if name in ("hasattr", "getattr") else None
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        for part in text.value.split("."):
            yield Use("look", text, part, base)
            if base is None:
                yield Use("named", text, part)
            elif name == "getattr" and dotted(base) != ("self",):
                yield Use("call", text, part, base)
    elif base is not None and len(node.args) > 1:
        yield Use("compute", node, name, base)


__all__ = ["Region", "Use", "uses"]
