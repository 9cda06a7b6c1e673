"""The suites in pytest: what a user writes, what goes wrong with it, and that nothing takes the rest of a run along."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAD = """
import ctypes, os, signal, threading, time
import pytest
from pytest_vramsettle.conformance import *
from pytest_vramsettle.conformance.settle_verified import SETTLE
from pytest_vramsettle.settle import async_wait_for_vram_settle, wait_for_vram_settle

def some(*names):
    return [one for one in SETTLE if one.name in names]

def good(*, since_kill, max_wait):
    wait_for_vram_settle(since_kill=since_kill, max_wait=max_wait, policy="two-samples")
"""


def run(pytester: pytest.Pytester, code: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(HEAD + code)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=50)


def test_shapes_of_implementations(pytester: pytest.Pytester) -> None:
    code = """
class Backend:
    def _wait_for_vram_settle(self, *, since_kill, max_wait):
        with open("pids", "a") as file: print(os.getpid(), file=file)
        good(since_kill=since_kill, max_wait=max_wait)

@pytest.fixture
def backend():
    return Backend()

class TestOurSettle(SettleSuite):
    @pytest.fixture
    def wait(self, backend):                     # the only thing to write
        return lambda *, since_kill, max_wait: backend._wait_for_vram_settle(since_kill=since_kill, max_wait=max_wait)

def test_own():
    with open("own", "w") as file: print(os.getpid(), file=file)

class Static:
    @staticmethod
    def wait(since_kill, max_wait): good(since_kill=since_kill, max_wait=max_wait)

class Method:
    def __call__(self, **keywords):
        print("seen by the terminal")
        good(**keywords)

class TestStatic(SettleSuite):
    scenarios = some("ramp")
    wait = pytest.fixture(lambda self: Static.wait)

class OfAnotherName(SettleSuite):
    scenarios = some("ramp")
    wait = pytest.fixture(lambda self: Method())

class TestCoroutine(SettleSuite):
    scenarios = some("ramp")
    @pytest.fixture
    def wait(self):
        async def wait(*, since_kill, max_wait):
            return await async_wait_for_vram_settle(since_kill=since_kill, max_wait=max_wait, policy="two-samples")
        return wait

class TestInjected(InjectedProbeSuite):
    scenarios = some("ramp")
    @pytest.fixture
    def wait(self, fake_driver):
        assert fake_driver.gpus                      # the machine is there before the backend
        return lambda *, probe, since_kill, max_wait: wait_for_vram_settle(
            probe=probe, since_kill=since_kill, max_wait=max_wait, policy="two-samples")

class Base(SettleSuite):
    "For others: collected where they are."

class TestDerived(Base):
    scenarios = some("ramp", "two-percent")
    capabilities = Capabilities(cadence=False)
    level = "upstream"
    wait = pytest.fixture(lambda self: good)

class TestProbe(ProbeSuite):
    scenarios = ProbeSuite.scenarios[:2]
    @pytest.fixture
    def probe(self):
        from pytest_vramsettle.conformance.subjects import nvidia_smi
        return nvidia_smi

class TestKills(KillRecordSuite):
    scenarios = KillRecordSuite.scenarios[:2]
    @pytest.fixture
    def kills(self):
        held = []
        stamp = [0.0]
        def kill():
            for process in filter(None, held):
                process.terminate()
                process.wait()
                stamp[0] = time.monotonic()
        return KillRoutine(adopt=held.append, kill=kill, stamp=lambda: stamp[0])
"""
    result = run(pytester, code, "-v", "-s", "--virtual-clock", "--strict-markers", "--timeout=20", "-k", "not Nobody")
    result.assert_outcomes(passed=31, skipped=1)
    result.stdout.fnmatch_lines(
        ["*not judged by the conformance suites*", "*TestOurSettle::test_settle?holds-no-lock?: no lock was given"]
    )
    pids, own = pytester.path / "pids", pytester.path / "own"
    found = pids.read_text(encoding="utf-8").split()
    assert len(found) == 20
    assert len({*found, own.read_text(encoding="utf-8").strip()}) == 2  # one worker for the file, and this process
    pids.unlink()
    run(pytester, code, "--pdb", "-x", "-k", "cold-start and OurSettle or own").assert_outcomes(passed=2, deselected=30)
    assert set(pids.read_text(encoding="utf-8").split()) == {own.read_text(encoding="utf-8").strip()}
    result.stdout.fnmatch_lines(["*seen by the terminal*"])
    result.stdout.fnmatch_lines(["*OfAnotherName::test_settle?ramp?*"])
    result.stdout.fnmatch_lines(["*two-percent?: makes exactly 2 probes: the capability cadence is not claimed"])


def test_what_is_wrong_fails_alone(pytester: pytest.Pytester) -> None:
    code = """
class TestForgotten(SettleSuite):
    scenarios = some("ramp")

class TestWrongType(SettleSuite):
    scenarios = some("ramp")
    wait = pytest.fixture(lambda self: 5)

class TestWrongArguments(SettleSuite):
    scenarios = some("ramp")
    wait = pytest.fixture(lambda self: lambda probe: None)

class TestRaises(SettleSuite):
    scenarios = some("ramp")
    @pytest.fixture
    def wait(self):
        def wait(**_): raise OSError("broken")
        return wait

class TestBreaks(SettleSuite):
    scenarios = some("ramp", "still", "no-gpu")
    real_limit = 4.0
    @pytest.fixture
    def wait(self, scenario):
        def wait(**keywords):
            if scenario.name == "ramp": ctypes.PyDLL(None).sleep(100)      # in C, with the interpreter's lock
            if scenario.name == "still": os._exit(7)
            good(**keywords)
        return wait

