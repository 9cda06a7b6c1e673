"""What need not be looked at: which units matter to a contract, and which nodes of a unit do.

A unit matters when its text mentions one of the contract's names, or the name of a unit that matters. Inside a unit a
node is *hot* when something below it does. What is cold is summed up: it may raise, leave, and assign.
"""

from __future__ import annotations

import ast
import queue
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pytest_vramsettle.contracts.analysis.values import own_nodes
from pytest_vramsettle.contracts.source import BODY, ClassInfo, Function, Module, Unit, dotted

_COMMON_TYPES = (dict, list, set, str, bytes, tuple, threading.Thread, threading.Event, subprocess.Popen, queue.Queue)
COMMON = frozenset(
    name for kind in (*_COMMON_TYPES, socket.socket) for name in dir(kind) if not name.startswith("_")
) | {"run", "open", "read", "write", "seek", "flush", "acquire", "release", "submit", "result", "shutdown", "stop"}
"""Methods that objects of everyday types have: on an unknown object they are taken to be those."""

IMPLICIT = frozenset(
    {"__init__", "__enter__", "__exit__", "__aenter__", "__aexit__", "__call__", "__iter__", "__next__"}
)
_BY_TEXT = ("getattr", "attrgetter", "methodcaller", "hasattr")
_CLOCKS = frozenset({"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"})
_QUIET_NAMES = _CLOCKS | frozenset(
    {
        "print",
        "len",
        "isinstance",
        "issubclass",
        "bool",
        "id",
        "hasattr",
        "callable",
        "type",
        "repr",
        "str",
        "super",
    }
)
_QUIET_METHODS = frozenset({"is_set", "set", "clear", "locked", "append", "get", "is_alive", "add", "discard"})
_QUIET_MODULES = frozenset({"time", "logging", "log", "logger", "_log", "_logger", "LOG", "LOGGER"})


