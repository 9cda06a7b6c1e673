"""What a failing test shows of its fake machine, and the page that --vramsettle-report writes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

TESTS = """
import threading, time
import pytest
from fake_gpu import Fault, Ramp

def test_passes(fake_driver, monotonic_clock, settle):
    fake_driver.process(fake_driver.add_gpu("rtx-4090"), used="20 GiB").kill()
    assert settle()

def test_misreads(fake_driver, monotonic_clock, settle):
    fake_driver.process(fake_driver.add_gpu("rtx-4090"), used="20 GiB").kill(reclaim=Ramp.step(after="1s"))
    assert settle(policy="two-samples", since_kill=time.monotonic()).outcome == "timed_out"

class Backend:
    def __init__(self):
        self._lock = threading.Lock()

@pytest.mark.max_hold("_lock", 0.5)
def test_holds_too_long(fake_driver, monotonic_clock, traced_locks):
    backend = Backend()
    traced_locks(backend, "_lock")
    fake_driver.process(fake_driver.add_gpu("l40s"), used="4 GiB").kill()
    with backend._lock:
        time.sleep(1)

def test_has_no_machine():
    pass
"""


class Reader(HTMLParser):
    """The page as a browser sees it: open tags, what it would load, and the words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "br"):
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(TESTS)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=50)


def test_a_failure_is_drawn(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-k", "misreads or passes")
    result.stdout.fnmatch_lines(
        [
            "*timeline of the fake machine*",
            "*GPU 0 (NVIDIA GeForce RTX 4090): free memory, at most 23.5 GiB",
            "*deaths*",
            "*nvidia-smi*",
            "*wait*settled, 0.25 s*",
            "*since death*0 s*1 s*",
        ]
    )
    text = result.stdout.str()
    assert text.count("timeline of the fake machine") == 1
    assert "\x1b[" not in text
    assert not (pytester.path / "index.html").exists()


def test_in_a_terminal_it_has_colours(pytester: pytest.Pytester) -> None:
    assert re.search("\x1b\\[\\d+m◆", run(pytester, "-k", "misreads", "--color=yes").stdout.str())


def test_without_utf_8_it_is_plain(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONUTF8", "0")
    text = run(pytester, "-k", "misreads").stdout.str()
    assert text.isascii()
    assert "nvidia-smi |" in text


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_the_page_has_every_test_with_a_machine(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    result = run(pytester, "--vramsettle-report=out/pages", *workers)
    result.assert_outcomes(passed=3, failed=1, errors=1)
    path = pytester.path / "out/pages/index.html"
    result.stdout.fnmatch_lines([f"*fake machines of 3 tests: {path}*"])
    assert sorted(os.listdir(path.parent)) == ["index.html"]
    page = Reader(path.read_text(encoding="utf-8"))
    assert page.stack == []
    assert page.loads == []
    assert "script" not in page.seen
    assert page.seen.count("svg") == 3
    assert "3 tests used the fake driver, 2 of them failed." in page.words
    # Failures come first; each says what it was.
    names = re.findall(r"test_report_page\.py::|::(test_\w+)", page.words)
    assert [name for name in dict.fromkeys(names) if name][-1] == "test_passes"
    assert "held for 1.000" in page.words or "_lock" in page.words
    assert "died; it held 20.0 GiB on GPU 0" in page.words


def test_the_hold_that_failed_at_teardown_is_in_the_picture(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-k", "holds")
    result.stdout.fnmatch_lines(["*timeline of the fake machine*", "*deaths*", "* _lock *━━━*"])


def test_a_file_in_the_way_is_an_error_before_any_test(pytester: pytest.Pytester) -> None:
    (pytester.path / "taken").write_text("mine")
    result = run(pytester, "--vramsettle-report=taken")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--vramsettle-report=taken: that is a file; give a directory*"])
    assert (pytester.path / "taken").read_text() == "mine"


def test_a_page_that_cannot_be_written_loses_no_result(pytester: pytest.Pytester) -> None:
    (pytester.path / "out" / "index.html").mkdir(parents=True)
    result = run(pytester, "--vramsettle-report=out", "-k", "passes")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*--vramsettle-report: nothing was written*"])
    assert os.listdir(pytester.path / "out") == ["index.html"]


def test_the_page_is_written_after_ctrl_c(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        TESTS
        + """
def test_then_waits(fake_driver):
    print("now", flush=True)
    threading.Event().wait(40)
"""
    )
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "--vramsettle-report=out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=pytester.path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"now" in line:
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    page = Reader(Path(pytester.path, "out", "index.html").read_text(encoding="utf-8"))
    assert "::test_misreads" in page.words


def test_a_test_that_runs_twice_is_there_twice(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    from _pytest.runner import runtestprotocol  # what plugins that repeat tests call; there is no public name
    for _ in range(2):
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        runtestprotocol(item, nextitem=nextitem)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
    )
    run(pytester, "--vramsettle-report=out", "-k", "passes or holds")
    page = Reader(Path(pytester.path, "out", "index.html").read_text(encoding="utf-8"))
    assert page.seen.count("svg") == 4
    assert page.words.count(", run 2") == 2


AFTERWARDS = """
import pytest

@pytest.fixture
def early():
    yield
    raise RuntimeError("that came late")

def test_fails_afterwards(early, fake_driver, monotonic_clock):
    fake_driver.process(fake_driver.add_gpu("t4"), used="4 GiB").kill()

def test_fails_twice(early, fake_driver):
    fake_driver.add_gpu("t4")
    raise ValueError("a\\x00b\\x1b[31mc\\u202ed")
"""


def test_a_teardown_that_fails_is_a_failure_with_its_picture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(AFTERWARDS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--vramsettle-report=out", timeout=50)
    result.assert_outcomes(passed=1, failed=1, errors=2)
    result.stdout.fnmatch_lines(["*RuntimeError: that came late", "*timeline of the fake machine*", "*deaths*"])
    text = Path(pytester.path, "out", "index.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert "2 tests used the fake driver, 2 of them failed." in page.words
    assert page.words.count("RuntimeError: that came late") == 2
    # What the call said is kept; what a terminal would obey, or a browser turn around, is spelt out.
    assert r"ValueError: a\x00b\x1b[31mc\u202ed" in page.words
    assert not set("\x00\x1b\u202e") & set(text)


@pytest.mark.skipif(not hasattr(pytest, "Subtests"), reason="this pytest has no subtests")
def test_subtests_are_told_apart(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
def test_parts(fake_driver, subtests):
    for part in ("one", "two"):
        with subtests.test(part=part):
            fake_driver.add_gpu("t4")
"""
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--vramsettle-report=out", timeout=50)
    page = Reader(Path(pytester.path, "out", "index.html").read_text(encoding="utf-8"))
    assert set(re.findall(r"::test_parts \(part='?(\w+)'?\)", page.words)) == {"one", "two"}
