"""Measuring in turns, and what a figure is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from time import monotonic, perf_counter_ns
from typing import Literal, TypeVar

T = TypeVar("T")

Measured = Callable[[], float]
"""Does something once, and returns the seconds that it took."""


MOST_SECONDS = 6.0
"""On a slow or busy machine there are fewer rounds, so that a run of everything stays below a minute."""
FEWEST_ROUNDS = 3


Taken = dict[str, list[float]]
"""Seconds of each variant, round by round."""


def alternate(variants: Mapping[str, Measured], rounds: int, most_seconds: float = MOST_SECONDS) -> Taken:
    """Has the variants take turns, to and fro, so that what else the machine does meets all alike."""
    for measured in variants.values():
        measured()  # caches are warm for everybody
    taken: Taken = {name: [] for name in variants}
    order = list(variants.items())
    limit = monotonic() + most_seconds
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and monotonic() > limit:
            break
        for name, measured in order:
            taken[name].append(measured())
        order.reverse()
    return taken


def timed(action: Callable[[], object]) -> Measured:
    """One run of `action`."""

    def measured() -> float:
        start = perf_counter_ns()
        action()
        return (perf_counter_ns() - start) / 1e9

    return measured


def per_call(function: Callable[[T], object], argument: T, calls: int) -> Measured:
    """One call of `function(argument)` out of `calls` in a row."""

    def measured() -> float:
        start = perf_counter_ns()
        for _ in repeat(None, calls):
            function(argument)
        return (perf_counter_ns() - start) / 1e9 / calls

    return measured


def plain_call(value: object) -> object:
    """What calls are compared with."""
    return value


@dataclass(frozen=True, slots=True)
class Goal:
    """At most so many seconds, or so many times what the figure is compared with."""

    of: Literal["seconds", "ratio"]
    limit: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    seconds: float
    ratio: float | None = None
    """How many times what it is compared with, in the same run."""
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether it reaches its goal; None where it has none."""
        if self.goal is None:
            return None
        value = self.seconds if self.goal.of == "seconds" else self.ratio
        return value is not None and value <= self.goal.limit


def ratio_of(taken: list[float], base: list[float]) -> float:
    """The median of the rounds' own ratios: a round in which the machine was slow was slow for both."""
    return median(one / other for one, other in zip(taken, base, strict=True))


def compare(what: str, taken: list[float], base: list[float], goal: Goal | None = None) -> Figure:
    """The median, and its ratio to the base."""
    return Figure(what, median(taken), ratio_of(taken, base), goal)


@dataclass(frozen=True, slots=True)
class Section:
    """Figures that are compared with the same thing."""

    title: str
    compared_with: str
    figures: tuple[Figure, ...]
