"""Properties: calls that look like attributes."""

from __future__ import annotations

import ast

from pytest_vramsettle.contracts.analysis.relevance import may_raise
from pytest_vramsettle.contracts.analysis.values import own_nodes
from pytest_vramsettle.contracts.source import Function, Unit, dotted

PROPERTIES = frozenset({"property", "cached_property", "functools.cached_property", "abstractproperty"})


def is_property(unit: Unit) -> bool:
    decorators = unit.node.decorator_list if isinstance(unit.node, Function) else []
    return any((dotted(each) or ("",))[-1] in PROPERTIES for each in decorators)


def raises(unit: Unit) -> bool:
    """Whether anything in it may, by itself or in what it calls."""
    nodes = list(own_nodes(unit.node))
    own = {each.attr for each in nodes if isinstance(each, ast.Attribute) and dotted(each)[:1] == ("self",)}
    others = unit.cls.methods if unit.cls is not None else {}
    return any(isinstance(each, ast.Raise) or may_raise(each) for each in nodes) or any(
        name in others and name != unit.name and is_property(others[name]) for name in own
    )


__all__ = ["PROPERTIES", "is_property", "raises"]
