"""What is known at one point of one path: variables, locks held, facts about flags, and a rule's own marks."""

from __future__ import annotations

import ast
from collections.abc import Container, Hashable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pytest_vramsettle.contracts.analysis.values import UNKNOWN, Lock, Obj, Value
from pytest_vramsettle.contracts.source import Unit

MANY = 4
"""Levels of a lock from which on they are not counted."""

Slot = tuple[int | Obj | str, str]
"""(frame, variable), (object, attribute) or (kind, site)."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node of the source, in the unit that it belongs to."""

    unit: Unit
    node: ast.AST = field(compare=False)
    line: int = 0
    column: int = 0
    end: int = 0

    @classmethod
    def of(cls, unit: Unit, node: ast.AST) -> Place:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        end = getattr(node, "end_col_offset", column + 1) if getattr(node, "end_lineno", line) == line else 0
        return cls(unit, node, line, column, end or 0)

    @property
    def path(self) -> str:
        return self.unit.module.path


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that is held, how often, and where it was taken first."""

    lock: Lock
    count: int
    place: Place = field(compare=False)
    chain: tuple[Place, ...] = field(compare=False, default=())


@dataclass(frozen=True, slots=True)
class Fact:
    """A condition in normal form; `needs` are the variables and attributes that it depends on."""

    text: str
    needs: frozenset[Slot]


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a path may be one that cannot happen, or something on it was not understood.

    `missed`: what the contract asks for may have happened here; what asks for it anew makes no difference any more.
    """

    place: Place
    reason: str
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A branch that the path took."""

    before: Step | None
    place: Place
    taken: bool


@dataclass(frozen=True)
class State:
    """`doubt` and `trail` do not tell states apart: of two that are otherwise equal the one without doubt stays."""

    store: dict[Slot, Value]
    held: tuple[Held, ...] = ()
    facts: dict[Fact, tuple[bool, bool]] = field(default_factory=dict)
    marks: Any = ()  # hashable; of what shape the rule knows
    doubt: Doubt | None = None
    trail: Step | None = None

    @cached_property
    def key(self) -> Hashable:
        return frozenset(self.store.items()), self.held, frozenset(self.facts.items()), self.marks

    def get(self, slot: Slot) -> Value | None:
        return self.store.get(slot)

    def put(self, slot: Slot, value: Value) -> State:
        """Assigns; what was known of conditions on the old value is dropped."""
        old = self.store.get(slot)
        facts = self.facts
        if any(slot in fact.needs for fact in facts):
            facts = {fact: known for fact, known in facts.items() if slot not in fact.needs}
        if value == UNKNOWN:
            if old is None:
                return self if facts is self.facts else replace(self, facts=facts)
            return replace(self, store={key: item for key, item in self.store.items() if key != slot}, facts=facts)
        if old == value and facts is self.facts:
            return self
        return replace(self, store={**self.store, slot: value}, facts=facts)

    def drop(self, slots: Iterable[Slot]) -> State:
        state = self
        for slot in slots:
            state = state.put(slot, UNKNOWN)
        return state

    def leave(self, frame: int) -> State:
        """Without the variables of a frame that has ended."""
        store = {slot: value for slot, value in self.store.items() if slot[0] != frame}
        facts = {fact: known for fact, known in self.facts.items() if not any(slot[0] == frame for slot in fact.needs)}
        if len(store) == len(self.store) and len(facts) == len(self.facts):
            return self
        return replace(self, store=store, facts=facts)

    def learn(self, fact: Fact, value: bool) -> State:
        return replace(self, facts={**self.facts, fact: (value, True)})

    def age(self, lasting: Container[str]) -> State:
        """An unknown call ran: facts on attributes may not hold any more, but for those that nobody reassigns."""
        if not any(fresh and _ages(fact, lasting) for fact, (_, fresh) in self.facts.items()):
            return self
        facts = {fact: (value, fresh and not _ages(fact, lasting)) for fact, (value, fresh) in self.facts.items()}
        return replace(self, facts=facts)

    def changed(self, slot: Slot) -> State:
        """The object in this variable was changed: it is the same one, but other tests of it may turn out otherwise."""
        if not any(slot in fact.needs and " is " not in fact.text for fact in self.facts):
            return self
        facts = {
            fact: (value, fresh and (slot not in fact.needs or " is " in fact.text))
            for fact, (value, fresh) in self.facts.items()
        }
        return replace(self, facts=facts)

    def mark(self, marks: Hashable) -> State:
        return self if marks == self.marks else replace(self, marks=marks)

    def doubted(self, place: Place, reason: str) -> State:
        return self if self.doubt and not self.doubt.missed else replace(self, doubt=Doubt(place, reason))

    def missed(self, place: Place, reason: str) -> State:
        """What the contract asks for may happen here, unseen."""
        return self if self.doubt else replace(self, doubt=Doubt(place, reason, missed=True))

    def asked_anew(self) -> State:
        """It has to happen after this, whatever happened before."""
        return replace(self, doubt=None) if self.doubt and self.doubt.missed else self

    def step(self, place: Place, taken: bool) -> State:
        return replace(self, trail=Step(self.trail, place, taken))

    def acquire(self, lock: Lock, place: Place, chain: tuple[Place, ...]) -> State:
        # A loop that never lets go must come to an end here.
        others = [held for held in self.held if held.lock != lock]
        before = next((held for held in self.held if held.lock == lock), None)
        taken = Held(lock, 1, place, chain) if before is None else replace(before, count=min(before.count + 1, MANY))
        return replace(self, held=(*others, taken))

    def release(self, lock: Lock) -> State:
        held = []
        for item in self.held:
            if item.lock != lock:
                held.append(item)
            elif item.count > 1:
                held.append(replace(item, count=item.count - 1))
        return replace(self, held=tuple(held))


def _ages(fact: Fact, lasting: Container[str]) -> bool:
    return any(not isinstance(owner, int) and name not in lasting for owner, name in fact.needs)


def merge(states: Iterable[State]) -> list[State]:
    """Equal states once, in order; without doubt where one of them has none."""
    found: dict[Hashable, State] = {}
    for state in states:
        known = found.get(state.key)
        if known is None or (known.doubt and not state.doubt):
            found[state.key] = state
    return list(found.values())
