"""One analysis of one contract: what the parts of the interpreter share, and what is found on the way."""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from pytest_vramsettle.contracts.analysis.lasting import Lasting
from pytest_vramsettle.contracts.analysis.properties import is_property, raises
from pytest_vramsettle.contracts.analysis.relevance import Relevance, Slice
from pytest_vramsettle.contracts.analysis.state import MANY, Place, Slot, State
from pytest_vramsettle.contracts.analysis.values import (
    EXT,
    UNKNOWN,
    Answer,
    ClassVal,
    Const,
    Deferred,
    Func,
    Lock,
    LockMethod,
    Method,
    Obj,
    Partial,
    Path,
    Stack,
    Value,
    parts_of,
    scope_names,
)
from pytest_vramsettle.contracts.analysis.wanted import Wanted, says
from pytest_vramsettle.contracts.names.uses import Region
from pytest_vramsettle.contracts.patterns import Pattern, Sure
from pytest_vramsettle.contracts.source import ClassInfo, Module, Parts, Project, Unit, dotted

MOST_STEPS = 12_000
"""From one function; a step is a statement in one state."""
FAIR_SHARE = 600
"""Steps that each function has of its own, however many there are."""
MOST_OF_ALL = 25_000
"""What all functions together may take beyond that: where so much was followed in vain, more would tell no more."""
MOST_STATES = 400
DEEPEST = 14


Ways = list[tuple[State, Value]]
"""The states after something, each with its value."""

Keywords = tuple[tuple[str, Value], ...]


class TooMuch(Exception):
    """More paths than this analysis follows; the verdict is then *cannot tell*."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place = place
        self.reason = reason


@dataclass(slots=True)
class Exit:
    """A way out of a block: 'return', 'raise', 'break' or 'continue'. `error` names what is raised; '' is anything."""

    kind: str
    state: State
    place: Place
    value: Value = UNKNOWN
    error: str = ""


@dataclass(slots=True)
class Frame:
    """A function that is being walked through. Whoever catches exits puts another list in `sink` meanwhile."""

    run: Run
    unit: Unit
    node: ast.AST
    number: int
    slice: Slice
    closure: tuple[int, ...] = ()
    chain: tuple[Place, ...] = ()
    on_yield: Callable[[State, Value, Frame, ast.AST], list[State]] | None = None
    sink: list[Exit] = field(default_factory=list)
    locals: frozenset[str] = frozenset()
    outer: frozenset[str] = frozenset()
    me: Value = UNKNOWN
    handling: list[str] = field(default_factory=list)

    def place(self, node: ast.AST) -> Place:
        return Place.of(self.unit, node)

    def leave(self, kind: str, state: State, node: ast.AST, value: Value = UNKNOWN, error: str = "") -> None:
        self.sink.append(Exit(kind, state, self.place(node), value, error))

    def raises(self, state: State, node: ast.AST, error: str = "") -> None:
        self.leave("raise", state, node, error=error)

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)


OnYield = Callable[[State, Value, Frame, ast.AST], list[State]]
"""What runs where a generator yields: the states in which the generator goes on."""


class Rule:
    """What a contract watches. Each event gives the state on, with the rule's own marks changed."""

    patterns: dict[str, Pattern]
    start: Hashable = ()
    required: ClassVar[tuple[str, ...]] = ()
    """Roles that have to be played: where that is missing, it may be in a place that was not understood."""

    def reach(self, run: Run, role: str, state: State, place: Place, chain: tuple[Place, ...]) -> State:
        """A call of `role` is about to run."""
        return state

    def done(self, run: Run, role: str, state: State, place: Place, value: Value) -> list[tuple[State, Value]]:
        """It has returned."""
        return [(state, value)]

    def failed(self, run: Run, role: str, state: State, place: Place) -> State:
        """It has raised."""
        return state

    def is_late(self, state: State) -> bool:
        """Whether a value that is read now is one from after the kill."""
        return False

    def acquired(self, run: Run, lock: Lock, state: State, place: Place) -> State:
        """A lock was taken just now."""
        return state

    def written(self, run: Run, role: str, state: State, place: Place, value: Value) -> State:
        """An attribute was assigned."""
        return state

    def watches(self, states: Iterable[State]) -> bool:
        """Whether what runs now may do what the contract forbids."""
        return True

    def touched(self, role: str, state: State, place: Place) -> State:
        """What the call of `role` is made on was replaced, or changed."""
        return state

    def left(self, run: Run, egress: Exit) -> None:
        """A path has left the function that the analysis began with."""


