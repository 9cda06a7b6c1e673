"""Real processes: whoever ends them, their memory follows its ramp from that instant."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from native_client import descendants, free_seen_by_child, run_python

from fake_gpu import Death, Driver, DriverStateError, Ramp
from fake_gpu.units import GIB


def test_a_spawned_process_really_exists_and_ends_with_the_driver() -> None:
    before = descendants()
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        process = driver.spawn(gpu, used="4 GiB", name="llama-server")
        os.kill(process.pid, 0)
        with open(f"/proc/{process.pid}/comm", encoding="ascii") as file:
            assert file.read() == "llama-server\n"
        assert process.alive
        assert gpu.memory.used == 4 * GIB
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    assert descendants() == before


def test_a_process_killed_by_somebody_else_starts_its_ramp() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        process = driver.spawn(gpu, used="4 GiB", reclaim=Ramp.never())
        total_free = gpu.memory.free
        run_python("import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGKILL)", str(process.pid))
        process.wait()
        assert not process.alive
        assert gpu.memory.used == 4 * GIB
        assert gpu.processes == []
        assert free_seen_by_child() == [total_free]
        assert process.died_ns is not None


def test_the_death_is_stamped_when_it_happens_not_when_somebody_looks() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        process = driver.spawn(gpu, used="4 GiB", reclaim=Ramp.linear("10s"))
        deaths: list[Death] = []
        driver.on_death(deaths.append)
        before = time.monotonic_ns()
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while not deaths and time.monotonic() < deadline:
            time.sleep(0.001)  # no reading of ours: the driver notices by itself
        assert deaths[0].pid == process.pid
        assert before <= deaths[0].when_ns <= time.monotonic_ns()
        assert process.died_ns == deaths[0].when_ns


def test_kill_returns_when_the_process_is_gone() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        process = driver.spawn(gpu, used="4 GiB")
        process.kill(reclaim=Ramp.immediate())
        assert not process.alive
        assert gpu.memory.used == 0
        with pytest.raises(ProcessLookupError):  # reaped: no zombie that other clients take for a living process
            os.kill(process.pid, 0)


def test_a_process_that_ignores_sigterm() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        process = driver.spawn(gpu, used="4 GiB", ignores_sigterm=True)
        process.terminate()
        with pytest.raises(DriverStateError, match=r"still lives after 0\.05 s"):
            process.wait(0.05)
        process.kill()
        polite = driver.spawn(gpu, used="4 GiB")
        polite.terminate()
        polite.wait()
        assert not polite.alive


def test_an_attached_popen_and_its_zombie() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        with subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as popen:
            process = driver.attach(popen, {gpu: "2 GiB"}, reclaim=Ramp.never())
            assert process.alive
            assert popen.stdout is not None
            popen.stdout.readline()  # before it has been executed its name is that of whoever started it
            assert process.name == sys.executable
            popen.communicate(b"\n", timeout=10)
            assert not process.alive
            assert process.name == sys.executable
        with subprocess.Popen(["/bin/sh", "-c", "read x"], stdin=subprocess.PIPE) as popen:
            process = driver.attach(popen.pid, {gpu: "2 GiB"})
            popen.kill()
            process.wait()
            assert not process.alive  # a zombie, which nobody has reaped yet, has died


def test_attaching_what_is_not_there() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        with pytest.raises(DriverStateError, match="there is no process 4194300: attach a process that runs"):
            driver.attach(4194300, {gpu: "1 GiB"})


def test_only_a_virtual_process_can_be_told_to_exit() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("t4")
        with pytest.raises(DriverStateError, match=r"is a real process: end it from inside, or kill\(\) it"):
            driver.spawn(gpu, used="1 GiB").exit()
        with pytest.raises(DriverStateError, match="is virtual: only kill"):
            driver.process(gpu, used="1 GiB").wait()


def test_spawning_needs_an_active_driver() -> None:
    driver = Driver()
    with pytest.raises(DriverStateError, match="is not active: use it in a with statement"):
        driver.spawn(driver.add_gpu("t4"), used="1 GiB")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_puppets_do_not_outlive_an_owner_that_is_killed(number: signal.Signals) -> None:
    code = """
import os, sys, time
from fake_gpu import Driver
driver = Driver().start()
gpu = driver.add_gpu("t4")
pids = driver.spawn(gpu, used="1 GiB").pid, driver.spawn(gpu, used="1 GiB", ignores_sigterm=True).pid
if os.fork() == 0:  # a forked child that lives on holds copies of everything, and must not keep them alive
    time.sleep(30)
print(*pids, flush=True)
time.sleep(30)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        watched = [os.pidfd_open(pid) for pid in pids]
        try:
            os.kill(owner.pid, number)
            owner.wait(10)
            from fake_gpu.process import wait_for_pidfd

            assert all(wait_for_pidfd(pidfd, 5) for pidfd in watched)
        finally:
            os.killpg(owner.pid, signal.SIGKILL)
            for pidfd in watched:
                os.close(pidfd)
