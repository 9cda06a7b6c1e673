"""The generated scenarios: what is reported of real reloads, class by class, drawn from a seed.

Scenario n of a class is the same on every machine and in every corpus of that seed, however large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from fake_gpu import Ramp
from pytest_vramsettle._quantities import MIB, MILLISECOND, SECOND
from pytest_vramsettle.score.scenarios import Card, Group, Scenario, Tenant

GIB = 1024 * MIB

CARD_GIB = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 180)
CARD_COUNTS = (1, 1, 1, 1, 2, 2, 4, 8)

Points = list[tuple[float, float]]


def _log_uniform(random: Random, low: float, high: float) -> float:
    return math.exp(random.uniform(math.log(low), math.log(high)))


# How memory comes back. Each draws one ramp for a card on which the server held so many bytes.


def _late_start(random: Random, held: int) -> Ramp:
    """Nothing for up to 3 s, then all within a second."""
    return Ramp.linear(_log_uniform(random, 0.05, 1.0), after=random.uniform(0.0, 3.0))


def _steps(random: Random, held: int) -> Ramp:
    """One to six steps within 8 s."""
    count = random.randint(1, 6)
    times = sorted(random.uniform(0.02, _log_uniform(random, 0.1, 8.0)) for _ in range(count))
    shares = [*sorted(random.uniform(0.0, 1.0) for _ in range(count - 1)), 1.0]
    points: Points = [(0.0, 0.0)]
    for time, share in zip(times, shares, strict=True):
        points += [(time, points[-1][1]), (time, share)]
    return Ramp.points(points)


def _linear(random: Random, held: int) -> Ramp:
    """0.05 to 26 s, the longest that is reported."""
    return Ramp.linear(_log_uniform(random, 0.05, 26.0), after=random.uniform(0.0, 0.3))


def _exponential(random: Random, held: int) -> Ramp:
    """Half of the rest every 20 ms to 1.5 s."""
    return Ramp.exponential(_log_uniform(random, 0.02, 1.5), after=random.uniform(0.0, 0.3))


def _plateau(random: Random, held: int) -> Ramp:
    """A part of 10 to 90 %, rest for 0.3 to 6 s, the remainder."""
    first = random.uniform(0.1, 0.9)
    begin = random.uniform(0.05, 0.6)
    end = begin + _log_uniform(random, 0.3, 6.0)
    return Ramp.points([(random.uniform(0.0, 0.05), 0.0), (begin, first), (end, first), (end + random.random(), 1.0)])


def _two_stages(random: Random, held: int) -> Ramp:
    """A first small release, rest for 0.3 to 3 s, then nearly all."""
    first = random.uniform(0.005, 0.05)
    end = 0.1 + _log_uniform(random, 0.3, 3.0)
    return Ramp.points([(0.0, 0.0), (0.1, first), (end, first), (end + _log_uniform(random, 0.05, 1.5), 1.0)])


def _drip(random: Random, held: int) -> Ramp:
    """All of it, or the last 50 MiB to 2 GiB, at 20 to 800 MiB a second, for 24 s at most."""
    last = held if random.random() < 0.4 else min(held, round(_log_uniform(random, 50, 2048)) * MIB)
    seconds = min(24.0, last / (_log_uniform(random, 20, 800) * MIB))
    begin = random.uniform(0.1, 0.8)
    return Ramp.points([(0.0, 0.0), (begin, 1.0 - last / held), (begin + seconds, 1.0)])


def _pinned_host(random: Random, held: int) -> Ramp:
    """16 to 26 s, as is reported with a large pool of pinned host memory: all of it late, or a tail."""
    end = random.uniform(16.0, 26.0)
    if random.random() < 0.5:
        return Ramp.linear(random.uniform(0.2, 1.0), after=end - 1.0)
    first = random.uniform(0.5, 0.995)
    return Ramp.points(
        [(0.0, 0.0), (random.uniform(0.3, 0.8), first), (end - random.uniform(0.05, 8.0), first), (end, 1.0)]
    )


def _any(random: Random, held: int) -> Ramp:
    """One of the above."""
    shapes = (_late_start, _steps, _linear, _exponential, _plateau, _two_stages, _drip)
    return random.choice(shapes)(random, held)


def _never(random: Random, held: int) -> Ramp:
    """Nothing comes back: an orphan lives, or the driver leaks."""
    return Ramp.never()


def _part(random: Random, held: int) -> Ramp:
    """85 to 99.5 % come back; the rest is held by another process through IPC, or was never the server's."""
    share = random.uniform(0.85, 0.995)
    return Ramp.points([(0.0, 0.0), (0.1, 0.0), (0.1 + _log_uniform(random, 0.1, 8.0), share)])


