"""The marker reclaim_traces: a test for each file, with its name; nothing found, or no trace, is an error."""

from __future__ import annotations

import pytest
from trace_rows import simple

JUDGE = """
import pytest

pytestmark = pytest.mark.reclaim_traces("traces/*.jsonl*")

def test_the_wait_misreads_nothing(reclaim_trace, fake_driver, monotonic_clock, settle):
    replay = reclaim_trace.replay(fake_driver)
    replay.kill()
    assert settle()
    assert monotonic_clock.elapsed >= replay.settled_after
"""


def test_a_test_runs_once_per_trace(pytester: pytest.Pytester) -> None:
    (traces := pytester.mkdir("inner") / "traces").mkdir()
    simple().write(traces / "h200-sigkill.jsonl")
    simple().write(traces / "rtx-4090.jsonl.gz")
    (traces / "malformed.jsonl").write_text('{"kind": "header", "format": "vramsettle-trace", "version": 9}\n')
    whole = (traces / "h200-sigkill.jsonl").read_text()
    (traces / "torn.jsonl").write_text(whole + '{"kind":')
    pytester.makepyfile(**{"inner/test_it": JUDGE})
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v", timeout=50)
    result.assert_outcomes(passed=3, errors=1, warnings=1)
    result.stdout.fnmatch_lines_random(
        [
            "*::test_the_wait_misreads_nothing[[]h200-sigkill[]] PASSED*",
            "*::test_the_wait_misreads_nothing[[]rtx-4090[]] PASSED*",
            "*malformed.jsonl, line 1: *version 1, is wanted; this is 'vramsettle-trace', version 9*",
            "*PytestWarning: *torn.jsonl: its last line was cut off and left out*",
        ]
    )


def test_what_is_wrong_with_a_marker_is_said(pytester: pytest.Pytester) -> None:
    pytester.mkdir("inner")
    simple().write(pytester.mkdir("shared") / "one.jsonl")
    simple().write(pytester.mkdir("other") / "one.jsonl")
    code = """
import pytest

@pytest.mark.reclaim_traces("shared/*.jsonl", "other/*.jsonl")
def test_in_rootdir(reclaim_trace):
    assert reclaim_trace.samples

def test_without_marker(reclaim_trace):
    pass
"""
    pytester.makepyfile(**{"inner/test_it": code})
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-v")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "*::test_in_rootdir[[]other/one.jsonl[]]*",
            "*::test_in_rootdir[[]shared/one.jsonl[]]*",
            "*reclaim_trace needs @pytest.mark.reclaim_traces('traces/[*].jsonl') on the test*",
        ]
    )


@pytest.mark.parametrize(
    ("marker", "argument", "complaint"),
    [
        ("'none/*.jsonl'", "reclaim_trace", "*no file matches 'none/[*].jsonl' in *inner and in *would test nothing*"),
        ("'*.py'", "", "*gives its traces to the fixture reclaim_trace: take it as an argument*"),
        ("glob='*.jsonl'", "reclaim_trace", "*takes patterns, such as 'traces/[*].jsonl', and nothing else*"),
        ("7", "reclaim_trace", "*takes patterns, such as 'traces/[*].jsonl', not 7*"),
    ],
)
def test_a_marker_that_gives_no_test_is_an_error(
    pytester: pytest.Pytester, marker: str, argument: str, complaint: str
) -> None:
    pytester.mkdir("inner")
    pytester.makepyfile(
        **{"inner/test_it": f"import pytest\n@pytest.mark.reclaim_traces({marker})\ndef test_it({argument}): pass\n"}
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([complaint])
