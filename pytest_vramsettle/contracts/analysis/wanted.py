"""What a contract requires: which code may do it, by the names that it says."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_vramsettle.contracts.analysis.relevance import Relevance
from pytest_vramsettle.contracts.analysis.values import Const, Deferred, Func, Path, Value, parts_of
from pytest_vramsettle.contracts.source import ClassInfo, Module, Unit

if TYPE_CHECKING:
    from pytest_vramsettle.contracts.analysis.engine import Rule, Run


class Wanted:
    """Of one rule; worked out where it is asked for, as most contracts are kept."""

    def __init__(
        self,
        modules: Iterable[Module],
        rule: Rule,
        related: Callable[[ClassInfo | None, ClassInfo | None], bool],
        home: str,
    ) -> None:
        self._modules = tuple(modules)
        self._related = related
        self._home = home
        self.roles = frozenset(rule.required)
        self._patterns = [pattern for role, pattern in rule.patterns.items() if role in self.roles]
        self.names = {name for pattern in self._patterns for name in pattern.names}
        self.last = {pattern.parts[-1] for pattern in self._patterns}

    @cached_property
    def units(self) -> dict[Unit, None]:
        """Those that say its names, or the names of those that do."""
        return Relevance(self._modules, self.names, self._related, self._home, makers=False).units

    def is_met(self, value: Value, run: Run) -> bool:
        """Whether a call of this, or of something in it, may do it."""
        return any(self._is_met(part, run) for part in parts_of(value))

    def _is_met(self, part: Value, run: Run) -> bool:
        if isinstance(part, Func):
            whole = part.node is part.unit.node
            return part.unit in self.units and (whole or any(says(each, self.last) for each in ast.walk(part.node)))
        if isinstance(part, Path | Deferred):
            return any(role in self.roles for role, _ in run.matches(part))
        return isinstance(part, Const) and isinstance(part.value, str) and part.value in self.last


def says(node: ast.AST, names: set[str]) -> bool:
    """Whether this very node is one of the names, or an attribute called so."""
    return (isinstance(node, ast.Name) and node.id in names) or (isinstance(node, ast.Attribute) and node.attr in names)


__all__ = ["Wanted", "says"]
