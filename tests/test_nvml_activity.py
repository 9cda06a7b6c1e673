"""What a card is doing, through NVML: load, temperature, fans, power, clocks, links, errors, field values, events."""

from __future__ import annotations

import ctypes
import os
import time

import pynvml
import pytest
from nvml_client import U32, HandClock, handle_of, initialised, nvml, unsigned

from fake_gpu import Driver, Gpu


@pytest.fixture
def rtx(driver: Driver) -> Gpu:
    return driver.add_gpu("rtx-4090")


@pytest.fixture
def h200(driver: Driver) -> Gpu:
    return driver.add_gpu("h200")


def test_load(rtx: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    rtx.activity.gpu_percent, rtx.activity.memory_percent = 97, 41
    rtx.activity.encoder_percent, rtx.activity.decoder_percent = 12, 7
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    assert (rates.gpu, rates.memory) == (97, 41)
    assert pynvml.nvmlDeviceGetEncoderUtilization(handle) == [12, 167_000]
    assert pynvml.nvmlDeviceGetDecoderUtilization(handle) == [7, 167_000]
    assert pynvml.nvmlDeviceGetJpgUtilization(handle)[0] == pynvml.nvmlDeviceGetOfaUtilization(handle)[0] == 0


def test_temperature_in_both_versions(rtx: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    rtx.activity.temperature = 71
    assert pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU) == 71
    assert pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU) == 71
    assert unsigned("nvmlDeviceGetTemperature", handle, 2) == "INVALID_ARGUMENT"
    request = (U32 * 3)(0x200000C)
    assert nvml("nvmlDeviceGetTemperatureV", handle, request) == "ARGUMENT_VERSION_MISMATCH"


def test_temperature_thresholds(driver: Driver, rtx: Gpu) -> None:
    handle = handle_of(rtx)
    answers = [unsigned("nvmlDeviceGetTemperatureThreshold", handle, kind) for kind in (0, 1, 2, 3, 4, 7, 8)]
    assert answers == [100, 95, "NOT_SUPPORTED", 84, "NOT_SUPPORTED", "NOT_SUPPORTED", "INVALID_ARGUMENT"]


def test_fans(driver: Driver, rtx: Gpu) -> None:
    server_card = handle_of(driver.add_gpu("t4"))
    rtx.activity.fan_percent = 35
    handle = handle_of(rtx)
    assert unsigned("nvmlDeviceGetNumFans", handle) == 2
    assert unsigned("nvmlDeviceGetFanSpeed", handle) == unsigned("nvmlDeviceGetFanSpeed_v2", handle, 1) == 35
    assert unsigned("nvmlDeviceGetFanSpeed_v2", handle, 2) == "INVALID_ARGUMENT"
    assert unsigned("nvmlDeviceGetFanSpeed", server_card) == "NOT_SUPPORTED"
    assert unsigned("nvmlDeviceGetFanSpeed_v2", server_card, 0) == "NOT_SUPPORTED"


def test_power(rtx: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 21_500
    rtx.activity.power, rtx.activity.pstate = 390.25, 2
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 390_250
    assert pynvml.nvmlDeviceGetPowerManagementLimit(handle) == pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 450_000
    assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle) == [150_000, 600_000]
    assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) == 450_000
    assert pynvml.nvmlDeviceGetPerformanceState(handle) == pynvml.nvmlDeviceGetPowerState(handle) == 2
    assert pynvml.nvmlDeviceGetSupportedPerformanceStates(handle)[:2] == [0, 8]


def test_energy_grows_with_the_clock(rtx: Gpu, clock: HandClock) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 0
    clock.go(2)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 43_000
    clock.go(3600)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == 43_000 + 77_400_000


def test_clocks(rtx: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) == 210
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == 1
    rtx.activity.busy = True
    assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM) == 10501
    assert pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_VIDEO) == 2415
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) == 0
    assert pynvml.nvmlDeviceGetSupportedMemoryClocks(handle) == [10501, 10251, 5001, 810, 405]
    graphics = pynvml.nvmlDeviceGetSupportedGraphicsClocks(handle, 10501)
    assert (graphics[0], graphics[1], graphics[-1]) == (3120, 3105, 210)
    assert unsigned("nvmlDeviceGetClockInfo", handle, 4) == "INVALID_ARGUMENT"
    assert nvml("nvmlDeviceGetSupportedGraphicsClocks", handle, 1, ctypes.byref(U32(0)), None) == "NOT_FOUND"
    assert unsigned("nvmlDeviceGetApplicationsClock", handle, 0) == "DEPRECATED"


