"""Faults as a caller of nvidia-smi meets them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from native_client import nvidia_smi

from fake_gpu import Driver, Fault

FREE = ("--query-gpu=index,memory.free", "--format=csv,noheader,nounits")
GOOD = "0, 143157\n1, 24115\n"
DELAY_S = 0.05


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        driver.add_gpu("h200", reserved="614 MiB")
        driver.add_gpu("rtx-4090")
        yield driver


def test_slow(driver: Driver) -> None:
    driver.inject(Fault.slow(DELAY_S), via="nvidia-smi")
    driver.inject(Fault.slow(DELAY_S))
    before = time.monotonic()
    assert nvidia_smi(*FREE).stdout == GOOD
    assert time.monotonic() - before >= 2 * DELAY_S
    assert driver.calls[0].faults == (Fault.slow(DELAY_S),) * 2
    assert driver.calls[0].code == 0


def never_answers(*command: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(["nvidia-smi", *command], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(DELAY_S)
    return child


def test_hang_ends_with_sigterm(driver: Driver) -> None:
    driver.inject(Fault.hang(), via="nvidia-smi", times=1)
    child = never_answers(*FREE)
    child.terminate()
    assert child.communicate(timeout=10)[0] == b""
    assert child.returncode == -signal.SIGTERM
    assert (driver.calls[0].code, driver.calls[0].pid) == (None, child.pid)
    assert nvidia_smi(*FREE).stdout == GOOD


def test_ignores_sigterm_ends_with_sigkill(driver: Driver) -> None:
    driver.inject(Fault.ignores_sigterm())
    child = never_answers(*FREE)
    wait_until_ignored(child.pid)
    child.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(DELAY_S)
    child.kill()
    assert child.communicate(timeout=10)[0] == b""
    assert child.returncode == -signal.SIGKILL
    assert driver.calls[0].code is None


def wait_until_ignored(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            ignored = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))
        if ignored & 1 << signal.SIGTERM - 1:
            return
        time.sleep(0.001)
    raise AssertionError("it does not ignore SIGTERM")


def test_holds_pipe(driver: Driver) -> None:
    driver.inject(Fault.holds_pipe())
    child = subprocess.Popen(["nvidia-smi", *FREE], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.wait(10) == 0
        os.set_blocking(child.stdout.fileno(), False)
        assert os.read(child.stdout.fileno(), 1000) == GOOD.encode()
        with pytest.raises(BlockingIOError):  # an end of file would give b""
            os.read(child.stdout.fileno(), 1000)
    assert driver.calls[0].code == 0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, ""),
        (2, "Invalid combination of input arguments"),
        (4, "Failed to initialize NVML: Insufficient Permissions\n"),
        (6, "No devices were found\n"),
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure"),
        (12, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system."),
        (15, "Failed to initialize NVML: GPU is lost\n"),
        (18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 590.48\n"),
        (77, "Failed to initialize NVML: Unknown Error\n"),
        (255, "Failed to initialize NVML: Unknown Error\n"),
    ],
)
def test_exit(driver: Driver, status: int, said: str) -> None:
    driver.inject(Fault.exit(status))
    done = nvidia_smi(*FREE)
    assert done.returncode == driver.calls[0].code == status
    assert done.stdout.startswith(said)
    assert bool(done.stdout) == bool(said)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ("DRIVER_NOT_LOADED", 9, "NVIDIA-SMI has failed because"),
        ("LIB_RM_VERSION_MISMATCH", 18, "Failed to initialize NVML: Driver/library version mismatch\n"),
        ("UNKNOWN", 255, "Failed to initialize NVML: Unknown Error\n"),
        ("NO_PERMISSION", 4, "Failed to initialize NVML: Insufficient Permissions\n"),
    ],
)
def test_nvml_errors_of_the_whole_run(driver: Driver, error: str, status: int, said: str) -> None:
    driver.inject(Fault.nvml(error))
    for command in ((), ("-L",), FREE):
        done = nvidia_smi(*command)
        assert done.returncode == status
        assert done.stdout.startswith(said)
    assert nvidia_smi("-h").returncode == 0


def test_nvml_errors_of_one_gpu(driver: Driver) -> None:
    driver.inject(Fault.nvml("GPU_IS_LOST"), gpu=driver.gpus[0], times=1)
    assert nvidia_smi(*FREE, "-i", "1").stdout == "1, 24115\n"  # it does not report that GPU
    done = nvidia_smi(*FREE)
    assert done.returncode == 0
    assert done.stdout == (
        "Unable to determine the device handle for GPU0: 0000:01:00.0: GPU is lost.  "
        "Reboot the system to recover this GPU\n1, 24115\n"
    )
    assert nvidia_smi(*FREE).stdout == GOOD
    driver.inject(Fault.nvml("UNKNOWN"), gpu=driver.gpus[1])
    done = nvidia_smi("-i", "1")
    assert done.returncode == 6
    assert done.stdout == (
        "Unable to determine the device handle for GPU1: 0000:02:00.0: Unknown Error\nNo devices were found\n"
    )


def test_gpu_is_lost_without_a_gpu_is_all_of_them(driver: Driver) -> None:
    driver.inject(Fault.nvml("GPU_IS_LOST"))
    done = nvidia_smi(*FREE)
    assert done.returncode == 6
    first, second, last = done.stdout.splitlines()
    assert [line.split(": ")[1] for line in (first, second)] == ["0000:01:00.0", "0000:02:00.0"]
    assert last == "No devices were found"


def test_not_supported_leaves_measurements_out(driver: Driver) -> None:
    driver.inject(Fault.nvml("NOT_SUPPORTED"), gpu=driver.gpus[0])
    done = nvidia_smi("--query-gpu=index,name,memory.free,utilization.gpu", "--format=csv,noheader,nounits")
    assert done.returncode == 0
    assert done.stdout == "0, NVIDIA H200, [N/A], [N/A]\n1, NVIDIA GeForce RTX 4090, 24115, 0\n"
    row = nvidia_smi().stdout.splitlines()[9]
    assert row == "| N/A   28C    P0             N/A /  N/A  | Not Supported          |     N/A      Default |"


def test_garbled(driver: Driver) -> None:
    driver.inject(Fault.garbled())
    done = nvidia_smi(*FREE)
    assert done.returncode == 0
    assert done.stdout == nvidia_smi(*FREE).stdout != GOOD
    assert not any(letter.isdigit() for letter in done.stdout)
    assert [len(line.split(", ")) for line in done.stdout.splitlines()] == [2, 2]


def test_truncated(driver: Driver) -> None:
    driver.inject(Fault.truncated())
    done = nvidia_smi(*FREE)
    assert done.returncode == 0
    assert done.stdout == GOOD[: len(GOOD) // 2]
    assert not done.stdout.endswith("\n")


def test_times_and_after_count_runs(driver: Driver) -> None:
    driver.inject(Fault.exit(9), after=1, times=2)
    assert [nvidia_smi(*FREE).returncode for _ in range(4)] == [0, 9, 9, 0]


def test_faults_of_nvml_alone_leave_nvidia_smi_alone(driver: Driver) -> None:
    driver.inject(Fault.nvml("UNKNOWN"), via="nvml")
    assert nvidia_smi(*FREE).stdout == GOOD
