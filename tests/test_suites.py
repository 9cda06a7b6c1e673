"""Whole suites on the virtual clock: `--virtual-clock`, the markers, pytest's own times, what a test leaves behind."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

HEAD = "import subprocess, threading, time\nfrom time import monotonic, sleep\nimport pytest\n"


def run(pytester: pytest.Pytester, code: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + code)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=50)


def test_every_test_but_those_that_opt_out(pytester: pytest.Pytester) -> None:
    code = """
def real():
    return abs(time.monotonic() - time.clock_gettime(time.CLOCK_MONOTONIC)) < 1

def test_names_that_were_bound_at_import_follow():
    before = monotonic()
    sleep(3600)
    assert monotonic() - before == pytest.approx(3600)

def test_the_fixture_is_the_same_clock(monotonic_clock):
    sleep(1)
    assert monotonic_clock.elapsed == 1.0

@pytest.mark.real_clock
def test_opted_out():
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    sleep(0.05)
    assert time.clock_gettime(time.CLOCK_MONOTONIC) - before >= 0.05 and real()

@pytest.mark.parametrize("virtual", [True, pytest.param(False, marks=pytest.mark.real_clock)])
def test_one_parameter_opts_out(virtual):
    time.sleep(0.05 if not virtual else 5000)
    assert real() is not virtual

@pytest.mark.real_clock
class TestTheNearestMarkerDecides:
    @pytest.mark.virtual_clock
    def test_here(self):
        sleep(3600)
        assert not real()

    def test_not_here(self):
        assert real()
"""
    run(pytester, code, "--virtual-clock", "--strict-markers").assert_outcomes(passed=7)
    pytester.makeini("[pytest]\nvirtual_clock = true\n")
    run(pytester, code).assert_outcomes(passed=7)


def test_setup_call_and_teardown_are_one_stretch_and_between_tests_time_is_real(pytester: pytest.Pytester) -> None:
    code = """
STARTS = []

@pytest.fixture(autouse=True)
def around():
    STARTS.append(time.monotonic())
    time.sleep(100)
    yield
    time.sleep(100)
    assert time.monotonic() - STARTS[-1] == pytest.approx(300)

@pytest.mark.parametrize("number", range(3))
def test_it(number):
    time.sleep(100)
    assert time.monotonic() - STARTS[-1] == pytest.approx(200)
    assert time.monotonic() - STARTS[0] < 210
"""
    run(pytester, code, "--virtual-clock").assert_outcomes(passed=3)


def test_what_outlives_a_test_lives_in_real_time(pytester: pytest.Pytester) -> None:
    code = """
import queue

@pytest.fixture(scope="module")
def server():
    questions, answers = queue.Queue(), queue.Queue()
    def serve():
        for question in iter(questions.get, None):
            answers.put(question * 2)
    thread = threading.Thread(target=serve)
    thread.start()
    def ask(question):
        questions.put(question)
        return answers.get()
    yield ask
    questions.put(None)
    thread.join()

@pytest.mark.parametrize("number", range(3))
def test_it(server, number):
    assert server(number) == 2 * number
"""
    result = run(pytester, code, "--virtual-clock")
    result.assert_outcomes(passed=3)
    assert "left behind" not in result.stdout.str()


def test_all_kinds_of_tests(pytester: pytest.Pytester) -> None:
    code = '''
import unittest

class TestOld(unittest.TestCase):
    def setUp(self):
        self.start = time.monotonic()
        time.sleep(100)

    def test_it(self):
        time.sleep(100)
        assert 200 <= time.monotonic() - self.start < 200.001

def documented():
    """
    >>> before = time.monotonic()
    >>> time.sleep(1000)
    >>> time.monotonic() - before >= 1000
    True
    """
'''
    run(pytester, code, "--virtual-clock", "--doctest-modules").assert_outcomes(passed=2)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "xdist"])
@pytest.mark.parametrize("wall", ["", 'wall="2001-01-01"'], ids=["real wall time", "frozen wall time"])
def test_the_times_of_pytest_are_real(pytester: pytest.Pytester, workers: tuple[str, ...], wall: str) -> None:
    code = f"""
pytestmark = pytest.mark.virtual_clock({wall})

@pytest.fixture
def slow():
    time.sleep(7200)
    yield
    time.sleep(7200)

def test_virtual(slow):
    time.sleep(3600)

@pytest.mark.real_clock
def test_real():
    time.sleep(0.3)
