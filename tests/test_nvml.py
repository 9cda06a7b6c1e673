"""NVML through unmodified nvidia-ml-py and through ctypes: initialisation, handles, identity, memory, faults."""

from __future__ import annotations

import ctypes
import re

import pynvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvml_client import U32, HandClock, handle_of, initialised, nvml, unsigned

from fake_gpu import Driver, Fault, Gpu, Ramp
from fake_gpu.nvml.codes import CODES, TEXTS
from fake_gpu.units import MIB


@pytest.fixture
def h200(driver: Driver) -> Gpu:
    return driver.add_gpu("h200")


# -- initialisation


def test_initialisation_is_counted() -> None:
    with Driver() as driver:
        driver.add_gpu("t4")
        while nvml("nvmlShutdown") == "SUCCESS":
            pass  # the count is the process's: a probe that another test has abandoned may have left its own
        assert unsigned("nvmlDeviceGetCount_v2") == "UNINITIALIZED"
        assert nvml("nvmlShutdown") == "UNINITIALIZED"
        assert nvml("nvmlInit_v2") == nvml("nvmlInit") == nvml("nvmlInitWithFlags", 0) == "SUCCESS"
        assert nvml("nvmlShutdown") == nvml("nvmlShutdown") == "SUCCESS"
        assert unsigned("nvmlDeviceGetCount_v2") == unsigned("nvmlDeviceGetCount") == 1
        assert nvml("nvmlShutdown") == "SUCCESS"
        assert unsigned("nvmlDeviceGetCount_v2") == "UNINITIALIZED"


def test_error_texts_need_no_initialisation() -> None:
    with Driver():
        assert str(pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)) == "GPU is lost"


def test_every_error_has_a_text() -> None:
    with Driver():
        named = {
            name: value for name, value in vars(pynvml).items() if re.fullmatch("NVML_(SUCCESS|ERROR_[A-Z_]+)", name)
        }
        assert {name.removeprefix("NVML_").removeprefix("ERROR_"): value for name, value in named.items()} == CODES
        text_of = ctypes.CDLL("libnvidia-ml.so.1").nvmlErrorString
        text_of.restype = ctypes.c_char_p
        texts = {code: text_of(code).decode() for code in CODES.values()}
        assert texts == TEXTS
        assert len(set(texts.values())) == len(texts)
        assert text_of(998) == b"Unknown Error"


# -- handles


@pytest.mark.parametrize(
    "bus_id",
    ["00000000:03:00.0", "0000:03:00.0", "00000000:03:00", "03:00.0", "0:3:0.0", "0000:03:00.0".upper()],
)
def test_handles_by_every_form_of_bus_id(driver: Driver, bus_id: str) -> None:
    gpus = [driver.add_gpu("t4") for _ in range(3)]
    assert unsigned_handle("nvmlDeviceGetHandleByPciBusId_v2", bus_id) == gpus[2].handle
    assert unsigned_handle("nvmlDeviceGetHandleByPciBusId", bus_id) == gpus[2].handle


def unsigned_handle(name: str, argument: str | int) -> int | str | None:
    found = ctypes.c_void_p()
    given_argument = argument.encode() if isinstance(argument, str) else argument
    answer = nvml(name, given_argument, ctypes.byref(found))
    return found.value if answer == "SUCCESS" else answer


def test_bus_ids_in_hexadecimal_of_any_case(driver: Driver) -> None:
    gpus = [driver.add_gpu("t4") for _ in range(12)]
    assert gpus[11].pci_bus_id == "00000000:0C:00.0"
    assert unsigned_handle("nvmlDeviceGetHandleByPciBusId_v2", "00000000:0c:00.0") == gpus[11].handle


