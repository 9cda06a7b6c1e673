"""`must_not_name`: where a name stands in code. Comments and longer texts do not count."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator

from pytest_vramsettle.contracts.analysis.engine import Scope
from pytest_vramsettle.contracts.analysis.rules import Finding
from pytest_vramsettle.contracts.analysis.state import Doubt, Place
from pytest_vramsettle.contracts.source import BODY, Function, Unit, dotted

_BY_TEXT = frozenset(
    {"setattr", "getattr", "hasattr", "delattr", "__setattr__", "__getattribute__", "__delattr__", "__getattr__"}
    | {"attrgetter", "methodcaller", "exec", "eval", "namedtuple", "make_dataclass", "patch", "object"}
)
_WORDS = frozenset({"namedtuple", "make_dataclass", "exec", "eval", "attrgetter", "methodcaller"})
"""Calls whose texts hold several names, or code."""
_NAMESPACES = frozenset({"__dict__", "vars", "globals", "locals"})


def find_name(scope: Scope, name: str, within: Unit | None) -> Iterator[Finding]:
    """The class with its bases in the project, and the functions and statements of its module that are in no class."""
    for unit in [within] if within is not None else _units(scope):
        if unit.name == name and isinstance(unit.node, Function):
            yield _finding(unit, unit.node, name, None)
        words = {word for _, word in unit.words}
        if name in words or words & _BY_TEXT or words & _NAMESPACES or not unit.text.isascii():
            yield from _in_unit(unit, name)
    if within is None:
        yield from _in_headers(scope, name)


def _in_headers(scope: Scope, name: str) -> Iterator[Finding]:
    """What a class statement says itself: its name, bases, keywords and decorators."""
    for unit in _units(scope):
        for node in getattr(unit.node, "body", ()) if unit.name == BODY else ():
            if isinstance(node, ast.ClassDef):
                if _says(node, name):
                    yield _finding(unit, node, name, None)
                for part in (*node.bases, *node.keywords, *node.decorator_list):
                    yield from (_finding(unit, each, name, None) for each in ast.walk(part) if _says(each, name))


def _units(scope: Scope) -> Iterator[Unit]:
    family = scope.project.mro(scope.cls) if scope.cls is not None else []
    modules = {cls.module for cls in family} | {scope.module}
    for module in sorted(modules, key=lambda each: each.name):
        for unit in module.units:
            if unit.cls is None or scope.cls is None or unit.cls in family:
                yield unit


def _in_unit(unit: Unit, name: str) -> Iterator[Finding]:
    waiting: list[tuple[ast.AST, ast.AST | None]] = [(unit.node, None)]
    while waiting:
        node, parent = waiting.pop()
        if unit.name == BODY and node is not unit.node and isinstance(node, Function | ast.ClassDef):
            continue
        if _says(node, name) and node is not unit.node:
            yield _finding(unit, node, name, None)
        elif isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
            found = _text(unit, node, parent, name)
            if found is not None:
                yield found
            if isinstance(node, ast.JoinedStr):
                waiting += [
                    (child, None) for child in ast.iter_child_nodes(node) if not isinstance(child, ast.Constant)
                ]
                continue
        elif isinstance(node, ast.Call) and _by_text(node) and len(node.args) > 1 and _is_computed(node.args[1]):
            reason = "which name this call uses is computed"
            yield _finding(unit, node, name, Doubt(Place.of(unit, node), reason))
        waiting += [(child, node) for child in ast.iter_child_nodes(node)]


def _says(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Name):
        return node.id == name
    if isinstance(node, ast.Attribute):
        return node.attr == name
    if isinstance(node, ast.keyword | ast.arg):
        return node.arg == name
    if isinstance(node, ast.alias):
        return name == node.asname or name in node.name.split(".")
    if isinstance(node, ast.ImportFrom):
        return name in (node.module or "").split(".")
    if isinstance(node, ast.MatchMapping):
        return node.rest == name
    if isinstance(node, ast.Global | ast.Nonlocal):
        return name in node.names
    if isinstance(node, ast.MatchClass):
        return name in node.kwd_attrs
    return (
        isinstance(node, Function | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar)
        and node.name == name
    )


def _text(
    unit: Unit, node: ast.Constant | ast.JoinedStr | ast.BinOp, parent: ast.AST | None, name: str
) -> Finding | None:
    pattern = _pattern(node)
    if pattern is None or isinstance(parent, ast.Expr):
        return None
    if isinstance(node, ast.Constant):
        used = isinstance(parent, ast.Call) and _by_text(parent)
        if node.value != name and not (used and _says_in_text(node, parent, name)):
            return None
        stored = isinstance(parent, ast.Subscript) and _is_namespace(parent.value)
        doubt = None if used or stored else Doubt(Place.of(unit, node), "whether this text becomes a name is not known")
        return _finding(unit, node, name, doubt)
    if not isinstance(parent, ast.Call) or not _by_text(parent) or not re.fullmatch(pattern, name):
        return None
    exact = pattern == re.escape(name)
    doubt = None if exact else Doubt(Place.of(unit, node), "this computed text may be the name")
    return _finding(unit, node, name, doubt)


def _says_in_text(node: ast.Constant, parent: ast.AST | None, name: str) -> bool:
    """`attrgetter("a.name")`, `patch("module.Class.name")`, `namedtuple("X", "a name")`, `exec("self.name = 1")`."""
    if not isinstance(node.value, str) or not isinstance(parent, ast.Call):
        return False
    called = (dotted(parent.func) or ("",))[-1]
    if called not in _WORDS and called not in ("patch", "object", "setattr", "delattr"):
        return False
    return name in re.findall(r"\w+", unicodedata.normalize("NFKC", node.value))


def _pattern(node: ast.AST) -> str | None:
    """A regular expression of what the text can be."""
    if isinstance(node, ast.Constant):
        return re.escape(node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_pattern(each) or ".*" for each in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (_pattern(node.left) or ".*") + (_pattern(node.right) or ".*")
    return None


def _is_computed(node: ast.expr) -> bool:
    return _pattern(node) is None


def _by_text(node: ast.Call) -> bool:
    parts = dotted(node.func)
    return bool(parts) and parts[-1] in _BY_TEXT


def _is_namespace(node: ast.expr) -> bool:
    callee = node.func if isinstance(node, ast.Call) else node
    return (dotted(callee) or ("",))[-1] in _NAMESPACES


def _finding(unit: Unit, node: ast.AST, name: str, doubt: Doubt | None) -> Finding:
    return Finding(f"{name!r} is named", (("here", Place.of(unit, node)),), doubt=doubt)