"""
    result = run(pytester, code, "--virtual-clock", "--durations=0", "-vv", "--junitxml=times.xml", *workers)
    result.assert_outcomes(passed=2)
    durations = {
        (found[2], found[3]): float(found[1])
        for found in re.finditer(r"^([\d.]+)s (setup|call|teardown) +\S+::(\w+)", result.stdout.str(), re.M)
    }
    assert 0.3 <= durations["call", "test_real"] < 5
    assert all(seconds < 5 for seconds in durations.values())
    suite = next(ET.parse(pytester.path / "times.xml").iter("testsuite"))
    times = {case.get("name"): float(str(case.get("time"))) for case in suite.iter("testcase")}
    assert 0 <= times["test_virtual"] < 5
    assert 0.3 <= times["test_real"] < 5
    assert 0.3 <= float(str(suite.get("time"))) < 30
    assert not str(suite.get("timestamp")).startswith("2001")


@pytest.mark.parametrize("method", ["signal", "thread"])
@pytest.mark.parametrize("func_only", [False, True], ids=["whole test", "func_only"])
def test_pytest_timeout_guards_in_real_time(pytester: pytest.Pytester, method: str, func_only: bool) -> None:
    code = f"""
@pytest.mark.timeout(1, method={method!r}, func_only={func_only})
@pytest.mark.virtual_clock(wall="2026-01-01")
def test_virtual_hours_are_no_reason():
    worker = threading.Thread(target=time.sleep, args=(7200,))
    worker.start()
    time.sleep(3600)
    worker.join()

@pytest.mark.timeout(1, method={method!r}, func_only={func_only})
def test_waits_for_something_real(monotonic_clock):
    with monotonic_clock.paused():
        time.sleep(3600)
"""
    result = run(pytester, code, "--virtual-clock", "-v")
    text = result.stdout.str() + result.stderr.str()
    assert "test_virtual_hours_are_no_reason PASSED" in text
    assert "Timeout (>1.0s)" in text or "++ Timeout ++" in text
    assert "test_waits_for_something_real" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("sede=7", "does not take sede=: it takes seed=, wall=, child_grace="),
        ("7", "takes no positional arguments, only seed=, wall=, child_grace="),
        ("seed='7'", "seed= takes an int, not '7'"),
        ("child_grace=0", "child_grace= takes a number of seconds above 0, not 0"),
        ("wall=7", "wall= takes a str, a date or a datetime, not 7"),
    ],
)
def test_a_wrong_argument_is_named(pytester: pytest.Pytester, arguments: str, complaint: str) -> None:
    result = run(pytester, f"@pytest.mark.virtual_clock({arguments})\ndef test_it(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "test_it: @pytest.mark.virtual_clock" in result.stderr.str()
    assert complaint in result.stderr.str()


def test_a_wall_time_that_is_none_is_named(pytester: pytest.Pytester) -> None:
    result = run(pytester, "@pytest.mark.virtual_clock(wall='the day after')\ndef test_it(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it: @pytest.mark.virtual_clock: wall= takes a time*'the day after'*"])


def test_markers_add_up_and_the_nearest_wins(pytester: pytest.Pytester) -> None:
    code = """
import datetime

pytestmark = pytest.mark.virtual_clock(wall="2001-02-03", child_grace=2.5)

def test_the_module(monotonic_clock):
    assert datetime.date.today() == datetime.date(2001, 2, 3)

@pytest.mark.virtual_clock(wall=datetime.datetime(2011, 1, 1, 12))
def test_its_own(monotonic_clock):
    assert datetime.datetime.now() == datetime.datetime(2011, 1, 1, 12)
    assert monotonic_clock._children.grace == 2.5
"""
    run(pytester, code).assert_outcomes(passed=2)


def test_a_seed_chooses_an_order(pytester: pytest.Pytester) -> None:
    code = """
ORDERS = {}

@pytest.mark.parametrize("repetition", range(2))
@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.virtual_clock(seed=seed)) for seed in range(8)])
def test_it(seed, repetition):
    order = []
    def work(name):
        for _ in range(5):
            time.sleep(1)
            order.append(name)
    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ORDERS.setdefault(seed, set()).add("".join(order))

def test_one_each_and_several_in_all():
    assert all(len(orders) == 1 for orders in ORDERS.values())
    assert len(set.union(*ORDERS.values())) > 1
"""
    run(pytester, code, "--virtual-clock").assert_outcomes(passed=17)


LEAKS = """
def leak():
    threading.Thread(target=time.sleep, args=(5000,), name="sleeper").start()
    stop = threading.Event()
    threading.Thread(target=stop.wait, name="waiter").start()
    return subprocess.Popen(["sleep", "300"])

CHILDREN = []

def teardown_module():
    for child in CHILDREN:
        child.kill()
        child.wait()
