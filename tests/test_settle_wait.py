"""The wait: its outcomes and its timeline, to the nanosecond, on a clock that moves when somebody waits."""

from __future__ import annotations

import logging
import statistics
import threading
from collections.abc import Iterator

import pytest
from settle_world import GIB, GPU, MIB, SECOND, SERVER, SHAPES, TENANT, SteppedClock, World, linear, step

from pytest_vramsettle.kills import Kill, KillRecord
from pytest_vramsettle.probes import GpuReading, ProbeBudget, ProbeMissing, ProbeTimeout, Reading
from pytest_vramsettle.settle import wait_for_vram_settle


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SteppedClock:
    return SteppedClock(monkeypatch)


class Listed:
    """A probe that gives the listed answers, one after the other, and the last for ever."""

    def __init__(self, clock: SteppedClock, *answers: list[int] | Exception, cost: float = 0.0) -> None:
        self.clock, self.answers, self.cost = clock, list(answers), cost
        self.calls = 0

    def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        end_ns = self.clock.now_ns + round(self.cost * SECOND)
        if end_ns >= budget.deadline_ns:
            self.clock.advance_to(budget.deadline_ns)
            raise ProbeTimeout("too slow")
        self.clock.advance_to(end_ns)
        if isinstance(answer, Exception):
            raise answer
        return Reading(tuple(GpuReading(index, None, mib * MIB) for index, mib in enumerate(answer)))


def drifting(clock: SteppedClock) -> Listed:
    return Listed(clock, *([10000 + 1000 * n] for n in range(100)))


class TestTwoSamples:
    @pytest.mark.parametrize(
        ("answers", "outcome", "calls"),
        [
            ([[10000], [11500], [11550]], "settled", 3),
            ([[10000, 5000], [10000, 9000], [10000, 9010]], "settled", 3),
            ([[80000], [80700]], "settled", 2),
            ([[10000], RuntimeError("boom")], "probe_failed", 2),
            ([[10000, 5000], [10000]], "gpu_set_changed", 2),
            ([[]], "no_gpu", 1),
            ([RuntimeError("boom")], "probe_failed", 1),
            ([ProbeMissing("no such tool")], "no_gpu", 1),
        ],
    )
    def test_scenarios(
        self, clock: SteppedClock, answers: list[list[int] | Exception], outcome: str, calls: int
    ) -> None:
        probe = Listed(clock, *answers)
        result = wait_for_vram_settle(since_kill=clock.now_ns / SECOND, probe=probe, policy="two-samples")
        assert (result.outcome, probe.calls) == (outcome, calls)
        assert clock.elapsed == 0.25 * (calls - 1)
        assert result.elapsed == clock.elapsed
        assert clock.waits == [0.25] * (calls - 1)

    @pytest.mark.parametrize("since", [0.0, None, -1.0])
    def test_cold_start(self, clock: SteppedClock, since: float | None) -> None:
        probe = drifting(clock)
        result = wait_for_vram_settle(since_kill=since, probe=probe, policy="two-samples")
        assert (result.outcome, probe.calls, result.elapsed) == ("no_recent_kill", 0, 0.0)

    def test_stale(self, clock: SteppedClock) -> None:
        probe = drifting(clock)
        result = wait_for_vram_settle(since_kill=clock.now_ns / SECOND - 15.1, probe=probe, policy="two-samples")
        assert (result.outcome, probe.calls) == ("stale_kill", 0)
        assert bool(result)

    def test_always_drifting_stops_at_max_wait(self, clock: SteppedClock) -> None:
        probe = drifting(clock)
        result = wait_for_vram_settle(since_kill=clock.now_ns / SECOND, probe=probe, policy="two-samples")
        assert (result.outcome, probe.calls, result.elapsed) == ("timed_out", 8, 2.0)

    def test_the_last_pause_is_what_is_left(self, clock: SteppedClock) -> None:
        probe = drifting(clock)
        result = wait_for_vram_settle(
            max_wait=0.7, interval=0.3, since_kill=clock.now_ns / SECOND, probe=probe, policy="two-samples"
        )
        assert (result.outcome, probe.calls, result.elapsed) == ("timed_out", 3, 0.7)
        assert clock.waits == [0.3, 0.3, 0.1]

    def test_a_slow_probe_does_not_stretch_it(self, clock: SteppedClock) -> None:
        probe = drifting(clock)
        probe.cost = 1.2
        result = wait_for_vram_settle(since_kill=clock.now_ns / SECOND, probe=probe, policy="two-samples")
        assert (result.outcome, probe.calls, result.elapsed) == ("timed_out", 2, 2.0)

    def test_no_time_at_all_is_no_probe(self, clock: SteppedClock) -> None:
        probe = drifting(clock)
        result = wait_for_vram_settle(max_wait=0, since_kill=clock.now_ns / SECOND, probe=probe, policy="two-samples")
        assert (result.outcome, probe.calls, result.elapsed) == ("timed_out", 0, 0.0)

    def test_a_record_counts_by_its_last_kill_even_when_memory_was_seen_to_be_back(self, clock: SteppedClock) -> None:
        world = World(clock, step(0.0))
        for _ in range(2):
            assert wait_for_vram_settle(world.kills, probe=world).outcome in ("already_released", "no_recent_kill")
        assert wait_for_vram_settle(world.kills, probe=world, policy="two-samples").outcome == "settled"

    def test_it_is_fooled_by_a_late_start_and_the_result_says_by_how_much(self, clock: SteppedClock) -> None:
        world = World(clock, step(0.9))
        result = wait_for_vram_settle(world.kills, probe=world, policy="two-samples")
        assert (result.outcome, result.missing_mib) == ("settled", 20 * 1024)


