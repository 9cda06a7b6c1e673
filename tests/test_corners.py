"""Corners that a change could break without anybody's noticing: each test here fails for one plausible wrong edit."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pynvml
import pytest
from native_client import free_seen_by_child, nvidia_smi, run_python
from nvml_client import nvml

from fake_gpu import Death, Driver, DriverStateError, Fault, Ramp
from fake_gpu.activation import sweep
from fake_gpu.units import GIB
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.kills import Kill, KillRecord
from pytest_vramsettle.settle import wait_for_vram_settle

# -- late answers on the virtual clock, through the real executable and library


def test_a_slow_nvidia_smi_answers_on_its_instant(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    fake_driver.add_gpu("t4")
    fake_driver.inject(Fault.slow("2s"), via="nvidia-smi", times=1)
    fake_driver.inject(Fault.slow("7s"), via="nvidia-smi", after=1)
    assert subprocess.run(["nvidia-smi", "-L"], timeout=5, stdout=subprocess.PIPE, check=True).stdout
    assert monotonic_clock.elapsed == 2.0
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["nvidia-smi", "-L"], timeout=5, stdout=subprocess.PIPE, check=True)
    assert monotonic_clock.elapsed == 7.0


def test_delays_add_up_and_a_hang_wins(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    fake_driver.add_gpu("t4")
    for delay in ("2s", "3s"):
        fake_driver.inject(Fault.slow(delay))
    pynvml.nvmlInit()
    assert monotonic_clock.elapsed == 5.0
    assert nvidia_smi("-L").returncode == 0
    assert monotonic_clock.elapsed == 10.0
    pynvml.nvmlShutdown()
    fake_driver.inject(Fault.hang(), times=1)
    fake_driver.inject(Fault.slow("1s"))
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["nvidia-smi", "-L"], timeout=100, stdout=subprocess.PIPE, check=True)
    assert fake_driver.calls[-1].code is None
    assert fake_driver.calls[-1].faults[-1] == Fault.slow("1s")


def test_two_clients_wait_at_once(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    fake_driver.add_gpu("t4")
    fake_driver.inject(Fault.slow("2s"), via="nvidia-smi", times=1)
    fake_driver.inject(Fault.slow("3s"), via="nvidia-smi", after=1)
    with subprocess.Popen(["nvidia-smi", "-L"], stdout=subprocess.DEVNULL) as first:
        while not fake_driver.calls:
            monotonic_clock.real_sleep(0.001)
        with subprocess.Popen(["nvidia-smi", "-L"], stdout=subprocess.DEVNULL) as second:
            assert first.wait() == second.wait() == 0
    assert monotonic_clock.elapsed == 3.0


# -- sessions, errors, forks


def test_nvml_stays_initialised_when_the_thread_that_did_it_ends() -> None:
    code = """
import threading, pynvml
thread = threading.Thread(target=pynvml.nvmlInit)
thread.start()
thread.join()
print(pynvml.nvmlDeviceGetCount())
"""
    with Driver() as driver:
        driver.add_gpu("t4")
        assert run_python(code).stdout == "1\n"


def test_a_mistake_in_the_model_is_unknown_to_every_client_and_told_to_the_test() -> None:
    code = """
import pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
try:
    pynvml.nvmlDeviceGetTemperature(handle, 0)
except pynvml.NVMLError as error:
    print(error.value, pynvml.nvmlDeviceGetCount())
"""
    driver = Driver().start()
    driver.add_gpu("t4").activity = None  # type: ignore[assignment]
    assert run_python(code).stdout == "999 1\n"
    assert nvidia_smi("--query-gpu=temperature.gpu", "--format=csv").returncode in (0, 255)
    with pytest.raises(Exception, match=r"NoneType|integer|argument"):
        driver.stop()
    driver.stop()


def test_an_error_of_the_body_is_told_what_the_driver_kept() -> None:
    def listener(death: Death) -> None:
        raise ValueError("of the listener")

    with pytest.raises(KeyError, match="of the body") as caught, Driver() as driver:  # noqa: PT012 - its end is tested
        driver.on_death(listener)
        driver.process(driver.add_gpu("t4"), used="1 GiB").kill()
        raise KeyError("of the body")
    assert any("of the listener" in note for note in caught.value.__notes__)


def test_a_lingering_fork_does_not_hide_the_owners_death(tmp_path: Path) -> None:
    code = """
import os, sys, time
from fake_gpu import Driver
driver = Driver(directory=sys.argv[1]).start()
driver.spawn(driver.add_gpu("t4"), used="1 GiB")
child = os.fork()
if child == 0:
    import gc
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    driver.processes.clear()
    gc.collect()
    for number in spare:
        os.fstat(number)  # nobody has closed it for us
    kept = [os.path.realpath("/proc/self/fd/" + number) for number in os.listdir("/proc/self/fd") if int(number) > 2]
    print(sum("pipe" in path for path in kept), flush=True)
time.sleep(30)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "0\n"
        os.kill(owner.pid, signal.SIGKILL)
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
        try:
            with Driver(directory=tmp_path):
                assert len(list(tmp_path.iterdir())) == 1
        finally:
            os.killpg(owner.pid, signal.SIGKILL)


