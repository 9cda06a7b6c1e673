"""The plain functions, what they refuse, and the drawing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import probe_mutants as probing
import pytest
import settle_mutants as waiting

from pytest_vramsettle.conformance import (
    Capabilities,
    ConformanceError,
    KillRoutine,
    check_kill_record,
    check_probe,
    check_settle,
)

PAGE = Path(__file__).parent.parent / "docs" / "conformance.md"


def examples() -> dict[str, str]:
    """The page's files by name."""
    found = re.findall(r"<!-- example: (\S+) -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return dict(found)


def page_wait() -> Any:
    module = types.ModuleType("waiting")
    exec(examples()["waiting.py"], module.__dict__)
    return module.wait_for_vram


def test_the_page_from_nothing_to_green(pytester: pytest.Pytester) -> None:
    """And each failure is drawn once, and every scenario on the page of the report."""
    for name, text in examples().items():
        (pytester.path / name).write_text(text, encoding="utf-8")
    # The two that are right pass all of it elsewhere.
    some = "test_waiting or late-start or ramp or wedged-probe or cold-load or cancel-while-it-waits"
    arguments = ("-p", "no:cacheprovider", "-v", "--vramsettle-report=page", "-k", some)
    result = pytester.runpytest_subprocess(*arguments, timeout=50)
    result.stdout.fnmatch_lines(["  549 MiB of the dead's memory were missing when it returned"])
    result.stdout.fnmatch_lines(["FAILED test_waiting.py::*two-gpus-cancel-out*"])
    for green in ("test_cured", "test_backend"):
        result.stdout.no_fnmatch_line(f"*{green}.py::* FAILED*")
    result.stdout.fnmatch_lines(["test_cured.py::TestOurSettle::test_settle?late-start? PASSED*"])
    result.stdout.fnmatch_lines(["test_backend.py::TestOurBackend::test_reload?cancel-while-it-waits? PASSED*"])
    failed = result.parseoutcomes()["failed"]
    assert result.stdout.str().count("timeline of the fake machine") == failed
    assert result.stdout.str().count("since death") == failed - 1  # in no-gpu nothing dies
    page = (pytester.path / "page" / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= result.parseoutcomes()["passed"] + failed
    assert "wrong, 549 MiB was not back" in page
    assert "test_backend.py::TestOurBackend::test_reload[cold-load]" in page


def test_the_failure_on_the_page_is_what_is_printed() -> None:
    report = check_settle(page_wait(), level="verified", only="late-start")
    printed = re.sub(r"pid \d+", "pid 4711", report.verdicts[0].describe())
    assert printed in PAGE.read_text(encoding="utf-8")


def test_a_report_tells_gaps_and_counts() -> None:
    report = check_settle(
        waiting.Common(),
        capabilities=Capabilities(logs_failures=False, cadence=False),
        only=["failure-is-logged", "ramp"],
    )
    assert report.passes
    assert report.gaps == (
        "ramp: makes exactly 3 probes: the capability cadence is not claimed",
        "failure-is-logged: the capability logs_failures is not claimed",
    )
    assert report.describe().endswith("settle, level upstream: 1 passed, 0 failed, 1 gap")


def test_what_the_fake_does_not_cover_is_said_first() -> None:
    unknown = waiting.AsksWhatTheFakeDoesNotKnow()
    failed, passed = check_settle(unknown, only=["ramp", "first-probe-fails"]).verdicts
    said = "the fake nvidia-smi does not cover 'nvidia-smi --query-gpu=index,memory.free --format=csv,noheader,nounits"
    assert failed.problems[0].startswith(said)
    assert failed.problems[0].endswith("--unheard-of': this says nothing of your wait")
    assert re.search(r"nvidia-smi: status \d+; the fake does not cover what was asked\n", failed.story)
    assert (passed.status, passed.gaps) == ("passed", failed.problems[:1])


def test_a_probe_that_fails_is_told_without_a_reading() -> None:
    (verdict,) = check_settle(waiting.SilentFailure(), only="failure-is-logged").verdicts
    assert "nvidia-smi: status 9\n" in verdict.story
    assert verdict.problems == ("the probe failed and nothing was logged of it (0 records in all)",)


def test_who_never_probes_again_has_no_failure_to_log() -> None:
    (verdict,) = check_settle(waiting.OneSample(), only="failure-is-logged").verdicts
    assert verdict.problems == ("the probe that fails was never made: it was over after 1 that did not",)


def test_a_generator_has_not_run() -> None:
    (verdict,) = check_settle(waiting.generates, only="ramp").verdicts
    (problem,) = verdict.problems
    assert problem.startswith("it returned a generator, <generator object generates at")


def test_a_wait_that_forks(capfd: pytest.CaptureFixture[str]) -> None:
    children = []

    def wait(**_: float) -> None:
        if (child := os.fork()) > 0:
            children.append(child)
            os.waitpid(child, 0)

    (verdict,) = check_settle(wait, only="cold-start").verdicts
    assert verdict.problems == ("it left behind: a copy of the caller: it forked, and the child returned as well",)
    assert len(children) == 1
    assert capfd.readouterr().err == ""


def test_an_exception_is_placed_where_it_is_ones_own() -> None:
    def wait(**_: float) -> None:
        subprocess.run(["nvidia-smi", "--unheard-of"], check=True, capture_output=True)

    (verdict,) = check_settle(wait, only="still").verdicts
    line = wait.__code__.co_firstlineno + 1
    assert verdict.problems[-1].endswith(f"({__file__}:{line}, in wait)")


def test_a_probe_in_process_passes_without_what_it_cannot_do() -> None:
    report = check_probe(probing.in_process, level="verified", capabilities=Capabilities(bounds_probe=False))
    assert report.failed == ()
    assert [gap.partition(":")[0] for gap in report.gaps] == ["hangs", "hangs-and-ignores-sigterm"]


def test_the_hint_of_an_answer_that_was_cut_off() -> None:
    (verdict,) = check_probe(probing.naive, level="verified", only="truncated").verdicts
    assert "The output ended without a newline" in verdict.problems[0]
    claimed = Capabilities(sees_truncation=False)
    assert check_probe(probing.naive, level="verified", only="truncated", capabilities=claimed).passes


def test_the_same_story_every_time() -> None:
    def told() -> str:
        (verdict,) = check_settle(waiting.Common(), level="verified", only="two-stages", seed=3).verdicts
        return re.sub(r"pid \d+", "pid", verdict.describe())

    assert "order of threads: seed 3" in told()
    assert told() == told()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: check_settle(None), "wait is None, which cannot be called"),  # type: ignore[arg-type]  # that is the test
        (lambda: check_settle(lambda: None), "wait cannot be called as wait(since_kill=…, max_wait=…)"),
        (lambda: check_settle(waiting.Common(), injects_probe=True), "wait(probe=…, since_kill=…, max_wait=…)"),
        (lambda: check_settle(waiting.Common(), only="rmap"), "no scenario 'rmap'; there are called-late"),
        (lambda: check_settle(waiting.Common(), only=[]), "no scenario in an empty list"),
        (lambda: check_settle(waiting.Common(), level="best"), "there is no level 'best'"),  # type: ignore[arg-type]  # that is the test
        (lambda: check_settle(waiting.Common(), lock=3), "lock is 3, which has no acquire()"),
        (lambda: check_settle(waiting.Common(), cancel=3), "cancel is 3, which cannot be called"),  # type: ignore[arg-type]  # that is the test
        (lambda: check_probe(3), "probe is 3, which cannot be called"),  # type: ignore[arg-type]  # that is the test
    ],
)
def test_what_cannot_be_judged(call: Any, text: str) -> None:
    with pytest.raises(ConformanceError, match=re.escape(text)):
        call()


def test_capabilities_are_known_by_name() -> None:
    assert Capabilities.named("by_uuid", "co_tenants") == Capabilities(by_uuid=False, co_tenants=False)
    with pytest.raises(ValueError, match="there is no capability speed; there are cadence"):
        Capabilities.named("speed")


def test_a_routine_of_the_wrong_kind_fails_by_scenario() -> None:
    report = check_kill_record(lambda: 5, only="nothing-to-kill")  # type: ignore[arg-type,return-value]  # that is the test
    assert "5 is no KillRoutine. Ten lines are enough" in report.describe()
    text = KillRoutine(adopt=lambda process: None, kill=lambda: None, stamp=lambda: "now")  # type: ignore[arg-type,return-value]  # that is the test
    report = check_kill_record(text, only="nothing-to-kill")
    assert "stamp() returned 'now': seconds of time.monotonic() are wanted" in report.describe()


def test_without_pytest() -> None:
    code = (
        "import sys; from pytest_vramsettle.conformance import check_settle; "
        "report = check_settle(lambda **_: None, only='cold-start'); "
        "print(report.passes, 'pytest' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True False\n"