def test_handles_that_there_are_not(driver: Driver, h200: Gpu) -> None:
    by_bus_id = "nvmlDeviceGetHandleByPciBusId_v2"
    assert unsigned_handle("nvmlDeviceGetHandleByIndex_v2", 1) == "INVALID_ARGUMENT"
    assert unsigned_handle("nvmlDeviceGetHandleByUUID", "GPU-nobody") == "NOT_FOUND"
    assert unsigned_handle("nvmlDeviceGetHandleByUUID", "") == "INVALID_ARGUMENT"
    assert unsigned_handle("nvmlDeviceGetHandleBySerial", "0") == "NOT_FOUND"
    assert unsigned_handle(by_bus_id, "00000000:63:00.0") == unsigned_handle(by_bus_id, "1:01:00.0") == "NOT_FOUND"
    for wrong in ("", "1", "01:00", "nonsense", "01:00.0 "):
        assert unsigned_handle(by_bus_id, wrong) == "INVALID_ARGUMENT"
    assert nvml("nvmlDeviceGetName", ctypes.c_void_p(1), ctypes.create_string_buffer(96), 96) == "INVALID_ARGUMENT"
    assert nvml("nvmlDeviceGetHandleByIndex_v2", 0, None) == "INVALID_ARGUMENT"


def test_every_way_to_a_handle_leads_to_the_same_one(driver: Driver, h200: Gpu) -> None:
    second = driver.add_gpu("h200")
    handle = pynvml.nvmlDeviceGetHandleByIndex(1)
    value = ctypes.cast(handle, ctypes.c_void_p).value
    assert value == second.handle
    assert unsigned_handle("nvmlDeviceGetHandleByUUID", second.uuid) == value
    assert unsigned_handle("nvmlDeviceGetHandleBySerial", str(second.serial)) == value
    digits = bytes.fromhex(second.uuid.removeprefix("GPU-").replace("-", ""))
    for kind, text in ((pynvml.NVML_UUID_TYPE_ASCII, second.uuid.encode()), (pynvml.NVML_UUID_TYPE_BINARY, digits)):
        request = (U32 * 13)(0x1000034, kind)
        ctypes.memmove(ctypes.addressof(request) + 8, text, len(text))
        found = ctypes.c_void_p()
        assert nvml("nvmlDeviceGetHandleByUUIDV", ctypes.byref(request), ctypes.byref(found)) == "SUCCESS"
        assert found.value == value


