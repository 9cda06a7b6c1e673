"""The backstop behind *kept*: whether names alone lead from code that matters to what the contract watches.

The analysis follows values, and takes what it does not know to be harmless. Here the other way round: whatever a call,
an attribute or a manager may be by its name is followed, unless the analysis has seen what it is. Where that comes to
a mention of what is watched, the contract is not kept: it cannot be told.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

from pytest_vramsettle.contracts.analysis import lookup
from pytest_vramsettle.contracts.analysis.engine import Run
from pytest_vramsettle.contracts.analysis.relevance import COMMON
from pytest_vramsettle.contracts.analysis.rules import Finding, unclear
from pytest_vramsettle.contracts.analysis.state import Doubt, Place
from pytest_vramsettle.contracts.analysis.values import ClassVal, Func
from pytest_vramsettle.contracts.names.guesses import ANY, Guess, Guesses
from pytest_vramsettle.contracts.names.uses import Use, uses
from pytest_vramsettle.contracts.patterns import Pattern
from pytest_vramsettle.contracts.source import ClassInfo, Function, Module, Unit, dotted

_ENTERED = ("__enter__", "__exit__", "__aenter__", "__aexit__")
_GOALS = {"at", "then", "reset", "kill", "stamp"}
_REWRITING = frozenset({"setattr", "__dict__", "vars", "__setattr__", "delattr"})
_CALLBACK = "add_done_callback"
_ENDING = frozenset({"set_result", "set_exception", "cancel"})
Spread = set[tuple[str, str]]


def unaccounted(run: Run) -> list[Finding]:
    """At most one, for the first way that was found."""
    backstop = Backstop(run)
    for finding in (*backstop.of_classes(), *backstop.of_regions()):
        return [finding]
    return []


def mentioned(run: Run, role: str) -> list[Finding]:
    """Where a call that was never reached is named all the same, or may be by code that is made at run time."""
    backstop = Backstop(run, {role})
    last = run.rule.patterns[role].parts[-1]
    for unit in run.targets.units:
        for node in unit.nodes if isinstance(unit.node, Function) else ():
            text = isinstance(node, ast.Constant) and isinstance(node.value, str) and re.findall(r"\w+", node.value)
            if (text and last in text and not _is_docstring(unit, node)) or _is_meant(node, backstop.patterns[0]):
                return [unclear(Place.of(unit, node), f"what becomes of this mention of {last!r} is not followed")]
    for unit in run.walked:
        for use in uses([unit.node], set()):
            for finding in backstop.dynamic(use, unit, Place.of(unit, use.node)):
                return [finding]
    return []


def _is_docstring(unit: Unit, node: ast.AST) -> bool:
    return any(isinstance(each, ast.Expr) and each.value is node for each in unit.nodes)


class Backstop:
    """`roles` are those that names may lead to."""

    def __init__(self, run: Run, roles: Collection[str] = _GOALS) -> None:
        self.run = run
        self.guesses = Guesses(run)
        self.patterns = [pattern for role, pattern in run.rule.patterns.items() if role in roles]
        self.writes = any(not pattern.is_call for pattern in self.patterns)
        self._mentions: dict[Unit, ast.AST | None] = {}
        self._named: dict[str, list[ClassInfo]] = {}
        self._anyone: dict[tuple[str, str], tuple[Unit, ...]] = {}

    def of_classes(self) -> Iterator[Finding]:
        """A decorator or metaclass of the project that may replace methods."""
        for cls in self.run.scope.family():
            made = [*cls.node.decorator_list, *(each.value for each in cls.node.keywords if each.arg == "metaclass")]
            for node in made:
                parts = dotted(node.func if isinstance(node, ast.Call) else node)
                found = self.run.project.resolve(cls.module, parts) if parts else None
                units = list(found.methods.values()) if isinstance(found, ClassInfo) else [found]
                if any(isinstance(unit, Unit) and {word for _, word in unit.words} & _REWRITING for unit in units):
                    body = next(unit for unit in cls.module.units if unit.node is cls.node)
                    yield unclear(Place.of(body, node), "it may replace methods of this class, which is not followed")

    def of_regions(self) -> Iterator[Finding]:
        """Breadth first, from all code that matters."""
        waiting: list[tuple[Unit, Place]] = []
        reached: set[Unit] = set()
        spread: Spread = set()
        for region in list(self.run.regions.values()):
            for use in uses(region.parts(), self.run.lambdas):
                place = Place.of(region.unit, use.node)
                yield from self.dynamic(use, region.unit, place)
                for unit in self.of_use(use, region.unit, spread):
                    if unit not in reached:
                        reached.add(unit)
                        waiting.append((unit, place))
        for unit, place in waiting:  # it grows
            mention = self.mention(unit)
            if mention is not None:
                yield self._leads(place, unit, mention)
            for use in uses(ast.iter_child_nodes(unit.node), set()):
                yield from self.dynamic(use, unit, Place.of(unit, use.node))
                fresh = [each for each in self.by_name(use, unit, spread) if each not in reached]
                reached.update(fresh)
                waiting += [(each, place) for each in fresh]

    def _leads(self, place: Place, unit: Unit, mention: ast.AST) -> Finding:
        names = " or ".join(pattern.text for pattern in self.patterns)
        reason = f"by its name this may lead to {unit.qualified}, and so to {names}: what it is here is not known"
        return Finding(reason, (("here", place), ("there", Place.of(unit, mention))), doubt=Doubt(place, reason))

    def dynamic(self, use: Use, unit: Unit, place: Place) -> Iterator[Finding]:
        if use.kind == "call" and use.name in ("import_module", "__import__"):
            yield from self._imported(use, place)
        if use.kind == "compute" and use.base is None:
            yield unclear(place, f"what {use.name}() runs here is not followed")
        elif use.kind == "compute" and use.base is not None and self._is_ours(use.base, unit):
            yield unclear(place, "the attribute that getattr() is asked for is not a constant")
        elif self.writes and use.base is not None and use.kind == "look" and use.name == "__dict__":
            if self._is_ours(use.base, unit):
                yield unclear(place, "attributes are reached through __dict__ here, which is not followed")
        elif self.writes and use.kind == "call" and use.base is None and use.name in ("vars", "setattr"):
            given = use.node.args if isinstance(use.node, ast.Call) else []
            constant = len(given) > 1 and isinstance(given[1], ast.Constant)
            if given and not constant and self._is_ours(given[0], unit):
                yield unclear(place, f"attributes are reached through {use.name}() here, which is not followed")

    def _imported(self, use: Use, place: Place) -> Iterator[Finding]:
        """A module of the project that no import statement brings in."""
        given = use.node.args[:1] if isinstance(use.node, ast.Call) else []
        name = given[0].value if given and isinstance(given[0], ast.Constant) else None
        module = self.run.project.follow(name) if isinstance(name, str) else None
        if module is not None and any(pattern.parts[-1] in module.identifiers for pattern in self.patterns):
            yield unclear(place, f"what is done with the module {name!r} that is imported here is not followed")

    def _is_ours(self, node: ast.expr, unit: Unit) -> bool:
        return any(self.run.is_family(cls) for cls in self.guesses.of(node, unit).classes)

    def of_use(self, use: Use, unit: Unit, spread: Spread | None = None) -> Iterator[Unit]:
        """Of code that was walked through: what the analysis knew of it comes first."""
        run, key = self.run, id(use.node)
        yield from run.skipped.get(key, ())
        if use.kind in ("store", "compute") or key not in run.known or key in run.unknown:
            yield from self.by_name(use, unit, spread)

    def by_name(self, use: Use, unit: Unit, spread: Spread | None = None) -> Iterator[Unit]:
        """`spread`: of which names a search has all that they may be on an object of any class; they grow here."""
        if use.kind == "enter" and use.base is not None:
            guess = self.guesses.of(use.base, unit)
            yield from (each for name in _ENTERED for each in self._methods(guess, name, spread))
        elif use.kind == "compute" and use.base is not None:
            yield from self._by_computed_name(use, self.guesses.of(use.base, unit))
        elif use.kind == "named":
            yield from self._methods(ANY, use.name, spread)
        elif use.kind == "call" and use.base is None:
            yield from self._of_global(use.name, unit)
        elif use.kind == "call" and use.base is not None:
            yield from self._called(use.name, use.base, unit, spread)
        elif use.kind in ("look", "store"):
            guess = ANY if use.base is None else self.guesses.of(use.base, unit)
            yield from self._properties(guess, use.name, use.kind, spread)

    def _of_global(self, name: str, unit: Unit) -> Iterator[Unit]:
        for value in lookup.global_name(name, unit.module, self.run):
            if isinstance(value, Func):
                yield value.unit
            elif isinstance(value, ClassVal):
                yield from self._constructed(value.cls)

    def _constructed(self, cls: ClassInfo) -> Iterator[Unit]:
        yield from (*self.run.methods(cls, "__init__"), *self.run.makers(cls))

    def _called(self, name: str, base: ast.expr, unit: Unit, spread: Spread | None) -> Iterator[Unit]:
        guess = self.guesses.of(base, unit)
        for module in guess.modules:
            yield from self._of_global(name, module.units[0])
        common = name in COMMON or name == "__call__"
        yield from self._methods(Guess(guess.classes, unknown=guess.unknown and not common), name, spread)
        if guess.unknown and not common:  # it may be a module
            yield from self._of_anyone("function", name, spread)
        held = self.guesses.of(ast.Attribute(value=base, attr=name, ctx=ast.Load()), unit)
        yield from self._methods(Guess(held.classes), "__call__", spread)
        if name in ("wait", "wait_for") and (event := dotted(base)):
            yield from self._setting(event[-1])
        if name in _ENDING:
            yield from self._called_back()

    def _setting(self, event: str) -> Iterator[Unit]:
        """Who waits for an event waits for those who set it."""
        for module in self.run.scope.modules:
            for _, unit in module.by_word.get(event, ()) if event in module.identifiers else ():
                if f"{event}.set(" in unit.text:
                    yield unit

    def _called_back(self) -> Iterator[Unit]:
        """Who ends a future runs the functions that wait for that, whichever future they were given to."""
        for module in self.run.scope.modules:
            for _, unit in module.by_word.get(_CALLBACK, ()) if _CALLBACK in module.identifiers else ():
                adding = (node for node in unit.nodes if isinstance(node, ast.Call) and node.args)
                for given in (node.args[0] for node in adding if dotted(node.func)[-1:] == (_CALLBACK,)):
                    meant = any(_is_meant(given, pattern) for pattern in self.patterns)
                    if isinstance(given, ast.Attribute) and not meant:
                        yield from self._methods(self.guesses.of(given.value, unit), given.attr, None)
                    else:
                        yield unit

    def _methods(self, guess: Guess, name: str, spread: Spread | None) -> Iterator[Unit]:
        for cls in guess.classes:
            for each in self.guesses.relatives(cls):
                yield from self.run.methods(each, name)
        if guess.unknown:
            yield from self._of_anyone("method", name, spread)

    def _of_anyone(self, kind: str, name: str, spread: Spread | None) -> tuple[Unit, ...]:
        """What it may be on an object of which nothing is known: hundreds of calls may ask for one name."""
        key = kind, name
        if spread is not None and key in spread:
            return ()
        if spread is not None:
            spread.add(key)
        if key not in self._anyone:
            self._anyone[key] = tuple(dict.fromkeys(self._all_called(kind, name)))
        return self._anyone[key]

    def _all_called(self, kind: str, name: str) -> Iterator[Unit]:
        if kind == "function":
            yield from (module.functions[name] for module in self._defining(name))
        elif kind == "method":
            yield from (unit for cls in self._having(name) for unit in self.run.methods(cls, name))
        else:
            yield from (unit for cls in self._having(name) for unit in self._properties_of(cls, name, kind))

    def _by_computed_name(self, use: Use, guess: Guess) -> Iterator[Unit]:
        """`getattr(self, "visit_" + kind)`: all that begins so."""
        begin = _beginning(use.node.args[1]) if isinstance(use.node, ast.Call) else ""
        for cls in (each for known in guess.classes for each in self.guesses.relatives(known)):
            yield from (unit for name, unit in cls.methods.items() if name.startswith(begin))

    def _properties(self, guess: Guess, name: str, kind: str, spread: Spread | None) -> Iterator[Unit]:
        for cls in (each for known in guess.classes for each in self.guesses.relatives(known)):
            yield from self._properties_of(cls, name, kind)
        if guess.unknown:
            yield from self._of_anyone(kind, name, spread)

    def _properties_of(self, cls: ClassInfo, name: str, kind: str) -> list[Unit]:
        if kind == "store":
            found = self.run.setter(cls, name)
            return [found] if found is not None else []
        return [unit for unit in self.run.methods(cls, name) if lookup.has_decorator(unit, lookup.PROPERTIES)]

    def _defining(self, name: str) -> Iterator[Module]:
        for module in self.run.scope.modules:
            if name in module.identifiers and f"def {name}(" in module.text and name in module.functions:
                yield module

    def _having(self, name: str) -> list[ClassInfo]:
        if name not in self._named:
            modules = [each for each in self.run.scope.modules if name in each.identifiers and each.units]
            classes = [cls for module in modules for cls in module.classes.values()]
            self._named[name] = [cls for cls in classes if name in cls.methods or name in cls.setters]
        return self._named[name]

    def mention(self, unit: Unit) -> ast.AST | None:
        if unit not in self._mentions:
            words = {word for _, word in unit.words}
            wanted = [pattern for pattern in self.patterns if pattern.parts[-1] in words]
            nodes = unit.nodes if wanted and isinstance(unit.node, Function) else ()
            found = (node for node in nodes if any(_is_meant(node, pattern) for pattern in wanted))
            self._mentions[unit] = next(found, None)
        return self._mentions[unit]


def _beginning(node: ast.expr) -> str:
    """Of a computed text, as far as it is constant."""
    if isinstance(node, ast.BinOp):
        return _beginning(node.left)
    if isinstance(node, ast.JoinedStr):
        return _beginning(node.values[0]) if node.values else ""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _is_meant(node: ast.AST, pattern: Pattern) -> bool:
    last = pattern.parts[-1]
    if isinstance(node, ast.Name):
        return node.id == last and last not in COMMON
    if not isinstance(node, ast.Attribute) or node.attr != last:
        return False
    if not pattern.is_call and isinstance(node.ctx, ast.Load):
        return False
    return last not in COMMON or dotted(node)[-2:-1] == pattern.parts[-2:-1]


__all__ = ["Backstop", "mentioned", "unaccounted"]
