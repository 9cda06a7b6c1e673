"""Waits and probes as teams really write them: each is caught, with a text from which one sees what to change."""

from __future__ import annotations

from typing import Any

import pytest
import team_mutants as wrong

from pytest_vramsettle.conformance import check_probe, check_settle
from pytest_vramsettle.conformance.model import Level

WAITS: list[tuple[type, Level, str, str]] = [
    (wrong.ReadsOnce, "upstream", "ramp", "it made 1 probe, and 3 are known to be right: it was answered"),
    (wrong.WallDeadline, "upstream", "drifting", "which is more than 2 s"),
    (wrong.NeverAwaits, "upstream", "drifting", "it took 0.000 s, which is less than 1.5 s"),
    (
        wrong.LargestGpuOnly,
        "upstream",
        "two-gpus-cancel-out",
        "stopped there, with +0 MiB on GPU 0, +549 MiB on GPU 1",
    ),
    (wrong.ParsesUnits, "upstream", "ramp", "probe failed: invalid literal for int() with base 10: 'index'"),
    (wrong.ZeroForFailure, "upstream", "failure-is-logged", "nothing was logged of it"),
    (wrong.CountsIterations, "upstream", "slow-probe", "it took 9.200 s, which is more than 2.9 s"),
    (wrong.DeadlineAfterTheFirstProbe, "upstream", "slow-probe", "a probe began 2.300 s after the call"),
    (wrong.InGibibytes, "upstream", "two-gpus-cancel-out", "less than 256 MiB or 2 % on every GPU is the end"),
    (wrong.UntilThePidIsOffTheList, "verified", "late-start", "it said that the reading may be trusted"),
    (wrong.SaysItInATuple, "verified", "never-back", "that does not say whether the next reading may be trusted"),
]


@pytest.mark.parametrize(("make", "level", "scenario", "text"), WAITS, ids=[one[0].__name__ for one in WAITS])
def test_a_wait_of_a_team_is_told_what_is_wrong(make: Any, level: Level, scenario: str, text: str) -> None:
    made = make()
    report = check_settle(made, level=level, only=scenario, recording=getattr(made, "recording", None))
    assert report.failed == (scenario,)
    assert text in report.describe()


def test_who_goes_on_for_nothing_is_told_of_the_readings_that_agreed() -> None:
    made = wrong.Common()
    made.tolerance_mib, made.share = 0, 0.0
    (verdict,) = check_settle(made, only="still").verdicts
    assert any("it went on from there, with +0 MiB on GPU 0" in problem for problem in verdict.problems)


def test_a_probe_that_keeps_its_answer() -> None:
    report = check_probe(wrong.CachedProbe(), only="second-reading")
    assert "it says that 16384 MiB are free on GPU 0; 24576.0 MiB are" in report.describe()
