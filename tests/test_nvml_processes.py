"""Who NVML says uses a card: three versions of three lists, their counts and NULLs; utilization, names, accounting."""

from __future__ import annotations

import ctypes
import os
import struct

import pynvml
import pytest
from nvml_client import U32, HandClock, handle_of, nvml

from fake_gpu import Driver, Gpu, Process, Ramp
from fake_gpu.units import GIB

WHOLE = 0xFFFF_FFFF
LAYOUTS = {"": struct.Struct("<IxxxxQ"), "_v2": struct.Struct("<IxxxxQII"), "_v3": struct.Struct("<IxxxxQII")}
DETAIL = struct.Struct("<IxxxxQIIQ")


@pytest.fixture
def gpu(driver: Driver) -> Gpu:
    return driver.add_gpu("h200")


@pytest.fixture
def processes(driver: Driver, gpu: Gpu) -> list[Process]:
    """A compute process of 1 GiB, a graphics process of 2 GiB, and one that is both, of 3 GiB."""
    return [
        driver.process(gpu, used="1 GiB", name="trainer", compute_type="C"),
        driver.process(gpu, used="2 GiB", name="Xorg", compute_type="G"),
        driver.process(gpu, used="3 GiB", name="renderer", compute_type="C+G"),
    ]


def ask(gpu: Gpu, kind: str, version: str, room: int | None, count: int) -> tuple[str, int, list[tuple[int, ...]]]:
    """What the call returned, the count it left, and the elements that were written."""
    layout = LAYOUTS[version]
    array = None if room is None else ctypes.create_string_buffer(b"\xee" * layout.size * room, layout.size * room)
    number = U32(count)
    answer = nvml(f"nvmlDeviceGet{kind}RunningProcesses{version}", handle_of(gpu), ctypes.byref(number), array)
    written = b"" if array is None else array.raw
    elements = [one for one in layout.iter_unpack(written) if one[0] != 0xEEEEEEEE]
    return answer, number.value, elements


@pytest.mark.parametrize("version", LAYOUTS)
def test_each_version_has_its_own_layout(gpu: Gpu, processes: list[Process], version: str) -> None:
    rest = () if version == "" else (WHOLE, WHOLE)
    trainer, xorg, renderer = ((one.pid, (index + 1) * GIB, *rest) for index, one in enumerate(processes))
    assert ask(gpu, "Compute", version, 4, 4) == ("SUCCESS", 2, [trainer, renderer])
    assert ask(gpu, "Graphics", version, 4, 4) == ("SUCCESS", 2, [xorg, renderer])
    assert ask(gpu, "MPSCompute", version, 4, 4) == ("SUCCESS", 0, [])


@pytest.mark.parametrize("version", LAYOUTS)
def test_counts_are_asked_for_with_null(gpu: Gpu, processes: list[Process], version: str) -> None:
    assert ask(gpu, "Compute", version, None, 0) == ("INSUFFICIENT_SIZE", 2, [])
    assert ask(gpu, "Compute", version, 1, 1) == ("INSUFFICIENT_SIZE", 2, [])
    assert ask(gpu, "Compute", version, None, 8) == ("INVALID_ARGUMENT", 8, [])
    assert ask(gpu, "Compute", version, 2, 2)[:2] == ("SUCCESS", 2)
    assert ask(gpu, "MPSCompute", version, None, 0) == ("SUCCESS", 0, [])
    name = f"nvmlDeviceGetComputeRunningProcesses{version}"
    assert nvml(name, handle_of(gpu), None, None) == "INVALID_ARGUMENT"


def test_nvidia_ml_py_sees_who_lives(driver: Driver, gpu: Gpu, processes: list[Process], clock: HandClock) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def seen() -> list[tuple[int, int]]:
        return [(one.pid, one.usedGpuMemory) for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]

    trainer, _, renderer = processes
    assert seen() == [(trainer.pid, GIB), (renderer.pid, 3 * GIB)]
    trainer.hold("5 GiB")
    assert seen()[0] == (trainer.pid, 5 * GIB)
    trainer.kill(reclaim=Ramp.step(after="2s"))
    assert seen() == [(renderer.pid, 3 * GIB)]
    assert gpu.memory.used == 10 * GIB  # it has left the list, and its memory is not back
    clock.go(2)
    assert gpu.memory.used == 5 * GIB


def test_a_card_without_processes(driver: Driver, gpu: Gpu, processes: list[Process]) -> None:
    driver.add_gpu("t4")
    handle = pynvml.nvmlDeviceGetHandleByIndex(1)
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
    assert pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle) == []
    assert pynvml.nvmlDeviceGetMPSComputeRunningProcesses(handle) == []


# -- the detailed list


def details(gpu: Gpu, mode: int, room: int, version: int = 0x1000018) -> tuple[str, int, list[tuple[int, ...]]]:
    array = ctypes.create_string_buffer(DETAIL.size * room)
    request = ctypes.create_string_buffer(struct.pack("<IIIxxxxQ", version, mode, room, ctypes.addressof(array)), 24)
    answer = nvml("nvmlDeviceGetRunningProcessDetailList", handle_of(gpu), request)
    assert request.raw[16:] == struct.pack("<Q", ctypes.addressof(array))
    return answer, struct.unpack_from("<I", request.raw, 8)[0], list(DETAIL.iter_unpack(array.raw))


