"""What nvidia-smi prints again and again, and how the GPUs are connected."""

from __future__ import annotations

import subprocess
import time

import pytest
from native_client import nvidia_smi

from fake_gpu import Driver
from fake_gpu.clock import RealClock
from pytest_vramsettle.clock import VirtualClock

HEADER = (
    "# gpu    pwr  gtemp  mtemp     sm    mem    enc    dec    jpg    ofa   mclk   pclk \n"
    "# Idx      W      C      C      %      %      %      %      %      %    MHz    MHz \n"
)


@pytest.fixture
def cards(driver: Driver) -> Driver:
    """An H200, and an RTX 4090 with a process."""
    driver.add_gpu("h200")
    driver.process(driver.add_gpu("rtx-4090"), "3 GiB", name="/opt/bin/llama-server", pid=4_200_000)
    return driver


def test_devices(cards: Driver) -> None:
    row = "    0     77     28     32      0      0      0      0      0      0   3201    345 \n"
    assert nvidia_smi("dmon", "-c", "1", "-i", "0").stdout == HEADER + row
    cards.gpus[0].activity.gpu_percent = 97
    assert nvidia_smi("dmon", "-c", "1", "-i", "0", "-s", "u").stdout.splitlines()[-1].split() == [
        *("0", "97", "0", "0", "0", "0", "0"),
    ]


def test_processes(cards: Driver) -> None:
    cards.gpus[1].processes[0].percent["sm"] = 88
    assert nvidia_smi("pmon", "-c", "1").stdout.splitlines()[2:] == [
        "    0          -     -      -      -      -      -      -      -    -              ",
        "    1    4200000     C     88      -      -      -      -      -    llama-server   ",
    ]
    memory = nvidia_smi("pmon", "-c", "1", "-s", "m", "-i", "1").stdout.splitlines()
    assert memory[0].split() == ["#", "gpu", "pid", "type", "fb", "ccpm", "command"]
    assert memory[2].split() == ["1", "4200000", "C", "3072", "0", "llama-server"]


def test_topology(cards: Driver) -> None:
    rows = nvidia_smi("topo", "-m").stdout.splitlines()
    assert rows[1].startswith("GPU0\t X \tNODE\t0-")
    cards.add_gpu("h200")
    assert nvidia_smi("topo", "-m").stdout.splitlines()[1].split("\t")[:4] == ["GPU0", " X ", "NODE", "NV18"]
    links = nvidia_smi("nvlink", "-s").stdout.splitlines()
    assert links[1] == "\t Link 0: 26.562 GB/s"
    assert links[20] == "Device does not have or support Nvlink"


@pytest.mark.parametrize(
    ("command", "covered"),
    [
        (("dmon", "-s", "xyz"), True),
        (("dmon", "-d", "11"), True),
        (("pmon", "-c", "0"), True),
        (("pmon", "-c"), True),
        (("topo", "-nonsense"), False),
        (("dmon", "--gpm-metrics", "6"), False),
        (("dmon", "--format", "xml"), True),
        (("pmon", "--format", "csv"), False),
    ],
)
def test_bad_arguments(cards: Driver, command: tuple[str, ...], covered: bool) -> None:
    done = nvidia_smi(*command)
    assert (done.returncode, done.stdout.startswith("ERROR: ")) == (2, True)
    assert cards.calls[-1].covered is covered


def test_five_rounds_take_four_virtual_seconds() -> None:
    with VirtualClock() as clock, Driver(clock=clock) as driver:
        gpu = driver.add_gpu("h200")
        driver.at("2.5s", lambda: setattr(gpu.activity, "gpu_percent", 50))
        before = clock.monotonic_ns()
        rows = nvidia_smi("dmon", "-c", "5", "-s", "u").stdout.splitlines()[2:]
        assert clock.monotonic_ns() - before == 4 * 10**9
        assert [row.split()[1] for row in rows] == ["0", "0", "0", "50", "50"]
        assert len(driver.calls) == 5


def test_a_loop_goes_on_until_it_is_ended() -> None:
    with Driver(clock=RealClock()) as driver:
        driver.add_gpu("h200")
        child = subprocess.Popen(
            ["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv", "-lms", "5"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(4)]
        child.terminate()
        child.wait(30)
        child.stdout.close()
    assert lines == ["index, memory.used [MiB]\n", *["0, 0 MiB\n"] * 3]


def test_a_loop_ends_when_no_gpu_is_left(cards: Driver) -> None:
    for gpu in cards.gpus:
        gpu.lose()
    before = time.monotonic()
    done = nvidia_smi("--query-gpu=index", "--format=csv,noheader", "-l", "600")
    assert (done.returncode, done.stdout.splitlines()[2:]) == (6, ["No devices were found"])
    assert time.monotonic() - before < 600
