"""Other names of what a contract names: one lock under two attributes, `from subprocess import Popen as P`."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

from pytest_vramsettle.contracts.analysis.engine import Scope
from pytest_vramsettle.contracts.patterns import Pattern
from pytest_vramsettle.contracts.source import Function, Module, Parts, Unit, dotted

FOREIGN = "*"
"""Before the name of an attribute of some other object, that may hold the lock."""
_ROUNDS = 3


def lock_paths(scope: Scope, name: str) -> dict[Parts, str]:
    """The lock's path, and those of the locks that it was made of: what it is assigned, or a Condition is over."""
    paths = {tuple(name.split(".")): name}
    known: dict[Unit, _Assigned] = {}
    for _ in range(_ROUNDS):
        before = len(paths)
        for path in [each for each in paths if each[0] != FOREIGN]:
            for unit in _units(scope, path[-1]):
                if not _may_assign(unit, path[-1]):
                    continue
                if unit not in known:
                    known[unit] = _Assigned(scope, unit)
                paths.update(dict.fromkeys(known[unit].same_as(path), name))
        if len(paths) == before:
            break
    return paths


def other_names(scope: Scope, patterns: Collection[Pattern]) -> set[str]:
    """What imports and subclasses call the functions and classes that are meant."""
    found: set[str] = set()
    wanted = {pattern.parts[-1] for pattern in patterns if pattern.is_call}
    for module in scope.modules:
        if not any(name in module.identifiers for name in wanted):
            continue
        for name, origins in module.origins.items():
            if any(origin[-1] in wanted for origin in origins):
                found.add(name)
        for cls in module.classes.values() if module.units else ():
            if any((dotted(base) or ("",))[-1] in wanted | found for base in cls.node.bases):
                found.add(cls.name.rpartition(".")[2])
    for value in {pattern.value for pattern in patterns if pattern.value}:
        found |= {name for module in scope.modules for name in _returning(module, value[-1])}
    return found - wanted


def _returning(module: Module, name: str) -> Iterator[str]:
    """Functions that hand on what this one said: `return time.monotonic()`."""
    for _, unit in module.by_word.get(name, ()) if name in module.identifiers else ():
        for node in ast.walk(unit.node) if isinstance(unit.node, Function) else ():
            called = node.value.func if isinstance(node, ast.Return) and isinstance(node.value, ast.Call) else None
            if called is not None and (dotted(called) or ("",))[-1] == name:
                yield unit.name


def _units(scope: Scope, word: str) -> Iterator[Unit]:
    """Of the class and its relatives, and the bodies and functions around them."""
    family = {*scope.family(), *(scope.project.mro(scope.cls) if scope.cls is not None else ())}
    for module in scope.modules:
        for unit in dict.fromkeys(unit for _, unit in module.by_word.get(word, ())):
            if unit.cls in family or (unit.cls is None and (scope.cls is None or module is scope.module)):
                yield unit


def _may_assign(unit: Unit, word: str) -> bool:
    """Most units only take the lock: the text tells so in a hundredth of the time."""
    return re.search(rf"\b{word}[ \t]*(?:=(?!=)|:[^\n]*=|[,)\]\\#\n])", unit.text + "\n") is not None


