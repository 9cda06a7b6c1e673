"""The plugin: fixtures, markers, reports, and what those pay who do not use it. Each test runs a pytest of its own."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

FIRST_TEST = """
from fake_gpu import Ramp

def test_reload_sees_the_memory_come_back(fake_driver, monotonic_clock, settle):
    gpu = fake_driver.add_gpu("rtx-4090")
    server = fake_driver.process(gpu, used="20 GiB")
    server.kill(reclaim=Ramp.linear("600ms", after="150ms"))
    result = settle()
    assert result.outcome == "settled"
    assert result.missing_mib == 0
    assert 0.75 <= monotonic_clock.elapsed < 1.5
"""


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the inner runs make their private directories; other tests of ours use another one at the same time."""
    with tempfile.TemporaryDirectory(prefix="inner-") as made:
        monkeypatch.setenv("TMPDIR", made)
        yield Path(made)


def left_in(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("fgpu-*")]


def run(pytester: pytest.Pytester, code: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(code)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=50)


def test_the_first_example_passes_in_any_order_of_fixtures(pytester: pytest.Pytester) -> None:
    orders = ["monotonic_clock, settle, fake_driver", "settle, fake_driver, monotonic_clock"]
    code = FIRST_TEST
    for number, order in enumerate(orders):
        body = FIRST_TEST.partition("def test_reload_sees_the_memory_come_back(fake_driver, monotonic_clock, settle)")[
            2
        ]
        code += f"\ndef test_order_{number}({order}){body}"
    run(pytester, code).assert_outcomes(passed=3)


def test_the_fixtures_and_markers_are_documented(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--fixtures", "-q")
    result.stdout.re_match_lines_random(
        [r"fake_driver.*", r"monotonic_clock.*", r"settle.*", r"kill_record.*", r".*fake NVIDIA driver without GPUs.*"]
    )
    result = pytester.runpytest_subprocess("--markers", "--strict-markers")
    result.stdout.fnmatch_lines(
        ["@pytest.mark.virtual_clock(seed=, wall=, child_grace=): *", "@pytest.mark.real_gpu: *"]
    )


def test_a_failing_test_shows_the_fake_machine(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
import subprocess
from fake_gpu import Fault, Ramp

def test_fails(fake_driver, monotonic_clock):
    gpu = fake_driver.add_gpu("t4")
    fake_driver.process(gpu, used="4 GiB", name="vllm").kill(reclaim=Ramp.never())
    monotonic_clock.advance(1.5)
    fake_driver.inject(Fault.exit(9), via="nvidia-smi")
    subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.DEVNULL)
    assert gpu.memory.used == 0
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- fake NVIDIA driver -*",
            "*<Gpu 'Tesla T4' * index 0>: * MiB free of 15360, 388 reserved",
            "*vllm (pid *), virtual, died 1.500 s ago: 4 GiB on GPU *; Ramp.never()",
            "*1 calls:",
            "*nvidia-smi nvidia-smi -L -> 9  Fault.exit(9)",
        ]
    )


def test_a_passing_test_shows_nothing_of_it(pytester: pytest.Pytester) -> None:
    result = run(pytester, FIRST_TEST, "-rA")
    assert "fake NVIDIA driver" not in result.stdout.str()


def test_the_virtual_clock_marker(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
import time
import pytest
from pytest_vramsettle.clock import VirtualClock

@pytest.mark.virtual_clock
def test_sleeps_an_hour():
    before = time.monotonic_ns()
    time.sleep(3600)
    assert time.monotonic_ns() - before == 3600 * 10**9

@pytest.mark.virtual_clock
def test_gets_the_same_clock(monotonic_clock):
    time.sleep(1)
    assert monotonic_clock.elapsed == 1.0
""",
        "--strict-markers",
    )
    result.assert_outcomes(passed=2)


def test_a_wrong_marker_argument_is_an_error_by_name(pytester: pytest.Pytester) -> None:
    result = run(pytester, "import pytest\n@pytest.mark.virtual_clock(sede=7)\ndef test_it(): pass\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*test_it: @pytest.mark.virtual_clock does not take sede=: it takes seed=, wall=, child_grace=*"]
    )


def test_a_test_that_needs_a_real_gpu_says_why_it_is_skipped(pytester: pytest.Pytester) -> None:
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has an NVIDIA driver")
    result = run(pytester, "import pytest\n@pytest.mark.real_gpu\ndef test_it(): raise AssertionError\n", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*needs a real NVIDIA GPU: no NVIDIA kernel driver is loaded*"])


def test_settle_without_a_driver_of_ours_asks_the_machine(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_it(settle): assert settle().outcome == 'no_recent_kill'\n")
    result.assert_outcomes(passed=1)


def test_drivers_in_parallel_workers_do_not_meet(pytester: pytest.Pytester, directory: Path) -> None:
    result = run(
        pytester,
        """
import subprocess, sys
import pytest

READ = "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount())"

@pytest.mark.parametrize("count", range(1, 9))
def test_each_sees_its_own_cards(fake_driver, count):
    for _ in range(count):
        fake_driver.spawn(fake_driver.add_gpu("t4"), used="1 GiB")
    listed = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert len(listed.splitlines()) == count
    assert subprocess.run([sys.executable, "-c", READ], stdout=subprocess.PIPE, text=True).stdout == f"{count}\\n"
""",
        "-n",
        "2",
    )
    result.assert_outcomes(passed=8)
    assert left_in(directory) == []


def test_nothing_is_left_after_ctrl_c(pytester: pytest.Pytester, directory: Path) -> None:
    result = run(
        pytester,
        """
import os, time

def test_interrupted(fake_driver, monotonic_clock, settle):
    print("puppet", fake_driver.spawn(fake_driver.add_gpu("t4"), used="1 GiB").pid, end=" .")
    raise KeyboardInterrupt

def test_never_runs():
    pass
""",
        "-s",
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    found = re.search(r"puppet (\d+) ", result.stdout.str())
    assert found
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[1]), 0)
    assert left_in(directory) == []


def test_everything_is_back_after_tests_of_every_kind(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
import os, selectors, subprocess, threading, time
import pytest

def state():
    patched = [time.monotonic, time.monotonic_ns, time.sleep, time.perf_counter, threading.Condition.wait,
               threading.Thread.start, threading.Thread.join, subprocess.Popen.__init__, subprocess.Popen.wait,
               selectors.DefaultSelector.select]
    return patched, dict(os.environ), len(os.listdir("/proc/self/fd")), threading.active_count()

def leave_out(environment):
    return {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}

START = []

def test_first(fake_driver, monotonic_clock, settle):
    pass

def test_now():
    START.append(state())

def test_passes(fake_driver, monotonic_clock, settle):
    fake_driver.spawn(fake_driver.add_gpu("t4"), used="1 GiB").kill()
    settle()

def test_fails(fake_driver, monotonic_clock, settle):
    fake_driver.spawn(fake_driver.add_gpu("t4"), used="1 GiB")
    threading.Thread(target=lambda: time.sleep(100), daemon=True).start()
    raise AssertionError

@pytest.mark.xfail(raises=ValueError)
def test_raises(fake_driver, monotonic_clock):
    fake_driver.at("1s", lambda: int("x"))
    monotonic_clock.advance(2)
    fake_driver.stop()

def test_then():
    patched, environment, descriptors, threads = state()
    assert patched == START[0][0]
    assert leave_out(environment) == leave_out(START[0][1])
    assert descriptors <= START[0][2]
    assert threads == START[0][3]
""",
    )
    result.assert_outcomes(passed=4, failed=1, xfailed=1)


