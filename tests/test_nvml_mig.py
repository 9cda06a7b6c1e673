"""Partitioned cards through NVML: handles of MIG devices, and what they, and the card, do not answer any more."""

from __future__ import annotations

import ctypes
import json
import struct

import pynvml
import pytest
from native_client import run_python
from nvml_client import U32, HandClock, handle_of, nvml, unsigned

from fake_gpu import Driver, Fault, Gpu, Process, Ramp, platforms
from fake_gpu.nvml.abi import Kind, functions
from fake_gpu.profile import MigDevice
from fake_gpu.units import GIB, MIB

WHOLE = 0xFFFF_FFFF
DEVICES = (
    MigDevice(
        name="3g.71gb",
        gpu_instance=2,
        memory_mib=70_000,
        idle_mib=26,
        bar1_mib=24_739,
        multiprocessors=60,
        copy_engines=3,
        encoders=1,
        decoders=2,
        ofa=4,
        jpeg=5,
    ),
    MigDevice(name="1c.2g.35gb", gpu_instance=9, compute_instance=1, memory_mib=34_000),
)


@pytest.fixture
def gpu(driver: Driver) -> Gpu:
    """The second of two cards, partitioned."""
    driver.add_gpu("rtx-4090")
    gpu = driver.add_gpu("h200")
    platforms.partition(gpu, *DEVICES)
    return gpu


@pytest.fixture
def process(driver: Driver, gpu: Gpu) -> Process:
    """10 GiB in the first device."""
    process = driver.process(gpu, "10 GiB", name="server")
    process.run_in(gpu.instances[0])
    return process


