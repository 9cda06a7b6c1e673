"""NVML from everywhere at once: a child over the socket, a forked child, many threads; and what a call costs."""

from __future__ import annotations

import ctypes
import json
import threading
from pathlib import Path

import pynvml
import pytest
from native_client import run_python
from nvml_client import initialised

from fake_gpu import Driver, Gpu
from fake_gpu.nvml import implementation
from fake_gpu.nvml.abi import Argument, Kind, functions
from fake_gpu.profile import profile_names
from fake_gpu.units import GIB

CLIENTS = Path(__file__).parent.parent.parent / "shared" / "design" / "nvml-clients.json"

READ_ALL = """
import json, pynvml

def told(call, *arguments):
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        return error.value

before = told(pynvml.nvmlDeviceGetCount) if pynvml.nvmlLib else None
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
memory = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
print(json.dumps({
    "name": pynvml.nvmlDeviceGetName(handle),
    "bus_id": pynvml.nvmlDeviceGetPciInfo(handle).busId,
    "memory": [memory.total, memory.reserved, memory.used, memory.free],
    "processes": [[p.pid, p.usedGpuMemory] for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)],
    "graphics": pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
    "clocks": pynvml.nvmlDeviceGetSupportedMemoryClocks(handle),
    "temperature": pynvml.nvmlDeviceGetTemperatureV(handle, 0),
    "fan": told(pynvml.nvmlDeviceGetFanSpeed, handle),
    "fields": [v.nvmlReturn for v in pynvml.nvmlDeviceGetFieldValues(handle, [186, 9999])],
    "wrong version": told(pynvml.nvmlDeviceGetMemoryInfo, handle, 0x1000028),
    "by uuid": told(pynvml.nvmlDeviceGetHandleByUUID, "GPU-none"),
    "event": told(pynvml.nvmlEventSetWait_v2, pynvml.nvmlEventSetCreate(), 20),
}))
pynvml.nvmlShutdown()
try:
    pynvml.nvmlDeviceGetCount()
except pynvml.NVMLError_Uninitialized:
    print("uninitialised")
"""

FORK = """
import os, pynvml
from fake_gpu import Driver

def free():
    return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).free

with Driver() as driver:
    gpu = driver.add_gpu("rtx-4090")
    pynvml.nvmlInit()
    before = free()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        os.write(writer, f"{free()} {pynvml.nvmlDeviceGetCount()} {name}".encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(before, free(), os.read(reader, 999).decode(), {call.pid for call in driver.calls} == {os.getpid(), child})
"""


def test_a_child_reads_the_same_over_the_socket() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("h200")
        process = driver.process(gpu, used="20 GiB")
        first, second = run_python(READ_ALL).stdout.splitlines()
        seen = json.loads(first)
        assert seen == {
            "name": "NVIDIA H200",
            "bus_id": "00000000:01:00.0",
            "memory": list(gpu.memory),
            "processes": [[process.pid, 20 * GIB]],
            "graphics": [],
            "clocks": [3201, 1593],
            "temperature": 28,
            "fan": pynvml.NVML_ERROR_NOT_SUPPORTED,
            "fields": [0, pynvml.NVML_ERROR_NOT_SUPPORTED],
            "wrong version": pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
            "by uuid": pynvml.NVML_ERROR_NOT_FOUND,
            "event": pynvml.NVML_ERROR_TIMEOUT,
        }
        assert second == "uninitialised"


def test_a_forked_child_reads_over_the_socket() -> None:
    before, after, seen, count, *name, both_asked = run_python(FORK).stdout.split()
    assert before == after == seen
    assert (count, " ".join(name), both_asked) == ("1", "NVIDIA GeForce RTX 4090", "True")


def test_sixteen_threads_initialise_read_and_shut_down() -> None:
    with Driver() as driver:
        gpu = driver.add_gpu("l40s")
        driver.process(gpu, used="10 GiB")
        expected = gpu.memory
        before = driver.own_session.initialised
        wrong: list[object] = []
        start = threading.Barrier(16)

        def work() -> None:
            try:
                start.wait()
                for _ in range(100):
                    pynvml.nvmlInit()
                    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
                    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
                    if (memory.total, memory.reserved, memory.used, memory.free) != expected:
                        wrong.append(memory)
                    pynvml.nvmlShutdown()
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert driver.own_session.initialised == before


def argument_for(argument: Argument, gpu: Gpu, null: bool) -> object:
    if argument.type == "device":
        return ctypes.c_void_p(gpu.handle)
    if argument.kind is Kind.VALUE:
        return ctypes.c_uint(0)
    return None if null else ctypes.create_string_buffer(1 << 14)


@pytest.mark.parametrize("null", [False, True])
def test_every_handler_takes_what_the_table_gives_it(null: bool) -> None:
    """Calls each implemented function in C, with everything zero or NULL. A handler's mistake would be UNKNOWN."""
    with initialised(Driver()) as driver:
        gpus = [driver.add_gpu(name) for name in profile_names()]
        library = ctypes.CDLL("libnvidia-ml.so.1")
        names = implementation.implemented() - {"nvmlShutdown", "nvmlInit", "nvmlInit_v2", "nvmlInitWithFlags"}
        assert len(names) > 150
        for function in functions():
            if function.name in names:
                passed = [one for one in function.arguments if one.kind is not Kind.NESTED]
                for gpu in gpus:
                    code = getattr(library, function.name)(*(argument_for(one, gpu, null) for one in passed))
                    assert code != pynvml.NVML_ERROR_UNKNOWN, function.name
        driver.raise_kept()


def test_everything_that_real_clients_use_is_implemented() -> None:
    if not CLIENTS.exists():
        pytest.skip(f"{CLIENTS} is not here: the list of functions that real clients use")
    used = set(json.loads(CLIENTS.read_text())["union"])
    assert used - implementation.implemented() == {"nvmlErrorString"}  # in C