COSTS = (0.005, 0.04, 1.2)


class TestVerified:
    @pytest.mark.parametrize("held", [20 * GIB, 70 * GIB])
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("cost", COSTS)
    def test_every_shape_of_reclaim(self, clock: SteppedClock, shape: str, cost: float, held: int) -> None:
        share, over = SHAPES[shape]
        world = World(clock, share, held=held, cost=cost)
        result = wait_for_vram_settle(world.kills, probe=world)
        assert result.outcome in ("settled", "already_released")
        assert result.missing_mib == 0
        assert world.missing(clock.elapsed) <= 2 * MIB
        # At worst, memory is back just after a probe began: the rest of it, a pause and another one.
        assert clock.elapsed - over <= 2 * cost + 0.25
        assert world.kills.pending() == ()

    @pytest.mark.parametrize(("cost", "median"), [(0.005, 0.10), (0.04, 0.16), (1.2, 0.55)])
    def test_the_time_wasted_in_the_middle(self, monkeypatch: pytest.MonkeyPatch, cost: float, median: float) -> None:
        wasted = []
        for share, over in SHAPES.values():
            with monkeypatch.context() as patch:
                clock = SteppedClock(patch)
                world = World(clock, share, held=70 * GIB, cost=cost)
                wait_for_vram_settle(world.kills, probe=world)
                wasted.append(clock.elapsed - over)
        assert statistics.median(wasted) <= median + 0.05

    def test_the_first_example(self, clock: SteppedClock) -> None:
        world = World(clock, linear(0.6, after=0.15))
        result = wait_for_vram_settle(world.kills, probe=world)
        assert (result.outcome, result.missing_mib) == ("settled", 0)
        assert 0.75 <= clock.elapsed < 0.8
        assert result.failures == ()
        # One wait to each next instant: nothing is polled.
        assert len(clock.waits) == len(result.samples) - 1

    @pytest.mark.parametrize("cost", [0.04, 0.08, 1.2, 2.4])
    @pytest.mark.parametrize("change", [12 * GIB, -12 * GIB])
    def test_a_tenant_that_moves_between_the_two_runs(
        self, monkeypatch: pytest.MonkeyPatch, cost: float, change: int
    ) -> None:
        for tenth in range(30):
            with monkeypatch.context() as patch:
                clock = SteppedClock(patch)

                def tenant(t: float, at: float = tenth / 10) -> int:
                    return 12 * GIB + (change if t >= at else 0)

                world = World(clock, linear(5.0), cost=cost, tenant=tenant, split=True)
                result = wait_for_vram_settle(world.kills, probe=world)
                assert world.missing(clock.elapsed) <= 256 * MIB, result

    def test_memory_that_never_comes_back(self, clock: SteppedClock, caplog: pytest.LogCaptureFixture) -> None:
        world = World(clock, lambda t: 0.0)
        with caplog.at_level(logging.DEBUG, "pytest_vramsettle"):
            result = wait_for_vram_settle(world.kills, probe=world)
        assert (result.outcome, result.elapsed, result.missing_mib) == ("timed_out", 30.0, 20 * 1024)
        assert result.missing_mib_by_gpu == {GPU: 20 * 1024}
        assert not result
        assert len(world.kills.pending()) == 1
        assert [(r.levelname, "20480 of 20480 MiB missing" in r.getMessage()) for r in caplog.records] == [
            ("WARNING", True)
        ]

    def test_an_expectation_that_is_a_little_too_high(self, clock: SteppedClock) -> None:
        world = World(clock, linear(0.6), expected=20 * GIB + 240 * MIB)
        result = wait_for_vram_settle(world.kills, probe=world)
        assert (result.outcome, result.missing_mib) == ("stable_unverified", 240)
        assert not result
        assert 5.6 <= result.elapsed <= 6.2

    def test_an_expectation_that_is_too_high_costs_the_whole_wait(self, clock: SteppedClock) -> None:
        world = World(clock, linear(0.6), expected=21 * GIB)
        result = wait_for_vram_settle(world.kills, probe=world)
        assert (result.outcome, result.missing_mib, result.elapsed) == ("timed_out", 1024, 30.0)

    def test_a_probe_that_wedges(self, clock: SteppedClock) -> None:
        world = World(clock, step(0.0), cost=99.0)
        result = wait_for_vram_settle(world.kills, probe=world, max_wait=2.0)
        assert (result.outcome, result.elapsed, result.missing_mib) == ("timed_out", 2.0, None)
        assert "20480 MiB expected, none of them seen" in str(result)

    def test_a_probe_that_wedges_is_tried_again_after_10_seconds(self, clock: SteppedClock) -> None:
        world = World(clock, step(0.0), cost=99.0)

        def recover() -> None:
            world.cost = 0.01

        clock.at(5.0, recover)
        result = wait_for_vram_settle(world.kills, probe=world)
        assert result.outcome == "already_released"
        assert [type(failure.error) for failure in result.failures] == [ProbeTimeout]
        assert 10.0 < result.elapsed < 10.5

    def test_a_failing_probe_is_tried_again_and_logged(
        self, clock: SteppedClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = World(clock, step(0.0))
        failures: Iterator[Exception] = iter([OSError("first"), ValueError("second")])

        class Flaky:
            def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
                for error in failures:
                    raise error
                return world.read(budget, holders=holders)

        with caplog.at_level(logging.DEBUG, "pytest_vramsettle"):
            result = wait_for_vram_settle(world.kills, probe=Flaky())
        assert result.outcome == "already_released"
        assert [str(failure) for failure in result.failures] == ["OSError: first", "ValueError: second"]
        assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["first", "second"]
        assert [record.levelname for record in caplog.records] == ["DEBUG"] * 3

    def test_without_expectation(self, clock: SteppedClock) -> None:
        probe = Listed(clock, [9000])
        result = wait_for_vram_settle(since_kill=clock.now_ns / SECOND, probe=probe)
        assert (result.outcome, result.missing_mib) == ("stable_unverified", None)
        assert 2.0 <= result.elapsed < 2.25

    def test_a_cpu_only_host(self, clock: SteppedClock) -> None:
        result = wait_for_vram_settle(since_kill=clock.now_ns / SECOND, probe=Listed(clock, ProbeMissing("none")))
        assert (result.outcome, result.elapsed, bool(result)) == ("no_gpu", 0.0, True)

    def test_a_tool_that_vanished_is_no_cpu_only_host(self, clock: SteppedClock) -> None:
        world = World(clock, step(0.0))
        result = wait_for_vram_settle(world.kills, probe=Listed(clock, ProbeMissing("none")), max_wait=1.0)
        assert result.outcome == "timed_out"

    def test_nothing_killed(self, clock: SteppedClock) -> None:
        result = wait_for_vram_settle(KillRecord(), probe=drifting(clock))
        assert (result.outcome, result.missing_mib, result.samples) == ("no_recent_kill", 0, ())

    def test_two_servers_are_both_waited_for(self, clock: SteppedClock) -> None:
        world = World(clock, linear(0.6))
        kills, free, tenant = KillRecord(), {GPU: world.free_before}, {TENANT: world.tenant_before}
        kills.add(Kill(frozenset({SERVER}), clock.now_ns, {GPU: 20 * GIB}, free, {GPU: {7: 5 * GIB, **tenant}}))
        kills.add(Kill(frozenset({7}), clock.now_ns, {GPU: 5 * GIB}, free, {GPU: tenant}))
        result = wait_for_vram_settle(kills, probe=world, max_wait=3.0)
        assert (result.outcome, result.missing_mib) == ("timed_out", 5 * 1024)


class TestEndedEarly:
    def test_cancelled_between_probes(self, clock: SteppedClock) -> None:
        world, cancel = World(clock, lambda t: 0.0), threading.Event()
        clock.at(0.6, cancel.set)
        result = wait_for_vram_settle(world.kills, probe=world, cancel=cancel)
        assert (result.outcome, result.elapsed, bool(result)) == ("cancelled", 0.6, False)

    def test_cancelled_beforehand(self, clock: SteppedClock) -> None:
        world, cancel = World(clock, lambda t: 0.0), threading.Event()
        cancel.set()
        result = wait_for_vram_settle(world.kills, probe=world, cancel=cancel)
        assert (result.outcome, world.calls) == ("cancelled", 0)

    def test_superseded_at_once(self, clock: SteppedClock) -> None:
        world = World(clock, lambda t: 0.0)
        clock.at(0.6, world.kills.stamp)
        result = wait_for_vram_settle(world.kills, probe=world)
        assert (result.outcome, result.elapsed, bool(result)) == ("superseded", 0.6, False)

    def test_superseded_within_an_interval_where_there_is_a_cancel_event(self, clock: SteppedClock) -> None:
        world = World(clock, lambda t: 0.0)
        clock.at(0.6, world.kills.stamp)
        result = wait_for_vram_settle(world.kills, probe=world, cancel=threading.Event(), interval=10.0)
        assert result.outcome == "superseded"
        assert 0.6 <= result.elapsed <= 0.85

    def test_a_kill_that_is_on_record_already_supersedes_nothing(self, clock: SteppedClock) -> None:
        world = World(clock, linear(1.0))
        (known,) = world.kills.pending()
        clock.at(0.6, lambda: world.kills.add(known))
        assert wait_for_vram_settle(world.kills, probe=world).outcome == "settled"

    def test_after_the_end_nobody_is_told(self, clock: SteppedClock) -> None:
        world = World(clock, step(0.0))
        wait_for_vram_settle(world.kills, probe=world)
        world.kills.stamp()
        assert wait_for_vram_settle(world.kills, probe=world).outcome == "stable_unverified"