def part(gpu: Gpu, index: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(gpu.instances[index].handle)


def found(name: str, *arguments: object) -> int | str | None:
    """The handle that a function gives, or the name of its error."""
    handle = ctypes.c_void_p()
    answer = nvml(name, *arguments, ctypes.byref(handle))
    return handle.value if answer == "SUCCESS" else answer


# -- handles


def test_devices_by_index(gpu: Gpu) -> None:
    card = handle_of(gpu)
    by_index = "nvmlDeviceGetMigDeviceHandleByIndex"
    assert pynvml.nvmlDeviceGetCount() == 2  # of cards
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(card) == 7
    assert [found(by_index, card, place) for place in (0, 1, 2, 6, 7)] == [
        gpu.instances[0].handle,
        gpu.instances[1].handle,
        "NOT_FOUND",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
    ]
    assert nvml(by_index, card, 0, None) == "INVALID_ARGUMENT"
    assert [unsigned("nvmlDeviceGetIndex", part(gpu, place)) for place in (0, 1)] == [0, 1]
    assert found("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", part(gpu, 1)) == gpu.handle
    assert found("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", card) == "INVALID_ARGUMENT"
    assert unsigned("nvmlDeviceIsMigDeviceHandle", part(gpu, 0)) == 1
    assert unsigned("nvmlDeviceIsMigDeviceHandle", card) == 0


def test_devices_by_every_form_of_uuid(gpu: Gpu) -> None:
    second = gpu.instances[1]
    by_uuid = "nvmlDeviceGetHandleByUUID"
    assert found(by_uuid, second.uuid.encode()) == second.handle
    assert found(by_uuid, f"MIG-{gpu.uuid}/9/1".encode()) == second.handle  # as before driver 470
    for wrong in (f"MIG-{gpu.uuid}/9/0", f"MIG-{gpu.uuid}/2/1", "MIG-GPU-none/9/1", "MIG-none", second.uuid[4:]):
        assert found(by_uuid, wrong.encode()) == "NOT_FOUND"
    digits = bytes.fromhex(second.uuid.removeprefix("MIG-").replace("-", ""))
    for kind, text in ((pynvml.NVML_UUID_TYPE_ASCII, second.uuid.encode()), (pynvml.NVML_UUID_TYPE_BINARY, digits)):
        request = (U32 * 13)(0x1000034, kind)
        ctypes.memmove(ctypes.addressof(request) + 8, text, len(text))
        assert found("nvmlDeviceGetHandleByUUIDV", ctypes.byref(request)) == second.handle
    gpu.lose()
    assert found(by_uuid, second.uuid.encode()) == "GPU_IS_LOST"
    gpu.remove()
    assert found(by_uuid, second.uuid.encode()) == "NOT_FOUND"


def test_handles_go_stale(gpu: Gpu) -> None:
    first = part(gpu, 0)
    gpu.lose()
    assert unsigned("nvmlDeviceGetGpuInstanceId", first) == "GPU_IS_LOST"
    gpu.restore()
    assert unsigned("nvmlDeviceGetGpuInstanceId", first) == 2
    platforms.partition(gpu, "1g.18gb")
    assert unsigned("nvmlDeviceGetGpuInstanceId", first) == "INVALID_ARGUMENT"
    assert unsigned("nvmlDeviceGetGpuInstanceId", part(gpu, 0)) == 1


def test_faults_of_the_card_meet_its_devices(driver: Driver, gpu: Gpu) -> None:
    driver.inject(Fault.nvml("UNKNOWN"), via="nvmlDeviceGetIndex", gpu=gpu)
    assert unsigned("nvmlDeviceGetIndex", part(gpu, 0)) == "UNKNOWN"
    assert unsigned("nvmlDeviceGetIndex", handle_of(driver.gpus[0])) == 0


def test_the_mode(driver: Driver, gpu: Gpu) -> None:
    whole, impossible = handle_of(driver.add_gpu("h200")), handle_of(driver.gpus[0])
    assert pynvml.nvmlDeviceGetMigMode(handle_of(gpu)) == [1, 1]
    assert [pynvml.nvmlDeviceGetMaxMigDeviceCount(one) for one in (whole, impossible)] == [0, 0]
    by_index = "nvmlDeviceGetMigDeviceHandleByIndex"
    assert [found(by_index, one, 0) for one in (whole, impossible)] == ["NOT_FOUND", "NOT_SUPPORTED"]
    assert unsigned("nvmlDeviceSetMigMode", handle_of(gpu), 0) == "NO_PERMISSION"
    assert unsigned("nvmlDeviceSetMigMode", whole, 2) == "INVALID_ARGUMENT"
    assert unsigned("nvmlDeviceSetMigMode", impossible, 1) == "NOT_SUPPORTED"


# -- what a device answers


def test_a_device_says_who_it_is(gpu: Gpu) -> None:
    assert pynvml.nvmlDeviceGetName(part(gpu, 0)) == "NVIDIA H200 MIG 3g.71gb"
    assert pynvml.nvmlDeviceGetUUID(part(gpu, 1)) == gpu.instances[1].uuid
    assert [pynvml.nvmlDeviceGetGpuInstanceId(part(gpu, place)) for place in (0, 1)] == [2, 9]
    assert [pynvml.nvmlDeviceGetComputeInstanceId(part(gpu, place)) for place in (0, 1)] == [0, 1]
    assert pynvml.nvmlDeviceGetCudaComputeCapability(part(gpu, 0)) == (9, 0)
    assert pynvml.nvmlDeviceGetArchitecture(part(gpu, 0)) == pynvml.NVML_DEVICE_ARCH_HOPPER
    assert pynvml.nvmlDeviceGetBrand(part(gpu, 0)) == pynvml.NVML_BRAND_NVIDIA
    assert (
        unsigned("nvmlDeviceGetDisplayActive", part(gpu, 0)) == unsigned("nvmlDeviceGetComputeMode", part(gpu, 0)) == 0
    )
    for name in ("nvmlDeviceGetName", "nvmlDeviceGetUUID"):
        room = ctypes.create_string_buffer(8)
        assert nvml(name, part(gpu, 0), room, 8) == "INSUFFICIENT_SIZE"
        assert nvml(name, part(gpu, 0), None, 96) == "INVALID_ARGUMENT"
    for name in ("nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId"):
        assert unsigned(name, handle_of(gpu)) == "NOT_SUPPORTED"


@pytest.mark.parametrize("name", ["nvmlDeviceGetAttributes", "nvmlDeviceGetAttributes_v2"])
def test_attributes(gpu: Gpu, name: str) -> None:
    told = pynvml.c_nvmlDeviceAttributes()
    assert nvml(name, part(gpu, 0), ctypes.byref(told)) == "SUCCESS"
    assert (told.multiprocessorCount, told.sharedCopyEngineCount, told.memorySizeMB) == (60, 3, 70_000)
    assert (told.sharedDecoderCount, told.sharedEncoderCount, told.sharedJpegCount, told.sharedOfaCount) == (2, 1, 5, 4)
    assert (told.gpuInstanceSliceCount, told.computeInstanceSliceCount) == (3, 3)
    assert nvml(name, part(gpu, 1), ctypes.byref(told)) == "SUCCESS"
    assert (told.gpuInstanceSliceCount, told.computeInstanceSliceCount) == (2, 1)
    assert nvml(name, handle_of(gpu), ctypes.byref(told)) == "NOT_SUPPORTED"


@pytest.mark.parametrize(
    ("name", "slices", "memory_mib"),
    [("7g.141gb", (7, 7), 143_000), ("1g.18gb+me", (1, 1), 16_384), ("2c.4g.71gb", (4, 2), 70_000)],
)
def test_slices_follow_from_the_name(gpu: Gpu, name: str, slices: tuple[int, int], memory_mib: int) -> None:
    platforms.partition(gpu, MigDevice(name=name, gpu_instance=1, memory_mib=memory_mib))
    told = pynvml.c_nvmlDeviceAttributes()
    assert nvml("nvmlDeviceGetAttributes_v2", part(gpu, 0), ctypes.byref(told)) == "SUCCESS"
    assert (told.gpuInstanceSliceCount, told.computeInstanceSliceCount) == slices


def test_memory_of_a_device_follows_the_ramp(gpu: Gpu, process: Process, clock: HandClock) -> None:
    first = part(gpu, 0)

    def used() -> int:
        old = pynvml.nvmlDeviceGetMemoryInfo(first)
        new = pynvml.nvmlDeviceGetMemoryInfo(first, pynvml.nvmlMemory_v2)
        assert (old.total, old.used, old.free) == (new.total, new.used, new.free)
        assert (new.total, new.reserved, new.free) == (70_000 * MIB, 0, new.total - new.used)
        used: int = new.used
        return used

    assert used() == 10 * GIB + 26 * MIB
    assert pynvml.nvmlDeviceGetMemoryInfo(part(gpu, 1)).used == 0
    process.kill(reclaim=Ramp.step(after="2s"))
    assert used() == 10 * GIB + 26 * MIB  # it has left the list, and its memory is not back
    clock.go(2)
    assert used() == 26 * MIB
    gpu.instances[0].bar1_used = MIB
    window = pynvml.nvmlDeviceGetBAR1MemoryInfo(first)
    assert (window.bar1Total, window.bar1Used, window.bar1Free) == (24_739 * MIB, MIB, 24_738 * MIB)
    memory = pynvml.c_nvmlMemory_v2_t()
    memory.version = 0x1000028
    assert nvml("nvmlDeviceGetMemoryInfo_v2", first, ctypes.byref(memory)) == "ARGUMENT_VERSION_MISMATCH"


@pytest.mark.parametrize("version", ["", "_v2", "_v3"])
def test_processes_by_device(driver: Driver, gpu: Gpu, process: Process, version: str) -> None:
    other = driver.process({gpu: "1 GiB", driver.gpus[0]: "2 GiB"})
    other.run_in(gpu.instances[1])
    layout = struct.Struct("<IxxxxQ" if version == "" else "<IxxxxQII")

    def listed(device: ctypes.c_void_p) -> list[tuple[int, ...]]:
        array, count = ctypes.create_string_buffer(layout.size * 4), U32(4)
        name = f"nvmlDeviceGetComputeRunningProcesses{version}"
        assert nvml(name, device, ctypes.byref(count), array) == "SUCCESS"
        return list(layout.iter_unpack(array.raw[: layout.size * count.value]))

    first, second = (process.pid, 10 * GIB, 2, 0), (other.pid, GIB, 9, 1)
    length = 2 if version == "" else 4
    assert listed(part(gpu, 0)) == [first[:length]]
    assert listed(part(gpu, 1)) == [second[:length]]
    assert listed(handle_of(gpu)) == [first[:length], second[:length]]
    assert listed(handle_of(driver.gpus[0])) == [(other.pid, 2 * GIB, WHOLE, WHOLE)[:length]]
    count = U32(0)
    name = f"nvmlDeviceGetComputeRunningProcesses{version}"
    assert nvml(name, part(gpu, 0), ctypes.byref(count), None) == "INSUFFICIENT_SIZE"
    assert count.value == 1


def test_details_by_device(gpu: Gpu, process: Process) -> None:
    layout = struct.Struct("<IxxxxQIIQ")
    for place, rows in ((0, [(process.pid, 10 * GIB, 2, 0, 0)]), (1, [])):
        array = ctypes.create_string_buffer(layout.size)
        request = ctypes.create_string_buffer(struct.pack("<IIIxxxxQ", 0x1000018, 3, 1, ctypes.addressof(array)), 24)
        assert nvml("nvmlDeviceGetRunningProcessDetailList", part(gpu, place), request) == "SUCCESS"
        assert list(layout.iter_unpack(array.raw))[: len(rows)] == rows
        assert struct.unpack_from("<I", request.raw, 8) == (len(rows),)


def test_errors_by_device(gpu: Gpu) -> None:
    count = ctypes.c_ulonglong(7)

    def counter(device: ctypes.c_void_p, *which: int) -> str:
        return nvml("nvmlDeviceGetMemoryErrorCounter", device, *which, ctypes.byref(count))

    uncorrected, volatile, aggregate, dram, sram = 1, 0, 1, 2, 7
    assert counter(part(gpu, 0), uncorrected, volatile, sram) == "SUCCESS"
    assert count.value == 0
    for which in ((0, volatile, sram), (uncorrected, aggregate, sram), (uncorrected, volatile, dram)):
        assert counter(part(gpu, 0), *which) == "NOT_SUPPORTED"
    assert counter(part(gpu, 0), uncorrected, volatile, 8) == "INVALID_ARGUMENT"
    assert counter(handle_of(gpu), uncorrected, aggregate, sram) == "SUCCESS"
    assert counter(handle_of(gpu), uncorrected, volatile, sram) == "SUCCESS"


# -- what neither answers


def test_what_a_device_does_not_answer(gpu: Gpu) -> None:
    first = part(gpu, 0)
    for name in ("nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetMinorNumber"):
        assert nvml(name, first, *[ctypes.byref(U32())] * 2) == "NOT_SUPPORTED"
    assert unsigned("nvmlDeviceGetMaxMigDeviceCount", first) == "INVALID_ARGUMENT"
    assert nvml("nvmlDeviceGetMigMode", first, *[ctypes.byref(U32())] * 2) == "INVALID_ARGUMENT"
    assert found("nvmlDeviceGetMigDeviceHandleByIndex", first, 0) == "INVALID_ARGUMENT"


def test_every_function_takes_the_handle_of_a_device(driver: Driver, gpu: Gpu) -> None:
    library = ctypes.CDLL("libnvidia-ml.so.1")
    for function in functions():
        if function.arguments and function.arguments[0].type == "device":
            passed = [one for one in function.arguments if one.kind is not Kind.NESTED]
            arguments = [
                part(gpu, 0)
                if one.type == "device"
                else ctypes.c_uint(0)
                if one.kind is Kind.VALUE
                else ctypes.create_string_buffer(1 << 14)
                for one in passed
            ]
            assert getattr(library, function.name)(*arguments) != pynvml.NVML_ERROR_UNKNOWN, function.name
    driver.raise_kept()


def test_what_a_partitioned_card_does_not_answer(gpu: Gpu) -> None:
    card = handle_of(gpu)
    gpu.activity.gpu_percent = 50
    rest = [ctypes.byref(U32())] * 4
    for name in ("UtilizationRates", "EncoderUtilization", "NumGpuCores", "RemappedRows"):
        assert nvml(f"nvmlDeviceGet{name}", card, *rest) == "NOT_SUPPORTED"
    assert nvml("nvmlDeviceGetProcessUtilization", card, None, rest[0], ctypes.c_ulonglong(0)) == "NOT_SUPPORTED"
    assert pynvml.nvmlDeviceGetMemoryInfo(card).total == gpu.memory.total
    gpu.instances = ()
    assert nvml("nvmlDeviceGetRemappedRows", card, *rest) == "SUCCESS"  # only devices are in its way


# -- unmodified clients, in a process of their own: nvitop changes nvidia-ml-py when it is imported


NVITOP = """
import json, sys, nvitop

first, second = nvitop.MigDevice.all()
card = nvitop.Device(1)
print(json.dumps({
    "indices": [first.index, second.index],
    "name": first.name(),
    "ids": [first.gpu_instance_id(), first.compute_instance_id(), second.gpu_instance_id()],
    "memory": [first.memory_total(), first.memory_used()],
    "processes": [list(first.processes()), list(second.processes())],
    "by uuid": nvitop.Device(uuid=sys.argv[1]).index,
    "visible": nvitop.parse_cuda_visible_devices(sys.argv[1]),
    "utilization": [card.gpu_utilization(), first.as_snapshot().gpu_utilization],
}))
"""

GPUSTAT = """
import gpustat, json

card = gpustat.new_query()[1]
print(json.dumps([card.utilization, card.memory_used, [one["pid"] for one in card.processes]]))
"""


def test_nvitop_sees_the_devices(driver: Driver, gpu: Gpu) -> None:
    process = driver.spawn(gpu, "10 GiB")
    process.run_in(gpu.instances[0])
    assert json.loads(run_python(NVITOP, gpu.instances[1].uuid).stdout) == {
        "indices": [[1, 0], [1, 1]],
        "name": "NVIDIA H200 MIG 3g.71gb",
        "ids": [2, 0, 9],
        "memory": [70_000 * MIB, 10 * GIB + 26 * MIB],
        "processes": [[process.pid], []],
        "by uuid": [1, 1],
        "visible": [[1, 1]],
        "utilization": ["N/A", "N/A"],
    }


def test_gpustat_shows_the_card(driver: Driver, gpu: Gpu) -> None:
    process = driver.spawn(gpu, "10 GiB")
    process.run_in(gpu.instances[0])
    assert json.loads(run_python(GPUSTAT).stdout) == [None, 10 * 1024, [process.pid]]
