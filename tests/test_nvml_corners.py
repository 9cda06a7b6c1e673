"""NVML's less travelled functions, and the limits of the others: what no client of the tests happens to ask."""

from __future__ import annotations

import ctypes
import struct

import msgspec
import pynvml
import pytest
from nvml_client import U32, HandClock, handle_of, nvml, unsigned

from fake_gpu import Driver, Fault, Gpu
from fake_gpu.nvml.abi import functions
from fake_gpu.nvml.dispatch import NEVER, Session


@pytest.fixture
def rtx(driver: Driver) -> Gpu:
    return driver.add_gpu("rtx-4090")


@pytest.fixture
def t4(driver: Driver) -> Gpu:
    return driver.add_gpu("t4")


@pytest.fixture
def h200(driver: Driver) -> Gpu:
    return driver.add_gpu("h200")


def asked(gpu: Gpu, *names: str) -> list[int | str]:
    return [unsigned(f"nvmlDeviceGet{name}", handle_of(gpu)) for name in names]


CAPABILITIES = {"pascal": (6, 0), "volta": (7, 0), "ada": (8, 9), "blackwell": (10, 0)}


def older(gpu: Gpu, architecture: str) -> ctypes.c_void_p:
    capability, mig = CAPABILITIES[architecture], gpu.profile.mig if architecture == "blackwell" else None
    gpu.profile = msgspec.structs.replace(
        gpu.profile, architecture=architecture, compute_capability=capability, mig=mig
    )
    return handle_of(gpu)


def fields(gpu: Gpu, *numbers: int | tuple[int, int]) -> list[pynvml.c_nvmlFieldValue_t]:
    values: list[pynvml.c_nvmlFieldValue_t] = pynvml.nvmlDeviceGetFieldValues(handle_of(gpu), numbers)
    return values


# -- what a card is


def test_identity(driver: Driver, rtx: Gpu, t4: Gpu, h200: Gpu) -> None:
    assert asked(rtx, "BusType", "BoardId", "C2cModeInfoV") == [2, 0x100, "NOT_SUPPORTED"]
    h200.pci_domain, h200.pci_bus, h200.pci_device = 1, 0x83, 2
    assert asked(h200, "BusType", "BoardId", "C2cModeInfoV") == [2, 0x18302, 0]
    pair = ctypes.byref(U32()), ctypes.byref(U32())
    assert nvml("nvmlDeviceGetGspFirmwareMode", handle_of(t4), *pair) == "SUCCESS"
    assert nvml("nvmlDeviceGetGspFirmwareMode", older(t4, "pascal"), *pair) == "NOT_SUPPORTED"
    room = ctypes.create_string_buffer(96)
    assert nvml("nvmlDeviceGetInforomVersion", handle_of(h200), 4, room, 96) == "INVALID_ARGUMENT"
    assert nvml("nvmlDeviceGetInforomVersion", handle_of(h200), 3, room, 96) == "NOT_SUPPORTED"
    assert nvml("nvmlDeviceGetHandleBySerial", b"", ctypes.byref(ctypes.c_void_p())) == "INVALID_ARGUMENT"


def test_a_bus_whose_width_is_not_known(rtx: Gpu) -> None:
    assert asked(rtx, "MemoryBusWidth") == [384]
    memory = msgspec.structs.replace(rtx.profile.memory, bus_width=None)
    rtx.profile = msgspec.structs.replace(rtx.profile, memory=memory)
    assert asked(rtx, "MemoryBusWidth") == ["NOT_SUPPORTED"]


def test_brands(rtx: Gpu) -> None:
    brands = ("quadro", "tesla", "nvs", "grid", "geforce", "titan", "quadro rtx", "nvidia rtx", "rtx", "nvidia")
    numbers = []
    for brand in brands:
        rtx.profile = msgspec.structs.replace(rtx.profile, brand=brand)
        numbers.append(pynvml.nvmlDeviceGetBrand(handle_of(rtx)))
    assert numbers == [1, 2, 3, 4, 5, 6, 12, 13, 13, 14]


