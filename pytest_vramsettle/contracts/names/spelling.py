"""Names in a contract that no code says, and what they may have been meant to be."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from pytest_vramsettle.contracts.analysis.engine import Scope
from pytest_vramsettle.contracts.analysis.hotness import mentions
from pytest_vramsettle.contracts.patterns import Pattern
from pytest_vramsettle.contracts.source import Module, closest, dotted

if TYPE_CHECKING:
    from pytest_vramsettle.contracts.contract import Contract

_LOCKS = ("Lock", "Condition", "Semaphore")


def unused(contract: Contract, scope: Scope) -> str:
    """What the contract names and no code does; "" where all of it is there. Comments do not count."""
    notes = []
    if contract.lock and not _is_said(scope, tuple(contract.lock.split("."))):
        notes.append(f"the lock {contract.lock!r} is used by no code{closest(contract.lock, locks(scope))}")
    for pattern in contract.patterns.values():
        if not _is_said(scope, pattern.parts):
            name = ".".join(pattern.parts)
            there = written(scope) if pattern.kind == "write" else called(scope)
            notes.append(f"{pattern.text!r} is used by no code{closest(name, there, known=False)}")
        elif pattern.value and not _is_said(scope, pattern.value):
            value = ".".join(pattern.value)
            notes.append(f"{value + '()'!r} is called by no code{closest(value, called(scope), known=False)}")
    return "; ".join(notes)


def elsewhere(pattern: Pattern, scope: Scope) -> str:
    """'; it is called in Backend._spawn (backend.py:12)', where it is."""
    for module in _near(scope):
        for _, unit in module.by_word.get(pattern.parts[-1], ()):
            for node in ast.walk(unit.node):
                if isinstance(node, ast.Call) and dotted(node.func)[-1:] == pattern.parts[-1:]:
                    return f"; it is called in {unit.qualified} ({module.path}:{node.lineno})"
    return ""


def _is_said(scope: Scope, parts: tuple[str, ...]) -> bool:
    *owners, last = parts
    return _in_code(scope, last) and all(_in_code(scope, each) or _is_module(scope, each) for each in owners)


def _in_code(scope: Scope, word: str) -> bool:
    modules = [module for module in scope.modules if word in module.identifiers]
    units = (unit for module in modules for _, unit in module.by_word.get(word, ()))
    # What heads a class is in no unit.
    trees = (module.tree for module in modules)
    return any(_says(node, word) for top in (*(unit.node for unit in units), *trees) for node in ast.walk(top))


def _says(node: ast.AST, word: str) -> bool:
    if isinstance(node, ast.alias):
        return word in (*node.name.split("."), node.asname)
    return mentions(node, {word}) or (isinstance(node, ast.ExceptHandler) and node.name == word)


def _is_module(scope: Scope, word: str) -> bool:
    """A part of a module's name, also of one that is imported from: `from subprocess import Popen`."""
    return any(
        word in module.name.split(".")
        or (word in module.identifiers and any(word in path for path in module.imports.values()))
        for module in scope.modules
    )


def _near(scope: Scope) -> list[Module]:
    """The target's module, and those of its bases."""
    family = scope.project.mro(scope.cls) if scope.cls is not None else []
    return list(dict.fromkeys([scope.module, *(cls.module for cls in family)]))


def _named(node: ast.AST) -> str:
    parts = dotted(node)
    return ".".join(parts[1:] if parts[:1] in (("self",), ("cls",)) else parts)


def locks(scope: Scope) -> set[str]:
    """What the target's modules assign a lock to, enter, or acquire."""
    found: set[str] = set()
    for node in (each for module in _near(scope) for each in ast.walk(module.tree)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            if (dotted(node.value.func) or ("",))[-1].endswith(_LOCKS):
                found.update(_named(target) for target in node.targets)
        elif isinstance(node, ast.withitem) and not isinstance(node.context_expr, ast.Call):
            found.add(_named(node.context_expr))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "acquire":
            found.add(_named(node.func.value))
    return found - {""}


def called(scope: Scope) -> set[str]:
    """What they call, and the functions that they define."""
    found = {unit.name for module in _near(scope) for unit in module.units if not unit.name.startswith("<")}
    for node in (each for module in _near(scope) for each in ast.walk(module.tree)):
        if isinstance(node, ast.Call):
            found.add(_named(node.func))
    return found - {""}


def written(scope: Scope) -> set[str]:
    """The attributes that they assign."""
    return {
        _named(node)
        for module in _near(scope)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
    } - {""}
