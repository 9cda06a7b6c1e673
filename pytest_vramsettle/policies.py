"""When is memory back? Policies: pure decisions over the samples that a wait has taken so far.

A policy keeps no state. It is asked after every sample, with all samples, and says how the wait ends or how long to
pause; so it can be run over recorded samples as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

from pytest_vramsettle._budget import GpuLost
from pytest_vramsettle._quantities import MIB, MILLISECOND, SECOND
from pytest_vramsettle.expectations import EXACT, Expectation
from pytest_vramsettle.readings import GpuKey, GpuReading

Outcome = Literal[
    "no_recent_kill",
    "stale_kill",
    "no_gpu",
    "already_released",
    "settled",
    "stable_unverified",
    "timed_out",
    "probe_failed",
    "gpu_set_changed",
    "cancelled",
    "superseded",
]
"""How a wait can end. The order is that of the documentation."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a wait knows before its first sample.

    `age_ns` is the time since the last kill. `expectation` is None where nobody knows what is to come back. `pids` are
    the killed process trees, `gpus` the cards that were there before the kill (empty where nobody looked).
    """

    age_ns: int = 0
    expectation: Expectation | None = None
    pids: frozenset[int] = frozenset()
    gpus: frozenset[GpuKey] = frozenset()
    interval_ns: int = 250 * MILLISECOND
    tolerance_mib: float = 256


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of the probe. Nanoseconds; `offset_ns` is when it came, since the wait began; `cost_ns` what it took.

    `alive` are PIDs of the killed trees that still live; `reused` are those whose number belongs to another process.
    """

    offset_ns: int
    cost_ns: int
    gpus: tuple[GpuReading, ...]
    alive: frozenset[int] = frozenset()
    reused: frozenset[int] = frozenset()

    @property
    def free_mib(self) -> dict[GpuKey, float]:
        """Free MiB by UUID (by index where the probe knows no UUID), without the cards that do not tell."""
        return {gpu.key: gpu.free / MIB for gpu in self.gpus if gpu.free is not None}

    @property
    def offset(self) -> float:
        """`offset_ns` in seconds."""
        return self.offset_ns / SECOND

    def listed(self, pids: frozenset[int]) -> frozenset[int]:
        """Which of these PIDs the driver still lists as holders of memory."""
        ours = pids - self.reused
        return frozenset(pid for gpu in self.gpus for pid in gpu.holders or () if pid in ours)


