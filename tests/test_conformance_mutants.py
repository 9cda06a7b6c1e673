"""The suites are judged: every wrong implementation fails the scenario that is meant for it, the reference none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import kill_mutants as killing
import probe_mutants as probing
import pytest
import settle_mutants as waiting

from pytest_vramsettle.conformance import check_kill_record, check_probe, check_settle
from pytest_vramsettle.conformance.checking import selected
from pytest_vramsettle.conformance.kill_scenarios import KILLS
from pytest_vramsettle.conformance.model import LEVELS, Level
from pytest_vramsettle.conformance.probe_scenarios import PROBE
from pytest_vramsettle.conformance.settle_verified import SETTLE
from pytest_vramsettle.probes import NvidiaSmiProbe, NvmlProbe, Probe, ProbeBudget
from pytest_vramsettle.settle import async_wait_for_vram_settle, wait_for_vram_settle

UPSTREAM_MUTANTS: list[tuple[Callable[[], Any], str]] = [
    (waiting.NoDeadline, "drifting"),
    (waiting.WholeIntervals, "uneven-max-wait"),
    (waiting.RoundsUp, "uneven-max-wait"),
    (waiting.ProbesAtTheDeadline, "drifting"),
    (waiting.WideTolerance, "drifting"),
    (waiting.NoShare, "two-percent"),
    (waiting.FirstGpuOnly, "two-gpus-one-draining"),
    (waiting.SumsGpus, "two-gpus-cancel-out"),
    (waiting.OneSample, "ramp"),
    (waiting.OnlyGrowthCounts, "free-falls"),
    (waiting.MaxWaitFromTheKill, "called-late"),
    (waiting.StaleAfterOne, "ten-seconds-later"),
    (waiting.StaleAfterFourteen, "just-before-stale"),
    (waiting.ProbesWhenCold, "cold-start"),
    (waiting.WaitsWhenCold, "cold-start"),
    (waiting.NeverStale, "stale-kill"),
    (waiting.WallClock, "ramp"),
    (waiting.SleepsWithoutGpu, "no-gpu"),
    (waiting.RaisesAtFirst, "first-probe-fails"),
    (waiting.RaisesLater, "probe-fails-later"),
    (waiting.RaisesOnNoise, "garbled-probe"),
    (waiting.SilentFailure, "failure-is-logged"),
    (waiting.IgnoresFailure, "probe-fails-later"),
    (waiting.IgnoresIndexChange, "index-set-shrinks"),
    (waiting.CountsSleepsAlone, "slow-probe"),
    (waiting.PollsHard, "ramp"),
    (waiting.LeavesAProcess, "still"),
    (waiting.NeverReturns, "still"),
    (waiting.DeadlockedWait, "still"),
    (waiting.ExitsTheThread, "still"),
    (waiting.Locked, "holds-no-lock"),
]

VERIFIED_MUTANTS: list[tuple[Callable[[], Any], str]] = [
    (waiting.Common, "late-start"),
    (waiting.Common, "slow-drip"),
    (waiting.Common, "fast-drip"),
    (waiting.Common, "wedged-probe"),
    (waiting.Common, "slow-probe-is-bounded"),
    (waiting.Common, "tenant-takes"),
    (waiting.Common, "renumbered"),
    (waiting.MovesOff, "plateau"),
    (waiting.MovesOff, "two-stages"),
    (waiting.MovesOff, "pinned-tail"),
    (waiting.FirstGpuOnly, "eight-gpus"),
    (waiting.Common, "one-gpu-not-started"),
    (waiting.MovesOff, "one-probe-fails"),
    (waiting.IgnoresIndexChange, "index-set-shrinks"),
    (waiting.AtMostTwoSeconds, "five-seconds"),
    (waiting.StaleAfterFifteen, "old-kill-not-back"),
    (waiting.BoundedByTerm, "stubborn-probe"),
    (waiting.LeavesNvidiaSmi, "wedged-probe"),
    (waiting.AlwaysFalse, "says-settled"),
    (waiting.SaysNothing, "says-settled"),
    (waiting.TrustsTimeouts, "never-back"),
    (waiting.TrustsTimeouts, "card-removed"),
    (waiting.TrustsTimeouts, "orphan"),
    (waiting.NinetyPercent, "a-rest-stays"),
    (waiting.IgnoresOthers, "tenant-gives"),
    (waiting.SwallowsCancellation, "cancelled"),
    (waiting.DeafToCancel, "cancelled"),
]

KILL_MUTANTS: list[tuple[Callable[[], Any], str]] = [
    (killing.StampsNothing, "nothing-to-kill"),
    (killing.StampsNothing, "nothing-left-to-kill"),
    (killing.KeepsItsProcess, "nothing-left-to-kill"),
    (killing.OnTheWayOut, "terminate-raises"),
    (killing.OnTheWayOut, "wait-raises"),
    (killing.WallClock, "kills-and-stamps"),
    (killing.AtOnce, "kills-and-stamps"),
    (killing.NeverReaps, "wait-raises"),
    (killing.StampFirst, "dies-late"),
    (killing.NeverForces, "sigterm-ignored"),
    (killing.ForcedUnstamped, "sigterm-ignored"),
    (killing.OnceOnly, "killed-again"),
    (killing.OrphansUnstamped, "orphans-reaped"),
    (killing.AlwaysReaps, "no-orphans"),
    (killing.LocalFlag, "unload-then-load"),
    (killing.AlwaysWaits, "first-load"),
    (killing.LooksForLong, "wedged-probe"),
]

PROBE_MUTANTS: list[tuple[Callable[[], Any], str]] = [
    (probing.total, "one-gpu"),
    (probing.in_bytes, "one-gpu"),
    (probing.first_line, "three-gpus"),
    (probing.sorted_as_text, "twelve-gpus"),
    (probing.total_less_used, "eight-h200"),
    (probing.counted, "lost-gpu"),
    (probing.by_place, "renumbered"),
    (probing.zero_for_none, "no-gpu"),
    (probing.zero_for_failure, "exits-9"),
    (probing.zero_for_noise, "garbled"),
    (probing.zero_for_noise, "not-available"),
    (probing.naive, "truncated"),
    (probing.no_timeout, "hangs"),
    (probing.asks_nicely, "hangs-and-ignores-sigterm"),
    (probing.reads_to_the_end, "holds-pipe"),
    (probing.impatient, "slow"),
    (probing.kept, "second-reading"),
    (probing.leaks, "six-readings"),
]


@pytest.fixture(autouse=True)
def reaped() -> Iterator[None]:
    """What a mutant forgot has been killed by the suite, which has named it; here it is reaped."""
    yield
    for kept in (waiting.KEPT, probing.KEPT):
        while kept:
            with kept.pop() as child:
                child.wait(10)


def _ids(mutants: list[tuple[Callable[[], Any], str]]) -> list[str]:
    return [f"{mutant.__name__}-{scenario}" for mutant, scenario in mutants]


def _settle_parts(mutant: Any) -> dict[str, Any]:
    cancelled = getattr(mutant, "cancelled", None)
    return {
        "recording": getattr(mutant, "recording", None),
        "lock": getattr(mutant, "lock", None),
        "cancel": None if cancelled is None else cancelled.set,
    }


@pytest.mark.parametrize(("mutant", "scenario"), UPSTREAM_MUTANTS, ids=_ids(UPSTREAM_MUTANTS))
def test_wrong_waits_at_level_upstream(mutant: Callable[[], Any], scenario: str) -> None:
    made = mutant()
    assert check_settle(made, only=scenario, **_settle_parts(made)).failed == (scenario,)


@pytest.mark.parametrize(("mutant", "scenario"), VERIFIED_MUTANTS, ids=_ids(VERIFIED_MUTANTS))
def test_wrong_waits_at_level_verified(mutant: Callable[[], Any], scenario: str) -> None:
    made = mutant()
    wait = getattr(made, "wait", made)
    assert check_settle(wait, level="verified", only=scenario, **_settle_parts(made)).failed == (scenario,)


@pytest.mark.parametrize(("mutant", "scenario"), KILL_MUTANTS, ids=_ids(KILL_MUTANTS))
def test_wrong_kill_routines(mutant: Callable[[], Any], scenario: str) -> None:
    assert check_kill_record(lambda: mutant().routine(), level="verified", only=scenario).failed == (scenario,)


def test_a_process_that_was_not_reaped_is_named() -> None:
    report = check_kill_record(lambda: killing.NeverReaps().routine(), only=["kills-and-stamps", "wait-raises"])
    for verdict in report.verdicts:
        assert any("is dead and was not reaped" in problem for problem in verdict.problems)


@pytest.mark.parametrize(("mutant", "scenario"), PROBE_MUTANTS, ids=_ids(PROBE_MUTANTS))
def test_wrong_probes(mutant: Callable[[], Any], scenario: str) -> None:
    assert check_probe(mutant, level="verified", only=scenario).failed == (scenario,)


def test_every_scenario_catches_somebody() -> None:
    """But those that catch what another one is meant for: 'still' stands for the wait that has nothing to wait for."""
    for mutants, scenarios in (
        (UPSTREAM_MUTANTS + VERIFIED_MUTANTS, SETTLE),
        (KILL_MUTANTS, KILLS),
        (PROBE_MUTANTS, PROBE),
    ):
        assert {one.name for one in scenarios} == {name for _, name in mutants}


# -- the reference


def test_the_common_wait_passes_level_upstream() -> None:
    common = waiting.Locked()
    common.held = False
    report = check_settle(common, lock=common.lock)
    assert (report.failed, report.gaps) == ((), ())

    def two_samples(*, since_kill: float, max_wait: float) -> None:
        wait_for_vram_settle(since_kill=since_kill, max_wait=max_wait, policy="two-samples")

    report = check_settle(two_samples, lock=threading.Lock())
    assert (report.failed, report.gaps) == ((), ())


def test_one_reading_through_nvml_is_one_probe() -> None:
    report = check_settle(waiting.ThroughNvml())
    assert report.failed == ()


@pytest.mark.parametrize("make", [waiting.GoesOnAndSaysSo, waiting.Common])
def test_who_loses_a_gpu_may_give_up_or_go_on_and_say_so(make: Callable[[], Any]) -> None:
    assert check_settle(make(), level="verified", only="index-set-shrinks").passes


@pytest.mark.parametrize("name", [one.name for one in selected(SETTLE, "verified")])
def test_the_verified_wait_passes_level_verified(name: str) -> None:
    good = waiting.Recorded()
    report = check_settle(good, level="verified", only=name, **(_settle_parts(good) | {"lock": threading.Lock()}))
    assert (report.failed, report.gaps) == ((), ())


@pytest.mark.parametrize("name", ["ramp", "late-start", "wedged-probe", "says-settled", "cancelled"])
def test_the_verified_wait_as_a_coroutine(name: str) -> None:
    good = waiting.Recorded()

    async def wait(*, since_kill: float, max_wait: float) -> Any:
        return await async_wait_for_vram_settle(good.kills, max_wait=max_wait)

    report = check_settle(wait, level="verified", only=name, recording=good.recording)
    assert (report.failed, report.gaps) == ((), ())


@pytest.mark.parametrize("level", LEVELS)
def test_the_kill_record_passes(level: Level) -> None:
    report = check_kill_record(lambda: killing.Recorded().routine(), level=level)
    assert (report.failed, report.gaps) == ((), ())


def test_a_plain_stamp_passes_level_upstream() -> None:
    report = check_kill_record(lambda: killing.Stamped().routine())
    assert (report.failed, report.gaps) == ((), ())


@pytest.mark.parametrize("probe", [NvidiaSmiProbe(), NvmlProbe()], ids=repr)
def test_the_probes_pass(probe: Probe) -> None:
    def read() -> list[tuple[int | None, float | None]]:
        gpus = probe.read(ProbeBudget.lasting(10_000_000_000), holders=False).gpus
        return [(gpu.index, None if gpu.free is None else gpu.free / 2**20) for gpu in gpus]

    report = check_probe(read, level="verified")
    assert (report.failed, report.gaps) == ((), ())
