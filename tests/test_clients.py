"""Unmodified gpustat, nvitop, GPUtil, nvidia-ml-py and py3nvml read the script, here and in a process of their own.

All five can be used in the process that has the driver, one driver after another. Two of them need care there, which
`in_this_process` takes: gpustat replaces two functions of pynvml for everybody when it is imported, and nvitop
initialises NVML once and keeps it so until it is told to let go.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu_clients import READERS, Card, Place, in_a_child, in_this_process

from fake_gpu import Driver, Fault, Gpu, Process, Ramp, RealClock
from fake_gpu.units import GIB, MIB

PLATEAU = Ramp.points([("200ms", 0.0), ("1200ms", 0.5), ("2s", 0.5), ("2s", 1.0)])
"""Nothing, then half of it within a second, then nothing, then the rest at once."""


@dataclass(frozen=True)
class Script:
    """Bytes that a card of the test's has, apart from who holds them."""

    profile: str
    name: str
    total: int
    reserved: int


BIG = Script("h200", "NVIDIA H200", 143771 * MIB, 613 * MIB + MIB // 2)
SMALL = Script("rtx-4090", "NVIDIA GeForce RTX 4090", 24 * GIB - 12 * MIB, 449 * MIB)
HELD_ON_BIG, HELD_ON_SMALL = 64 * GIB, 20 * GIB + 300_000
"""The second is no whole number of MiB, so that rounding shows."""


class Machine:
    """Two cards, a real process on each, and a clock that the test sets."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000
        self.driver = Driver(clock=RealClock(lambda: self.now_ns))
        self.big, self.small = (self._add(script) for script in (BIG, SMALL))
        self.server: Process
        self.tenant: Process

    def _add(self, script: Script) -> Gpu:
        return self.driver.add_gpu(script.profile, memory=script.total, reserved=script.reserved)

    def start(self) -> None:
        self.server = self.driver.spawn(self.big, used=HELD_ON_BIG, reclaim=PLATEAU)
        self.tenant = self.driver.spawn(self.small, used=HELD_ON_SMALL, name="/opt/python")

    def kill_server(self) -> None:
        """As any supervisor would: not by way of the driver."""
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def big_card(self, client: str, used: int = HELD_ON_BIG, *, alive: bool = True) -> Card:
        return expected(client, BIG, used, {self.server.pid: HELD_ON_BIG} if alive else {})

    def small_card(self, client: str) -> Card:
        return expected(client, SMALL, HELD_ON_SMALL, {self.tenant.pid: HELD_ON_SMALL})


def expected(client: str, script: Script, used: int, held: dict[int, int]) -> Card:
    """What a client makes of a card."""
    free = script.total - script.reserved - used
    processes = {str(pid): size for pid, size in held.items()}
    exact: Card = {"name": script.name, "total": script.total, "used": used, "free": free, "processes": processes}
    match client:
        case "py3nvml":  # the first version of the memory call counts what is reserved as used
            return {**exact, "used": used + script.reserved}
        case "gpustat":  # MiB, cut off
            cut = {pid: size // MIB for pid, size in processes.items()}
            return {"name": script.name, "total": script.total // MIB, "used": used // MIB, "processes": cut}
        case "GPUtil":  # MiB, as nvidia-smi rounds them: up
            total, used_up, free_up = (-(-size // MIB) for size in (script.total, used, free))
            return {"name": script.name, "total": total, "used": used_up, "free": free_up}
    return exact


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    with machine.driver:
        machine.start()
        yield machine


# -- every client, in a process of its own and in this one

# Python 3.11 warns of distutils, which GPUtil imports; later Pythons have it from setuptools alone, without a warning.
DATED = {
    ("GPUtil", "here"): pytest.mark.filterwarnings("ignore:The distutils package is deprecated:DeprecationWarning")
}

every_client = pytest.mark.parametrize(
    ("client", "place"),
    [
        pytest.param(client, place, id=f"{client}-{where}", marks=DATED.get((client, where), ()))
        for where, place in (("child", in_a_child), ("here", in_this_process))
        for client in READERS
    ],
)


@every_client
def test_a_healthy_machine(machine: Machine, client: str, place: Place) -> None:
    with place(client) as read:
        assert read() == [machine.big_card(client), machine.small_card(client)]
    here = {call.pid == os.getpid() for call in machine.driver.calls if call.via == "nvml"}
    assert here <= {place == in_this_process}  # and none at all from GPUtil, which runs nvidia-smi


@every_client
def test_memory_comes_back_after_a_kill(machine: Machine, client: str, place: Place) -> None:
    with place(client) as read:
        assert read()[0] == machine.big_card(client)
        died_ns = machine.now_ns
        machine.kill_server()
        for after_ms, used in ((0, 64), (700, 48), (1999, 32), (2000, 0)):
            machine.now_ns = died_ns + after_ms * 1_000_000
            # The process is off every list at once; its memory is what takes time.
            assert read() == [machine.big_card(client, used * GIB, alive=False), machine.small_card(client)]


@every_client
def test_a_removed_gpu_is_not_counted(machine: Machine, client: str, place: Place) -> None:
    machine.driver.at("5s", machine.big.remove)
    with place(client) as read:
        machine.now_ns += 4_999_999_999
        assert len(read()) == 2
        machine.now_ns += 1
        assert read() == [machine.small_card(client)]
        machine.big.restore()
        assert read() == [machine.big_card(client), machine.small_card(client)]


FAILURES = {
    "pynvml": ("NVMLError_GpuIsLost", "NVMLError_Unknown"),
    "py3nvml": ("NVMLError_GpuIsLost", "NVMLError_Unknown"),
    "gpustat": ("((GPU is lost))", "((Unknown Error))"),
    "nvitop": ("ERROR: GPU is Lost", "N/A"),
    "GPUtil": (
        "'Unable to determine the device handle for GPU0: 0000:01:00.0: "
        "GPU is lost.  Reboot the system to recover this GPU'",
        "'Unable to determine the device handle for GPU0: 0000:01:00.0: Unknown Error'",
    ),
}
"""How each client reports a GPU that is lost, and one that answers UNKNOWN.

The bindings raise. gpustat and nvitop show a card without values. GPUtil fails to read an index out of nvidia-smi's
complaint, and loses the healthy card with it: its ValueError is all that the caller gets.
"""


@every_client
def test_a_gpu_that_fails_is_reported(machine: Machine, client: str, place: Place) -> None:
    lost, unknown = FAILURES[client]
    healthy: list[Card] = [] if client == "GPUtil" else [machine.small_card(client)]
    with place(client) as read:
        machine.big.lose()
        assert read() == [{"error": lost}, *healthy]
        machine.big.restore()
        take_back = machine.driver.inject(Fault.nvml("UNKNOWN"), gpu=machine.big)
        assert read() == [{"error": unknown}, *healthy]
        take_back()
        assert read() == [machine.big_card(client), machine.small_card(client)]


def test_clients_in_this_process_go_from_one_driver_to_the_next() -> None:
    for _ in range(2):
        machine = Machine()
        with machine.driver:
            machine.start()
            for client in ("pynvml", "py3nvml", "nvitop", "gpustat"):
                with in_this_process(client) as read:
                    assert read() == [machine.big_card(client), machine.small_card(client)]


# -- the programs


def run_program(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_gpustat_json(machine: Machine) -> None:
    told = json.loads(run_program("gpustat", "--json"))
    assert told["driver_version"] == machine.driver.driver_version
    for index, (gpu, script, process, held) in enumerate(
        ((machine.big, BIG, machine.server, HELD_ON_BIG), (machine.small, SMALL, machine.tenant, HELD_ON_SMALL))
    ):
        card = told["gpus"][index]
        assert (card["index"], card["uuid"], card["name"]) == (index, gpu.uuid, script.name)
        assert (card["memory.used"], card["memory.total"]) == (held // MIB, script.total // MIB)
        (shown,) = card["processes"]
        assert (shown["pid"], shown["gpu_memory_usage"]) == (process.pid, held // MIB)
        assert shown["full_command"] == [process.name]


def gpustat_lines() -> list[str]:
    """Memory and processes of each card."""
    rows = run_program("gpustat", "-cp", "--no-color").splitlines()[1:]
    return [" | ".join(row.split(" | ")[2:]).strip() for row in rows]


def test_gpustat_in_text(machine: Machine) -> None:
    small = f"20480 / 24564 MB | python/{machine.tenant.pid}(20480M)"
    assert gpustat_lines() == [f"65536 / 143771 MB | llama-server/{machine.server.pid}(65536M)", small]
    machine.kill_server()
    machine.now_ns += 700_000_000
    assert gpustat_lines() == ["49152 / 143771 MB |", small]


def nvitop_tables() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(used, total) of each card, and (PID, memory) of each process."""
    cards, processes = run_program("nvitop", "-1").split("Processes:")
    return re.findall(r"│\s+(\S+GiB) / (\S+GiB) │", cards), re.findall(r"(\d+) C +\S+ (\S+GiB)", processes)


def test_nvitop_once(machine: Machine) -> None:
    cards, processes = nvitop_tables()
    assert cards == [("64.00GiB", "140.4GiB"), ("20.00GiB", "23.99GiB")]
    assert processes == [(str(machine.server.pid), "64.00GiB"), (str(machine.tenant.pid), "20.00GiB")]
    machine.kill_server()
    machine.now_ns += 700_000_000
    cards, processes = nvitop_tables()
    assert cards == [("48.00GiB", "140.4GiB"), ("20.00GiB", "23.99GiB")]
    assert processes == [(str(machine.tenant.pid), "20.00GiB")]


def test_nothing_that_the_programs_ask_is_beyond_the_fake(machine: Machine) -> None:
    run_program("gpustat", "--json", "-a")
    run_program("nvitop", "-1")
    for client in ("GPUtil", "py3nvml"):
        with in_a_child(client) as read:
            read()
    assert machine.driver.calls
    assert sorted({call.name for call in machine.driver.calls if not call.covered}) == []