def test_versions_and_kinds_of_structures(h200: Gpu) -> None:
    handle, out = handle_of(h200), ctypes.byref(ctypes.c_void_p())
    mismatch = "ARGUMENT_VERSION_MISMATCH"
    assert nvml("nvmlDeviceGetMarginTemperature", handle, (ctypes.c_int * 2)(0x2000008)) == mismatch
    assert nvml("nvmlDeviceGetPciInfoExt", handle, (U32 * 20)(0x2000040)) == mismatch
    assert nvml("nvmlGpmQueryDeviceSupport", handle, (U32 * 2)(2)) == mismatch
    assert nvml("nvmlDeviceGetHandleByUUIDV", (U32 * 13)(0x2000034, 1), out) == mismatch
    assert nvml("nvmlDeviceGetHandleByUUIDV", (U32 * 13)(0x1000034, 3), out) == "INVALID_ARGUMENT"
    memory = pynvml.c_nvmlMemory_v2_t()
    memory.version = pynvml.nvmlMemory_v2
    assert nvml("nvmlDeviceGetMemoryInfo_v2", handle, ctypes.byref(memory)) == "SUCCESS"
    assert memory.version == pynvml.nvmlMemory_v2


def test_other_functions_of_a_card_are_not_there(h200: Gpu) -> None:
    handle = ctypes.byref(ctypes.c_void_p())
    by_bus_id = "nvmlDeviceGetHandleByPciBusId_v2"
    assert nvml(by_bus_id, b"00000000:01:00.0", handle) == "SUCCESS"
    assert nvml(by_bus_id, b"00000000:01:00.1", handle) == "NOT_FOUND"


# -- what it does


def test_fan_range(rtx: Gpu, t4: Gpu) -> None:
    low, high = U32(), U32()
    bounds = ctypes.byref(low), ctypes.byref(high)
    assert nvml("nvmlDeviceGetMinMaxFanSpeed", handle_of(rtx), *bounds) == "SUCCESS"
    assert (low.value, high.value) == (30, 100)
    assert nvml("nvmlDeviceGetMinMaxFanSpeed", handle_of(t4), *bounds) == "NOT_SUPPORTED"


def test_the_second_sensor_and_frame_capture(rtx: Gpu) -> None:
    assert unsigned("nvmlDeviceGetTemperature", handle_of(rtx), 1) == "NOT_SUPPORTED"
    stats = (U32 * 3)(7, 7, 7)
    assert nvml("nvmlDeviceGetFBCStats", handle_of(rtx), stats) == "SUCCESS"
    assert list(stats) == [0, 0, 0]


def test_clocks_by_id(rtx: Gpu, t4: Gpu) -> None:
    def clock(gpu: Gpu, domain: int, kind: int) -> int | str:
        return unsigned("nvmlDeviceGetClock", handle_of(gpu), domain, kind)

    assert [clock(t4, 0, kind) for kind in range(5)] == [300, "DEPRECATED", "DEPRECATED", 1590, "INVALID_ARGUMENT"]
    assert clock(t4, 4, 0) == "INVALID_ARGUMENT"
    assert clock(rtx, 0, 3) == "NOT_SUPPORTED"
    reasons = ctypes.c_ulonglong()
    assert nvml("nvmlDeviceGetSupportedClocksEventReasons", handle_of(rtx), ctypes.byref(reasons)) == "SUCCESS"
    assert reasons.value == 0x1FF


def test_cards_that_do_not_list_clocks(rtx: Gpu) -> None:
    clocks = msgspec.structs.replace(rtx.profile.clocks, supported_memory=())
    rtx.profile = msgspec.structs.replace(rtx.profile, clocks=clocks)
    count = ctypes.byref(U32(0))
    assert nvml("nvmlDeviceGetSupportedMemoryClocks", handle_of(rtx), count, None) == "NOT_SUPPORTED"
    assert nvml("nvmlDeviceGetSupportedGraphicsClocks", handle_of(rtx), 10501, count, None) == "NOT_SUPPORTED"


def test_performance_states_need_room(rtx: Gpu) -> None:
    room = (U32 * 20)(*[7] * 20)
    name = "nvmlDeviceGetSupportedPerformanceStates"
    assert nvml(name, handle_of(rtx), room, 4) == "INSUFFICIENT_SIZE"
    assert nvml(name, handle_of(rtx), None, 80) == "INVALID_ARGUMENT"
    assert nvml(name, handle_of(rtx), room, 8) == "SUCCESS"
    assert list(room)[:3] == [0, 8, 7]
    assert nvml(name, handle_of(rtx), room, 80) == "SUCCESS"
    assert list(room) == [0, 8, *[32] * 14, *[7] * 4]  # 16 states at most; the others are unknown


