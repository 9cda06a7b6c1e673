"""Where the call that a contract requires may hide: the backstop of `reach`, behind *violated*.

A path on which the required call was not seen may pass a place of which it is not known what it does. Where names lead
from there to that call, the path breaks nothing for sure.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pytest_vramsettle.contracts.analysis import rounds
from pytest_vramsettle.contracts.analysis.engine import Run
from pytest_vramsettle.contracts.analysis.state import Place
from pytest_vramsettle.contracts.names.reach import Backstop, Spread
from pytest_vramsettle.contracts.names.uses import Region, uses
from pytest_vramsettle.contracts.source import ClassInfo, Unit

_WALKED = frozenset({"__init__", "__enter__", "__exit__", "__aenter__", "__aexit__", "__call__", "__del__"})
_LOOKING = frozenset({"__getattr__", "__getattribute__"})
_STORING = frozenset({"__setattr__", "__delattr__"})


def suspects(run: Run) -> dict[int, str]:
    """Statements, `with` items and the like by the ids of their nodes, and why each may do what is required."""
    search = _Search(run)
    found: dict[int, str] = {}
    for region in run.regions.values():
        reason = next(search.of_region(region), "")
        if reason:
            found[id(region.node)] = reason
    return found


class _Search:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.backstop = Backstop(run, run.rule.required)
        self.last = run.wanted.last
        self.text = " or ".join(pattern.text for pattern in self.backstop.patterns)
        self._leading: set[Unit] = set()
        self._harmless: set[Unit] = set()
        # A local variable of that name is no attribute of the class.
        kinds = (ast.Attribute,) if run.scope.cls is not None else (ast.Attribute, ast.Name)
        unseen = rounds.unseen(run, run.wanted.last)
        self._unseen = {id(place.node) for place in unseen if isinstance(place.node, kinds)}
        self._operators: dict[ClassInfo, set[str]] = {}
        for unit in run.targets.units:
            special = unit.name.startswith("__") and unit.name.endswith("__") and unit.name not in _WALKED
            if special and unit.cls is not None and self.leads(unit):
                self._operators.setdefault(unit.cls, set()).add(unit.name)

    def of_region(self, region: Region) -> Iterator[str]:
        parts = region.parts()
        nodes = list(self._own(parts))
        for node in nodes:
            if id(node) in self.run.handed:
                yield self.run.handed[id(node)]
            if id(node) in self._unseen:
                yield f"what becomes of this mention of {self.text} is not followed"
        for use in uses(parts, self.run.lambdas):
            for finding in self.backstop.dynamic(use, region.unit, Place.of(region.unit, use.node)):
                yield finding.message
            for unit in self.backstop.of_use(use, region.unit):
                if self.leads(unit):
                    yield f"by its name this may lead to {unit.qualified}, and so to {self.text}"
        if self._operators:
            yield from self._run_by_operators(nodes, region.unit)

    def _own(self, parts: list[ast.AST]) -> Iterator[ast.AST]:
        """Without the lambdas of which it is known where they are called."""
        waiting = list(parts)
        while waiting:
            node = waiting.pop()
            yield node
            waiting += ast.iter_child_nodes(node) if id(node) not in self.run.lambdas else []

    def leads(self, start: Unit) -> bool:
        """Whether names lead from this function to what is required."""
        if start in self._harmless:
            return False
        reached, waiting = {start}, [start]
        spread: Spread = set()
        for unit in waiting:  # it grows
            if unit in self._leading or unit.name in self.last or self.backstop.mention(unit) is not None:
                self._leading.add(start)
                return True
            for use in uses(ast.iter_child_nodes(unit.node), set()):
                found = self.backstop.by_name(use, unit, spread)
                fresh = [each for each in found if each not in reached and each not in self._harmless]
                reached.update(fresh)
                waiting += fresh
        self._harmless |= reached
        return False

    def _run_by_operators(self, nodes: list[ast.AST], unit: Unit) -> Iterator[str]:
        """`if x:`, `len(x)`, `x.y = 1` where `x` is of a class of which a special method leads there."""
        bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            if isinstance(node, ast.Attribute):
                loaded = isinstance(node.ctx, ast.Load)
                for cls, names in self._of(node.value, unit):
                    if names & (_LOOKING if loaded else _STORING) and not (loaded and self._is_there(cls, node.attr)):
                        yield self._special(cls)
            if isinstance(node, ast.Name | ast.Attribute | ast.Call) and id(node) not in bases:
                yield from (self._special(cls) for cls, names in self._of(node, unit) if names - _LOOKING - _STORING)

    def _of(self, node: ast.expr, unit: Unit) -> Iterator[tuple[ClassInfo, set[str]]]:
        guesses = self.backstop.guesses
        for cls in guesses.of(node, unit).classes:
            for each in guesses.relatives(cls):
                if each in self._operators:
                    yield each, self._operators[each]

    def _is_there(self, cls: ClassInfo, name: str) -> bool:
        """As a method, or as an attribute that some code assigns."""
        if self.run.method(cls, name) is not None:
            return True
        units = [unit for module in self.run.scope.modules for _, unit in module.by_word.get(name, ())]
        return any(
            isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Store)
            for unit in units
            for node in unit.own_nodes
        )

    def _special(self, cls: ClassInfo) -> str:
        return f"a special method of {cls.name} may run here, and lead to {self.text}"


__all__ = ["suspects"]