@dataclass(frozen=True, slots=True)
class Escape:
    """Something of interest went where the analysis does not follow it."""

    place: Place
    reason: str
    inside: Unit


@dataclass(slots=True)
class Scope:
    """What a contract is about: a class, or a module's own functions."""

    project: Project
    module: Module
    cls: ClassInfo | None
    modules: tuple[Module, ...]

    def is_family(self, cls: ClassInfo) -> bool:
        if self.cls is None:
            return False
        return cls in self.project.mro(self.cls) or self.cls in self.project.mro(cls)

    def family(self) -> list[ClassInfo]:
        """The class, and its subclasses in the modules at hand."""
        if self.cls is None:
            return []
        found = [self.cls]
        for known in found:
            # A module that does not name a class has no subclass of it.
            last = known.name.rpartition(".")[2]
            naming = [module for module in self.modules if last in module.identifiers and module.units]
            for cls in (each for module in naming for each in module.classes.values()):
                if cls not in found and known in self.project.bases(cls):
                    found.append(cls)
        return found


class Run:
    """`locks` maps the attribute paths (or the global) of each named lock to the lock's name."""

    def __init__(self, scope: Scope, rule: Rule, locks: dict[Parts, str], names: Iterable[str]) -> None:
        self.scope = scope
        self._family: dict[ClassInfo, bool] = {}
        self._mros: dict[ClassInfo, list[ClassInfo]] = {}
        self._properties: dict[ClassInfo, frozenset[str]] = {}
        self._descendants: list[ClassInfo] | None = None
        self.project = scope.project
        self.rule = rule
        self.locks = locks
        home = (scope.cls.name if scope.cls is not None else scope.module.name).rpartition(".")[2]
        self.relevance = Relevance(scope.modules, names, self._related, home)
        # Names of which a mention alone makes no unit relevant: `kill` of `_process.kill`.
        self.hot_names = {pattern.parts[-1] for pattern in rule.patterns.values()}
        self.texts = self.hot_names | {path[-1] for path in locks}
        targets = {name for pattern in rule.patterns.values() for name in pattern.names}
        self.targets = Relevance(scope.modules, targets, self._related, home, makers=False)
        self.wanted = Wanted(scope.modules, rule, self._related, home)
        self._owners = {pattern.parts[:-1] for pattern in rule.patterns.values() if len(pattern.parts) > 1}
        self.fields: dict[Slot, dict[Value, None]] = {}
        self.escapes: dict[Escape, None] = {}
        self.inlined: set[Unit] = set()
        self.walked: set[Unit] = set()
        self.root: Unit | None = None
        self.seen: set[int] = set()
        self.visited: set[int] = set()
        self.elsewhere: set[Slot] = set()
        self.yields: dict[Place, Unit] = {}
        self.joins: dict[Place, Unit] = {}
        self.awaited: set[int] = set()
        self.regions: dict[int, Region] = {}  # code in which the rule watches, by its node
        self.known: set[int] = set()  # calls and attributes of which it was clear what they are
        self.unknown: set[int] = set()  # and those of which it was not, at least once
        self.skipped: dict[int, dict[Unit, None]] = {}  # what a call was known to be, and was not walked through
        self.lambdas: set[int] = set()
        self.handed: dict[int, str] = {}  # where something required went that is not followed, by the node
        self.suspects: dict[int, str] = {}  # code that may do what is required, by its node
        self.async_locks = any(_is_async_lock(module, locks) for module in scope.modules)
        self.steps = 0
        self.all_steps = 0
        self.spent: dict[Unit, int] = {}
        self._numbers: dict[Hashable, int] = {}
        self._slices: dict[Unit, Slice] = {}
        self.lasting = Lasting(scope.modules, {path[-1] for path in locks})

    def _related(self, cls: ClassInfo | None, owner: ClassInfo | None) -> bool:
        """A function that is in no class may call its first parameter `self` too."""
        if cls is None:
            return True
        if owner is None:
            return self.scope.cls is None or self.is_family(cls)
        if owner in self.mro(cls) or cls in self.mro(owner):
            return True
        # Two bases of one class: `self` is an object of that class in the methods of both.
        return any(cls in self.mro(each) and owner in self.mro(each) for each in self._relatives())

    def _relatives(self) -> list[ClassInfo]:
        if self._descendants is None:
            self._descendants = self.scope.family()
        return self._descendants

    def slice(self, unit: Unit) -> Slice:
        found = self._slices.get(unit)
        if found is None:
            found = self._slices[unit] = Slice(unit, self.relevance.names | self.hot_names, self._raising(unit))
        return found

    def _raising(self, unit: Unit) -> frozenset[str]:
        """The properties of the unit's `self` that may raise."""
        if unit.cls is None:
            return frozenset()
        if unit.cls not in self._properties:
            related = [each for each in self._relatives() if unit.cls in self.mro(each)]
            classes = dict.fromkeys(found for each in (unit.cls, *related) for found in self.mro(each))
            units = [each for cls in classes for each in cls.methods.values()]
            self._properties[unit.cls] = frozenset(each.name for each in units if is_property(each) and raises(each))
        return self._properties[unit.cls]

    def forget_slices(self) -> None:
        """Names were added: what is hot is another set."""
        self._slices.clear()

    def number(self, *key: Hashable) -> int:
        return self._numbers.setdefault(key, len(self._numbers) + 1)

    def is_family(self, cls: ClassInfo) -> bool:
        if cls not in self._family:
            self._family[cls] = self.scope.is_family(cls)
        return self._family[cls]

    def mro(self, cls: ClassInfo) -> list[ClassInfo]:
        if cls not in self._mros:
            self._mros[cls] = self.project.mro(cls)
        return self._mros[cls]

    def method(self, cls: ClassInfo, name: str, after: ClassInfo | None = None) -> Unit | None:
        order = self.mro(cls)
        if after in order:
            order = order[order.index(after) + 1 :]
        return next((each.methods[name] for each in order if name in each.methods), None)

    def methods(self, cls: ClassInfo, name: str) -> list[Unit]:
        """All that it may be: one that is defined in each branch of an `if` or `try` is several."""
        owner = next((each for each in self.mro(cls) if name in each.methods), None)
        return [] if owner is None else [owner.methods[name], *owner.others.get(name, ())]

    def makers(self, cls: ClassInfo) -> list[Unit]:
        """What else than `__init__` may run where an object of the class is made."""
        found = [*self.methods(cls, "__new__"), *self.methods(cls, "__post_init__")]
        for each in self.mro(cls):
            for keyword in each.node.keywords:
                parts = dotted(keyword.value) if keyword.arg == "metaclass" else ()
                kind = self.project.resolve(each.module, parts) if parts else None
                found += self.methods(kind, "__call__") if isinstance(kind, ClassInfo) else []
        return found

    def setter(self, cls: ClassInfo, name: str) -> Unit | None:
        return next((each.setters[name] for each in self.mro(cls) if name in each.setters), None)

    def touched(self, path: Path, state: State, place: Place) -> State:
        """Something was assigned to this path, or done to what it stands for."""
        for role, pattern in self.rule.patterns.items():
            if len(pattern.parts) > 1 and path.attrs == pattern.parts[:-1]:
                state = self.rule.touched(role, state, place)
        return state

    def enter(self, node: ast.AST, states: Iterable[State], frame: Frame, *, whole: bool) -> None:
        """Notes code in which the rule watches."""
        if id(node) not in self.regions and self.rule.watches(states):
            self.regions[id(node)] = Region(frame.unit, node, whole)

    def understood(self, node: ast.AST, *, known: bool) -> None:
        (self.known if known else self.unknown).add(id(node))

    def skip(self, unit: Unit, node: ast.AST) -> None:
        """A function that is not walked through, as nothing in it is of interest by its names."""
        self.skipped.setdefault(id(node), {})[unit] = None

    def forget(self) -> None:
        """What was noted in an earlier round."""
        for notes in (self.escapes, self.yields, self.joins, self.elsewhere):
            notes.clear()
        for kept in (self.regions, self.known, self.unknown, self.skipped, self.lambdas, self.handed):
            kept.clear()

    def step(self, frame: Frame, node: ast.AST, states: int) -> None:
        self.steps += states
        self.visited.add(id(node))
        if self.steps > FAIR_SHARE:
            over = min(states, self.steps - FAIR_SHARE)
            self.all_steps += over
            if self.root is not None:
                self.spent[self.root] = self.spent.get(self.root, 0) + over
        if self.steps > MOST_STEPS or states > MOST_STATES:
            raise TooMuch(
                frame.place(node), f"there are more paths than are followed{self._from()}: {self.steps} steps"
            )
        if self.steps > FAIR_SHARE and self.all_steps > MOST_OF_ALL:
            raise TooMuch(frame.place(node), f"there are more paths than are followed{self._from()}{self._greediest()}")

    def _from(self) -> str:
        return f" from {self.root.qualified} on" if self.root is not None else ""

    def _greediest(self) -> str:
        """Which function used up what all of them share."""
        most = max(self.spent, key=lambda unit: self.spent[unit])
        return f": all together {self.all_steps} steps beyond their share, {self.spent[most]} from {most.qualified} on"

    def matches(self, value: Value, *, call: bool = True) -> list[tuple[str, Sure]]:
        """The roles that a callee (or a path written to) plays."""
        if isinstance(value, ClassVal):
            bases = [base for cls in self.mro(value.cls) for base in cls.outside_bases]
            values: list[Value] = [value, *(Path(EXT, base) for base in bases)]
            inherited = (role for each in values for role in self._roles(each, call))
            return list(dict.fromkeys(inherited))
        return self._roles(value, call)

    def _roles(self, value: Value, call: bool) -> list[tuple[str, Sure]]:
        found: list[tuple[str, Sure]] = []
        for role, pattern in self.rule.patterns.items():
            sure = pattern.match(value, self.is_family) if pattern.is_call == call else None
            if sure:
                found.append((role, sure))
        return found

    def tracks(self, value: Value) -> bool:
        """Whether there is something in it that is worth remembering."""
        return any(
            isinstance(part, Lock | LockMethod | Func | Deferred | Partial)
            or (isinstance(part, Path) and (part.attrs in self._owners or bool(self.matches(part))))
            for part in parts_of(value)
        )

    def carries(self, value: Value) -> bool:
        """Whether a call of it may do something that the contract watches."""
        for part in parts_of(value):
            if isinstance(part, Func):
                if part.unit in self.targets.units and self.slice(part.unit).is_hot(part.node):
                    names = self.targets.names | self.hot_names
                    if part.node is part.unit.node or any(says(node, names) for node in ast.walk(part.node)):
                        return True
            elif (isinstance(part, Path | Deferred) and self.matches(part)) or isinstance(part, Stack):
                return True
        return False

    def escape(self, value: Value, place: Place, reason: str) -> bool:
        """Notes it where `value` holds a lock or a callable of interest."""
        what = "the lock" if any(isinstance(part, Lock | LockMethod) for part in parts_of(value)) else ""
        if isinstance(value, Const) and isinstance(value.value, str) and value.value in self.texts:
            what = "a name that the contract watches, as a text,"
        if not what and self.carries(value):
            what = "a function that the contract watches"
        if self.rule.required and self.may_do(value):
            self.handed.setdefault(id(place.node), f"what the contract asks for {reason}")
        if what and self.root is not None:
            self.escapes.setdefault(Escape(place, f"{what} {reason}", self.root))
        return bool(what)

    def may_do(self, value: Value) -> bool:
        """Whether a call of it may do what is required."""
        return self.wanted.is_met(value, self)

    def suspected(self, node: ast.AST, states: list[State], frame: Frame) -> list[State]:
        """In code that may do what is required, nobody knows how."""
        reason = self.suspects.get(id(node))
        return states if reason is None else [state.missed(frame.place(node), reason) for state in states]

    def joined(self, state: State, place: Place) -> None:
        """Something unknown is waited for."""
        if state.held and self.root is not None:
            self.joins.setdefault(place, self.root)

    def yields_under_lock(self, state: State, place: Place) -> None:
        if self.root is not None:
            self.yields.setdefault(place, self.root)

    def keep_field(self, slot: Slot, value: Value, state: State) -> None:
        """An attribute or global that other functions will find: what it may hold, and the names that lead there."""
        tracked = isinstance(value, Obj | Stack | Method) or self.tracks(value) or self._hides(slot)
        if not tracked and slot not in self.fields:
            return
        if isinstance(value, Answer):
            value = UNKNOWN
        self.fields.setdefault(slot, {})[value] = None
        if any(isinstance(part, Deferred) for part in parts_of(value)) and self.carries(value):
            self.elsewhere.add(slot)
        # With an object its attributes are kept, with a function the variables around it.
        held: set[Hashable] = {part for part in parts_of(value) if isinstance(part, Obj) and part.site}
        held |= {frame for part in parts_of(value) if isinstance(part, Func) for frame in part.closure}
        for (owner, name), item in state.store.items():
            if owner in held and item not in self.fields.get((owner, name), ()):
                self.keep_field((owner, name), item, state)

    def _hides(self, slot: Slot) -> bool:
        """Whether it takes the place of a method that matters."""
        owner, name = slot
        return isinstance(owner, Obj) and any(unit in self.relevance.units for unit in self.methods(owner.cls, name))

    def fields_of(self, slot: Slot) -> list[Value]:
        return list(self.fields.get(slot, ()))

    def acquire(self, lock: Lock, state: State, frame: Frame, node: ast.AST) -> State:
        place = frame.place(node)
        if not lock.sure:
            state = state.doubted(place, f"whether this is {lock.name} is not known")
        return self.rule.acquired(self, lock, state.acquire(lock, place, frame.chain), place)

    def release(self, lock: Lock, state: State, place: Place) -> State:
        held = next((each for each in state.held if each.lock == lock), None)
        if held is not None and held.count == MANY:
            return state.doubted(place, "how often it was taken before is not known")
        if held is not None:
            return state.release(lock)
        if any(held.lock.name == lock.name for held in state.held):
            return state.doubted(place, "whether this is the lock that is held is not known")
        return state


def _is_async_lock(module: Module, locks: dict[Parts, str]) -> bool:
    return any(
        path[-1] in line and "asyncio." in line and "=" in line
        for path in locks
        if path[-1] in module.identifiers and "asyncio" in module.identifiers
        for line in module.lines
    )


def builtin(name: str) -> Path:
    return Path(EXT, (name,))


__all__ = ["Escape", "Exit", "Frame", "Rule", "Run", "Scope", "TooMuch", "builtin", "scope_names"]