def test_energy_is_counted_since_volta(t4: Gpu) -> None:
    energy = ctypes.byref(ctypes.c_ulonglong())
    assert nvml("nvmlDeviceGetTotalEnergyConsumption", older(t4, "volta"), energy) == "SUCCESS"
    assert nvml("nvmlDeviceGetTotalEnergyConsumption", older(t4, "pascal"), energy) == "NOT_SUPPORTED"


# -- links and places


def test_pcie(driver: Driver, rtx: Gpu) -> None:
    rtx.profile = msgspec.structs.replace(
        rtx.profile, pci=msgspec.structs.replace(rtx.profile.pci, max_generation=5, host_generation=4)
    )
    names = ("PcieSpeed", "CurrPcieLinkGeneration", "MaxPcieLinkGeneration", "GpuMaxPcieLinkGeneration")
    assert asked(rtx, *names) == [2500, 1, 4, 5]
    rtx.activity.busy = True
    assert asked(rtx, *names, "PcieLinkMaxSpeed") == [16_000, 4, 4, 5, 4]


def test_nvlink(rtx: Gpu, h200: Gpu) -> None:
    def capability(gpu: Gpu, link: int, which: int) -> int | str:
        return unsigned("nvmlDeviceGetNvLinkCapability", handle_of(gpu), link, which)

    assert [capability(h200, 0, which) for which in range(7)] == [1, 1, 1, 1, 0, 1, "INVALID_ARGUMENT"]
    assert [capability(rtx, link, 0) for link in (35, 36)] == ["NOT_SUPPORTED", "INVALID_ARGUMENT"]
    count = ctypes.byref(ctypes.c_ulonglong())
    answers = [nvml("nvmlDeviceGetNvLinkErrorCounter", handle_of(h200), 0, which, count) for which in (3, 4)]
    assert answers == ["SUCCESS", "INVALID_ARGUMENT"]
    h200.profile = msgspec.structs.replace(h200.profile, nvlinks_active=False)
    assert unsigned("nvmlDeviceGetNvLinkState", handle_of(h200), 0) == 0


def test_a_card_and_itself(rtx: Gpu, h200: Gpu) -> None:
    first, second = handle_of(rtx), handle_of(h200)
    assert unsigned("nvmlDeviceGetTopologyCommonAncestor", first, first) == pynvml.NVML_TOPOLOGY_INTERNAL
    assert unsigned("nvmlDeviceOnSameBoard", first, first) == 1
    assert unsigned("nvmlDeviceOnSameBoard", first, second) == 0
    assert unsigned("nvmlDeviceGetP2PStatus", first, first, 0) == "INVALID_ARGUMENT"
    assert unsigned("nvmlDeviceGetP2PStatus", first, second, 5) == "INVALID_ARGUMENT"


def test_affinity_fills_what_there_is_room_for(monkeypatch: pytest.MonkeyPatch, rtx: Gpu) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 70)
    for words, expected in ((1, [2**64 - 1]), (2, [2**64 - 1, 63])):
        room = (ctypes.c_uint64 * words)()
        assert nvml("nvmlDeviceGetCpuAffinity", handle_of(rtx), words, room) == "SUCCESS"
        assert list(room) == expected
    for name in ("nvmlDeviceGetMemoryAffinity", "nvmlDeviceGetCpuAffinityWithinScope"):
        assert nvml(name, handle_of(rtx), 1, (ctypes.c_uint64 * 1)(), 1) == "SUCCESS"
        assert nvml(name, handle_of(rtx), 1, (ctypes.c_uint64 * 1)(), 2) == "INVALID_ARGUMENT"
        assert nvml(name, handle_of(rtx), 1, None, 0) == "INVALID_ARGUMENT"


# -- errors


def test_counters_of_errors(rtx: Gpu, t4: Gpu, h200: Gpu) -> None:
    assert asked(h200, "DefaultEccMode") == [1]
    assert asked(rtx, "DefaultEccMode") == [0]
    counts = (ctypes.c_ulonglong * 4)(*[7] * 4)
    assert nvml("nvmlDeviceGetDetailedEccErrors", handle_of(h200), 0, 1, counts) == "SUCCESS"
    assert list(counts) == [0, 0, 0, 0]
    for cause, answer in ((1, "SUCCESS"), (2, "INVALID_ARGUMENT")):
        assert nvml("nvmlDeviceGetRetiredPages", handle_of(t4), cause, ctypes.byref(U32(0)), None) == answer
    histogram = (U32 * 5)()
    assert nvml("nvmlDeviceGetRowRemapperHistogram", handle_of(h200), histogram) == "SUCCESS"
    assert list(histogram) == [3072, 0, 0, 0, 0]


