"""What kills let one expect of free memory. Pure data and arithmetic, in bytes.

The free memory that a GPU ends up with does not depend on the moment from which one counts: with what the dead held at
any one baseline, and what everybody else takes or gives after it,

    free in the end = free at the baseline + what the dead held then - growth of the others since

Several kills are therefore counted from the newest baseline: what the earlier ones still lack there is added to what
the last one held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_vramsettle._procfs import ProcessIdentity
from pytest_vramsettle._quantities import MIB, SECOND
from pytest_vramsettle.readings import GpuKey, GpuReading

Holdings = Mapping[GpuKey, Mapping[int, int | None]]
"""Bytes by PID by GPU; None where the driver lists a process and does not tell its amount."""

EXACT = 2 * MIB
"""A shortfall up to this is none: nvidia-smi rounds both readings to MiB."""

FORGET_NS = 60 * SECOND
"""Memory that a kill still lacks when the next one comes, so much later, is written off. The slowest reclaim that was
reported took more than 30 s (8 H200s with 122 GiB each); what is then missing belongs to somebody who lives."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One death, or one kill routine's deaths: who died, when, and what they held.

    `pids` held GPU memory, and have to leave the driver's list (all PIDs of the tree, where it is not known which).
    `processes` is the tree that should be dead, for those whose death is still to be checked; empty where it is a fact.
    `when_ns` is `time.monotonic_ns()` after the death.
    `held` is the bytes that the dead held, by GPU; None where nobody could tell, and {} where they held nothing.
    `free_before` is the free bytes, at the time of `held`, of every GPU that was there; None where nobody could tell.
    `others` is the bytes that the remaining processes held then, by PID by GPU; None where nobody could tell.
    `gpus` are the cards that were there, where that is more than `free_before` tells.
    `read_ns` is `time.monotonic_ns()` at the reading that `held` is from; None: at the death.
    """

    pids: frozenset[int]
    when_ns: int
    held: Mapping[GpuKey, int] | None = None
    free_before: Mapping[GpuKey, int] | None = None
    others: Holdings | None = None
    processes: tuple[ProcessIdentity, ...] = ()
    gpus: frozenset[GpuKey] = frozenset()
    read_ns: int | None = None

    def __post_init__(self) -> None:
        amounts = [*(self.held or {}).values(), *(self.free_before or {}).values()]
        amounts += [amount or 0 for by_pid in (self.others or {}).values() for amount in by_pid.values()]
        if any(amount < 0 for amount in amounts):
            raise ValueError(f"a kill cannot have held, left or found a negative number of bytes: {self!r}")
        unknown = [gpu for gpu, held in (self.held or {}).items() if held and gpu not in (self.free_before or {})]
        if unknown:
            raise ValueError(f"held memory is given without the free memory before, for {unknown!r}")

    @property
    def cards(self) -> frozenset[GpuKey]:
        """The GPUs that were there; empty where nobody could tell."""
        return self.gpus | frozenset(self.free_before or ())

    @property
    def every_pid(self) -> frozenset[int]:
        """Those that held memory, and the rest of the tree."""
        return self.pids | {process.pid for process in self.processes}


@dataclass(frozen=True, slots=True)
class Expectation:
    """`held` bytes are to come back on each GPU, counted from a baseline of `free_before` and `others`.

    `others` is None where the baseline could not tell. `pids` are those that held the memory.
    """

    held: Mapping[GpuKey, int]
    free_before: Mapping[GpuKey, int]
    others: Holdings | None
    pids: frozenset[int]

    def growth(self, gpu: GpuReading, ours: frozenset[int]) -> int:
        """Bytes that processes other than `ours` hold on this GPU beyond the baseline; 0 where nobody can tell."""
        if self.others is None or gpu.holders is None:
            return 0
        return _growth(self.others.get(gpu.key, {}), gpu.holders, ours)

    def short(self, gpu: GpuReading, ours: frozenset[int]) -> int | None:
        """Bytes still missing on this GPU (negative: more than expected is free); None without a reading."""
        before = self.free_before.get(gpu.key)
        if gpu.free is None or before is None:
            return None
        return self.held.get(gpu.key, 0) - ((gpu.free - before) + self.growth(gpu, ours))


def _growth(before: Mapping[int, int | None], now: Mapping[int, int | None], ours: frozenset[int]) -> int:
    growth = 0
    for pid in (before.keys() | now.keys()) - ours:
        then, since = before.get(pid, 0), now.get(pid, 0)
        # An amount that the driver does not tell counts as one that does not change.
        change = 0 if then is None or since is None else since - then
        # Less than 1 MiB is one reading in bytes beside one that nvidia-smi rounded.
        if abs(change) >= MIB:
            growth += change
    return growth


def recent(kills: Sequence[Kill]) -> tuple[Kill, ...]:
    """The kills without those whose memory is written off because a newer kill came so much later."""
    newest = max((kill.when_ns for kill in kills), default=0)
    return tuple(kill for kill in kills if newest - kill.when_ns <= FORGET_NS)


def expectation_of(kills: Sequence[Kill]) -> Expectation | None:
    """What these kills together let one expect; None when one of them does not tell, and for no kills."""
    merged: Expectation | None = None
    # Two kill routines may overlap: who was read later need not have died later.
    for kill in sorted(recent(kills), key=lambda kill: kill.when_ns if kill.read_ns is None else kill.read_ns):
        if kill.held is None:
            return None
        single = Expectation(kill.held, kill.free_before or {}, kill.others, kill.pids)
        merged = single if merged is None else _together(single, merged)
        if merged is None:
            return None
    return merged


def _together(base: Expectation, earlier: Expectation) -> Expectation | None:
    if base.free_before and earlier.free_before:
        return _counted_from(base, earlier)
    # One of them held nothing when it died, at a moment of which nothing else is known.
    known, nothing = (base, earlier) if base.free_before else (earlier, base)
    listed = {pid for by_pid in (known.others or {}).values() for pid in by_pid}
    # What it held at the baseline came back at some time since; how much of what is free now is that, nobody knows.
    return None if listed & nothing.pids else known


def _counted_from(base: Expectation, earlier: Expectation) -> Expectation | None:
    """Both expectations as one, from `base`'s baseline. None where the processes between them are not known."""
    if base.others is None or earlier.others is None:
        return None
    if any(held and key not in base.free_before for key, held in earlier.held.items()):
        # A card that could not be read at the newer baseline: what is still missing there, nobody knows.
        return None
    held: dict[GpuKey, int] = {}
    others: dict[GpuKey, dict[int, int | None]] = {}
    for key, free in base.free_before.items():
        at_base = base.others.get(key, {})
        others[key] = {pid: amount for pid, amount in at_base.items() if pid not in earlier.pids}
        lacking = 0
        if key in earlier.free_before:
            # To the earlier dead, the later ones are others, which held their memory at this baseline.
            growth = base.held.get(key, 0) + _growth(earlier.others.get(key, {}), others[key], base.pids)
            growth -= sum(earlier.others.get(key, {}).get(pid) or 0 for pid in base.pids)
            lacking = earlier.held.get(key, 0) - ((free - earlier.free_before[key]) + growth)
            lacking = min(max(0, lacking), earlier.held.get(key, 0))
        held[key] = base.held.get(key, 0) + (lacking if lacking > EXACT else 0)
    return Expectation(held, base.free_before, others, base.pids | earlier.pids)
