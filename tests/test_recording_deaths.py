"""The `settle` and `kill_record` fixtures know of every death, whoever ended whom, and whenever they were asked for."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from native_client import run_python

from fake_gpu import Driver, DriverStateError, Fault, Gpu, Process, RealClock
from pytest_vramsettle.clock import ClockError, VirtualClock
from pytest_vramsettle.settle import SettleResult

Settle = Callable[..., SettleResult]


def by_own_popen(driver: Driver, gpu: Gpu) -> None:
    popen = subprocess.Popen(["sleep", "100"])
    driver.attach(popen, {gpu: "4 GiB"})
    popen.kill()
    popen.wait()


def by_the_puppets_popen(driver: Driver, gpu: Gpu) -> None:
    popen = driver.spawn(gpu, used="4 GiB").popen
    assert popen is not None
    popen.kill()
    popen.wait()


def by_signal(number: signal.Signals) -> Callable[[Driver, Gpu], None]:
    return lambda driver, gpu: os.kill(driver.spawn(gpu, used="4 GiB").pid, number)  # nobody waits for it


ENDS = [by_own_popen, by_the_puppets_popen, by_signal(signal.SIGKILL), by_signal(signal.SIGTERM)]


@pytest.mark.parametrize("end", ENDS)
def test_a_real_process_that_died_a_moment_ago(
    fake_driver: Driver, monotonic_clock: VirtualClock, settle: Settle, end: Callable[[Driver, Gpu], None]
) -> None:
    gpu = fake_driver.add_gpu("t4")
    for _ in range(5):
        end(fake_driver, gpu)
        assert settle().outcome == "settled"
        assert gpu.memory.used == 0


@pytest.mark.parametrize("end", ENDS)
def test_the_same_in_real_time(fake_driver: Driver, settle: Settle, end: Callable[[Driver, Gpu], None]) -> None:
    gpu = fake_driver.add_gpu("t4")
    end(fake_driver, gpu)
    assert settle().outcome == "settled"
    assert gpu.memory.used == 0


@pytest.fixture
def crashed(fake_driver: Driver, monotonic_clock: VirtualClock) -> Process:
    process = fake_driver.process(fake_driver.add_gpu("t4"), used="4 GiB")
    process.kill()
    return process


def test_a_death_before_the_record_was_made(crashed: Process, settle: Settle) -> None:
    assert settle().outcome == "settled"
    assert settle().outcome == "no_recent_kill"


def test_a_driver_of_ones_own(monotonic_clock: VirtualClock, settle: Settle) -> None:
    with Driver(clock=monotonic_clock) as driver:
        driver.process(driver.add_gpu("t4"), used="4 GiB").kill()
        assert settle().outcome == "settled"
    assert settle(since_kill=0.0).outcome == "no_recent_kill"


# -- one time for everybody


def test_a_driver_on_real_time_under_a_virtual_clock_is_refused(monotonic_clock: VirtualClock) -> None:
    with pytest.raises(DriverStateError, match=r"pass that clock, Driver\(clock=clock\)"):
        Driver().start()
    with Driver(clock=RealClock()) as driver:  # meant so
        assert driver.gpus == ()


def test_a_virtual_clock_over_a_driver_on_real_time_is_refused(
    fake_driver: Driver, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ClockError, match="name monotonic_clock among the test's arguments"):
        request.getfixturevalue("monotonic_clock")


def test_a_start_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(RealClock):
        def before_jump(self, callback: object) -> Callable[[], None]:
            raise RuntimeError("no")

    before = dict(os.environ)
    with pytest.raises(RuntimeError, match="no"):
        Driver(clock=Broken()).start()
    assert dict(os.environ) == before
    with Driver():
        pass


def test_clients_that_come_while_the_driver_stops() -> None:
    code = """
import os, pynvml
from fake_gpu import Driver
def hammer():
    while True:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            os._exit(0)
for _ in range(20):
    with Driver() as driver:
        children = [pid for pid in (os.fork() for _ in range(3)) if pid or hammer()]
        while len(driver.calls) < 3:
            pass
    for pid in children:
        os.waitpid(pid, 0)
print("ended well")
"""
    assert run_python(code).stdout == "ended well\n"


def test_ten_thousand_scheduled_calls(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    ran: list[int] = []
    for number in range(10_000):
        fake_driver.at(number / 1000, lambda number=number: ran.append(number))  # type: ignore[misc]
    monotonic_clock.advance(10)
    assert ran == list(range(10_000))


def test_a_link_to_nvidia_smi_finds_the_driver(fake_driver: Driver, tmp_path: object) -> None:
    fake_driver.add_gpu("t4")
    link = os.path.join(str(tmp_path), "smi")
    os.symlink(os.path.join(fake_driver.environment["PATH"].split(":")[0], "nvidia-smi"), link)
    done = subprocess.run([link, "-L"], env={}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("GPU 0: Tesla T4")
    fake_driver.inject(Fault.exit(9))
    assert subprocess.run([link], env={}, capture_output=True, check=False).returncode == 9


def test_a_driver_that_lives_for_thousands_of_processes(fake_driver: Driver) -> None:
    gpu = fake_driver.add_gpu("t4")
    fake_driver.spawn(gpu, used="1 GiB").kill()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        fake_driver.spawn(gpu, used="1 MiB").kill()
    # One for each process would be 30; the last deaths may just be on their way, and earlier tests' garbage may go.
    assert len(os.listdir("/proc/self/fd")) < before + 10
