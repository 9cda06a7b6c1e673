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
_ENUMS = frozenset({"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"})
"""Where they are called with a name and members, these are texts: `Enum("Kind", "name other")`."""
_FORMATTED = ("format", "format_map")
_NAMESPACES = frozenset({"__dict__", "vars", "globals", "locals"})


def find_name(scope: Scope, name: str, within: Unit | None) -> Iterator[Finding]:
    """In the class's module, all of it; of its bases in other modules of the project what is in them or in no class.

    With a module as the target in that module, with `within` in that function.
    """
    for unit in [within] if within is not None else _units(scope):
        if unit.name == name and isinstance(unit.node, Function):
            yield _finding(unit, unit.node, name, None)
        words = {word for _, word in unit.words}
        if name in words or words & (_BY_TEXT | _ENUMS | _NAMESPACES) or not unit.text.isascii():
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
    home = scope.cls.module if scope.cls is not None else scope.module
    modules = {cls.module for cls in family} | {scope.module}
    for module in sorted(modules, key=lambda each: each.name):
        owners = tuple(cls.name for cls in family if cls.module is module)
        for unit in module.units:
            if module is home or unit.cls is None or _is_in(unit.cls.name, owners):
                yield unit


def _is_in(name: str, owners: tuple[str, ...]) -> bool:
    """Whether the class is one of these, or in one of them."""
    return any(name == owner or name.startswith(f"{owner}.") for owner in owners)


def _in_unit(unit: Unit, name: str) -> Iterator[Finding]:
    waiting: list[tuple[ast.AST, ast.AST | None]] = [(unit.node, None)]
    others = {id(each.node) for each in unit.module.units}
    slots = _slots(unit)
    while waiting:
        node, parent = waiting.pop()
        if id(node) in others and node is not unit.node:
            continue
        if _says(node, name) and node is not unit.node:
            yield _finding(unit, node, name, None)
        elif isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
            found = _finding(unit, node, name, None) if _is_slot(node, slots, name) else _text(unit, node, parent, name)
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


def _slots(unit: Unit) -> set[int]:
    """Texts in `__slots__` and `__match_args__`."""
    return {
        id(each)
        for node in unit.own_nodes
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if dotted(target)[-1:] in (("__slots__",), ("__match_args__",))
        for each in ast.walk(node.value)
    }


def _is_slot(node: ast.AST, slots: set[int], name: str) -> bool:
    return id(node) in slots and isinstance(node, ast.Constant) and node.value == name


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
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != name:
        found = _in_format(node.value, parent, name)
        if found is not None:
            doubt = None if found else Doubt(Place.of(unit, node), "whether this text is a format is not known")
            return _finding(unit, node, name, doubt)
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


def _in_format(text: str, parent: ast.AST | None, name: str) -> bool | None:
    """Whether the text names it in a format: surely, as a format may be all the same (False), or not at all (None)."""
    fields = re.findall(r"\{([^{}!:]*)", unicodedata.normalize("NFKC", text).replace("{{", ""))
    attributes = any(name in re.findall(r"\.(\w+)", field) for field in fields)
    if isinstance(parent, ast.Attribute) and parent.attr in _FORMATTED:
        return True if attributes or any(name == re.split(r"\W", field)[0] for field in fields) else None
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mod) and f"%({name})" in text:
        return True
    return False if attributes else None


def _says_in_text(node: ast.Constant, parent: ast.AST | None, name: str) -> bool:
    """`attrgetter("a.name")`, `patch("module.Class.name")`, `namedtuple("X", "a name")`, `exec("self.name = 1")`."""
    if not isinstance(node.value, str) or not isinstance(parent, ast.Call):
        return False
    called = (dotted(parent.func) or ("",))[-1]
    if called not in _WORDS and called not in _ENUMS and called not in ("patch", "object", "setattr", "delattr"):
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
    last = dotted(node.func)[-1:]
    if last and last[0] in _ENUMS:
        # The class's name comes first; `Kind(3)` and the like look a member up.
        return len(node.args) > 1 and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    return bool(last) and last[0] in _BY_TEXT


def _is_namespace(node: ast.expr) -> bool:
    callee = node.func if isinstance(node, ast.Call) else node
    return (dotted(callee) or ("",))[-1] in _NAMESPACES


def _finding(unit: Unit, node: ast.AST, name: str, doubt: Doubt | None) -> Finding:
    return Finding(f"{name!r} is named", (("here", Place.of(unit, node)),), doubt=doubt)
