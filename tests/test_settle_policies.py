"""The policies as pure decisions over samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from settle_world import GIB, GPU, MIB, SECOND, SERVER, TENANT

from pytest_vramsettle.expectations import Expectation, Kill, expectation_of
from pytest_vramsettle.policies import (
    POLICIES,
    Decision,
    Policy,
    ProbeFailure,
    Sample,
    Situation,
    TwoSamples,
    Verified,
    policy_named,
)
from pytest_vramsettle.probes import GpuLost, GpuReading, ProbeFailed

MS = 1_000_000


def reading(free: int | None, holders: dict[int, int | None] | None = None, key: str = GPU) -> GpuReading:
    return GpuReading(0, key, free, 400 * GIB, holders)


def sample(ms: int, *gpus: GpuReading, alive: frozenset[int] = frozenset()) -> Sample:
    return Sample(ms * MS, 0, gpus, alive)


def by_index(ms: int, *free_mib: int) -> Sample:
    return Sample(ms * MS, 0, tuple(GpuReading(i, None, mib * MIB) for i, mib in enumerate(free_mib)))


def killed(held: int = 20 * GIB, free: int = 4 * GIB, others: dict[int, int] | None = None) -> Situation:
    expectation = Expectation({GPU: held}, {GPU: free}, {GPU: others or {}}, frozenset({SERVER}))
    return Situation(expectation=expectation, pids=frozenset({SERVER}), gpus=frozenset({GPU}))


def outcome(situation: Situation, *samples: Sample) -> str | None:
    return Verified().decide(situation, samples).outcome


class TestByName:
    def test_the_known_ones(self) -> None:
        assert set(POLICIES) == {"verified", "two-samples"}
        assert all(isinstance(policy, Policy) and policy.name == name for name, policy in POLICIES.items())

    def test_an_unknown_one_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(ValueError, match=r"no settle policy 'verifed'.*'verified', 'two-samples'"):
            policy_named("verifed")

    def test_a_policy_of_ones_own(self) -> None:
        own = TwoSamples(share=0.5)
        assert policy_named(own) is own


class TestTwoSamples:
    def test_the_first_sample_decides_nothing(self) -> None:
        assert TwoSamples().decide(Situation(), [by_index(0, 1000)]) == Decision(pause_ns=250 * MS)

    def test_no_gpu(self) -> None:
        assert TwoSamples().decide(Situation(), [by_index(0)]).outcome == "no_gpu"

    def test_cards_that_do_not_tell_are_left_out(self) -> None:
        assert TwoSamples().decide(Situation(), [sample(0, reading(None))]).outcome == "no_gpu"

    @pytest.mark.parametrize(
        ("before", "after", "settled"),
        [
            (10000, 10255, True),
            (10000, 10256, False),
            (80000, 80700, True),
            # 2 % of the larger: int(0.02 * 81632) is 1632, and a move has to be smaller.
            (80000, 81631, True),
            (80000, 81632, False),
            (81632, 80000, False),
        ],
    )
    def test_alike(self, before: int, after: int, settled: bool) -> None:
        decision = TwoSamples().decide(Situation(), [by_index(0, before), by_index(250, after)])
        assert decision.outcome == ("settled" if settled else None)

    def test_one_gpu_that_moves_is_enough_to_go_on(self) -> None:
        samples = [by_index(0, 20000, 1000), by_index(250, 20000, 3000)]
        assert TwoSamples().decide(Situation(), samples).outcome is None

    @pytest.mark.parametrize("after", [(1000,), (1000, 2000, 3000), ()])
    def test_other_indices(self, after: tuple[int, ...]) -> None:
        samples = [by_index(0, 1000, 2000), by_index(250, *after)]
        assert TwoSamples().decide(Situation(), samples).outcome == "gpu_set_changed"

    def test_a_failing_probe_ends_it(self) -> None:
        failure = ProbeFailure(0, 0, ProbeFailed("no"))
        assert TwoSamples().decide_failure(Situation(), [], [failure]).outcome == "probe_failed"

    def test_stale_after_15_seconds(self) -> None:
        assert not TwoSamples().is_stale(Situation(age_ns=15 * SECOND))
        assert TwoSamples().is_stale(Situation(age_ns=15 * SECOND + 1))


class TestVerified:
    def test_all_back_at_once(self) -> None:
        assert outcome(killed(), sample(0, reading(24 * GIB, {}))) == "already_released"

    def test_all_back_later(self) -> None:
        assert outcome(killed(), sample(0, reading(4 * GIB, {})), sample(25, reading(24 * GIB, {}))) == "settled"

    def test_two_mib_are_rounding_and_three_are_not(self) -> None:
        assert outcome(killed(), sample(0, reading(24 * GIB - 2 * MIB, {}))) == "already_released"
        assert outcome(killed(), sample(0, reading(24 * GIB - 3 * MIB, {}))) is None

    def test_stillness_without_the_memory_proves_nothing(self) -> None:
        samples = [sample(t, reading(4 * GIB, {})) for t in range(0, 20000, 250)]
        assert outcome(killed(), *samples) is None

    def test_a_small_rest_counts_as_settled_when_it_is_still(self) -> None:
        samples = [sample(t, reading(24 * GIB - 200 * MIB, {})) for t in (0, 100, 299)]
        assert outcome(killed(), *samples) is None
        assert outcome(killed(), *samples, sample(300, reading(24 * GIB - 200 * MIB, {}))) == "settled"

    def test_a_small_rest_that_moves_is_waited_for(self) -> None:
        samples = [sample(t, reading(24 * GIB - (200 - t // 4) * MIB, {})) for t in range(0, 401, 100)]
        assert outcome(killed(), *samples) is None

    def test_a_small_rest_on_each_of_many_gpus_is_no_small_rest(self) -> None:
        keys = [f"GPU-{number}" for number in range(8)]
        held, free = dict.fromkeys(keys, 20 * GIB), dict.fromkeys(keys, 4 * GIB)
        expectation = Expectation(held, free, {}, frozenset({SERVER}))
        situation = Situation(expectation=expectation, pids=frozenset({SERVER}), gpus=frozenset(keys))

        def still(short_mib: int, until_ms: int) -> list[Sample]:
            gpus = [reading(24 * GIB - short_mib * MIB, {}, key) for key in keys]
            return [sample(ms, *gpus) for ms in range(0, until_ms + 1, 100)]

        assert outcome(situation, *still(33, 20_000)) is None
        # 8 times 32 are the tolerance, 8 times 28 seven eighths of it.
        assert outcome(situation, *still(32, 4900)) is None
        assert outcome(situation, *still(32, 5000)) == "stable_unverified"
        assert outcome(situation, *still(29, 300)) is None
        assert outcome(situation, *still(28, 300)) == "settled"

    def test_what_is_free_beyond_expectation_on_one_gpu_stands_for_nothing_on_another(self) -> None:
        keys = [GPU, "GPU-two"]
        expectation = Expectation(dict.fromkeys(keys, GIB), dict.fromkeys(keys, GIB), {}, frozenset({SERVER}))
        situation = Situation(expectation=expectation, pids=frozenset({SERVER}), gpus=frozenset(keys))
        over, under = reading(2 * GIB + 300 * MIB, {}), reading(2 * GIB - 300 * MIB, {}, "GPU-two")
        assert outcome(situation, *(sample(t, over, under) for t in range(0, 6001, 250))) is None

    def test_a_tenth_that_stays_away_is_waited_for(self) -> None:
        """It may be a tail of pinned host memory, which comes after 16 to 26 s."""
        samples = [sample(t, reading(22 * GIB, {})) for t in range(0, 29_001, 250)]
        assert outcome(killed(), *samples) is None

    def test_a_share_that_may_stay_away_is_unverified_once_still_for_5_seconds(self) -> None:
        policy = replace(Verified(), margin_share=0.1)
        samples = [sample(t, reading(22 * GIB, {})) for t in range(0, 5001, 250)]
        assert policy.decide(killed(), samples[:-1]).outcome is None
        assert policy.decide(killed(), samples).outcome == "stable_unverified"

    def test_every_gpu_counts(self) -> None:
        both = Expectation({GPU: GIB, "GPU-two": GIB}, {GPU: GIB, "GPU-two": GIB}, {}, frozenset({SERVER}))
        situation = Situation(expectation=both, pids=frozenset({SERVER}))
        one_back = sample(0, reading(2 * GIB, {}), reading(GIB, {}, "GPU-two"))
        assert outcome(situation, one_back) is None
        assert outcome(situation, one_back, sample(25, reading(2 * GIB), reading(2 * GIB, {}, "GPU-two"))) == "settled"

    def test_a_gpu_that_held_nothing_does_not_count(self) -> None:
        both = Expectation({GPU: GIB, "GPU-two": 0}, {GPU: GIB, "GPU-two": 9 * GIB}, {}, frozenset({SERVER}))
        situation = Situation(expectation=both, pids=frozenset({SERVER}))
        assert outcome(situation, sample(0, reading(2 * GIB), reading(GIB, None, "GPU-two"))) == "already_released"

    def test_what_another_process_takes_is_not_missing(self) -> None:
        situation = killed(others={TENANT: GIB})
        moving = sample(0, reading(16 * GIB, {TENANT: 9 * GIB}))
        still = sample(25, reading(16 * GIB, {TENANT: 9 * GIB}))
        assert outcome(situation, moving) is None
        assert outcome(situation, moving, still) == "settled"

    def test_what_another_process_gives_is_not_a_reclaim(self) -> None:
        situation = killed(others={TENANT: 20 * GIB})
        samples = [sample(t, reading(24 * GIB, {})) for t in (0, 25, 500)]
        assert outcome(situation, *samples) is None

    def test_no_decision_while_others_move(self) -> None:
        situation = killed(others={TENANT: GIB})
        first = sample(0, reading(4 * GIB, {TENANT: GIB}))
        # Free was read before the tenant let go, the holders after it: the sums look right and are not.
        torn = sample(25, reading(24 * GIB, {TENANT: GIB + 33 * MIB}))
        assert outcome(situation, first, torn) is None
        assert outcome(situation, first, sample(25, reading(24 * GIB, {TENANT: GIB + 32 * MIB}))) == "settled"

    def test_amounts_that_nvidia_smi_rounded_are_no_growth(self) -> None:
        before = {TENANT + i: GIB + 1 for i in range(8)}
        rounded: dict[int, int | None] = dict.fromkeys(before, GIB + MIB)
        assert outcome(killed(others=before), sample(0, reading(24 * GIB, rounded))) == "already_released"
        before = {TENANT + i: GIB + MIB - 1 for i in range(8)}
        rounded = dict.fromkeys(before, GIB)
        assert outcome(killed(others=before), sample(0, reading(24 * GIB, rounded))) == "already_released"

    def test_a_dead_pid_that_the_driver_still_lists(self) -> None:
        assert outcome(killed(), sample(0, reading(24 * GIB, {SERVER: 0}))) is None

    def test_a_holder_that_lives(self) -> None:
        assert outcome(killed(), sample(0, reading(24 * GIB, {}), alive=frozenset({SERVER}))) is None

    def test_a_survivor_that_held_nothing_only_forbids_to_trust_stillness(self) -> None:
        survivor = frozenset({77})
        assert outcome(killed(), sample(0, reading(24 * GIB, {}), alive=survivor)) == "already_released"
        samples = [sample(t, reading(24 * GIB - 100 * MIB, {}), alive=survivor) for t in (0, 100, 400)]
        assert outcome(killed(), *samples) is None

    def test_a_reused_pid_is_somebody_else(self) -> None:
        reused = Sample(0, 0, (reading(24 * GIB - 16 * MIB, {SERVER: 16 * MIB}),), reused=frozenset({SERVER}))
        assert outcome(killed(), reused) == "already_released"

    def test_renumbering_is_no_change(self) -> None:
        situation = killed()
        second = Sample(25 * MS, 0, (GpuReading(1, GPU, 24 * GIB, None, {}),))
        assert outcome(situation, sample(0, reading(4 * GIB, {})), second) == "settled"

    @pytest.mark.parametrize("gpus", [(), ("GPU-two",), (GPU, "GPU-two")])
    def test_cards_that_come_and_go(self, gpus: tuple[str, ...]) -> None:
        changed = tuple(reading(4 * GIB, {}, key) for key in gpus)
        assert outcome(killed(), sample(0, *changed)) == "gpu_set_changed"
        assert outcome(killed(), sample(0, reading(4 * GIB, {})), sample(25, *changed)) == "gpu_set_changed"

    def test_no_gpu_where_there_never_was_one(self) -> None:
        assert outcome(Situation(), sample(0)) == "no_gpu"

    def test_a_card_that_stops_telling(self) -> None:
        assert outcome(killed(), sample(0, reading(None))) is None

    def test_a_card_that_does_not_tell_is_no_absent_one(self) -> None:
        silent = [sample(ms, reading(None)) for ms in range(0, 2001, 250)]
        assert outcome(Situation(), *silent[:-1]) is None
        assert outcome(Situation(), *silent) == "stable_unverified"

    def test_a_neighbour_that_the_sample_does_not_tell_of(self) -> None:
        """20 GiB more are free, and they may be the neighbour's."""
        situation = killed(others={TENANT: 20 * GIB})
        blind = [sample(ms, reading(24 * GIB, None)) for ms in range(0, 2001, 250)]
        assert outcome(situation, blind[0]) is None
        assert outcome(situation, *blind) == "stable_unverified"
        # Where nobody else was there, free memory is enough.
        assert outcome(killed(), blind[0]) == "already_released"

    @pytest.mark.parametrize(("then", "since"), [(None, 5 * GIB), (5 * GIB, None)])
    def test_an_amount_that_is_told_at_one_time_only_has_not_changed(self, then: int | None, since: int | None) -> None:
        expectation = Expectation({GPU: 20 * GIB}, {GPU: 4 * GIB}, {GPU: {TENANT: then}}, frozenset({SERVER}))
        assert expectation.short(reading(14 * GIB, {TENANT: since}), frozenset({SERVER})) == 10 * GIB

    def test_a_lost_gpu_ends_it_and_other_failures_do_not(self) -> None:
        lost, other = (ProbeFailure(0, 0, error) for error in (GpuLost("gone"), ProbeFailed("no")))
        assert Verified().decide_failure(killed(), [], [lost]).outcome == "gpu_set_changed"
        assert Verified().decide_failure(killed(), [], [other]) == Decision(pause_ns=25 * MS)

    def test_pauses_grow_to_the_interval(self) -> None:
        samples: list[Sample] = []
        pauses = []
        for t in range(9):
            samples.append(sample(t, reading(4 * GIB, {})))
            pauses.append(Verified().decide(killed(), samples).pause_ns)
        assert pauses[:3] == [25_000_000, 37_500_000, 56_250_000]
        assert pauses[6:] == [250_000_000] * 3

    @pytest.mark.parametrize(("cost_ms", "pause_ms"), [(5, 25), (40, 40), (1200, 250)])
    def test_pauses_are_not_shorter_than_the_probe(self, cost_ms: int, pause_ms: int) -> None:
        slow = Sample(0, cost_ms * MS, (reading(4 * GIB, {}),))
        assert Verified().decide(killed(), [slow]).pause_ns == pause_ms * MS

    def test_never_stale_with_an_expectation(self) -> None:
        old = 61 * SECOND
        assert not Verified().is_stale(Situation(age_ns=old, expectation=killed().expectation))
        assert Verified().is_stale(Situation(age_ns=old))
        assert not Verified().is_stale(Situation(age_ns=60 * SECOND))