class TestKeepsAProcess(SettleSuite):
    scenarios = some("still")
    @pytest.fixture
    def wait(self):
        import subprocess
        return lambda **_: subprocess.Popen(["sleep", "987654"]) and None

class TestLate(SettleSuite):
    level = "verified"
    scenarios = some("late-start")
    pytestmark = pytest.mark.virtual_clock(seed=7)
    wait = pytest.fixture(lambda self: good)
"""
    result = run(pytester, code, "-W", "ignore::ResourceWarning")
    result.assert_outcomes(passed=1, failed=7, errors=1)
    text = result.stdout.str()
    assert "TestForgotten needs the fixture 'wait'" in text
    assert "class TestOurSettle(SettleSuite):" in text
    assert "wait is 5, which cannot be called" in text
    assert "wait cannot be called as wait(since_kill=…, max_wait=…)" in text
    assert "it raised OSError: broken" in text
    assert text.count("it hung: the worker process took more than 4 real s") == 1
    assert re.search(r"File .*test_what_is_wrong_fails_alone.py\", line \d+ in wait", text)
    assert "it ended the worker process: exit status 7" in text
    assert "it left behind: process" in text
    assert "21504 MiB of the dead's memory were missing when it returned, and it did not say so" in text
    assert "scripted: 21 GiB: nothing for 0.6 s, then all within 0.4 s" in text
    assert "0.250 s  nvidia-smi: status 0; free MiB by index: 3072" in text
    assert text.count("returned None, 0.25 s: wrong, 21.0 GiB was not back") == 1  # in the one drawing
    assert "order of threads: seed 7" in text
    assert not subprocess.run(["pgrep", "-f", "^sleep 987654"], capture_output=True).stdout


SMALL = """
class TestSmall(SettleSuite):
    scenarios = some("ramp", "still", "cold-start")
    wait = pytest.fixture(lambda self: good)

class TestBad(SettleSuite):
    scenarios = some("ramp", "still")
    wait = pytest.fixture(lambda self: lambda **_: None)

def test_ordinary(): pass
"""


def test_beside_xdist_and_a_report_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\naddopts = -ra --durations=1\n")
    run(pytester, SMALL, "-n", "1", "--junitxml=out.xml").assert_outcomes(passed=4, failed=2)
    assert (pytester.path / "out.xml").read_text(encoding="utf-8").count("<testcase") == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_by_force_leaves_nothing(pytester: pytest.Pytester, number: signal.Signals) -> None:
    code = """
class TestHangs(SettleSuite):
    scenarios = some("ramp")
    real_limit = 40.0
    @pytest.fixture
    def wait(self):
        def wait(**_):
            with open("started", "w") as file: file.write(str(os.getpid()))
            ctypes.PyDLL(None).sleep(100)
        return wait
"""
    pytester.makepyfile(HEAD + code)
    started = pytester.path / "started"
    with subprocess.Popen([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], stdout=subprocess.DEVNULL) as ran:
        until = time.monotonic() + 30
        while ran.poll() is None and time.monotonic() < until and not (started.exists() and started.read_text("utf-8")):
            time.sleep(0.02)
        ran.send_signal(number)
        ran.wait(30)
    worker = int(started.read_text(encoding="utf-8"))
    until = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_where_a_file_is_does_not_matter(pytester: pytest.Pytester) -> None:
    """The same file name in two packages, a conftest below, a rootdir elsewhere, and a group that xdist names."""
    suite = HEAD + "class TestA(SettleSuite):\n    scenarios = some('ramp')\n"
    plain = suite + "    wait = pytest.fixture(lambda self: good)\n"
    below = suite + "    wait = pytest.fixture(lambda self, session_wide, way: good)\n"
    conftest = (
        "import pytest\n@pytest.fixture(scope='session')\ndef session_wide(): yield 1\n"
        "@pytest.fixture(params=['one', 'two'])\ndef way(request): return request.param\n"
    )
    files = {"a/__init__.py": "", "a/test_x.py": plain, "b/__init__.py": "", "b/test_x.py": plain}
    files |= {"c/conftest.py": conftest, "c/d/test_y.py": below, "c/d/test_x.py": plain, "elsewhere/pytest.ini": ""}
    grouped = "class TestA", "@pytest.mark.xdist_group('one')\nclass TestA"
    files["b/test_x.py"] = plain.replace(*grouped)
    for name, text in files.items():
        (pytester.path / name).parent.mkdir(parents=True, exist_ok=True)
        (pytester.path / name).write_text(text, encoding="utf-8")
    arguments = ("-p", "no:cacheprovider", "--rootdir=elsewhere", "--import-mode=importlib")
    pytester.runpytest_subprocess(*arguments, "a", "b", "c", timeout=50).assert_outcomes(passed=5)
    pytester.runpytest_subprocess(*arguments, "-n", "1", "--dist=loadgroup", "b", timeout=50).assert_outcomes(passed=1)


def test_warnings_of_an_implementation_arrive(pytester: pytest.Pytester) -> None:
    code = """
import warnings

class Own(UserWarning):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

class TestWarns(SettleSuite):
    scenarios = some("ramp", "still")
    @pytest.fixture
    def wait(self, scenario):
        def wait(**keywords):
            warnings.warn(Own("this", "that"))
            if scenario.name == "still": warnings.warn("an old way", DeprecationWarning)
            good(**keywords)
        return wait
"""
    result = run(pytester, code, "-W", "error::DeprecationWarning")
    result.assert_outcomes(passed=1, failed=1, warnings=2)
    result.stdout.fnmatch_lines(["*test_warnings_of_an_implementation_arrive.py:*: UserWarning: this and that"])
    result.stdout.fnmatch_lines(["*it raised DeprecationWarning: an old way*"])