def test_indices_and_handles_agree_whatever_moves(driver: Driver) -> None:
    gpus = [driver.add_gpu("t4") for _ in range(4)]

    def indices_agree() -> bool:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetIndex(handle) for handle in handles] == list(range(len(handles)))

    driver.renumber([2, 0, 3, 1])
    assert indices_agree()
    assert [pynvml.nvmlDeviceGetMinorNumber(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(4)] == [2, 0, 3, 1]
    gpus[0].remove()
    assert pynvml.nvmlDeviceGetCount() == 3
    assert indices_agree()


def test_a_lost_card_is_counted_and_answers_nothing(driver: Driver, h200: Gpu) -> None:
    handle = handle_of(h200)
    h200.lose()
    assert pynvml.nvmlDeviceGetCount() == 1
    assert unsigned_handle("nvmlDeviceGetHandleByIndex_v2", 0) == "GPU_IS_LOST"
    assert unsigned_handle("nvmlDeviceGetHandleByUUID", h200.uuid) == "GPU_IS_LOST"
    assert unsigned("nvmlDeviceGetIndex", handle) == "GPU_IS_LOST"
    assert nvml("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(pynvml.c_nvmlMemory_t())) == "GPU_IS_LOST"
    h200.restore()
    assert unsigned("nvmlDeviceGetIndex", handle) == 0
    h200.remove()
    assert unsigned_handle("nvmlDeviceGetHandleByUUID", h200.uuid) == "NOT_FOUND"
    assert unsigned("nvmlDeviceGetIndex", handle) == "GPU_IS_LOST"


# -- identity


def test_an_h200_says_who_it_is(driver: Driver, h200: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA H200"
    assert pynvml.nvmlDeviceGetUUID(handle) == h200.uuid
    assert pynvml.nvmlDeviceGetSerial(handle) == h200.serial
    assert pynvml.nvmlDeviceGetBrand(handle) == pynvml.NVML_BRAND_NVIDIA
    assert pynvml.nvmlDeviceGetArchitecture(handle) == pynvml.NVML_DEVICE_ARCH_HOPPER
    assert pynvml.nvmlDeviceGetCudaComputeCapability(handle) == (9, 0)
    assert pynvml.nvmlDeviceGetNumGpuCores(handle) == 16896
    assert pynvml.nvmlDeviceGetVbiosVersion(handle) == "96.00.A5.00.03"
    assert pynvml.nvmlDeviceGetInforomImageVersion(handle) == "G520.0280.02.02"
    assert pynvml.nvmlDeviceGetInforomVersion(handle, pynvml.NVML_INFOROM_ECC) == "7.16"
    assert pynvml.nvmlDeviceGetMigMode(handle) == [0, 0]
    assert pynvml.nvmlDeviceGetPersistenceMode(handle) == 1
    assert pynvml.nvmlDeviceGetDisplayMode(handle) == pynvml.nvmlDeviceGetDisplayActive(handle) == 0
    assert pynvml.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_DEFAULT
    assert pynvml.nvmlDeviceGetGspFirmwareVersion(handle) == b"590.48.01"
    assert pynvml.nvmlDeviceGetMemoryBusWidth(handle) == 6144
    assert unsigned("nvmlDeviceIsMigDeviceHandle", handle) == 0


def test_what_a_card_does_not_have_is_not_supported(driver: Driver) -> None:
    handle = handle_of(driver.add_gpu("rtx-4090"))
    for name in ("nvmlDeviceGetSerial", "nvmlDeviceGetBoardPartNumber"):
        assert nvml(name, handle, ctypes.create_string_buffer(96), 96) == "NOT_SUPPORTED"
    pair = ctypes.byref(U32()), ctypes.byref(U32())
    for name in ("nvmlDeviceGetMigMode", "nvmlDeviceGetDriverModel_v2"):
        assert nvml(name, handle, *pair) == "NOT_SUPPORTED"
    assert nvml("nvmlDeviceSetPersistenceMode", handle, 1) == "NO_PERMISSION"


def test_place_on_the_bus_in_all_versions_of_its_structure(h200: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    newest = pynvml.nvmlDeviceGetPciInfo_v3(handle)
    assert (newest.busIdLegacy, newest.busId) == ("0000:01:00.0", "00000000:01:00.0")
    assert (newest.domain, newest.bus, newest.device) == (0, 1, 0)
    assert (newest.pciDeviceId, newest.pciSubSystemId) == (0x233510DE, 0x18BE10DE)
    second = pynvml.nvmlPciInfo_v2_t()
    assert nvml("nvmlDeviceGetPciInfo_v2", handle, ctypes.byref(second)) == "SUCCESS"
    assert (second.busId, second.pciSubSystemId) == ("0000:01:00.0", 0x18BE10DE)
    extended = pynvml.nvmlPciInfoExt_v1_t()
    extended.version = pynvml.nvmlPciInfoExt_v1
    assert nvml("nvmlDeviceGetPciInfoExt", handle, ctypes.byref(extended)) == "SUCCESS"
    assert (extended.baseClass, extended.subClass, extended.pciDeviceId) == (3, 2, 0x233510DE)


@pytest.mark.parametrize(("name", "ends_at"), [("nvmlDeviceGetPciInfo", 32), ("nvmlDeviceGetPciInfo_v2", 36)])
def test_older_structures_are_not_written_beyond_their_end(h200: Gpu, name: str, ends_at: int) -> None:
    room = ctypes.create_string_buffer(b"\xee" * 68, 68)
    assert nvml(name, handle_of(h200), room) == "SUCCESS"
    assert room.raw[:12] == b"0000:01:00.0"
    assert set(room.raw[ends_at:]) == {0xEE}


@pytest.mark.parametrize("name", ["nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetSerial"])
def test_strings_need_room(h200: Gpu, name: str) -> None:
    room = ctypes.create_string_buffer(b"\xee" * 96, 96)
    assert nvml(name, handle_of(h200), room, 4) == "INSUFFICIENT_SIZE"
    assert nvml(name, handle_of(h200), room, 0) == "INSUFFICIENT_SIZE"
    assert set(room.raw) == {0xEE}
    assert nvml(name, handle_of(h200), None, 96) == "INVALID_ARGUMENT"
    assert nvml(name, handle_of(h200), room, 96) == "SUCCESS"
    length = len(room.value) + 1
    assert nvml(name, handle_of(h200), room, length) == "SUCCESS"
    assert nvml(name, handle_of(h200), room, length - 1) == "INSUFFICIENT_SIZE"


def test_versions_of_the_driver() -> None:
    with initialised(Driver(driver_version="570.86.15", cuda_version=(12, 8))):
        assert pynvml.nvmlSystemGetDriverVersion() == "570.86.15"
        assert pynvml.nvmlSystemGetNVMLVersion() == "12.570.86.15"
        assert pynvml.nvmlSystemGetCudaDriverVersion() == pynvml.nvmlSystemGetCudaDriverVersion_v2() == 12080


# -- memory


def test_reserved_memory_is_used_in_the_first_version_alone(driver: Driver, h200: Gpu) -> None:
    driver.process(h200, used="20 GiB")
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    first = pynvml.nvmlDeviceGetMemoryInfo(handle)
    second = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
    assert (second.total, second.reserved, second.used, second.free) == h200.memory
    assert (first.total, first.used, first.free) == (second.total, second.used + second.reserved, second.free)
    window = pynvml.nvmlDeviceGetBAR1MemoryInfo(handle)
    assert window.bar1Total == window.bar1Free + window.bar1Used == 262144 * MIB


@pytest.mark.parametrize("version", [0, 2, 0x1000028, 0x2000027, 0x2000029, 0x3000028, 0xFFFFFFFF])
def test_a_wrong_version_word_is_refused(h200: Gpu, version: int) -> None:
    memory = pynvml.c_nvmlMemory_v2_t()
    memory.version = version
    assert nvml("nvmlDeviceGetMemoryInfo_v2", handle_of(h200), ctypes.byref(memory)) == "ARGUMENT_VERSION_MISMATCH"
    assert memory.total == 0


def test_null_is_an_invalid_argument(h200: Gpu) -> None:
    for name in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetIndex"):
        assert nvml(name, handle_of(h200), None) == "INVALID_ARGUMENT"


RAMPS = st.sampled_from(
    [
        Ramp.immediate(),
        Ramp.step(after="300ms"),
        Ramp.linear("2s", after="150ms"),
        Ramp.exponential(half_life="250ms"),
        Ramp.points([(0.1, 0.2), (1.0, 0.7), (3.0, 1.0)]),
        Ramp.never(),
    ]
)
PROCESSES = st.lists(st.tuples(st.integers(0, 8 << 30), RAMPS, st.booleans()), max_size=4)
STEPS_NS = st.lists(st.integers(0, 3_000_000_000), min_size=1, max_size=6)


def test_memory_adds_up_in_every_view_at_every_time(driver: Driver, clock: HandClock) -> None:
    @settings(max_examples=60, deadline=None)
    @given(PROCESSES, STEPS_NS)
    def check(processes: list[tuple[int, Ramp, bool]], steps: list[int]) -> None:
        gpu = driver.add_gpu("l40s")
        running = [(driver.process(gpu, used=size, reclaim=ramp), dies) for size, ramp, dies in processes]
        handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
        for step in steps:
            clock.now += step
            first = pynvml.nvmlDeviceGetMemoryInfo(handle)
            second = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
            assert second.total == second.reserved + second.used + second.free
            assert first.total == first.used + first.free
            assert first.used == second.used + second.reserved
            assert gpu.memory == (second.total, second.reserved, second.used, second.free)
            assert second.used == sum(process.used[gpu] for process, _ in running)
            if running and running[-1][1]:
                process, _ = running[-1]
                if process.alive:
                    process.kill()

    check()


# -- faults


def test_faults_meet_calls(driver: Driver, h200: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    driver.inject(Fault.nvml("UNKNOWN"), via="nvmlDeviceGetMemoryInfo", times=1)
    with pytest.raises(pynvml.NVMLError_Unknown):
        pynvml.nvmlDeviceGetMemoryInfo(handle)
    assert pynvml.nvmlDeviceGetMemoryInfo(handle).total == h200.memory.total
    assert [call.code for call in driver.calls][-2:] == [999, 0]


def test_what_is_not_covered_says_so_in_the_log(driver: Driver, h200: Gpu) -> None:
    room = ctypes.create_string_buffer(4096)
    assert nvml("nvmlDeviceGetClkMonStatus", handle_of(h200), room) == "NOT_SUPPORTED"
    assert nvml("nvmlDeviceGetBridgeChipInfo", handle_of(h200), room) == "NOT_SUPPORTED"
    assert [(call.name, call.covered) for call in driver.calls][-2:] == [
        ("nvmlDeviceGetClkMonStatus", False),
        ("nvmlDeviceGetBridgeChipInfo", True),
    ]