@dataclass(frozen=True, slots=True)
class ProbeFailure:
    """One probe that failed. Nanoseconds, as for `Sample`."""

    offset_ns: int
    cost_ns: int
    error: Exception = field(compare=False)

    def __str__(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"


@dataclass(frozen=True, slots=True)
class Decision:
    """The wait ends with `outcome`, or pauses for `pause_ns` and probes again."""

    outcome: Outcome | None = None
    pause_ns: int = 0


@runtime_checkable
class Policy(Protocol):
    """How to tell that memory is back."""

    @property
    def name(self) -> str:
        """What results and logs call it."""

    @property
    def max_wait_ns(self) -> int:
        """How long a wait may last where the caller does not say."""

    @property
    def attempt_ns(self) -> int | None:
        """How long one probe may take, where that is less than what is left of the wait."""

    @property
    def wants_only_pending(self) -> bool:
        """True: a kill whose memory was seen to be back is over. False: every kill counts until it is stale."""

    def is_stale(self, situation: Situation) -> bool:
        """Whether the kill is so old that nothing is left to wait for."""

    def wants_holders(self, situation: Situation) -> bool:
        """Whether samples have to tell which process holds what, which costs nvidia-smi a second run."""

    def decide(
        self, situation: Situation, samples: Sequence[Sample], failures: Sequence[ProbeFailure] = ()
    ) -> Decision:
        """After a sample, which is the last of `samples`."""

    def decide_failure(
        self, situation: Situation, samples: Sequence[Sample], failures: Sequence[ProbeFailure]
    ) -> Decision:
        """After a failed probe, which is the last of `failures`."""


@dataclass(frozen=True, slots=True)
class TwoSamples:
    """Two samples in a row that are alike on every GPU. It needs no kill record beyond the time of the kill.

    Fast and easily fooled: a reclaim that starts late, pauses, or goes slowly passes as settled.
    """

    name: str = "two-samples"
    max_wait_ns: int = 2 * SECOND
    stale_ns: int = 15 * SECOND
    share: float = 0.02
    attempt_ns: int | None = None
    wants_only_pending: bool = False

    def is_stale(self, situation: Situation) -> bool:
        """Older than 15 s."""
        return situation.age_ns > self.stale_ns

    def wants_holders(self, situation: Situation) -> bool:
        """No."""
        return False

    def decide(
        self, situation: Situation, samples: Sequence[Sample], failures: Sequence[ProbeFailure] = ()
    ) -> Decision:
        """Settled when each GPU moved less than the larger of the tolerance and 2 % of its free memory."""
        free = _free_by_index(samples[-1])
        if len(samples) == 1:
            return Decision(pause_ns=situation.interval_ns) if free else Decision("no_gpu")
        previous = _free_by_index(samples[-2])
        if free.keys() != previous.keys():
            return Decision("gpu_set_changed")
        for key, now in free.items():
            before = previous[key]
            if abs(now - before) >= max(situation.tolerance_mib, int(self.share * max(now, before))):
                return Decision(pause_ns=situation.interval_ns)
        return Decision("settled")

    def decide_failure(
        self, situation: Situation, samples: Sequence[Sample], failures: Sequence[ProbeFailure]
    ) -> Decision:
        """The wait is over."""
        return Decision("probe_failed")


def _free_by_index(sample: Sample) -> dict[GpuKey, float]:
    return {gpu.key if gpu.index is None else gpu.index: gpu.free / MIB for gpu in sample.gpus if gpu.free is not None}


@dataclass(frozen=True, slots=True)
class Verified:
    """What the dead held has to come back, corrected for what everybody else takes and gives.

    Nanoseconds and bytes. The constants are those of docs/scoreboard.md; each is described where it is used.
    """

    name: str = "verified"
    max_wait_ns: int = 30 * SECOND
    attempt_ns: int | None = 10 * SECOND  # a wedged nvidia-smi is ended and tried again
    wants_only_pending: bool = True
    first_pause_ns: int = 25 * MILLISECOND
    pause_growth: tuple[int, int] = (3, 2)  # as a fraction, so that pauses stay whole numbers
    still: int = 32 * MIB
    settled_after_ns: int = 300 * MILLISECOND
    # Of what the dead held, what may stay away. More than none ends a wait for memory that never comes back sooner, and
    # a wait for a tail of pinned host memory too soon: the scoreboard compares.
    margin_share: float = 0.0
    margin_after_ns: int = 5 * SECOND
    blind_after_ns: int = SECOND
    blind_samples: int = 3
    blind_unmoved_ns: int = 2 * SECOND
    blind_stale_ns: int = 60 * SECOND

    def is_stale(self, situation: Situation) -> bool:
        """Never, where it is known what has to come back; else after a minute."""
        return situation.expectation is None and situation.age_ns > self.blind_stale_ns

    def wants_holders(self, situation: Situation) -> bool:
        """Where there is a PID to look for."""
        return bool(situation.pids)

    def decide(
        self, situation: Situation, samples: Sequence[Sample], failures: Sequence[ProbeFailure] = ()
    ) -> Decision:
        """See the class."""
        newest = samples[-1]
        outcome: Outcome | None
        if not newest.gpus and len(samples) == 1 and not situation.gpus:
            outcome = "no_gpu"
        elif _set_changed(situation, samples):
            outcome = "gpu_set_changed"
        elif not newest.free_mib:
            # There is a card, and it does not tell, for a moment or ever.
            outcome = self._by_stillness(situation, samples) if situation.expectation is None else None
        elif situation.expectation is not None and _is_told_by(newest, situation.expectation):
            outcome = self._against(situation.expectation, situation, samples)
        else:
            outcome = self._by_stillness(situation, samples)
        return Decision(outcome) if outcome is not None else self._pause(situation, samples, failures)

    def decide_failure(
        self, situation: Situation, samples: Sequence[Sample], failures: Sequence[ProbeFailure]
    ) -> Decision:
        """Tried again, unless a GPU is lost."""
        if isinstance(failures[-1].error, GpuLost):
            return Decision("gpu_set_changed")
        return self._pause(situation, samples, failures)

    def _pause(self, situation: Situation, samples: Sequence[Sample], failures: Sequence[ProbeFailure]) -> Decision:
        """25 ms, growing by 1.5 up to the interval; not below the probe's own cost, so that it rests half the time."""
        attempts: list[Sample | ProbeFailure] = [*samples[-1:], *failures[-1:]]
        cost = max(attempts, key=lambda attempt: attempt.offset_ns).cost_ns
        steps = min(len(samples) + len(failures) - 1, 64)
        grown = self.first_pause_ns * self.pause_growth[0] ** steps // self.pause_growth[1] ** steps
        return Decision(pause_ns=min(situation.interval_ns, max(grown, cost)))

    def _against(self, expectation: Expectation, situation: Situation, samples: Sequence[Sample]) -> Outcome | None:
        newest = samples[-1]
        if newest.listed(situation.pids) or newest.alive & expectation.pids:
            return None
        ours = _ours(situation, newest)
        shorts = {gpu.key: expectation.short(gpu, ours) for gpu in newest.gpus if expectation.held.get(gpu.key)}
        # Summed, because eight GPUs that each lack a little leave a model without a lot.
        lacking = sum(short for short in shorts.values() if short is not None and short > 0)
        verdicts: list[Outcome] = []
        for key, held in expectation.held.items():
            verdict = self._one_gpu(expectation, situation, samples, key, lacking) if held else "already_released"
            if verdict is None:
                return None
            verdicts.append(verdict)
        if all(verdict == "already_released" for verdict in verdicts):
            return "already_released" if len(samples) == 1 else "settled"
        # Stillness is no proof while somebody of the tree lives who may hold on to memory.
        if newest.alive:
            return None
        return "stable_unverified" if "stable_unverified" in verdicts else "settled"

    def _one_gpu(
        self, expectation: Expectation, situation: Situation, samples: Sequence[Sample], key: GpuKey, lacking: int
    ) -> Outcome | None:
        """`already_released` stands for: to the byte. `lacking` is what is still missing on all GPUs together."""
        now = _find(samples[-1], key)
        short = None if now is None else expectation.short(now, _ours(situation, samples[-1]))
        if now is None or short is None:
            return None
        growth = expectation.growth(now, _ours(situation, samples[-1]))
        before = _find(samples[-2], key) if len(samples) > 1 else None
        growth_before = 0 if before is None else expectation.growth(before, _ours(situation, samples[-2]))
        # nvidia-smi needs two runs for free memory and holders; while the others move, the two do not match.
        if abs(growth - growth_before) > self.still:
            return None
        if short <= EXACT:
            return "already_released"
        shorts = _Track(samples, lambda sample, gpu: expectation.short(gpu, _ours(situation, sample)), key)
        # An eighth of the tolerance is kept for what the readings hide: a desktop that gave, holders read a run later.
        if 8 * lacking <= 7 * situation.tolerance_mib * MIB and shorts.still_for(self.settled_after_ns, self.still):
            return "settled"
        margin = max(situation.tolerance_mib * MIB, self.margin_share * sum(expectation.held.values()))
        if lacking <= margin and shorts.still_for(self.margin_after_ns, self.still):
            return "stable_unverified"
        return None

    def _by_stillness(self, situation: Situation, samples: Sequence[Sample]) -> Outcome | None:
        newest = samples[-1]
        if newest.alive or newest.listed(situation.pids):
            return None
        moved = False
        for key in newest.free_mib:
            track = _Track(samples, lambda _, gpu: gpu.free, key)
            if not track.still_for(self.blind_after_ns, self.still, at_least=self.blind_samples):
                return None
            moved = moved or track.moved_by(situation.tolerance_mib * MIB)
        return "stable_unverified" if moved or newest.offset_ns >= self.blind_unmoved_ns else None


def _ours(situation: Situation, sample: Sample) -> frozenset[int]:
    return situation.pids - sample.reused


def _find(sample: Sample, key: GpuKey) -> GpuReading | None:
    return next((gpu for gpu in sample.gpus if gpu.key == key), None)


def _keys(sample: Sample) -> frozenset[GpuKey]:
    return frozenset(gpu.key for gpu in sample.gpus)


def _comparable(keys: Mapping[GpuKey, int] | frozenset[GpuKey], sample: Sample) -> bool:
    """Whether both name GPUs alike, by UUID or by index."""
    return {type(key) for key in keys} == {type(key) for key in _keys(sample)}


def _is_told_by(sample: Sample, expectation: Expectation) -> bool:
    """Whether the sample tells what the expectation is about: of the same GPUs, and of who else was there too."""
    if not _comparable(expectation.free_before, sample):
        return False
    others = expectation.others or {}
    return not any(gpu.holders is None and any((others.get(gpu.key) or {}).values()) for gpu in sample.gpus)


def _set_changed(situation: Situation, samples: Sequence[Sample]) -> bool:
    keys = _keys(samples[-1])
    if len(samples) > 1:
        return keys != _keys(samples[-2])
    if not situation.gpus:
        return False
    return keys != situation.gpus and (not keys or _comparable(situation.gpus, samples[-1]))


class _Measure(Protocol):
    def __call__(self, sample: Sample, gpu: GpuReading, /) -> int | None: ...


class _Track:
    """One GPU's figure over the samples, newest first; it ends where a sample does not tell."""

    def __init__(self, samples: Sequence[Sample], measure: _Measure, key: GpuKey) -> None:
        self._samples = samples
        self._measure = measure
        self._key = key

    def _newest_first(self, since_ns: int | None = None) -> list[int] | None:
        """The figures back to the first sample at or before `since_ns`; None when they do not reach back so far."""
        figures: list[int] = []
        for sample in reversed(self._samples):
            gpu = _find(sample, self._key)
            figure = None if gpu is None else self._measure(sample, gpu)
            if figure is None:
                break
            figures.append(figure)
            if since_ns is not None and sample.offset_ns <= since_ns:
                return figures
        return figures if since_ns is None else None

    def still_for(self, nanoseconds: int, most: int, *, at_least: int = 2) -> bool:
        """Whether it moved by no more than `most` over at least so long, and so many samples."""
        figures = self._newest_first(self._samples[-1].offset_ns - nanoseconds)
        return figures is not None and len(figures) >= at_least and max(figures) - min(figures) <= most

    def moved_by(self, more_than: float) -> bool:
        """Whether it ever moved by more than that."""
        figures = self._newest_first() or [0]
        return max(figures) - min(figures) > more_than


POLICIES: Mapping[str, Policy] = MappingProxyType({policy.name: policy for policy in (Verified(), TwoSamples())})
"""The policies to wait with, by name. Those of other projects, to compare with, are in `pytest_vramsettle.peers`."""


def all_policies() -> Mapping[str, Policy]:
    """Ours and the peers', by name."""
    from pytest_vramsettle.peers import PEERS  # which is written in terms of this module

    return {**POLICIES, **PEERS}


def policy_named(policy: str | Policy) -> Policy:
    """The policy of that name, or the policy that was given. Raises ValueError or TypeError for what is none."""
    if isinstance(policy, Policy):
        return policy
    if not isinstance(policy, str):
        raise TypeError(f"policy has to be a name such as 'verified', or a Policy; got {policy!r}")
    if policy in POLICIES:
        return POLICIES[policy]
    policies = all_policies()
    try:
        return policies[policy]
    except KeyError:
        known = ", ".join(repr(name) for name in policies)
        raise ValueError(f"there is no settle policy {policy!r}; the known ones are {known}") from None
