"""What unmodified NVML and nvidia-smi clients say of each GPU, in one shape and in their own units.

Imported, a reader reads in this process. Run as `python gpu_clients.py NAME` it is a monitor: it reads once for every
line on its standard input, and prints what it read as a line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import TypedDict

import pynvml


class Card(TypedDict, total=False):
    """One GPU as a client tells of it; what the client does not tell is left out. A failure has `error` alone."""

    name: str
    total: float
    used: float
    free: float
    processes: dict[str, int]
    """Memory by PID; the PID is a text, as it is after a journey through JSON."""
    error: str


def _nvml_card(nvml: ModuleType, index: int, version: int | None) -> Card:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, *([] if version is None else [version]))
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return {
            "name": nvml.nvmlDeviceGetName(handle),
            "total": memory.total,
            "used": memory.used,
            "free": memory.free,
            "processes": {str(process.pid): process.usedGpuMemory for process in processes},
        }
    except nvml.NVMLError as error:
        return {"error": type(error).__name__}


def _nvml_cards(nvml: ModuleType, version: int | None = None) -> list[Card]:
    nvml.nvmlInit()
    try:
        return [_nvml_card(nvml, index, version) for index in range(nvml.nvmlDeviceGetCount())]
    finally:
        nvml.nvmlShutdown()


def read_pynvml() -> list[Card]:
    """nvidia-ml-py with the second version of the memory call: bytes."""
    return _nvml_cards(pynvml, pynvml.nvmlMemory_v2)


def read_py3nvml() -> list[Card]:
    """py3nvml, which knows the first versions of all calls only: bytes, and what is reserved counts as used."""
    from py3nvml import py3nvml

    return _nvml_cards(py3nvml)


def read_gpustat() -> list[Card]:
    """gpustat: whole MiB, cut off."""
    import gpustat

    return [
        {
            "name": stat.name,
            "total": stat.memory_total,
            "used": stat.memory_used,
            "processes": {str(one["pid"]): one["gpu_memory_usage"] for one in stat.processes},
        }
        if stat.available
        else {"error": stat.name}
        for stat in gpustat.new_query()
    ]


def read_nvitop() -> list[Card]:
    """nvitop: bytes. It says of a GPU that it cannot read that everything is "N/A"."""
    from nvitop import NA, Device

    return [
        {"error": device.name()}
        if device.memory_total() == NA
        else {
            "name": device.name(),
            "total": device.memory_total(),
            "used": device.memory_used(),
            "free": device.memory_free(),
            "processes": {str(pid): process.gpu_memory() for pid, process in device.processes().items()},
        }
        for device in Device.all()
    ]


def read_gputil() -> list[Card]:
    """GPUtil: MiB as nvidia-smi prints them; it knows no processes, and one bad line spoils the whole reading."""
    import GPUtil

    try:
        return [
            {"name": gpu.name, "total": gpu.memoryTotal, "used": gpu.memoryUsed, "free": gpu.memoryFree}
            for gpu in GPUtil.getGPUs()
        ]
    except ValueError as error:
        return [{"error": str(error).partition(": ")[2]}]


Read = Callable[[], list[Card]]
Place = Callable[[str], AbstractContextManager[Read]]
"""Given a client's name: where it reads."""

READERS: dict[str, Read] = {
    "pynvml": read_pynvml,
    "py3nvml": read_py3nvml,
    "gpustat": read_gpustat,
    "nvitop": read_nvitop,
    "GPUtil": read_gputil,
}


@contextmanager
def in_a_child(client: str) -> Iterator[Read]:
    """A monitor that goes on running, as monitors do: the same process reads again and again."""
    with subprocess.Popen(
        [sys.executable, __file__, client], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        asking, answers = child.stdin, child.stdout
        assert asking is not None
        assert answers is not None

        def read() -> list[Card]:
            asking.write("read\n")
            asking.flush()
            cards: list[Card] = json.loads(answers.readline())
            return cards

        yield read
        asking.close()
        assert child.wait(10) == 0


@contextmanager
def in_this_process(client: str) -> Iterator[Read]:
    """The client as this process has it; what it would leave behind for others is undone."""
    patched_by_gpustat = ("_nvmlGetFunctionPointer", "nvmlDeviceGetMemoryInfo")
    before = {name: getattr(pynvml, name) for name in patched_by_gpustat}
    try:
        yield READERS[client]
    finally:
        for name, function in before.items():
            setattr(pynvml, name, function)
        for name in [name for name in sys.modules if name.partition(".")[0] == "gpustat"]:
            del sys.modules[name]
        if client == "nvitop":
            sys.modules["nvitop.api.libnvml"].nvmlShutdown()


def monitor(name: str, requests: Iterator[str]) -> None:
    """Answers each line with a reading."""
    read = READERS[name]
    for _ in requests:
        print(json.dumps(read()), flush=True)


if __name__ == "__main__":
    monitor(sys.argv[1], iter(sys.stdin))