class _Assigned:
    """The assignments of one function or body."""

    def __init__(self, scope: Scope, unit: Unit) -> None:
        self.scope = scope
        self.unit = unit
        self.pairs = [pair for node in unit.own_nodes for pair in _pairs(node)]
        node = unit.node
        spec = node.args if isinstance(node, Function) else None
        self.parameters = [each.arg for each in (*spec.posonlyargs, *spec.args)] if spec is not None else []
        self.keywords = [each.arg for each in spec.kwonlyargs] if spec is not None else []
        own = {target.id for targets, _ in self.pairs for target in targets if isinstance(target, ast.Name)}
        self.locals = {*own, *self.parameters, *self.keywords} if spec is not None else set()

    def same_as(self, path: Parts) -> Iterator[Parts]:
        for targets, value in self.pairs:
            if path not in [self._path(target) for target in targets]:
                continue
            yield from (other for target in targets if (other := self._path(target)) and other != path)
            for target in targets:
                if isinstance(target, ast.Name) and target.id in self.locals:
                    yield from self._of_local(target.id)
            for source in _sources(value):
                yield from self._of_source(source)

    def _of_source(self, source: ast.expr) -> Iterator[Parts]:
        path = self._path(source)
        if isinstance(source, ast.Subscript):
            container = self._path(source.value)
            if container is not None:
                yield (FOREIGN, container[-1])  # any of the locks in it may be this one
        elif path is not None:
            yield path
            if len(path) > 1 and self.unit.cls is not None:
                yield path[:-1]  # `condition._lock`: the condition is that lock
        elif isinstance(source, ast.Name):
            yield from self._of_local(source.id)

    def _of_local(self, name: str) -> Iterator[Parts]:
        """What else was assigned this local, and what it was assigned itself."""
        for targets, value in self.pairs:
            named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
            if named or any(isinstance(source, ast.Name) and source.id == name for source in _sources(value)):
                yield from (path for target in targets if (path := self._path(target)))
                if named:
                    yield from (path for source in _sources(value) if (path := self._path(source)))
        if self.unit.name == "__init__" and name in (*self.parameters, *self.keywords):
            yield from self._given(name)

    def _given(self, name: str) -> Iterator[Parts]:
        """What the callers of the constructor give for this parameter."""
        index = self.parameters.index(name) - 1 if name in self.parameters else -1
        for cls in self.scope.family():
            word = cls.name.rpartition(".")[2]
            units = [unit for module in self.scope.modules for _, unit in module.by_word.get(word, ())]
            for node in (node for unit in dict.fromkeys(units) for node in ast.walk(unit.node)):
                if not isinstance(node, ast.Call) or (dotted(node.func) or ("",))[-1] != word:
                    continue
                given = [keyword.value for keyword in node.keywords if keyword.arg == name]
                given += [node.args[index]] if 0 <= index < len(node.args) else []
                for parts in (dotted(value) for value in given):
                    if parts:
                        yield parts if len(parts) == 1 else (FOREIGN, parts[-1])

    def _path(self, node: ast.expr) -> Parts | None:
        """Of an attribute of the class, or of a global; None of a local variable and of anything else."""
        parts = dotted(node)
        if not parts or isinstance(node, ast.Subscript):
            return None
        cls = self.unit.cls
        if len(parts) > 1 and (parts[0] in ("self", "cls") or (cls is not None and parts[0] == cls.name)):
            return parts[1:] if cls is not None else None
        if len(parts) > 1:
            return None
        return None if parts[0] in self.locals else parts


def _pairs(node: ast.AST) -> Iterator[tuple[list[ast.expr], ast.expr]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                yield from (([each], value) for each, value in zip(target.elts, node.value.elts, strict=False))
        yield [target for target in node.targets if not isinstance(target, ast.Tuple | ast.List)], node.value
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield [node.target], node.value


def _sources(value: ast.expr) -> Iterator[ast.expr]:
    """What it may be the same lock as."""
    if isinstance(value, ast.Name | ast.Attribute | ast.Subscript):
        yield value
    elif isinstance(value, ast.BoolOp):
        yield from (source for each in value.values for source in _sources(each))
    elif isinstance(value, ast.IfExp):
        yield from (*_sources(value.body), *_sources(value.orelse))
    elif isinstance(value, ast.NamedExpr):
        yield from (value.target, *_sources(value.value))
    elif isinstance(value, ast.Call) and (dotted(value.func) or ("",))[-1] == "Condition":
        for each in (*value.args[:1], *(keyword.value for keyword in value.keywords if keyword.arg == "lock")):
            yield from _sources(each)


__all__ = ["FOREIGN", "lock_paths", "other_names"]