# -- field values


def test_power_by_field(rtx: Gpu, t4: Gpu, clock: HandClock) -> None:
    limits = [value.value.uiVal for value in fields(rtx, 185, 186, 187, 188, 189, 190, 192)]
    assert limits == [21_500, 21_500, 150_000, 600_000, 450_000, 450_000, 450_000]
    average, module = fields(t4, 185, (186, 1))
    assert (average.nvmlReturn, module.nvmlReturn) == (3, 3)  # Turing averages nothing, and the card is no module
    clock.go(2)
    assert [(value.valueType, value.value.ullVal) for value in fields(rtx, 83, 191)] == [(3, 43_000)] * 2


def test_margins_by_field_are_signed(h200: Gpu) -> None:
    assert [value.valueType for value in fields(h200, 193, 194, 195, 196)] == [5, 5, 5, 5]


def test_counters_by_field(t4: Gpu, h200: Gpu) -> None:
    every_link, last_link, no_link = fields(h200, (138, 0xFFFF_FFFF), (138, 17), (138, 18))
    assert [value.nvmlReturn for value in (every_link, last_link, no_link)] == [0, 0, 2]
    # Corrected and uncorrected by turns of L1, L2, device memory, registers and textures; the CBU's are not corrected.
    for first in (7, 18):
        answers = [value.nvmlReturn for value in fields(h200, *range(first, first + 11))]
        assert answers == [3, 3, 3, 3, 0, 0, 3, 3, 3, 3, 3]
        assert [value.nvmlReturn for value in fields(t4, *range(first, first + 11))] == [0] * 11


# -- processes


def test_details_without_an_array(driver: Driver, h200: Gpu) -> None:
    driver.process(h200, "1 GiB")
    request = (U32 * 6)(0x1000018, 3, 4)
    assert nvml("nvmlDeviceGetRunningProcessDetailList", handle_of(h200), request) == "INSUFFICIENT_SIZE"
    older(h200, "blackwell")
    assert nvml("nvmlDeviceGetRunningProcessDetailList", handle_of(h200), request) == "INSUFFICIENT_SIZE"
    older(h200, "ada")
    assert nvml("nvmlDeviceGetRunningProcessDetailList", handle_of(h200), request) == "NOT_SUPPORTED"


def test_samples_since_a_sample_are_newer(monkeypatch: pytest.MonkeyPatch, driver: Driver, rtx: Gpu) -> None:
    monkeypatch.setattr(driver, "wall_time", lambda: 1_700_000_000.5)
    driver.process(rtx, "1 GiB")
    rtx.activity.gpu_percent = 50
    handle = handle_of(rtx)
    (sample,) = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    assert sample.timeStamp == 1_700_000_000_500_000
    _, (same,) = pynvml.nvmlDeviceGetSamples(handle, 1, sample.timeStamp - 1)
    assert same.timeStamp == sample.timeStamp
    for call in (
        lambda: pynvml.nvmlDeviceGetProcessUtilization(handle, sample.timeStamp),
        lambda: pynvml.nvmlDeviceGetSamples(handle, 1, sample.timeStamp),
    ):
        with pytest.raises(pynvml.NVMLError_NotFound):
            call()


# -- faults


def test_a_slow_wait_for_events_takes_both_delays(driver: Driver, rtx: Gpu) -> None:
    index = next(function.index for function in functions() if function.name == "nvmlEventSetWait_v2")
    create = next(function.index for function in functions() if function.name == "nvmlEventSetCreate")
    session = Session(1, initialised=1)
    reply, _ = driver.nvml.call(create, struct.pack("<I", 8), session)
    request = struct.pack("<QIQ", struct.unpack("<8xQ", reply)[0], 24, 20)
    driver.inject(Fault.slow("1s"), via="nvmlEventSetWait_v2")
    assert driver.nvml.call(index, request, session)[1] == 1_020_000_000
    driver.inject(Fault.hang(), via="nvmlEventSetWait_v2", times=1)
    driver.inject(Fault.slow("1s"), via="nvmlEventSetWait_v2")
    assert driver.nvml.call(index, request, session)[1] == NEVER