def test_a_run_that_does_not_use_the_plugin_imports_nothing_of_it(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
import sys

def test_it():
    assert "pytest_vramsettle.plugin" in sys.modules
    ours = {name for name in sys.modules if name.startswith(("fake_gpu", "pytest_vramsettle"))}
    used = {"plugin", "fixtures", "left", "options", "_clock_arguments"}
    assert ours == {"pytest_vramsettle", *(f"pytest_vramsettle.{name}" for name in used)}
    assert not {"msgspec", "pynvml", "freezegun", "rich", "typer"} & set(sys.modules)
""",
    )
    result.assert_outcomes(passed=1)


def test_production_code_imports_the_wait_without_pytest() -> None:
    from native_client import run_python

    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in "pytest _pytest freezegun fake_gpu msgspec pynvml rich typer".split():
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, Refuse())
import pytest_vramsettle.settle, pytest_vramsettle.kills, pytest_vramsettle.probes
import pytest_vramsettle.policies, pytest_vramsettle.peers
standard = set(sys.stdlib_module_names) | {"pytest_vramsettle", "__main__", "sitecustomize", "usercustomize"}
others = {name.partition(".")[0] for name in sys.modules} - standard
print(sorted(name for name in others if not name.startswith("_")))
from pytest_vramsettle.settle import wait_for_vram_settle
print(wait_for_vram_settle(since_kill=0.0).outcome)
"""
    assert run_python(code).stdout.split("\n")[:2] == ["[]", "no_recent_kill"]


def test_a_record_that_cannot_see_a_virtual_death_is_named(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
import pytest
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.settle import wait_for_vram_settle

def kill_and_wait(process):
    kills = KillRecord()
    with kills.recording(process.pid):
        process.kill()
    return wait_for_vram_settle(kills).outcome

def test_virtual(fake_driver, monotonic_clock):
    process = fake_driver.process(fake_driver.add_gpu("t4"), used="4 GiB")
    assert wait_for_vram_settle(KillRecord()).outcome == "no_recent_kill"
    assert kill_and_wait(process) == "no_recent_kill"

def test_real(fake_driver, monotonic_clock):
    assert kill_and_wait(fake_driver.spawn(fake_driver.add_gpu("t4"), used="4 GiB")) == "settled"

@pytest.mark.filterwarnings("ignore:a settle wait ended with")
def test_cold_whoever_died(fake_driver, monotonic_clock):
    fake_driver.process(fake_driver.add_gpu("t4"), used="4 GiB").kill()
    assert wait_for_vram_settle(since_kill=0.0).outcome == "no_recent_kill"

def test_nothing_died(fake_driver, monotonic_clock):
    process = fake_driver.process(fake_driver.add_gpu("t4"), used="4 GiB")
    assert wait_for_vram_settle(KillRecord()).outcome == "no_recent_kill"
    process.kill()

def test_the_fixture_is_told(fake_driver, monotonic_clock, settle):
    fake_driver.process(fake_driver.add_gpu("t4"), used="4 GiB").kill()
    assert wait_for_vram_settle(KillRecord()).outcome == "no_recent_kill"
""",
    )
    result.assert_outcomes(passed=5, warnings=1)
    result.stdout.fnmatch_lines(["*::test_virtual", "*UnseenDeathWarning*llama-server (pid *fake_driver.spawn*"])