def test_links(driver: Driver, rtx: Gpu, h200: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetCurrPcieLinkGeneration(handle) == 1
    rtx.activity.busy, rtx.activity.pcie_rx_kib_s, rtx.activity.pcie_tx_kib_s = True, 1000, 2000
    assert pynvml.nvmlDeviceGetCurrPcieLinkGeneration(handle) == pynvml.nvmlDeviceGetMaxPcieLinkGeneration(handle) == 4
    assert pynvml.nvmlDeviceGetCurrPcieLinkWidth(handle) == pynvml.nvmlDeviceGetMaxPcieLinkWidth(handle) == 16
    assert pynvml.nvmlDeviceGetPcieThroughput(handle, pynvml.NVML_PCIE_UTIL_RX_BYTES) == 1000
    assert pynvml.nvmlDeviceGetPcieThroughput(handle, pynvml.NVML_PCIE_UTIL_TX_BYTES) == 2000
    assert unsigned("nvmlDeviceGetPcieThroughput", handle, 2) == "INVALID_ARGUMENT"
    assert pynvml.nvmlDeviceGetPcieReplayCounter(handle) == 0
    assert [unsigned("nvmlDeviceGetNvLinkState", handle_of(h200), link) for link in (0, 17, 18)] == [
        1,
        1,
        "INVALID_ARGUMENT",
    ]
    assert unsigned("nvmlDeviceGetNvLinkVersion", handle_of(h200), 0) == pynvml.NVML_NVLINK_VERSION_4_0
    assert unsigned("nvmlDeviceGetNvLinkState", handle, 0) == "NOT_SUPPORTED"


def test_two_cards(driver: Driver, h200: Gpu, rtx: Gpu) -> None:
    second = handle_of(driver.add_gpu("h200"))
    first, third = handle_of(h200), handle_of(rtx)
    read, nvlink = 0, 2
    assert unsigned("nvmlDeviceGetP2PStatus", first, second, nvlink) == pynvml.NVML_P2P_STATUS_OK
    assert unsigned("nvmlDeviceGetP2PStatus", first, third, nvlink) == pynvml.NVML_P2P_STATUS_NOT_SUPPORTED
    assert unsigned("nvmlDeviceGetP2PStatus", first, third, read) == 1
    assert unsigned("nvmlDeviceGetTopologyCommonAncestor", first, second) == pynvml.NVML_TOPOLOGY_NODE
    assert unsigned("nvmlDeviceGetP2PStatus", first, ctypes.c_void_p(1), 0) == "INVALID_ARGUMENT"
    rtx.lose()
    assert unsigned("nvmlDeviceGetP2PStatus", first, third, 0) == "GPU_IS_LOST"


def test_cpu_affinity_is_every_cpu(rtx: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    cpus = os.cpu_count() or 1
    words = pynvml.nvmlDeviceGetCpuAffinity(handle, 1 + cpus // 64)
    assert sum(int(word).bit_count() for word in words) == cpus
    assert nvml("nvmlDeviceGetCpuAffinity", handle, 0, (ctypes.c_ulong * 1)()) == "INVALID_ARGUMENT"


def test_errors_are_counted_by_cards_with_ecc(driver: Driver, h200: Gpu, rtx: Gpu) -> None:
    t4 = driver.add_gpu("t4")
    count = ctypes.c_ulonglong(7)

    def counter(gpu: Gpu, location: int) -> str:
        return nvml("nvmlDeviceGetMemoryErrorCounter", handle_of(gpu), 0, 0, location, ctypes.byref(count))

    assert counter(h200, pynvml.NVML_MEMORY_LOCATION_DRAM) == counter(t4, 0) == "SUCCESS"
    assert count.value == 0
    assert counter(h200, 0) == counter(t4, 7) == counter(rtx, 2) == "NOT_SUPPORTED"
    assert counter(h200, 8) == "INVALID_ARGUMENT"
    assert unsigned("nvmlDeviceGetRetiredPagesPendingStatus", handle_of(t4)) == 0
    assert unsigned("nvmlDeviceGetRetiredPagesPendingStatus", handle_of(h200)) == "NOT_SUPPORTED"
    assert pynvml.nvmlDeviceGetRemappedRows(pynvml.nvmlDeviceGetHandleByIndex(0)) == (0, 0, 0, 0)
    assert nvml("nvmlDeviceGetRemappedRows", handle_of(t4), *[ctypes.byref(U32())] * 4) == "NOT_SUPPORTED"
    assert pynvml.nvmlDeviceGetEccMode(pynvml.nvmlDeviceGetHandleByIndex(0)) == [1, 1]


def test_field_values_each_have_their_own_code(h200: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    power, links, temperature, unknown, wrong_link = pynvml.nvmlDeviceGetFieldValues(
        handle,
        [
            pynvml.NVML_FI_DEV_POWER_INSTANT,
            pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT,
            pynvml.NVML_FI_DEV_MEMORY_TEMP,
            9999,
            (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, 18),
        ],
    )
    assert (power.nvmlReturn, power.valueType, power.value.uiVal) == (0, pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 77_710)
    assert (links.value.uiVal, temperature.value.uiVal) == (18, 32)
    assert abs(power.timestamp / 1e6 - time.time()) < 60
    assert unknown.nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert wrong_link.nvmlReturn == pynvml.NVML_ERROR_INVALID_ARGUMENT


@pytest.mark.parametrize("count", [0, -1, -(2**31)])
def test_field_values_need_a_count(h200: Gpu, count: int) -> None:
    value = pynvml.c_nvmlFieldValue_t()
    assert nvml("nvmlDeviceGetFieldValues", handle_of(h200), count, ctypes.byref(value)) == "INVALID_ARGUMENT"


def test_margins_to_the_thresholds(h200: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    request = (ctypes.c_int * 2)(0x1000008)
    assert nvml("nvmlDeviceGetMarginTemperature", handle, request) == "SUCCESS"
    assert request[1] == 59
    fields = [pynvml.NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT, pynvml.NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT]
    shutdown, highest = pynvml.nvmlDeviceGetFieldValues(handle, fields)
    assert (shutdown.value.siVal, highest.value.siVal) == (-8, 0)  # what nvidia-smi of a real one shows


def test_performance_metrics_are_not_there(h200: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice == 0


# -- events, on the real clock


def test_a_wait_for_events_lasts_for_its_timeout() -> None:
    with initialised(Driver()) as driver:
        driver.add_gpu("t4")
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        events = pynvml.nvmlEventSetCreate()
        pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
        begun = time.monotonic()
        with pytest.raises(pynvml.NVMLError_Timeout):
            pynvml.nvmlEventSetWait_v2(events, 30)
        assert 0.03 <= time.monotonic() - begun < 5
        pynvml.nvmlEventSetFree(events)
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlEventSetFree(events)


def test_events_that_a_card_does_not_have(rtx: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    events = pynvml.nvmlEventSetCreate()
    assert pynvml.nvmlDeviceGetSupportedEventTypes(handle) == 4 | 8 | 16
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeDoubleBitEccError, events)


def test_types_of_events_are_checked(rtx: Gpu) -> None:
    events = ctypes.c_void_p()
    assert nvml("nvmlEventSetCreate", ctypes.byref(events)) == "SUCCESS"

    def register(types: int, where: object = events) -> str:
        return nvml("nvmlDeviceRegisterEvents", handle_of(rtx), ctypes.c_ulonglong(types), where)

    assert register(4 | 8) == register(4 | 8) == "SUCCESS"
    assert register(0x100) == register(8 | 1) == "NOT_SUPPORTED"
    assert register(0x20) == register(1 << 40) == register(8, None) == "INVALID_ARGUMENT"
    supported = ctypes.c_ulonglong()
    assert nvml("nvmlDeviceGetSupportedEventTypes", handle_of(rtx), ctypes.byref(supported)) == "SUCCESS"
    assert register(supported.value) == "SUCCESS"


@pytest.mark.parametrize("name", ["nvmlEventSetWait", "nvmlEventSetWait_v2"])
def test_a_wait_without_a_timeout(driver: Driver, rtx: Gpu, name: str) -> None:
    events = ctypes.c_void_p()
    nvml("nvmlEventSetCreate", ctypes.byref(events))
    data = ctypes.byref(pynvml.c_nvmlEventData_t())
    assert nvml(name, events, data, 0) == "TIMEOUT"  # an empty set
    nvml("nvmlDeviceRegisterEvents", handle_of(rtx), ctypes.c_ulonglong(8), events)
    assert nvml(name, events, data, 0) == "TIMEOUT"
    assert driver.calls[-1].delay_ns == 0
    assert nvml(name, events, None, 0) == nvml(name, None, data, 0) == "INVALID_ARGUMENT"
    rtx.lose()
    assert nvml(name, events, data, 60_000) == "GPU_IS_LOST"
    rtx.restore()
    assert nvml(name, events, data, 0) == "TIMEOUT"
    assert nvml("nvmlEventSetFree", events) == "SUCCESS"
    assert nvml(name, events, data, 0) == nvml("nvmlEventSetFree", events) == "INVALID_ARGUMENT"


def test_event_sets_end_with_the_last_shutdown() -> None:
    with Driver() as driver:
        driver.add_gpu("t4")
        while nvml("nvmlShutdown") == "SUCCESS":
            pass
        pynvml.nvmlInit()
        pynvml.nvmlInit()
        events = pynvml.nvmlEventSetCreate()
        pynvml.nvmlShutdown()
        assert nvml("nvmlEventSetWait_v2", events, ctypes.byref(pynvml.c_nvmlEventData_t()), 0) == "TIMEOUT"
        pynvml.nvmlShutdown()
        pynvml.nvmlInit()
        assert nvml("nvmlEventSetFree", events) == "INVALID_ARGUMENT"
        pynvml.nvmlShutdown()


# -- samples


def test_samples(rtx: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    doing = rtx.activity
    doing.power, doing.gpu_percent, doing.memory_percent = 100.5, 90, 40
    doing.encoder_percent, doing.decoder_percent, doing.busy = 30, 20, True
    values = []
    for kind in (0, 1, 2, 3, 4, 5, 6, 8, 9):
        unsigned_type, found = pynvml.nvmlDeviceGetSamples(handle, kind, 0)
        assert (unsigned_type, len(found)) == (pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 1)
        values.append(found[0].sampleValue.uiVal)
    assert values == [100_500, 90, 40, 30, 20, 3120, 10501, 0, 0]
    stamp = found[0].timeStamp
    assert abs(stamp / 1e6 - time.time()) < 60
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetSamples(handle, 1, stamp + 3_600_000_000)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetSamples(handle, 7, 0)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceGetSamples(handle, 10, 0)


def test_samples_need_room(rtx: Gpu) -> None:
    kind, count, array = U32(), U32(0), (pynvml.c_nvmlSample_t * 1)()
    name, since = "nvmlDeviceGetSamples", ctypes.c_ulonglong(0)
    rest = ctypes.byref(kind), ctypes.byref(count)
    assert nvml(name, handle_of(rtx), 1, since, *rest, array) == "INVALID_ARGUMENT"
    assert nvml(name, handle_of(rtx), 1, since, *rest, None) == "SUCCESS"
    assert (kind.value, count.value) == (1, 1)


def test_neighbours_are_counted_without_room(driver: Driver, rtx: Gpu, h200: Gpu) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    (other,) = pynvml.nvmlDeviceGetTopologyNearestGpus(handle, pynvml.NVML_TOPOLOGY_NODE)
    assert ctypes.cast(other, ctypes.c_void_p).value == h200.handle
    assert pynvml.nvmlDeviceGetTopologyNearestGpus(handle, pynvml.NVML_TOPOLOGY_SINGLE) == []
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceGetTopologyNearestGpus(handle, 15)
