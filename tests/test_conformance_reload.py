"""ReloadSuite is judged: wrong backends fail the scenario that is meant for them, right ones none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import reload_mutants as wrong

from pytest_vramsettle.conformance import Capabilities, ConformanceError, check_reload
from pytest_vramsettle.conformance.checking import selected
from pytest_vramsettle.conformance.reload_scenarios import RELOAD
from pytest_vramsettle.demo.backend import Backend

MUTANTS: list[tuple[Callable[[list[str]], Any], str, str]] = [
    (wrong.with_wait(wrong.no_wait), "reload", "layers are on the CPU"),
    (wrong.with_wait(wrong.always_two_seconds), "cold-load", "'load' took"),
    (wrong.with_wait(wrong.first_gpu_only), "two-gpus-one-draining", "layers are on the CPU"),
    (wrong.with_wait(wrong.deaf_wait), "cancel-while-it-waits", "'reload' went on for"),
    (wrong.with_wait(wrong.until_all_is_back), "never-back", "it had not returned"),
    (wrong.with_wait(wrong.until_all_is_back), "leaves-a-child", "it had not returned"),
    (wrong.with_wait(wrong.two_samples), "late-start", "layers are on the CPU"),
    (wrong.with_wait(wrong.two_samples), "plateau", "layers are on the CPU"),
    (wrong.with_wait(wrong.two_samples), "step", "layers are on the CPU"),
    (wrong.with_wait(wrong.two_samples), "unload-then-load-late", "layers are on the CPU"),
    (wrong.WaitsUnderTheLock, "unload-while-it-waits", "'unload' took"),
    (wrong.UnstampedUnload, "unload-then-load", "layers are on the CPU"),
    (wrong.WaitsOnlyAfterItsOwnKill, "unload-then-load", "layers are on the CPU"),
    (wrong.StatusBlocks, "status-while-it-waits", "'status' took"),
    (wrong.StatusLies, "cold-load", "says pid=4711"),
    (wrong.RemembersTheDead, "unload-then-load", "says pid="),
    (wrong.KillsNothing, "reload", "is still there after 'reload'"),
    (wrong.RestartsAlways, "identical-load", "restarted the server"),
    (wrong.TrustsItsMemory, "after-a-crash", "no server serves its model"),
    (wrong.ForgetsCrashes, "after-a-crash", "layers are on the CPU"),
    (wrong.NoRecheck, "unload-while-it-waits", "after 'reload' there is llama-server"),
    (wrong.ReadsBeforeTheKill, "reload", "the context is 4096"),
    (wrong.OnlyAsks, "ignores-sigterm", "had not returned"),
    (wrong.SwallowsFailures, "bad-option", "returned 'loaded', as 'good load' did"),
    (wrong.SwallowsFailures, "out-of-memory", "returned 'loaded', as 'good load' did"),
    (wrong.BrokenForGood, "bad-option", "a load is under way"),
    (wrong.Hasty, "two-loads-at-once", "load('"),
    (wrong.LeavesItsServer, "nothing-left", "after 'the end' there is llama-server"),
    (wrong.LeavesAThread, "nothing-left", "left behind: thread 'watchdog'"),
    (wrong.LeavesAHelper, "nothing-left", "left behind: process"),
]


@pytest.fixture(autouse=True)
def _reaped() -> Iterator[None]:
    yield
    for server in wrong.KEPT:
        server.end()
    wrong.KEPT.clear()


@pytest.mark.parametrize(("make", "name", "problem"), MUTANTS)
def test_wrong_backends(make: Callable[[list[str]], Any], name: str, problem: str) -> None:
    (verdict,) = check_reload(make, level="verified", only=name).verdicts
    assert verdict.status == "failed"
    assert problem in "\n".join(verdict.problems)


def test_each_scenario_has_a_wrong_backend() -> None:
    assert {name for _, name, _ in MUTANTS} == {one.name for one in selected(RELOAD, "verified")}


def test_the_demo_backend_passes() -> None:
    report = check_reload(Backend, level="verified")
    assert (report.failed, report.gaps) == ((), ()), report.describe()


def test_coroutines_have_one_event_loop() -> None:
    some = [
        "status-while-it-waits",
        "unload-while-it-waits",
        "cancel-while-it-waits",
        "two-loads-at-once",
        "nothing-left",
    ]
    report = check_reload(wrong.Coroutines, only=[*some, "step"], level="verified")
    assert report.failed == (), report.describe()


def test_the_common_wait_passes_level_upstream() -> None:
    report = check_reload(wrong.with_wait(wrong.two_samples))
    assert (report.failed, report.gaps) == ((), ()), report.describe()


def test_static_methods_that_say_little() -> None:
    report = check_reload(
        wrong.static, capabilities=Capabilities(tells_outcome=False), only=["reload", "cancel-while-it-waits"]
    )
    assert report.failed == (), report.describe()


def test_what_is_no_backend() -> None:
    with pytest.raises(ConformanceError, match="cannot be called"):
        check_reload(3)
    text = check_reload(lambda server_command: object(), only="reload").describe()
    assert "is no backend: it has no load, unload, cancel, status. Six lines are enough" in text


def test_a_failure_tells_each_step_and_draws_it() -> None:
    text = check_reload(wrong.with_wait(wrong.no_wait), only="reload").describe()
    assert "39 of 48 layers are on the CPU" in text
    assert "reload: called at 0.3" in text
    assert "9 of 48 layers on the GPU, context 4096" in text
    assert "wrong, 39 layers are on the CPU" in text