# Who else is there.

_Tenants = Callable[[Random, Sequence[Card]], tuple[Tenant, ...]]


def _nobody(random: Random, cards: Sequence[Card]) -> tuple[Tenant, ...]:
    return ()


def _desktop(random: Random, cards: Sequence[Card]) -> tuple[Tenant, ...]:
    """On each card something that nobody lists, which moves by up to 24 MiB every 50 to 500 ms."""
    amplitude = random.randint(1, 24) * MIB
    base = random.randint(100, 400) * MIB
    pace = random.uniform(0.05, 0.5)
    instants = tuple(round((pace * turn - 10.0) * SECOND) for turn in range(round(50 / pace)))
    return tuple(
        Tenant(900 + index, index, instants, tuple(base + random.randrange(amplitude) for _ in instants), listed=False)
        for index in range(len(cards))
    )


def _takes(random: Random, cards: Sequence[Card]) -> tuple[Tenant, ...]:
    """One to three that allocate once, within the first seconds."""
    return tuple(_once(random, cards, number, taking=True) for number in range(random.randint(1, 3)))


def _gives(random: Random, cards: Sequence[Card]) -> tuple[Tenant, ...]:
    """One to three that free what they hold, within the first seconds."""
    return tuple(_once(random, cards, number, taking=False) for number in range(random.randint(1, 3)))


