"""How others tell that memory is back: their criteria as policies, to compare with.

Each is written from what the project says and shows of its wait, not from its code, and keeps the project's own pace
and limit. None is a copy: what they do beside waiting (emptying caches, raising errors) is left out. They look at free
memory alone, so none can tell a co-tenant's memory from that of the dead.

`wait_for_vram_settle(..., policy="ollama")` runs one; `vramsettle score` scores them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from pytest_vramsettle._quantities import MIB, MILLISECOND, SECOND
from pytest_vramsettle.policies import Decision, Outcome, Policy, ProbeFailure, Sample, Situation
from pytest_vramsettle.readings import GpuKey

__all__ = ["PEERS", "ComfyuiMcp", "InstructLab", "Ollama", "Vllm", "Xinference"]


@dataclass(frozen=True, slots=True)
class _Peer(ABC):
    """A wait at one pace, over free memory alone, that tries a failed probe again. What it looks for is `is_back`."""

    name: str
    max_wait_ns: int
    pause_ns: int
    attempt_ns: int | None = None
    wants_only_pending: bool = True

    @abstractmethod
    def is_back(self, situation: Situation, samples: Sequence[Sample]) -> bool:
        """Whether the last of the samples ends the wait."""

    def is_stale(self, situation: Situation) -> bool:
        """Never: they wait right after the kill."""
        return False

    def wants_holders(self, situation: Situation) -> bool:
        """No."""
        return False

    def decide(
        self, situation: Situation, samples: Sequence[Sample], failures: Sequence[ProbeFailure] = ()
    ) -> Decision:
        """`settled` when it is back, by the peer's own lights; `no_gpu` where no card tells its free memory."""
        if not samples[-1].free_mib:
            return Decision("no_gpu" if len(samples) == 1 else None, self.pause_ns)
        outcome: Outcome | None = "settled" if self.is_back(situation, samples) else None
        return Decision(outcome, self.pause_ns)

    def decide_failure(
        self, situation: Situation, samples: Sequence[Sample], failures: Sequence[ProbeFailure]
    ) -> Decision:
        """Tried again at the next turn."""
        return Decision(pause_ns=self.pause_ns)


@dataclass(frozen=True, slots=True)
class Ollama(_Peer):
    """Free memory, summed over the GPUs, has grown by 75 % of what the dead model was estimated to hold.

    Every 250 ms, for 5 s at most; the scheduler then goes on with what it sees. Its estimate is its own reckoning of
    the model's size, here what the dead held. It cannot know about the last quarter, which GPU the memory came back
    on, or a neighbour's memory that was freed meanwhile. Without an estimate it waits for its whole 5 s.
    """

    name: str = "ollama"
    max_wait_ns: int = 5 * SECOND
    pause_ns: int = 250 * MILLISECOND
    share: float = 0.75

    def is_back(self, situation: Situation, samples: Sequence[Sample]) -> bool:
        """Three quarters of the sum."""
        expectation = situation.expectation
        if expectation is None:
            return False
        grown = sum(free - expectation.free_before.get(key, free) for key, free in _free(samples[-1]))
        return grown >= self.share * sum(expectation.held.values())


@dataclass(frozen=True, slots=True)
class Vllm(_Peer):
    """Every GPU's used memory is at or below a threshold, as vLLM's tests wait between engines.

    Every 5 s, for 120 s at most. The threshold is the tests' usual 2 GiB; it has to be chosen for the machine. It asks
    how much is used and cannot know by whom: what the dead still hold below the threshold is missed, and a neighbour
    that holds more makes the wait run out. Where the probe tells no total, it waits in vain.
    """

    name: str = "vllm"
    max_wait_ns: int = 120 * SECOND
    pause_ns: int = 5 * SECOND
    threshold: int = 2048 * MIB

    def is_back(self, situation: Situation, samples: Sequence[Sample]) -> bool:
        """On all GPUs."""
        return all(
            gpu.total is not None and gpu.total - gpu.free <= self.threshold
            for gpu in samples[-1].gpus
            if gpu.free is not None
        )


@dataclass(frozen=True, slots=True)
class InstructLab(_Peer):
    """Free memory, summed over the GPUs, has not grown for 6 samples in a row.

    Every second, for 30 s at most. It knows nothing of what is to come back: a reclaim that starts later than that, or
    rests for so long on its way, is taken for done, and one that was done at once costs the seconds all the same. A
    neighbour that allocates at the pace of the reclaim hides it.
    """

    name: str = "instructlab"
    max_wait_ns: int = 30 * SECOND
    pause_ns: int = SECOND
    samples_without_growth: int = 6

    def is_back(self, situation: Situation, samples: Sequence[Sample]) -> bool:
        """The last six are no larger than the ones before them."""
        newest = [sum(free for _, free in _free(sample)) for sample in samples[-self.samples_without_growth - 1 :]]
        if len(newest) <= self.samples_without_growth:
            return False
        return all(after <= before for before, after in pairwise(newest))


@dataclass(frozen=True, slots=True)
class Xinference(_Peer):
    """On the GPU with the least of it, 90 % of the memory is free.

    Neither its pace nor its limit is described; here it looks every second, for 30 s at most. On a large card a tenth
    is many GiB that may be missing, and a neighbour or a desktop that holds a tenth makes the wait run out. It cannot
    know who holds the rest. Where the probe tells no total, it waits in vain.
    """

    name: str = "xinference"
    max_wait_ns: int = 30 * SECOND
    pause_ns: int = SECOND
    share: float = 0.9

    def is_back(self, situation: Situation, samples: Sequence[Sample]) -> bool:
        """The least of the ratios."""
        return all(
            gpu.total is not None and gpu.free >= self.share * gpu.total
            for gpu in samples[-1].gpus
            if gpu.free is not None
        )


@dataclass(frozen=True, slots=True)
class ComfyuiMcp(_Peer):
    """Free memory has moved off what it was before the kill, and two samples in a row are equal.

    Its pace and limit are not described; here it looks every 250 ms, for 30 s at most. Moving first saves it from a
    late start, and nothing saves it from a pause on the way or from GPUs that begin one after the other. It cannot know
    whether what moved was a neighbour. Without a reading from before the kill, the first sample stands for it.
    """

    name: str = "comfyui-mcp"
    max_wait_ns: int = 30 * SECOND
    pause_ns: int = 250 * MILLISECOND

    def is_back(self, situation: Situation, samples: Sequence[Sample]) -> bool:
        """Equal to the MiB, over all GPUs."""
        now = _in_mib(_free(samples[-1]))
        before = _in_mib(situation.expectation.free_before.items() if situation.expectation else _free(samples[0]))
        return len(samples) > 1 and now != before and now == _in_mib(_free(samples[-2]))


def _free(sample: Sample) -> Iterator[tuple[GpuKey, int]]:
    return ((gpu.key, gpu.free) for gpu in sample.gpus if gpu.free is not None)


def _in_mib(free: Iterable[tuple[GpuKey, int]]) -> dict[GpuKey, int]:
    return {key: amount // MIB for key, amount in free}


PEERS: Mapping[str, Policy] = MappingProxyType(
    {policy.name: policy for policy in (Ollama(), Vllm(), InstructLab(), Xinference(), ComfyuiMcp())}
)
"""The peers' policies by name."""
