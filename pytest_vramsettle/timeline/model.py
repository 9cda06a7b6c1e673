"""The data of a timeline: plain, so that it can travel from a worker. Times are integer nanoseconds, sizes bytes."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from pytest_vramsettle.timeline.quantities import seconds, size

TOLERANCE = 256 << 20
"""Bytes that may be missing after a wait that is said to have settled: the default tolerance of every policy."""


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU. `free` are its free bytes at `Timeline.moments`, None where clients did not see it.

    `label` is "GPU 0" while it has an index, else "GPU-1a2b3c4d".
    """

    label: str
    name: str
    uuid: str
    total: int
    free: tuple[int | None, ...]

    @property
    def moves(self) -> bool:
        """Whether its free memory, or its presence, changed."""
        return len(set(self.free)) > 1


@dataclass(frozen=True, slots=True)
class Death:
    """A process died. `held`: bytes by the label of the GPU."""

    at_ns: int
    pid: int
    name: str
    held: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Probe:
    """A run of nvidia-smi, or NVML calls of one process in quick succession: `count` of them.

    `took_ns` is how long the driver took to answer; None where it did not. `faults` says what was injected.
    """

    at_ns: int
    took_ns: int | None
    via: str
    name: str
    pid: int
    count: int = 1
    code: int | None = 0
    faults: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """A settle wait and its decision: `trusted` where it told that placement may rely on the reading.

    `text` is what it said in full, `missing` the bytes of the dead that were in truth not back when it ended. Another
    call under judgement has a `label` of its own, is not `about_memory`, and what was wrong in truth is in `wrong`.
    """

    begin_ns: int
    end_ns: int
    outcome: str
    trusted: bool
    text: str
    missing: int = 0
    label: str = "wait"
    about_memory: bool = True
    wrong: str = ""

    @property
    def misled(self) -> bool:
        """Whether it told that the memory was back when it was not, or did not do what it told."""
        return bool(self.wrong) or (self.trusted and self.about_memory and self.missing > TOLERANCE)

    @property
    def good(self) -> bool:
        """Whether its word could be relied on."""
        return self.trusted and not self.misled

    @property
    def decision(self) -> str:
        """'settled, 0.5 s', and how much was missing in truth where it misled."""
        told = f"{self.outcome}, {seconds((self.end_ns - self.begin_ns) / 1e9)}"
        return f"{told}: wrong, {self.wrong or f'{size(self.missing)} was not back'}" if self.misled else told


@dataclass(frozen=True, slots=True)
class Hold:
    """A traced lock was held by `holder`."""

    begin_ns: int
    end_ns: int
    lock: str
    holder: str
    where: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something else that happened, such as a GPU that was removed, or a cancellation."""

    at_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened between `begin_ns` and `end_ns`, of a clock that the times are all of.

    `zero_ns` is what "0 s" is: the first death, or else the begin. `moments` are those of `Card.free`, in order.
    `omitted` counts probes, holds and waits that are not listed because there were too many.
    """

    begin_ns: int
    end_ns: int
    zero_ns: int
    moments: tuple[int, ...] = ()
    cards: tuple[Card, ...] = ()
    deaths: tuple[Death, ...] = ()
    probes: tuple[Probe, ...] = ()
    waits: tuple[Wait, ...] = ()
    holds: tuple[Hold, ...] = ()
    events: tuple[Event, ...] = ()
    omitted: int = 0

    def seconds(self, at_ns: int) -> float:
        """Seconds since zero."""
        return (at_ns - self.zero_ns) / 1e9

    def labels(self) -> list[tuple[str, Wait]]:
        """The waits with a name each: "wait", or "wait 1", "wait 2" where there are more."""
        count = Counter(wait.label for wait in self.waits)
        number: Counter[str] = Counter()
        named = []
        for wait in self.waits:
            number[wait.label] += 1
            named.append((wait.label if count[wait.label] == 1 else f"{wait.label} {number[wait.label]}", wait))
        return named

    @property
    def locks(self) -> tuple[str, ...]:
        """The locks that were held, each once."""
        return tuple(dict.fromkeys(hold.lock for hold in self.holds))

    def to_json(self) -> str:
        """As text, for `from_json`."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Timeline:
        """Raises msgspec.ValidationError for what `to_json` did not make."""
        return msgspec.json.decode(text, type=cls)


@dataclass(frozen=True, slots=True)
class Row:
    """GPUs of one kind whose free memory was the same all the time."""

    cards: tuple[Card, ...]

    @property
    def card(self) -> Card:
        """One of them."""
        return self.cards[0]

    @property
    def label(self) -> str:
        """'GPU 0', 'GPU 0-3, 6', '3 GPUs'."""
        places = [card.label.removeprefix("GPU ") for card in self.cards]
        if not all(place.isdecimal() for place in places):
            return self.card.label if len(self.cards) == 1 else f"{len(self.cards)} GPUs"
        return f"GPU {_ranges(sorted(map(int, places)))}"


def rows_of(cards: Sequence[Card]) -> list[Row]:
    """The GPUs, those that are alike together."""
    groups: dict[tuple[str, tuple[int | None, ...]], list[Card]] = {}
    for card in cards:
        groups.setdefault((card.name, card.free), []).append(card)
    return [Row(tuple(group)) for group in groups.values()]


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def free_at(moments: Sequence[int], free: Sequence[int | None], at_ns: int) -> int | None:
    """The last known free bytes at a time."""
    place = bisect.bisect_right(moments, at_ns) - 1
    return free[max(0, place)] if free else None
