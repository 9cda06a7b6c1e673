"""Statistics of many reloads: exact, one number a reload and figure, in arrays."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pytest_vramsettle._quantities import SECOND
from pytest_vramsettle.score.reload import Reload

MISREAD_MIB = 256
"""More than this missing is a misread: the tolerance of the common wait."""


def percentile(ordered: array[int], percent: float) -> int:
    """The smallest value that at least so many percent of them do not exceed (nearest rank); 0 for none."""
    if not ordered:
        return 0
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _ints() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Tally:
    """Counts what `add` is given. A reload that raised or never returned is counted in `broken` alone."""

    limit_mib: int = MISREAD_MIB
    reloads: int = 0
    probes: int = 0
    over_limit: int = 0
    over_and_flagged: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    broken: list[Reload] = field(default_factory=list)
    _misread_mib: array[int] = field(default_factory=_ints)
    _unflagged_mib: array[int] = field(default_factory=_ints)
    _waste_ns: array[int] = field(default_factory=_ints)
    _elapsed_ns: array[int] = field(default_factory=_ints)

    def add(self, reload: Reload) -> None:
        """Count one."""
        self.reloads += 1
        self.outcomes[reload.outcome] += 1
        if reload.broken:
            self.broken.append(reload)
            return
        self.probes += reload.probes
        over = reload.misread_mib > self.limit_mib
        self.over_limit += over
        self.over_and_flagged += over and reload.flagged
        self._misread_mib.append(reload.misread_mib)
        self._elapsed_ns.append(reload.elapsed_ns)
        if not reload.flagged:
            self._unflagged_mib.append(reload.misread_mib)
        if not over and reload.waste_ns is not None:
            self._waste_ns.append(reload.waste_ns)

    def summary(self) -> Summary:
        """The figures so far."""
        misread, waste, unflagged = (
            array("q", sorted(values)) for values in (self._misread_mib, self._waste_ns, self._unflagged_mib)
        )
        count = len(misread)
        return Summary(
            reloads=self.reloads,
            misread_p50_mib=percentile(misread, 50),
            misread_p99_mib=percentile(misread, 99),
            misread_worst_mib=percentile(misread, 100),
            unflagged_worst_mib=percentile(unflagged, 100),
            misread_share=_share(self.over_limit, count),
            unflagged_share=_share(self.over_limit - self.over_and_flagged, count),
            wasted=len(waste),
            waste_mean_s=_share(sum(waste) / SECOND, len(waste)),
            waste_p50_s=percentile(waste, 50) / SECOND,
            waste_p99_s=percentile(waste, 99) / SECOND,
            waste_worst_s=percentile(waste, 100) / SECOND,
            elapsed_mean_s=_share(sum(self._elapsed_ns) / SECOND, count),
            timeouts=self.outcomes["timed_out"],
            unverified=self.outcomes["stable_unverified"],
            probes_mean=_share(self.probes, count),
            broken=tuple(self.broken),
        )


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a policy in some scenarios. Shares are of 1; percentiles are nearest ranks.

    A misread is what was missing when the wait returned, whatever it said of it; `unflagged` are those of which it did
    not say that they are not to be trusted. `misread_share` counts those above the tally's limit. Waste is over the
    `wasted` reloads, those that were not misread and whose memory came back at all. `timeouts` and `unverified` are
    counts.
    """

    reloads: int
    misread_p50_mib: int
    misread_p99_mib: int
    misread_worst_mib: int
    unflagged_worst_mib: int
    misread_share: float
    unflagged_share: float
    wasted: int
    waste_mean_s: float
    waste_p50_s: float
    waste_p99_s: float
    waste_worst_s: float
    elapsed_mean_s: float
    timeouts: int
    unverified: int
    probes_mean: float
    broken: tuple[Reload, ...] = ()


class Scoreboard:
    """Tallies by policy, by group and by class, in the order in which they first came."""

    def __init__(self, limit_mib: int = MISREAD_MIB) -> None:
        self.limit_mib = limit_mib
        self._by_group: dict[tuple[str, str], Tally] = {}
        self._by_kind: dict[tuple[str, str], Tally] = {}
        self.policies: dict[str, None] = {}
        self.kinds: dict[str, str] = {}

    def add(self, reload: Reload) -> None:
        """Count one reload, for its group and for its class."""
        self.policies.setdefault(reload.policy)
        self.kinds.setdefault(reload.kind, reload.group)
        for tallies, name in ((self._by_group, reload.group), (self._by_kind, reload.kind)):
            key = (reload.policy, name)
            if key not in tallies:
                tallies[key] = Tally(self.limit_mib)
            tallies[key].add(reload)

    def update(self, reloads: Iterable[Reload]) -> Scoreboard:
        """Count them all."""
        for reload in reloads:
            self.add(reload)
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of which there are reloads."""
        return tuple(dict.fromkeys(self.kinds.values()))

    def of_group(self, policy: str, group: str) -> Summary:
        """A policy's figures in a group of scenarios; all zero where it met none."""
        return self._by_group.get((policy, group), Tally(self.limit_mib)).summary()

    def of_kind(self, policy: str, kind: str) -> Summary:
        """A policy's figures in a class of scenarios; all zero where it met none."""
        return self._by_kind.get((policy, kind), Tally(self.limit_mib)).summary()