def test_details_by_mode(gpu: Gpu, processes: list[Process]) -> None:
    trainer, xorg, renderer = ((one.pid, (index + 1) * GIB, WHOLE, WHOLE, 0) for index, one in enumerate(processes))
    assert details(gpu, 0, 2) == ("SUCCESS", 2, [trainer, renderer])
    assert details(gpu, 1, 2) == ("SUCCESS", 2, [xorg, renderer])
    assert details(gpu, 2, 0) == ("SUCCESS", 0, [])
    assert details(gpu, 3, 3) == ("SUCCESS", 3, [trainer, xorg, renderer])
    assert details(gpu, 3, 2)[:2] == ("INSUFFICIENT_SIZE", 3)
    assert details(gpu, 4, 2)[0] == "INVALID_ARGUMENT"
    assert details(gpu, 0, 2, version=0x2000018)[0] == "ARGUMENT_VERSION_MISMATCH"


def test_details_may_be_counted_with_null(gpu: Gpu, processes: list[Process]) -> None:
    request = (U32 * 6)(0x1000018, 3, 0)
    assert nvml("nvmlDeviceGetRunningProcessDetailList", handle_of(gpu), request) == "INSUFFICIENT_SIZE"
    assert list(request) == [0x1000018, 3, 3, 0, 0, 0]


def test_details_are_for_hopper_and_later(driver: Driver) -> None:
    assert details(driver.add_gpu("t4"), 0, 1)[0] == "NOT_SUPPORTED"


# -- utilization


def test_nobody_did_anything(gpu: Gpu, processes: list[Process]) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    request = (U32 * 6)(0x1000018)
    assert nvml("nvmlDeviceGetProcessesUtilizationInfo", handle_of(gpu), request) == "NOT_FOUND"


def test_processes_share_the_cards_utilization(gpu: Gpu, processes: list[Process]) -> None:
    gpu.activity.gpu_percent, gpu.activity.memory_percent = 90, 30
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    samples = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    assert [(one.pid, one.smUtil, one.memUtil, one.encUtil) for one in samples] == [
        (process.pid, 30, 10, 0) for process in processes
    ]
    later = samples[0].timeStamp + 3_600_000_000
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetProcessUtilization(handle, later)


def test_utilization_that_a_test_has_set(gpu: Gpu, processes: list[Process]) -> None:
    gpu.activity.gpu_percent = 80
    trainer, xorg, renderer = processes
    trainer.percent.update(sm=70, mem=20, enc=3, dec=4)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def told() -> list[tuple[int, ...]]:
        samples = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
        return [(one.pid, one.smUtil, one.memUtil, one.encUtil, one.decUtil) for one in samples]

    assert told() == [(trainer.pid, 70, 20, 3, 4), (xorg.pid, 40, 0, 0, 0), (renderer.pid, 40, 0, 0, 0)]
    gpu.activity.gpu_percent = 0
    assert told() == [(trainer.pid, 70, 20, 3, 4)]  # those alone that did anything
    array, count = ctypes.create_string_buffer(64), U32(0)
    name = "nvmlDeviceGetProcessUtilization"
    for room in (None, array):
        assert nvml(name, handle_of(gpu), room, ctypes.byref(count), ctypes.c_ulonglong(0)) == "INSUFFICIENT_SIZE"
        assert count.value == 1
        count.value = 0


def test_newer_utilization_has_another_layout(gpu: Gpu, processes: list[Process]) -> None:
    gpu.activity.gpu_percent = 60
    layout = struct.Struct("<QIIIIIIIxxxx")
    array = ctypes.create_string_buffer(layout.size * 3)
    for room, answer in ((2, "INSUFFICIENT_SIZE"), (3, "SUCCESS")):
        request = ctypes.create_string_buffer(struct.pack("<IIQQ", 0x1000018, room, 0, ctypes.addressof(array)), 24)
        assert nvml("nvmlDeviceGetProcessesUtilizationInfo", handle_of(gpu), request) == answer
        assert struct.unpack_from("<I", request.raw, 4) == (3,)
    assert [row[1:3] for row in layout.iter_unpack(array.raw)] == [(process.pid, 20) for process in processes]
    request = ctypes.create_string_buffer(struct.pack("<I", 0x2000018), 24)
    assert nvml("nvmlDeviceGetProcessesUtilizationInfo", handle_of(gpu), request) == "ARGUMENT_VERSION_MISMATCH"


# -- names and accounting


def test_names_of_processes(driver: Driver, gpu: Gpu, processes: list[Process]) -> None:
    trainer = processes[0]
    assert pynvml.nvmlSystemGetProcessName(trainer.pid) == "trainer"
    room = ctypes.create_string_buffer(4)
    assert nvml("nvmlSystemGetProcessName", trainer.pid, room, 4) == "SUCCESS"
    assert room.value == b"tra"
    assert nvml("nvmlSystemGetProcessName", trainer.pid, room, 0) == "INVALID_ARGUMENT"
    assert nvml("nvmlSystemGetProcessName", trainer.pid, None, 4) == "INVALID_ARGUMENT"
    trainer.kill()
    assert nvml("nvmlSystemGetProcessName", trainer.pid, room, 4) == "NOT_FOUND"
    assert pynvml.nvmlSystemGetProcessName(os.getpid())


def test_accounting_is_off(gpu: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetAccountingMode(handle) == 0
    assert pynvml.nvmlDeviceGetAccountingBufferSize(handle) == 4000
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetAccountingPids(handle)
