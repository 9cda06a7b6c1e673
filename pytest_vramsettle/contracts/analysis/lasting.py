"""Attributes that keep their value for as long as the object lives."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from pytest_vramsettle.contracts.source import Module, Unit


class Lasting:
    """Contains the attributes that only `__init__` assigns, in the modules that are read; and the locks themselves."""

    def __init__(self, modules: Iterable[Module], locks: set[str]) -> None:
        self._modules = tuple(modules)
        self._known = dict.fromkeys(locks, True)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if name not in self._known:
            units = [unit for module in self._modules for prefix, unit in module.by_word.get(name, ()) if prefix]
            self._known[name] = not any(unit.name != "__init__" and _assigns(unit, name) for unit in units)
        return self._known[name]


def _assigns(unit: Unit, name: str) -> bool:
    # Most units only read it: the text tells so in a hundredth of the time.
    if not re.search(rf"\.{name}\s*(?:=(?!=)|[,:)\]+*/|&^%@<>-]|in\b|\n)", unit.text + "\n"):
        return False
    return any(
        isinstance(node, ast.Attribute) and node.attr == name and not isinstance(node.ctx, ast.Load)
        for node in ast.walk(unit.node)
    )


__all__ = ["Lasting"]