class TestVerifiedWithoutExpectation:
    def test_still_from_the_start(self) -> None:
        samples = [sample(t, reading(4 * GIB)) for t in range(0, 2001, 250)]
        assert outcome(Situation(), *samples[:-1]) is None
        assert outcome(Situation(), *samples) == "stable_unverified"

    def test_moved_and_still(self) -> None:
        samples = [sample(0, reading(4 * GIB)), *(sample(t, reading(9 * GIB)) for t in (250, 500, 750, 1000, 1250))]
        assert outcome(Situation(), *samples[:-1]) is None
        assert outcome(Situation(), *samples) == "stable_unverified"

    def test_two_slow_samples_are_not_enough(self) -> None:
        samples = [sample(0, reading(4 * GIB)), sample(1400, reading(9 * GIB)), sample(2800, reading(9 * GIB))]
        assert outcome(Situation(), *samples) is None

    def test_moving(self) -> None:
        samples = [sample(t, reading(4 * GIB + t * MIB)) for t in range(0, 9001, 250)]
        assert outcome(Situation(), *samples) is None

    def test_a_baseline_by_uuid_cannot_be_compared_with_a_probe_by_index(self) -> None:
        samples = [by_index(t, 24 * 1024) for t in range(0, 2001, 250)]
        assert outcome(killed(), *samples[:-1]) is None
        assert outcome(killed(), *samples) == "stable_unverified"

    def test_a_tree_that_lives(self) -> None:
        samples = [sample(t, reading(4 * GIB), alive=frozenset({SERVER})) for t in range(0, 3001, 250)]
        assert outcome(Situation(pids=frozenset({SERVER})), *samples) is None

    def test_a_dead_pid_that_the_driver_still_lists(self) -> None:
        samples = [sample(t, reading(4 * GIB, {SERVER: None})) for t in range(0, 3001, 250)]
        assert outcome(Situation(pids=frozenset({SERVER})), *samples) is None
        assert outcome(Situation(pids=frozenset({TENANT})), *samples) == "stable_unverified"


