"""One reload as it really goes: who held what, how it comes back, who else is there, and what a probe costs.

Pure data and integer arithmetic. Instants are nanoseconds since the death, negative before it; sizes are bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from fake_gpu import Ramp
from pytest_vramsettle._quantities import MIB, MILLISECOND
from pytest_vramsettle.expectations import Kill
from pytest_vramsettle.readings import GpuReading, Reading

Group = Literal["single tenant", "shared", "unknowable"]
"""What one may ask of a wait there: to get it right; to get it right beside others; to say that it cannot know."""

GROUPS: tuple[Group, ...] = ("single tenant", "shared", "unknowable")

SERVER_PID = 4_300_000
"""The dead server; above the kernel's largest PID, so that no living process is taken for it."""

SLOW_PROBE_NS = 10 * MILLISECOND
"""A probe below this is NVML. One above it is nvidia-smi, which needs a second run to tell who holds what."""

GRANULARITY = MIB
"""nvidia-smi prints whole MiB: memory is back when less than this is missing on each GPU."""


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU. `held` bytes of it were the server's, and come back as `ramp` says; `reserved` are the driver's."""

    uuid: str
    total: int
    reserved: int
    held: int
    ramp: Ramp

    def back(self, at_ns: int) -> int:
        """Bytes of the dead that are free at an instant."""
        return self.ramp.reclaimed(self.held, at_ns)

    @property
    def back_in_the_end(self) -> int:
        """Bytes of the dead that are free once reclaim is over."""
        done_ns = self.ramp.done_after_ns(self.held)
        return 0 if done_ns is None else self.back(done_ns)

    def back_at_ns(self) -> int | None:
        """The instant from which less than nvidia-smi can print is missing; None where nothing ever comes back."""
        done_ns = self.ramp.done_after_ns(self.held)
        if done_ns is None or not self.back_in_the_end:
            return None
        enough = self.back_in_the_end - GRANULARITY + 1
        low, high = -1, done_ns
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.back(middle) >= enough else (middle, high)
        return high


@dataclass(frozen=True, slots=True)
class Tenant:
    """Another process on the card with index `card`: from each instant on it holds so many bytes; before, the first.

    One that is not `listed` is a desktop: its memory is used, and no list of compute processes names it.
    """

    pid: int
    card: int
    instants_ns: tuple[int, ...]
    amounts: tuple[int, ...]
    listed: bool = True

    def holds(self, at_ns: int) -> int:
        """Bytes at an instant."""
        return self.amounts[max(0, bisect_right(self.instants_ns, at_ns) - 1)]


@dataclass(frozen=True)
class Scenario:
    """One reload. `name` is unique in its corpus; `kind` is its class there.

    The baseline is read at `baseline_ns`; the wait begins at `load_ns`. One run of the probe takes `run_ns`. The
    server's PID leaves the driver's list at `listed_ns`. `blind`: no probe tells who holds what, as in a container.
    """

    name: str
    kind: str
    group: Group
    cards: tuple[Card, ...]
    tenants: tuple[Tenant, ...] = ()
    run_ns: int = 40 * MILLISECOND
    baseline_ns: int = -500 * MILLISECOND
    load_ns: int = 0
    listed_ns: int = 0
    blind: bool = False

    def probe_ns(self, holders: bool) -> int:
        """What one probe takes."""
        return self.run_ns * (2 if holders and self.run_ns >= SLOW_PROBE_NS else 1)

    def reading(self, end_ns: int, *, holders: bool) -> Reading:
        """What a probe that ends at `end_ns` answers: free memory as it was at the end of its first run.

        nvidia-smi prints MiB, NVML tells bytes.
        """
        free_ns = end_ns - (self.probe_ns(holders) - self.run_ns)
        return self._read(free_ns, end_ns, holders, unit=MIB if self.run_ns >= SLOW_PROBE_NS else 1)

    def _read(self, free_ns: int, holders_ns: int, holders: bool, unit: int) -> Reading:
        return Reading(tuple(self._gpu(index, free_ns, holders_ns, holders, unit) for index in range(len(self.cards))))

    def _gpu(self, index: int, free_ns: int, end_ns: int, holders: bool, unit: int) -> GpuReading:
        card = self.cards[index]
        listed = self._holders(index, end_ns, unit) if holders and not self.blind else None
        free = self.free(index, free_ns) // unit * unit
        return GpuReading(index, card.uuid, free, card.total, listed)

    def free(self, index: int, at_ns: int) -> int:
        """Bytes that are free on that card at an instant; never less than none."""
        card = self.cards[index]
        taken = sum(tenant.holds(at_ns) for tenant in self.tenants if tenant.card == index)
        return max(0, card.total - card.reserved - (card.held - card.back(at_ns)) - taken)

    def _holders(self, index: int, at_ns: int, unit: int) -> dict[int, int | None]:
        holders: dict[int, int | None] = {
            tenant.pid: tenant.holds(at_ns) // unit * unit
            for tenant in self.tenants
            if tenant.card == index and tenant.listed and tenant.holds(at_ns)
        }
        if self.cards[index].held and at_ns < self.listed_ns:
            holders[SERVER_PID] = self.cards[index].held // unit * unit
        return holders

    def kill(self, death_ns: int) -> Kill:
        """What a kill record knows of it: the reading at the baseline, from NVML, as is usual there."""
        reading = self._read(self.baseline_ns, self.baseline_ns, holders=True, unit=1)
        free = {gpu.key: gpu.free for gpu in reading.gpus if gpu.free is not None}
        pids = frozenset({SERVER_PID})
        if self.blind:
            return Kill(pids, death_ns, free_before=free)
        held: dict[str | int, int] = {card.uuid: card.held for card in self.cards if card.held}
        others: Mapping[str | int, dict[int, int]] = {
            gpu.key: {pid: amount or 0 for pid, amount in (gpu.holders or {}).items() if pid != SERVER_PID}
            for gpu in reading.gpus
        }
        return Kill(pids, death_ns, held, free, others)

    def missing(self, at_ns: int) -> int:
        """Bytes, on all GPUs, that are free once reclaim is over and not at that instant."""
        return sum(card.back_in_the_end - card.back(at_ns) for card in self.cards if card.held)

    @cached_property
    def back_ns(self) -> int | None:
        """The instant from which all is back that will be; None where nothing ever comes back."""
        instants = [card.back_at_ns() for card in self.cards if card.held]
        known = [instant for instant in instants if instant is not None]
        return max(known) if known else None