def _once(random: Random, cards: Sequence[Card], number: int, *, taking: bool) -> Tenant:
    card = random.randrange(len(cards))
    most = _room(cards[card]) // 3
    amount = random.randint(most // 8, most)
    when = round(random.uniform(-0.5, 5.0) * SECOND)
    return Tenant(1000 + number, card, (-60 * SECOND, when), (0, amount) if taking else (amount, 0))


def _churns(random: Random, cards: Sequence[Card]) -> tuple[Tenant, ...]:
    """One or two that take and give again, for 3 to 12 s, every 0.2 to 2 s."""
    return tuple(_churn(random, cards, number) for number in range(random.randint(1, 2)))


def _churn(random: Random, cards: Sequence[Card], number: int) -> Tenant:
    card = random.randrange(len(cards))
    most = _room(cards[card]) // 2
    instants, amounts = [-60 * SECOND], [random.randint(0, most)]
    time, end, pace = random.uniform(-1.0, 0.5), random.uniform(3.0, 12.0), _log_uniform(random, 0.2, 2.0)
    while time < end:
        instants.append(round(time * SECOND))
        amounts.append(random.randint(0, most))
        time += pace * random.uniform(0.5, 1.5)
    return Tenant(1000 + number, card, tuple(instants), tuple(amounts))


def _room(card: Card) -> int:
    """What others may hold there, so that they never meet the dead."""
    return card.total - card.reserved - card.held


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of scenarios. `offsets`: each GPU begins on its own; else all follow one ramp."""

    name: str
    group: Group
    says: str
    ramp: Callable[[Random, int], Ramp]
    tenants: _Tenants = _nobody
    offsets: bool = False
    late_load: bool = False
    blind: bool = False


KINDS: tuple[Kind, ...] = (
    Kind("late-start", "single tenant", "nothing for up to 3 s, then all within a second", _late_start),
    Kind("steps", "single tenant", "one to six steps within 8 s", _steps),
    Kind("linear", "single tenant", "evenly, in 0.05 to 26 s", _linear),
    Kind("exponential", "single tenant", "half of the rest every 0.02 to 1.5 s", _exponential),
    Kind("plateau", "single tenant", "10 to 90 %, a rest of 0.3 to 6 s, the remainder", _plateau),
    Kind("two-stage", "single tenant", "at most 5 %, a rest of 0.3 to 3 s, then nearly all", _two_stages),
    Kind("drip", "single tenant", "all, or the last 50 MiB to 2 GiB, at 20 to 800 MiB/s", _drip),
    Kind("gpu-offsets", "single tenant", "2 to 8 GPUs, each with a shape and a start of its own", _any, offsets=True),
    Kind("noise", "single tenant", "any shape; an unlisted desktop moves by up to 24 MiB", _any, _desktop),
    Kind("late-load", "single tenant", "any shape; the load comes up to 30 s after the kill", _any, late_load=True),
    Kind("pinned-host", "single tenant", "16 to 26 s: all of it late, or a tail of up to a half", _pinned_host),
    Kind("tenants-take", "shared", "any shape; one to three neighbours allocate meanwhile", _any, _takes),
    Kind("tenants-give", "shared", "any shape; one to three neighbours free meanwhile", _any, _gives),
    Kind("tenants-churn", "shared", "any shape; neighbours take and give every 0.2 to 2 s", _any, _churns),
    Kind("never", "unknowable", "nothing comes back", _never),
    Kind("part", "unknowable", "0.5 to 15 % of what the dead held stay away for good", _part),
    Kind("blind", "unknowable", "any shape; nobody can tell who holds what", _any, blind=True),
)
"""Every class, in the order of the corpus."""

USUAL = 100 * len(KINDS)
"""Scenarios in a corpus of which nobody says how large it is to be."""


def _cards(random: Random, kind: Kind) -> tuple[Card, ...]:
    count = random.choice([2, 2, 4, 8] if kind.offsets else CARD_COUNTS)
    total = random.choice(CARD_GIB) * GIB
    reserved = random.randint(200, 600) * MIB
    # Neighbours need room; a server alone fills its card, as llama.cpp and vLLM do.
    held = round(random.uniform(0.3, 0.6 if kind.group == "shared" else 0.97) * (total - 2 * reserved))
    together = kind.ramp(random, held)
    cards = []
    for index in range(count):
        ramp = kind.ramp(random, held) if kind.offsets else together
        cards.append(Card(f"GPU-{index}", total, reserved, held, ramp))
    return tuple(cards)


def scenario(kind: Kind, seed: int, number: int) -> Scenario:
    """Scenario `number` of a class."""
    random = Random(f"{seed}/{kind.name}/{number}")
    cards = _cards(random, kind)
    run_ns = round(_log_uniform(random, 1.0, 1200.0) * MILLISECOND)
    return Scenario(
        name=f"{kind.name}/{number}",
        kind=kind.name,
        group=kind.group,
        cards=cards,
        tenants=kind.tenants(random, cards),
        run_ns=run_ns,
        baseline_ns=-round(random.uniform(0.02, 5.0) * SECOND),
        load_ns=round(random.uniform(0.0, 30.0) * SECOND)
        if kind.late_load
        else round(random.random() * 50) * MILLISECOND,
        listed_ns=round(random.choice([0.0, 0.0, 0.0, random.uniform(0.0, 0.3)]) * SECOND),
        blind=kind.blind,
    )


@dataclass(frozen=True, slots=True)
class Corpus:
    """The first `generated` scenarios of a seed, the classes in turn, and then those that are given. A sequence."""

    generated: int = USUAL
    seed: int = 1
    kinds: tuple[str, ...] = tuple(kind.name for kind in KINDS)
    given: tuple[Scenario, ...] = ()

    def __post_init__(self) -> None:
        for name in self.kinds:
            if name not in _BY_NAME:
                raise ValueError(f"there is no class of scenarios {name!r}; the known ones are {', '.join(_BY_NAME)}")
        if self.generated < 0:
            raise ValueError(f"a corpus cannot have {self.generated} generated scenarios")
        if not len(self):
            raise ValueError("the corpus is empty: neither generated scenarios nor traces were asked for")

    def __len__(self) -> int:
        return (self.generated if self.kinds else 0) + len(self.given)

    def __getitem__(self, index: int) -> Scenario:
        if not 0 <= index < len(self):
            raise IndexError(f"scenario {index} of a corpus of {len(self)}")
        generated = len(self) - len(self.given)
        if index >= generated:
            return self.given[index - generated]
        name = self.kinds[index % len(self.kinds)]
        return scenario(_BY_NAME[name], self.seed, index // len(self.kinds))

    def __iter__(self) -> Iterator[Scenario]:
        return (self[index] for index in range(len(self)))

    def named(self, name: str) -> Scenario:
        """The scenario of that name, also one beyond those that are scored. Raises ValueError where there is none."""
        for one in self.given:
            if one.name == name:
                return one
        kind, _, number = name.partition("/")
        if kind in _BY_NAME and number.isascii() and number.isdigit():
            return scenario(_BY_NAME[kind], self.seed, int(number))
        known = ", ".join([*(f"{kind}/N" for kind in _BY_NAME), *(one.name for one in self.given)])
        raise ValueError(f"there is no scenario {name!r}; the known ones are {known}")


_BY_NAME = {kind.name: kind for kind in KINDS}
