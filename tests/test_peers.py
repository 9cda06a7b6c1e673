"""The peers' criteria, sample by sample."""

from __future__ import annotations

import pytest
from settle_world import GIB, MIB, SECOND, SERVER

from pytest_vramsettle.expectations import Expectation
from pytest_vramsettle.peers import PEERS, ComfyuiMcp, InstructLab, Ollama, Vllm, Xinference
from pytest_vramsettle.policies import POLICIES, Decision, Policy, ProbeFailure, Sample, Situation, policy_named
from pytest_vramsettle.probes import GpuReading, ProbeFailed

TOTAL = 80 * GIB


def sample(*free: int | None, total: int | None = TOTAL) -> Sample:
    return Sample(0, 0, tuple(GpuReading(None, f"GPU-{index}", one, total) for index, one in enumerate(free)))


def killed(held: int = 20 * GIB, free: int = 4 * GIB, gpus: int = 1) -> Situation:
    keys = [f"GPU-{index}" for index in range(gpus)]
    expectation = Expectation(dict.fromkeys(keys, held), dict.fromkeys(keys, free), {}, frozenset({SERVER}))
    return Situation(expectation=expectation, pids=frozenset({SERVER}), gpus=frozenset(keys))


def ends(policy: Policy, situation: Situation, *samples: Sample) -> bool:
    decision = policy.decide(situation, samples)
    assert decision.outcome in (None, "settled")
    return decision.outcome == "settled"


@pytest.mark.parametrize("name", PEERS)
def test_each_is_a_policy_by_name(name: str) -> None:
    policy = policy_named(name)
    assert policy is PEERS[name]
    assert isinstance(policy, Policy)
    assert policy.name == name
    assert name not in POLICIES


@pytest.mark.parametrize(
    ("name", "pace", "limit"), [("ollama", 0.25, 5), ("vllm", 5, 120), ("instructlab", 1, 30), ("xinference", 1, 30)]
)
def test_the_described_pace_and_limit(name: str, pace: float, limit: float) -> None:
    policy = PEERS[name]
    assert policy.max_wait_ns == limit * SECOND
    # Whatever is still missing: the used memory is above 2 GiB, and nothing has been still.
    assert policy.decide(killed(), [sample(4 * GIB)]) == Decision(pause_ns=round(pace * SECOND))


@pytest.mark.parametrize("policy", PEERS.values(), ids=str)
def test_failures_are_tried_again_and_no_card_is_no_gpu(policy: Policy) -> None:
    failure = ProbeFailure(0, 0, ProbeFailed("no"))
    assert policy.decide_failure(Situation(), [], [failure]).outcome is None
    assert policy.decide(Situation(), [sample(None)]).outcome == "no_gpu"
    assert policy.decide(Situation(), [sample(GIB), sample()]).outcome is None
    assert not policy.is_stale(Situation(age_ns=3600 * SECOND))
    assert not policy.wants_holders(killed())


def test_ollama_is_content_with_three_quarters_of_the_sum() -> None:
    assert ends(Ollama(), killed(), sample(19 * GIB))
    assert not ends(Ollama(), killed(), sample(19 * GIB - 1))
    # One of two GPUs has nothing back, and a neighbour's 10 GiB on the other one pass for it.
    assert ends(Ollama(), killed(gpus=2), sample(34 * GIB, 4 * GIB))
    assert not ends(Ollama(), Situation(), sample(TOTAL))


def test_vllm_looks_at_what_is_used_on_every_gpu() -> None:
    assert ends(Vllm(), killed(), sample(78 * GIB, 78 * GIB))
    assert not ends(Vllm(), killed(), sample(80 * GIB, 78 * GIB - 1))
    assert not ends(Vllm(), killed(), sample(80 * GIB, total=None))


def test_instructlab_wants_six_samples_without_growth() -> None:
    assert not ends(InstructLab(), killed(), *[sample(4 * GIB)] * 6)
    assert ends(InstructLab(), killed(), *[sample(4 * GIB)] * 7)
    assert not ends(InstructLab(), killed(), *[sample(4 * GIB)] * 6, sample(4 * GIB + 1))
    # What one GPU gains, a neighbour takes on the other.
    assert ends(InstructLab(), killed(), *[sample((4 + n) * GIB, (20 - n) * GIB) for n in range(7)])


def test_xinference_wants_nine_tenths_of_the_fullest_gpu() -> None:
    assert ends(Xinference(), killed(), sample(72 * GIB, 80 * GIB))
    assert not ends(Xinference(), killed(), sample(72 * GIB - 1, 80 * GIB))
    assert not ends(Xinference(), killed(), sample(80 * GIB, total=None))


def test_comfyui_wants_a_move_and_then_two_equal_samples() -> None:
    assert not ends(ComfyuiMcp(), killed(), sample(4 * GIB), sample(4 * GIB))
    assert not ends(ComfyuiMcp(), killed(), sample(5 * GIB))
    assert not ends(ComfyuiMcp(), killed(), sample(5 * GIB), sample(6 * GIB))
    assert ends(ComfyuiMcp(), killed(), sample(5 * GIB), sample(5 * GIB + MIB // 2))
    assert not ends(ComfyuiMcp(), Situation(), sample(4 * GIB), sample(4 * GIB))
    assert ends(ComfyuiMcp(), Situation(), sample(4 * GIB), sample(5 * GIB), sample(5 * GIB))