"""


@pytest.mark.parametrize("end", ["pass", "raise AssertionError", "raise KeyboardInterrupt", "pytest.exit('enough')"])
@pytest.mark.parametrize("whole", [True, False], ids=["--virtual-clock", "fixture"])
def test_what_is_left_behind_is_named(pytester: pytest.Pytester, end: str, whole: bool) -> None:
    code = f"{LEAKS}\ndef test_it({'' if whole else 'monotonic_clock'}):\n    CHILDREN.append(leak())\n    {end}\n"
    arguments = ["--virtual-clock"] if whole else []
    result = run(pytester, code, *arguments)
    text = result.stdout.str()
    assert "left behind at teardown" in text
    # A test that is ended at once may leave threads that had no turn yet.
    assert re.search(r"test_it: thread sleeper, (in sleep until \+5000\.000000000 s|running)", text)
    assert re.search(r"test_it: thread waiter, (in Condition\.wait|running)", text)
    if end == "pass":
        assert "in sleep until +5000.000000000 s" in text
    assert re.search(r"test_it: child process \d+ \(sleep\)", text)
    assert "warning" not in text.lower()


def test_workers_report_what_is_left_behind(pytester: pytest.Pytester) -> None:
    code = f"{LEAKS}\ndef test_it():\n    CHILDREN.append(leak())\n"
    result = run(pytester, code, "--virtual-clock", "-n", "1")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*= left behind at teardown =*", "*test_it: thread sleeper, *"])


def test_pytester_tests_that_use_the_clock_one_after_the_other(pytester: pytest.Pytester) -> None:
    """Each of them takes the modules away that it has seen imported."""
    code = """
pytest_plugins = "pytester"

@pytest.mark.parametrize("number", range(3))
def test_it(pytester, request, number):
    clock = request.getfixturevalue("monotonic_clock")
    time.sleep(10)
    assert clock.elapsed == 10
    threading.Thread(target=time.sleep, args=(5000,), name="left", daemon=True).start()
    clock.settle()
"""
    result = run(pytester, code)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_it[[]2]: daemon thread left, *"])


def test_real_clock_takes_nothing(pytester: pytest.Pytester) -> None:
    result = run(pytester, "@pytest.mark.real_clock(1)\ndef test_it(): pass\n")
    assert "@pytest.mark.real_clock takes no arguments" in result.stdout.str() + result.stderr.str()


def test_an_interrupt_inside_a_wait_leaves_nothing(pytester: pytest.Pytester) -> None:
    code = """
import os, signal

@pytest.fixture
def around():
    yield
    before = time.monotonic()
    time.sleep(5000)  # the teardown of an interrupted test is on its clock too
    print("torn down after", round(time.monotonic() - before, 6))

def test_it(around, monotonic_clock):
    with monotonic_clock.real_time():
        threading.Timer(0.2, os.kill, args=(os.getpid(), signal.SIGINT)).start()
    with monotonic_clock.paused():
        time.sleep(3600)
"""
    conftest = """
import threading, time
def pytest_unconfigure():
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    time.sleep(0.05)
    print("real again", time.clock_gettime(time.CLOCK_MONOTONIC) - before >= 0.05, threading.active_count())
"""
    pytester.makeconftest(conftest)
    result = run(pytester, code, "--virtual-clock", "-s")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*torn down after 5000.0*", "*real again True 1*"])


@pytest.mark.parametrize("arguments", [[], ["--virtual-clock"]], ids=["fixture", "--virtual-clock"])
def test_a_pytest_inside_a_test(pytester: pytest.Pytester, arguments: list[str]) -> None:
    """In the same process: its tests share the time of the one around them, and take nothing away with them."""
    code = """
pytest_plugins = "pytester"
INNER = "import time\\ndef test_inner(): time.sleep(500)\\n"

def place():
    return time.monotonic, time.sleep, threading.Condition.wait, threading.Thread.start, subprocess.Popen.__init__

PLACE = place()

def test_shares_the_clock(pytester, monotonic_clock):
    pytester.makepyfile(INNER)
    before = place()
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert place() == before
    assert monotonic_clock.elapsed == 500

def test_a_clock_inside_is_refused(pytester, monotonic_clock):
    pytester.makepyfile(INNER)
    result = pytester.runpytest_inprocess("--virtual-clock")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ClockError: a virtual clock is active already*"])
    time.sleep(7)
    assert monotonic_clock.elapsed == 7

@pytest.mark.real_clock
def test_one_of_its_own(pytester):
    pytester.makepyfile(INNER)
    pytester.runpytest_inprocess("--virtual-clock").assert_outcomes(passed=1)
    assert place() == PLACE

@pytest.mark.real_clock
def test_the_same_in_a_process_of_its_own(pytester):
    pytester.makepyfile(INNER)
    pytester.runpytest_subprocess("--virtual-clock").assert_outcomes(passed=1)
"""
    run(pytester, code, *arguments).assert_outcomes(passed=4)


def test_freezegun_of_the_tests_own(pytester: pytest.Pytester) -> None:
    """It freezes monotonic time too, as it does without a clock, and leaves the clock in place when it stops."""
    code = """
import datetime
import freezegun

@pytest.mark.parametrize("repetition", range(2))
def test_it(repetition, monotonic_clock):
    with freezegun.freeze_time("2001-02-03") as frozen:
        before = time.monotonic()
        frozen.tick(10)
        assert 10 <= time.monotonic() - before < 10.001
        assert datetime.date.today().year == 2001
    before = time.monotonic()
    time.sleep(100)
    assert 100 <= time.monotonic() - before < 100.001
    assert monotonic_clock.elapsed == 100
"""
    run(pytester, code, "--virtual-clock").assert_outcomes(passed=2)
    run(pytester, code).assert_outcomes(passed=2)