def kill(when: int, pid: int, held: int, free: int, others: dict[int, int]) -> Kill:
    return Kill(frozenset({pid}), when * SECOND, {GPU: held}, {GPU: free}, {GPU: others})


class TestExpectationOfSeveralKills:
    def test_none(self) -> None:
        assert expectation_of([]) is None
        assert expectation_of([Kill(frozenset(), 0)]) is None
        # At the second baseline the card of the first could not be read: what it lacks still, nobody knows.
        there = Kill(frozenset({1}), 0, {GPU: GIB}, {GPU: GIB, "GPU-two": GIB}, {})
        not_there = Kill(frozenset({2}), 1, {"GPU-two": GIB}, {"GPU-two": GIB}, {})
        assert expectation_of([there, not_there]) is None

    def test_two_servers_one_after_the_other_while_nothing_is_back(self) -> None:
        first = kill(0, 1, 8 * GIB, 10 * GIB, {2: 4 * GIB})
        second = kill(1, 2, 4 * GIB, 10 * GIB, {})
        together = expectation_of([first, second])
        assert together == Expectation({GPU: 12 * GIB}, {GPU: 10 * GIB}, {GPU: {}}, frozenset({1, 2}))

    def test_what_is_back_by_the_second_kill_is_not_expected_again(self) -> None:
        first = kill(0, 1, 8 * GIB, 10 * GIB, {2: 4 * GIB})
        second = kill(1, 2, 4 * GIB, 15 * GIB, {})
        together = expectation_of([first, second])
        assert together is not None
        assert together.held == {GPU: 7 * GIB}

    def test_a_server_that_was_started_in_between(self) -> None:
        first = kill(0, 1, 8 * GIB, 10 * GIB, {})
        # 6 of the 8 GiB came back and went to the next server, which is killed as well.
        second = kill(1, 2, 6 * GIB, 10 * GIB, {})
        together = expectation_of([first, second])
        assert together is not None
        assert together.held == {GPU: 8 * GIB}

    def test_two_kills_that_overlap(self) -> None:
        # Both baselines before both deaths, so each still lists the other.
        first = kill(1, 1, 8 * GIB, 10 * GIB, {2: 4 * GIB})
        second = kill(1, 2, 4 * GIB, 10 * GIB, {1: 8 * GIB})
        for order in ([first, second], [second, first]):
            together = expectation_of(order)
            assert together is not None
            assert together.held == {GPU: 12 * GIB}
            assert together.others == {GPU: {}}

    def test_memory_that_is_missing_for_a_minute_is_written_off(self) -> None:
        first = kill(0, 1, 8 * GIB, 10 * GIB, {2: 4 * GIB})
        assert expectation_of([first, kill(61, 2, 4 * GIB, 10 * GIB, {})]) == Expectation(
            {GPU: 4 * GIB}, {GPU: 10 * GIB}, {GPU: {}}, frozenset({2})
        )

    def test_a_kill_just_a_minute_ago_still_counts(self) -> None:
        first = kill(0, 1, 8 * GIB, 10 * GIB, {2: 4 * GIB})
        together = expectation_of([first, kill(60, 2, 4 * GIB, 10 * GIB, {})])
        assert together is not None
        assert together.held == {GPU: 12 * GIB}

    def test_no_more_is_lacking_than_was_held(self) -> None:
        """Somebody who is not listed took 5 GiB between the kills."""
        together = expectation_of([kill(0, 1, 8 * GIB, 10 * GIB, {}), kill(1, 2, 0, 5 * GIB, {})])
        assert together is not None
        assert together.held == {GPU: 8 * GIB}

    def test_one_that_does_not_tell_leaves_the_sum_unknown(self) -> None:
        first = kill(0, 1, 8 * GIB, 10 * GIB, {})
        assert expectation_of([first, Kill(frozenset({2}), SECOND)]) is None
        assert expectation_of([first, Kill(frozenset({2}), SECOND, {GPU: GIB}, {GPU: GIB})]) is None

    def test_one_that_held_nothing_changes_nothing(self) -> None:
        first = kill(0, 1, 8 * GIB, 10 * GIB, {})
        nothing = Kill(frozenset({2}), SECOND, {})
        assert expectation_of([first, nothing]) == expectation_of([nothing, first]) == expectation_of([first])

    def test_one_that_gave_its_memory_back_before_it_died_leaves_the_sum_unknown(self) -> None:
        first = kill(0, 1, 8 * GIB, 10 * GIB, {2: GIB})
        assert expectation_of([first, Kill(frozenset({2}), SECOND, {})]) is None
        # With a baseline of its own it does not: the GiB is free by then, and none of the 8 that are to come.
        together = expectation_of([first, kill(1, 2, 0, 11 * GIB, {})])
        assert together is not None
        assert together.held == {GPU: 8 * GIB}

    @given(
        held=st.lists(st.integers(0, 40), min_size=2, max_size=2),
        grown=st.integers(-5, 20),
        back=st.integers(0, 100),
    )
    def test_the_memory_in_the_end_does_not_depend_on_the_baseline(
        self, held: list[int], grown: int, back: int
    ) -> None:
        a, b = (amount * GIB for amount in held)
        grown = max(-b, grown * GIB)
        returned = a * back // 100 // MIB * MIB
        free = 200 * GIB
        first = kill(0, 1, a, free, {2: b, 3: GIB})
        second = kill(1, 2, b + grown, free + returned - grown, {3: GIB})
        together = expectation_of([first, second])
        assert together is not None
        in_the_end = reading(free + a + b, {3: GIB})
        assert abs(together.short(in_the_end, frozenset({1, 2})) or 0) <= 2 * MIB


class TestKill:
    def test_negative_amounts_are_refused(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            Kill(frozenset(), 0, {GPU: -1}, {GPU: 0})

    def test_memory_without_the_free_memory_before_is_refused(self) -> None:
        with pytest.raises(ValueError, match="GPU-one"):
            Kill(frozenset(), 0, {GPU: 1}, {})