@pytest.mark.parametrize("lock", [True, False])
def test_a_directory_that_is_being_made_is_not_swept(tmp_path: Path, lock: bool) -> None:
    made = tmp_path / f"fgpu-{os.getuid()}-new"
    made.mkdir()
    if lock:
        (made / "lock").touch()
    assert sweep(tmp_path) == []
    os.utime(made, (0, 0))
    assert sweep(tmp_path) == [made]


def test_a_frame_that_is_too_long_is_not_waited_for() -> None:
    with Driver() as driver, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(driver.environment["FAKE_GPU_SOCKET"])
        client.sendall(struct.pack("<4sBBHIiI", b"FGPU", 1, ord("S"), 0, 0, 0, (1 << 20) + 1))
        assert client.recv(1) == b""


def test_a_library_may_be_unloaded_while_a_thread_that_used_it_lives_on() -> None:
    code = """
import ctypes, _ctypes, threading
def use():
    library = ctypes.CDLL("libnvidia-ml.so.1")
    library.nvmlInit_v2()
    _ctypes.dlclose(library._handle)
for _ in range(20):
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
print("lives")
"""
    with Driver():
        assert run_python(code).stdout == "lives\n"


# -- the model


def test_growing_within_what_is_free(driver: Driver) -> None:
    process = driver.process(driver.add_gpu("t4"), used="10 GiB")
    process.hold("12 GiB")
    assert next(iter(process.used.values())) == 12 * GIB


def test_holding_more_on_a_gpu_that_is_not_there_or_not_ours(driver: Driver) -> None:
    gpu = driver.add_gpu("t4")
    process = driver.process(gpu, used="1 GiB")
    with pytest.raises(DriverStateError, match="belongs to another Driver"):
        process.hold("1 GiB", Driver().add_gpu("t4"))
    gpu.lose()
    with pytest.raises(DriverStateError, match="is lost"):
        process.hold("2 GiB")


def test_presence_and_index_are_of_now(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    first, second = fake_driver.add_gpu("t4"), fake_driver.add_gpu("t4")
    fake_driver.at("1s", first.remove)
    monotonic_clock.real_sleep(0)
    time.sleep(2)
    assert (first.presence.value, second.index) == ("removed", 0)


def test_a_ramp_before_its_death() -> None:
    assert Ramp.points([(0, 0.5)]).reclaimed(1000, -1) == 0


def test_memory_adds_up_while_threads_let_processes_live_and_die() -> None:
    wrong: list[object] = []
    over = threading.Event()
    with Driver() as driver:
        gpu = driver.add_gpu("t4")

        def live_and_die() -> None:
            while not over.is_set():
                try:
                    driver.process(gpu, used="9 GiB", reclaim=Ramp.immediate()).kill()
                except ValueError:
                    continue  # the other one has the memory

        def look() -> None:
            while not over.is_set():
                memory = gpu.memory
                if memory.free < 0 or memory.total != sum(memory[1:]):
                    wrong.append(memory)

        threads = [threading.Thread(target=target) for target in (live_and_die, live_and_die, look, look)]
        for thread in threads:
            thread.start()
        assert len(free_seen_by_child()) == 1
        over.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_missing_place_for_an_answer_is_an_invalid_argument(driver: Driver) -> None:
    gpu = driver.add_gpu("t4")
    assert nvml("nvmlDeviceGetMemoryInfo", ctypes.c_void_p(gpu.handle), None) == "INVALID_ARGUMENT"


# -- the record


def test_the_last_kill_is_the_latest_in_whatever_order_they_are_told() -> None:
    kills = KillRecord()
    now = time.monotonic_ns()
    kills.add(Kill(frozenset({5_000_001}), now))
    kills.add(Kill(frozenset({5_000_002}), now - 10**9))
    assert kills.last_kill_ns == now


def test_a_death_that_is_told_is_no_longer_watched() -> None:
    kills = KillRecord(probe=lambda: [(0, 1000)])
    with subprocess.Popen(["sleep", "100"]) as popen:
        kills.watch(popen.pid)
        assert f"watching [{popen.pid}]" in repr(kills)
        kills.add(Kill(frozenset({popen.pid}), time.monotonic_ns()))
        assert "watching []" in repr(kills)
        popen.kill()


def test_a_number_that_is_given_out_twice_dies_twice(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    gpu = fake_driver.add_gpu("rtx-4090")
    kills = KillRecord()
    from pytest_vramsettle.deaths import Follower

    Follower(kills).follow(fake_driver)
    for used in ("4 GiB", "14 GiB"):
        fake_driver.process(gpu, used=used, pid=4_200_000).kill(reclaim=Ramp.linear("2s"))
    assert wait_for_vram_settle(kills).outcome == "settled"
    assert gpu.memory.used <= 2 * 2**20


def test_the_callers_wish_comes_before_a_newer_kill() -> None:
    kills, cancel = KillRecord(), threading.Event()
    kills.stamp()

    def probe() -> list[tuple[int, int]]:
        kills.stamp()
        cancel.set()
        return [(0, 1000)]

    assert wait_for_vram_settle(kills, probe=probe, cancel=cancel).outcome == "cancelled"