class Relevance:
    """Grows: `add` takes in names, and the units that they make relevant.

    `related(cls, owner)` says whether `self.name` in a method of `cls` can be what `owner` (None: the contract's class)
    calls so; `home` is the name of the contract's class, or of its module. `makers`: what makes an object of a class
    with a method that matters, matters too.
    """

    def __init__(
        self,
        modules: Iterable[Module],
        seeds: Iterable[str],
        related: Callable[[ClassInfo | None, ClassInfo | None], bool],
        home: str,
        *,
        makers: bool = True,
    ) -> None:
        self.modules = tuple(modules)
        self.seeds = frozenset(seeds)
        self.names: set[str] = set()
        self.units: dict[Unit, None] = {}
        self._related = related
        self._home = home
        self._makers = makers
        self._done: set[tuple[str, ClassInfo | None]] = set()
        self._open: dict[str, list[tuple[str, Unit]]] = {}
        self.add(self.seeds)

    def add(self, names: Iterable[str], owner: ClassInfo | None = None) -> None:
        """`owner`: the class of whose objects these are attributes, where it is not the contract's."""
        waiting = [(name, owner) for name in names]
        while waiting:
            name, owner = waiting.pop()
            self.names.add(name)
            if (name, owner) in self._done:
                continue
            self._done.add((name, owner))
            left = []
            for prefix, unit in self._saying(name):
                if self._means(prefix, name, unit, owner):
                    waiting.extend(self._take(unit))
                elif prefix != ".":  # of those it is the same for every owner
                    left.append((prefix, unit))
            self._open[name] = [each for each in left if each[1] not in self.units]

    def _saying(self, name: str) -> list[tuple[str, Unit]]:
        """Units that say it, without those that were judged for good: many owners may ask for one name."""
        if name in self._open:
            return self._open[name]
        modules = [module for module in self.modules if name in module.identifiers]
        return [mention for module in modules for mention in module.by_word.get(name, ())]

    def _means(self, prefix: str, name: str, unit: Unit, owner: ClassInfo | None) -> bool:
        if prefix in ("self.", "cls.", "super()."):
            return self._related(unit.cls, owner)
        if prefix == ".":
            # An object of unknown type has a common method of its own; one of a known type is named where it is used.
            return name not in COMMON or (name in self.seeds and self._home in unit.module.identifiers)
        if prefix in ('"', "'") and owner is not None and any(word in unit.text for word in _BY_TEXT):
            return self._related(unit.cls, owner)
        # A class body names its own methods: `settled = property(_get)`.
        return owner is None or (unit.name == BODY and unit.cls is not None and self._related(unit.cls, owner))

    def _take(self, unit: Unit) -> Iterator[tuple[str, ClassInfo | None]]:
        if unit in self.units:
            return
        self.units[unit] = None
        if unit.name == BODY:
            return
        if unit.name in IMPLICIT and unit.cls is not None:
            yield unit.cls.name.rpartition(".")[2], None
            if unit.name != "__init__":
                for other in unit.cls.methods.values():
                    if "self" in {word for _, word in other.words} and "with" in other.text:
                        yield from self._take(other)
        else:
            yield unit.name, unit.cls
            foreign = unit.cls is not None and unit.cls.name != self._home
            if unit.cls is not None and foreign and (self._makers or unit.name in COMMON):
                # Whose method a call is says the place where its object is made.
                yield unit.cls.name.rpartition(".")[2], None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a cold statement can do."""

    raises: bool
    returns: bool
    breaks: bool
    continues: bool
    falls: bool
    variables: frozenset[str]
    attributes: frozenset[str]
    calls: bool


class Slice:
    """The hot nodes of one unit, for a set of names. `raising`: the properties of `self` that may raise."""

    def __init__(self, unit: Unit, names: Iterable[str], raising: frozenset[str] = frozenset()) -> None:
        self.unit = unit
        self.raising = raising
        self.names = set(names)
        self.hot: set[int] = set()
        self._summaries: dict[int, Summary | None] = {}
        self._tests: dict[str, int] | None = None
        self._expressions: dict[int, tuple[bool, bool, tuple[str, ...]]] = {}
        self._settle()

    def grow(self, names: Iterable[str]) -> None:
        fresh = set(names) - self.names
        if fresh:
            self.names |= fresh
            self._settle()

    def _settle(self) -> None:
        self.names |= self.unit.index.settle(self.names, self.hot)
        self._tests = None

    def tested_twice(self, names: Iterable[str]) -> bool:
        """Whether a condition on these is worth remembering."""
        if self._tests is None:
            words = (name for node, said in self.unit.index.tests if id(node) in self.hot for name in said)
            self._tests = Counter(words)
        tests = self._tests
        return all(tests.get(name, 0) > 1 or name in ("self", "cls") for name in names)

    def is_hot(self, node: ast.AST) -> bool:
        return id(node) in self.hot

    def expression(self, node: ast.expr) -> tuple[bool, bool, tuple[str, ...]]:
        """Of a cold expression: whether it may raise, whether it calls anything, and what `:=` assigns."""
        known = self._expressions.get(id(node))
        if known is None:
            nodes = [node, *own_nodes(node)]
            known = self._expressions[id(node)] = (
                any(may_raise(each) or self.runs_property(each) for each in nodes),
                any(_calls(each) or self.runs_property(each) for each in nodes),
                tuple(each.target.id for each in nodes if isinstance(each, ast.NamedExpr)),
            )
        return known

    def summary(self, node: ast.stmt) -> Summary | None:
        """Of a cold statement; None where it has to be walked through all the same."""
        key = id(node)
        if key not in self._summaries:
            self._summaries[key] = summarise(node, self.runs_property)
        return self._summaries[key]

    def runs_property(self, node: ast.AST) -> bool:
        """Whether it looks at a property of `self` that may raise: that is a call like any other."""
        return (
            isinstance(node, ast.Attribute)
            and node.attr in self.raising
            and isinstance(node.ctx, ast.Load)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        )


def summarise(node: ast.stmt, runs: Callable[[ast.AST], bool] = lambda node: False) -> Summary | None:
    """None where exceptions are caught or raised in it, or managers entered."""
    if isinstance(node, ast.Try | ast.TryStar | ast.With | ast.AsyncWith | ast.Raise):
        return None
    nodes = [node, *own_nodes(node)] if not isinstance(node, Function | ast.ClassDef) else [node]
    if any(isinstance(each, ast.Try | ast.TryStar | ast.With | ast.AsyncWith | ast.Raise) for each in nodes):
        return None
    variables = {each.id for each in nodes if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)}
    if isinstance(node, Function | ast.ClassDef):
        variables.add(node.name)
    return Summary(
        raises=any(may_raise(each) or runs(each) for each in nodes),
        returns=any(isinstance(each, ast.Return) for each in nodes),
        breaks=isinstance(node, ast.Break) or _leaves(node, ast.Break),
        continues=isinstance(node, ast.Continue) or _leaves(node, ast.Continue),
        falls=falls_through([node]),
        variables=frozenset(variables),
        attributes=frozenset(
            each.attr for each in nodes if isinstance(each, ast.Attribute) and not isinstance(each.ctx, ast.Load)
        ),
        calls=any(_calls(each) or runs(each) for each in nodes),
    )


def _calls(node: ast.AST) -> bool:
    return (isinstance(node, ast.Call) and not is_quiet(node)) or isinstance(node, ast.Await)


def _leaves(node: ast.AST, kind: type[ast.stmt]) -> bool:
    """Whether a break or continue in here belongs to a loop around it."""
    if isinstance(node, ast.For | ast.AsyncFor | ast.While):
        return any(isinstance(each, kind) or _leaves(each, kind) for each in node.orelse)
    if isinstance(node, Function | ast.ClassDef | ast.expr):
        return False
    return any(isinstance(child, kind) or _leaves(child, kind) for child in ast.iter_child_nodes(node))


def falls_through(body: list[ast.stmt]) -> bool:
    """Whether the end of the block can be reached."""
    for node in body:
        if isinstance(node, ast.Return | ast.Raise | ast.Break | ast.Continue):
            return False
        if isinstance(node, ast.If):
            if node.orelse and not falls_through(node.body) and not falls_through(node.orelse):
                return False
        elif isinstance(node, ast.While) and _endless(node):
            return False
    return True


def _endless(node: ast.While) -> bool:
    if not (isinstance(node.test, ast.Constant) and node.test.value):
        return False
    return not any(_leaves(each, ast.Break) or isinstance(each, ast.Break) for each in node.body)


def is_quiet(call: ast.Call) -> bool:
    """Calls that are taken never to raise, and to change nothing: logging, clocks, events, a few builtins."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id in _QUIET_NAMES or (function.id == "getattr" and len(call.args) == 3)
    if isinstance(function, ast.Attribute):
        base = dotted(function.value)
        if base and base[-1] in _QUIET_MODULES:
            return True
        if base in (("self",), ("cls",)):
            return False  # a method of ours, whatever its name
        if function.attr == "get":
            return bool(call.args) and not call.keywords  # of a dict: a queue's takes a timeout
        return function.attr in _QUIET_METHODS or function.attr in _CLOCKS
    return False


def may_raise(node: ast.AST) -> bool:
    """Calls, subscripts, `await`, `assert`, imports. Plain attributes and arithmetic are taken not to."""
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Subscript)
    if isinstance(node, ast.Call):
        return not is_quiet(node)
    if isinstance(node, ast.Subscript):
        return not isinstance(node.ctx, ast.Store)
    return isinstance(node, ast.Await | ast.Assert | ast.Import | ast.ImportFrom | ast.Yield | ast.YieldFrom)


__all__ = [
    "COMMON",
    "IMPLICIT",
    "Relevance",
    "Slice",
    "Summary",
    "falls_through",
    "is_quiet",
    "may_raise",
    "summarise",
]
