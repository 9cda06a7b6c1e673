"""Imports of the project's own modules that are not there: what they would have brought cannot be judged."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pytest_vramsettle.contracts.analysis.engine import Scope
from pytest_vramsettle.contracts.analysis.rules import Finding, unclear
from pytest_vramsettle.contracts.analysis.state import Place
from pytest_vramsettle.contracts.source import Module, closest

_CAUGHT = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_DYNAMIC = ("__getattr__", "globals", "exec", "import *", "sys.modules")


def missing_imports(scope: Scope) -> Iterator[Finding]:
    """Of modules that are relative, or of the target's own top-level package, as far as the code uses their names.

    Left out: what is caught by `except ImportError`, names like `__version__`, and names for annotations alone.
    """
    top = scope.module.name.partition(".")[0]
    for module in scope.modules:
        if any(not _is_there(scope, name) for name in module.mentioned_modules if _is_own(module, name, top)):
            yield from _in_module(scope, module, top)


def _is_own(module: Module, name: str, top: str) -> bool:
    return name.partition(".")[0] == top or name in module.relative_modules


def _is_there(scope: Scope, name: str) -> bool:
    """As a module or, by its text, as a name in one."""
    if scope.project.offers(name):
        return True
    parent, _, last = name.rpartition(".")
    origin = scope.project.follow(parent) if parent else None
    if origin is None:
        return bool(parent) and scope.project.is_opaque(parent)
    return last in origin.identifiers or any(word in origin.text for word in _DYNAMIC)


def _in_module(scope: Scope, module: Module, top: str) -> Iterator[Finding]:
    caught = _caught(module.tree)
    for node in ast.walk(module.tree):
        if id(node) in caught:
            continue
        if isinstance(node, ast.ImportFrom):
            yield from _from(scope, module, node, top)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == top and not scope.project.offers(alias.name):
                    bound = alias.asname or top
                    if _is_used(scope, module, bound):
                        yield _finding(module, node, f"module {alias.name!r} is not there", bound)


def _from(scope: Scope, module: Module, node: ast.ImportFrom, top: str) -> Iterator[Finding]:
    base = ".".join(module.base_of(node))
    if not node.level and base.partition(".")[0] != top:
        return
    is_there = bool(base) and scope.project.offers(base)
    for alias in node.names:
        bound = alias.asname or alias.name
        # Whether a name is used takes a walk through the whole module; most are there.
        if is_there and (alias.name == "*" or _is_there(scope, f"{base}.{alias.name}")):
            continue
        if not _is_used(scope, module, bound):
            continue
        if not is_there:
            yield _finding(module, node, f"module {base or '.' * node.level!r} is not there", bound)
        else:
            origin = scope.project.follow(base)
            there = {*origin.functions, *origin.classes} if origin is not None else set()
            near = closest(alias.name, there, known=False)
            yield _finding(module, node, f"module {base!r} has no {alias.name!r}{near}", bound)


def _finding(module: Module, node: ast.AST, what: str, bound: str) -> Finding:
    place = Place.of(module.units[0], node)
    reason = f"{what}: what {'comes from it' if bound == '*' else repr(bound)} does is not known"
    return unclear(place, reason, "imported here")


def _caught(tree: ast.Module) -> set[int]:
    """Imports for whose failing the code is ready."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(_catches(handler) for handler in node.handlers):
            found |= {id(each) for statement in node.body for each in ast.walk(statement)}
    return found


def _catches(handler: ast.ExceptHandler) -> bool:
    named = {each.id for each in ast.walk(handler.type) if isinstance(each, ast.Name)} if handler.type else _CAUGHT
    return bool(named & _CAUGHT)


def _is_used(scope: Scope, module: Module, bound: str) -> bool:
    if bound == "*":
        return True
    if bound.startswith("__") and bound.endswith("__"):
        return False
    if _loads(module.tree, bound):
        return True
    full = (*module.name.split("."), bound)
    others = (other for other in scope.modules if other is not module and bound in other.identifiers)
    return any(full == path[: len(full)] for other in others for path in other.imports.values())


def _loads(tree: ast.Module, name: str) -> bool:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and node.id == name:
            return True
        for field, value in ast.iter_fields(node):
            if field not in ("annotation", "returns"):
                items = value if isinstance(value, list) else [value]
                waiting += [item for item in items if isinstance(item, ast.AST)]
    return False


def first_missing(scope: Scope) -> str:
    """'; and module 'app.base' is not there (app/backend.py:3)', for what may have been in it; "" where all are."""
    for finding in missing_imports(scope):
        _, place = finding.places[0]
        return f"; and {finding.message.partition(': what')[0]} ({place.path}:{place.line})"
    return ""
