"""One card, told in four ways: `--query-gpu`, `-q`, `-q -x` and NVML say the same."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pynvml
import pytest
from native_client import nvidia_smi

from fake_gpu import Driver, Gpu, platforms
from fake_gpu.profile import profile_names

Ask = Callable[[Any], object]

PCIE = "PCI/GPU Link Info"
PCIE_XML = "pci/pci_gpu_link_info"
REASONS = "Clocks Event Reasons"
REASON_XML = "clocks_event_reasons/clocks_event_reason_"
POWER, POWER_XML = "GPU Power Readings", "gpu_power_readings"


def mib(size: float) -> int:
    return -(-int(size) // 2**20)


def watts(milliwatts: int) -> str:
    return f"{milliwatts / 1000:.2f}"


def switch(on: int) -> str:
    return "Enabled" if on else "Disabled"


def memory(field: str) -> Ask:
    return lambda h: mib(getattr(pynvml.nvmlDeviceGetMemoryInfo(h, pynvml.nvmlMemory_v2), field))


def bar1(field: str) -> Ask:
    return lambda h: mib(getattr(pynvml.nvmlDeviceGetBAR1MemoryInfo(h), field))


def clock(domain: int) -> Ask:
    return lambda h: pynvml.nvmlDeviceGetClockInfo(h, domain)


def highest(domain: int) -> Ask:
    return lambda h: pynvml.nvmlDeviceGetMaxClockInfo(h, domain)


def limit(place: int) -> Ask:
    return lambda h: watts(pynvml.nvmlDeviceGetPowerManagementLimitConstraints(h)[place])


def reason(bit: int) -> Ask:
    return lambda h: "Active" if pynvml.nvmlDeviceGetCurrentClocksEventReasons(h) & bit else "Not Active"


def errors(kind: int, span: int) -> Ask:
    return lambda h: pynvml.nvmlDeviceGetMemoryErrorCounter(h, kind, span, pynvml.NVML_MEMORY_LOCATION_DRAM)


def protected(figure: str) -> tuple[str, str, Ask]:
    return (
        f"cc_protected_memory_usage/{figure}",
        f"Conf Compute Protected Memory Usage/{figure.title()}",
        lambda h: mib(getattr(pynvml.nvmlDeviceGetConfComputeProtectedMemoryUsage(h), figure)),
    )


TOLD: list[tuple[str | None, str | None, str | None, Ask | None]] = [
    # --query-gpu, -q -x, -q, NVML; None: not told there
    ("name", "product_name", "Product Name", pynvml.nvmlDeviceGetName),
    ("uuid", "uuid", "GPU UUID", pynvml.nvmlDeviceGetUUID),
    ("serial", "serial", "Serial Number", pynvml.nvmlDeviceGetSerial),
    ("vbios_version", "vbios_version", "VBIOS Version", pynvml.nvmlDeviceGetVbiosVersion),
    ("pci.bus_id", "pci/pci_bus_id", "PCI/Bus Id", lambda h: pynvml.nvmlDeviceGetPciInfo(h).busId),
    ("pci.bus", "pci/pci_bus", "PCI/Bus", lambda h: f"0x{pynvml.nvmlDeviceGetPciInfo(h).bus:02X}"),
    (
        "pci.device_id",
        "pci/pci_device_id",
        "PCI/Device Id",
        lambda h: f"0x{pynvml.nvmlDeviceGetPciInfo(h).pciDeviceId:08X}",
    ),
    (
        "pci.sub_device_id",
        "pci/pci_sub_system_id",
        "PCI/Sub System Id",
        lambda h: f"0x{pynvml.nvmlDeviceGetPciInfo(h).pciSubSystemId:08X}",
    ),
    (None, "minor_number", "Minor Number", pynvml.nvmlDeviceGetMinorNumber),
    (None, "board_id", "Board ID", lambda h: f"0x{pynvml.nvmlDeviceGetBoardId(h):x}"),
    ("index", None, None, pynvml.nvmlDeviceGetIndex),
    (
        "compute_cap",
        None,
        None,
        lambda h: "{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(h)),
    ),
    (
        "persistence_mode",
        "persistence_mode",
        "Persistence Mode",
        lambda h: switch(pynvml.nvmlDeviceGetPersistenceMode(h)),
    ),
    ("display_active", "display_active", "Display Active", lambda h: switch(pynvml.nvmlDeviceGetDisplayActive(h))),
    (
        "addressing_mode",
        "addressing_mode",
        "Addressing Mode",
        lambda h: ("None", "HMM", "ATS")[pynvml.nvmlDeviceGetAddressingMode(h)],
    ),
    (None, "pdi", "GPU PDI", lambda h: f"0x{pynvml.nvmlDeviceGetPdi(h):016x}"),
    (
        "platform.module_id",
        "platformInfo/module_id",
        "Platform Info/Module Id",
        lambda h: pynvml.nvmlDeviceGetModuleId(h, ctypes.c_uint()),
    ),
    (
        None,
        "ecc_errors/unrepairable_memory",
        "ECC Errors/Unrepairable Memory",
        lambda h: ("No", "Yes")[pynvml.nvmlDeviceGetUnrepairableMemoryFlag_v1(h)],
    ),
    ("protected_memory.total", *protected("total")),
    ("protected_memory.used", *protected("used")),
    ("protected_memory.free", *protected("free")),
    ("accounting.mode", "accounting_mode", "Accounting Mode", lambda h: switch(pynvml.nvmlDeviceGetAccountingMode(h))),
    (
        "accounting.buffer_size",
        "accounting_mode_buffer_size",
        "Accounting Mode Buffer Size",
        pynvml.nvmlDeviceGetAccountingBufferSize,
    ),
    ("driver_model.current", "driver_model/current_dm", "Driver Model/Current", None),
    ("compute_mode", "compute_mode", "Compute Mode", None),
    (
        "inforom.img",
        "inforom_version/img_version",
        "Inforom Version/Image Version",
        pynvml.nvmlDeviceGetInforomImageVersion,
    ),
    (
        "inforom.oem",
        "inforom_version/oem_object",
        "Inforom Version/OEM Object",
        lambda h: pynvml.nvmlDeviceGetInforomVersion(h, pynvml.NVML_INFOROM_OEM),
    ),
    (
        "inforom.ecc",
        "inforom_version/ecc_object",
        "Inforom Version/ECC Object",
        lambda h: pynvml.nvmlDeviceGetInforomVersion(h, pynvml.NVML_INFOROM_ECC),
    ),
    ("gpu_recovery_action", "gpu_recovery_action", "GPU Recovery Action", None),
    (
        "pcie.link.gen.max",
        f"{PCIE_XML}/pcie_gen/max_link_gen",
        f"{PCIE}/PCIe Generation/Max",
        pynvml.nvmlDeviceGetMaxPcieLinkGeneration,
    ),
    (
        "pcie.link.gen.current",
        f"{PCIE_XML}/pcie_gen/current_link_gen",
        f"{PCIE}/PCIe Generation/Current",
        pynvml.nvmlDeviceGetCurrPcieLinkGeneration,
    ),
    (
        "pcie.link.gen.gpumax",
        f"{PCIE_XML}/pcie_gen/max_device_link_gen",
        f"{PCIE}/PCIe Generation/Device Max",
        pynvml.nvmlDeviceGetGpuMaxPcieLinkGeneration,
    ),
    (
        "pcie.link.width.current",
        f"{PCIE_XML}/link_widths/current_link_width",
        f"{PCIE}/Link Width/Current",
        pynvml.nvmlDeviceGetCurrPcieLinkWidth,
    ),
    (
        "pcie.link.width.max",
        f"{PCIE_XML}/link_widths/max_link_width",
        f"{PCIE}/Link Width/Max",
        pynvml.nvmlDeviceGetMaxPcieLinkWidth,
    ),
    (None, "pci/tx_util", "PCI/Tx Throughput", lambda h: pynvml.nvmlDeviceGetPcieThroughput(h, 0)),
    (None, "pci/rx_util", "PCI/Rx Throughput", lambda h: pynvml.nvmlDeviceGetPcieThroughput(h, 1)),
    (None, "pci/replay_counter", "PCI/Replays Since Reset", pynvml.nvmlDeviceGetPcieReplayCounter),
    ("fan.speed", "fan_speed", "Fan Speed", pynvml.nvmlDeviceGetFanSpeed),
    (
        "pstate",
        "performance_state",
        "Performance State",
        lambda h: f"P{pynvml.nvmlDeviceGetPerformanceState(h)}",
    ),
    (
        "clocks_event_reasons.active",
        None,
        None,
        lambda h: f"0x{pynvml.nvmlDeviceGetCurrentClocksEventReasons(h):016X}",
    ),
    (
        "clocks_event_reasons.supported",
        None,
        None,
        lambda h: f"0x{pynvml.nvmlDeviceGetSupportedClocksEventReasons(h):016X}",
    ),
    ("clocks_event_reasons.gpu_idle", f"{REASON_XML}gpu_idle", f"{REASONS}/Idle", reason(0x1)),
    ("clocks_event_reasons.sw_power_cap", f"{REASON_XML}sw_power_cap", f"{REASONS}/SW Power Cap", reason(0x4)),
    ("clocks_event_reasons.hw_slowdown", f"{REASON_XML}hw_slowdown", f"{REASONS}/HW Slowdown", reason(0x8)),
    (
        "clocks_event_reasons.hw_thermal_slowdown",
        f"{REASON_XML}hw_thermal_slowdown",
        f"{REASONS}/HW Slowdown/HW Thermal Slowdown",
        reason(0x40),
    ),
    ("clocks_event_reasons.sync_boost", f"{REASON_XML}sync_boost", f"{REASONS}/Sync Boost", reason(0x10)),
    (
        "clocks_event_reasons.sw_thermal_slowdown",
        f"{REASON_XML}sw_thermal_slowdown",
        f"{REASONS}/SW Thermal Slowdown",
        reason(0x20),
    ),
    (None, f"{REASON_XML}display_clocks_setting", f"{REASONS}/Display Clock Setting", reason(0x100)),
    ("memory.total", "fb_memory_usage/total", "FB Memory Usage/Total", memory("total")),
    ("memory.reserved", "fb_memory_usage/reserved", "FB Memory Usage/Reserved", memory("reserved")),
    ("memory.used", "fb_memory_usage/used", "FB Memory Usage/Used", memory("used")),
    ("memory.free", "fb_memory_usage/free", "FB Memory Usage/Free", memory("free")),
    (None, "bar1_memory_usage/total", "BAR1 Memory Usage/Total", bar1("bar1Total")),
    (None, "bar1_memory_usage/used", "BAR1 Memory Usage/Used", bar1("bar1Used")),
    (None, "bar1_memory_usage/free", "BAR1 Memory Usage/Free", bar1("bar1Free")),
    (
        "utilization.gpu",
        "utilization/gpu_util",
        "Utilization/GPU",
        lambda h: pynvml.nvmlDeviceGetUtilizationRates(h).gpu,
    ),
    (
        "utilization.memory",
        "utilization/memory_util",
        "Utilization/Memory",
        lambda h: pynvml.nvmlDeviceGetUtilizationRates(h).memory,
    ),
    (
        "utilization.encoder",
        "utilization/encoder_util",
        "Utilization/Encoder",
        lambda h: pynvml.nvmlDeviceGetEncoderUtilization(h)[0],
    ),
    (
        "utilization.decoder",
        "utilization/decoder_util",
        "Utilization/Decoder",
        lambda h: pynvml.nvmlDeviceGetDecoderUtilization(h)[0],
    ),
    ("utilization.jpeg", "utilization/jpeg_util", "Utilization/JPEG", None),
    (
        "encoder.stats.sessionCount",
        "encoder_stats/session_count",
        "Encoder Stats/Active Sessions",
        lambda h: pynvml.nvmlDeviceGetEncoderStats(h)[0],
    ),
    (
        "ecc.mode.current",
        "ecc_mode/current_ecc",
        "ECC Mode/Current",
        lambda h: switch(pynvml.nvmlDeviceGetEccMode(h)[0]),
    ),
    (
        "ecc.mode.pending",
        "ecc_mode/pending_ecc",
        "ECC Mode/Pending",
        lambda h: switch(pynvml.nvmlDeviceGetEccMode(h)[1]),
    ),
    (
        "ecc.errors.corrected.volatile.dram",
        "ecc_errors/volatile/dram_correctable",
        "ECC Errors/Volatile/DRAM Correctable",
        errors(0, 0),
    ),
    (
        "ecc.errors.uncorrected.aggregate.dram",
        "ecc_errors/aggregate/dram_uncorrectable",
        "ECC Errors/Aggregate/DRAM Uncorrectable",
        errors(1, 1),
    ),
    (
        "temperature.gpu",
        "temperature/gpu_temp",
        "Temperature/GPU Current Temp",
        lambda h: pynvml.nvmlDeviceGetTemperature(h, 0),
    ),
    (
        "temperature.gpu.tlimit",
        "temperature/gpu_temp_tlimit",
        "Temperature/GPU T.Limit Temp",
        pynvml.nvmlDeviceGetMarginTemperature,
    ),
    ("temperature.memory", "temperature/memory_temp", "Temperature/Memory Current Temp", None),
    (
        "power.draw.instant",
        f"{POWER_XML}/instant_power_draw",
        f"{POWER}/Instantaneous Power Draw",
        lambda h: watts(pynvml.nvmlDeviceGetPowerUsage(h)),
    ),
    ("power.draw.average", f"{POWER_XML}/average_power_draw", f"{POWER}/Average Power Draw", None),
    (
        "power.limit",
        f"{POWER_XML}/requested_power_limit",
        f"{POWER}/Requested Power Limit",
        lambda h: watts(pynvml.nvmlDeviceGetPowerManagementLimit(h)),
    ),
    (
        "enforced.power.limit",
        f"{POWER_XML}/current_power_limit",
        f"{POWER}/Current Power Limit",
        lambda h: watts(pynvml.nvmlDeviceGetEnforcedPowerLimit(h)),
    ),
    (
        "power.default_limit",
        f"{POWER_XML}/default_power_limit",
        f"{POWER}/Default Power Limit",
        lambda h: watts(pynvml.nvmlDeviceGetPowerManagementDefaultLimit(h)),
    ),
    ("power.min_limit", f"{POWER_XML}/min_power_limit", f"{POWER}/Min Power Limit", limit(0)),
    ("power.max_limit", f"{POWER_XML}/max_power_limit", f"{POWER}/Max Power Limit", limit(1)),
    ("clocks.current.graphics", "clocks/graphics_clock", "Clocks/Graphics", clock(0)),
    ("clocks.current.sm", "clocks/sm_clock", "Clocks/SM", clock(1)),
    ("clocks.current.memory", "clocks/mem_clock", "Clocks/Memory", clock(2)),
    ("clocks.current.video", "clocks/video_clock", "Clocks/Video", clock(3)),
    ("clocks.max.graphics", "max_clocks/graphics_clock", "Max Clocks/Graphics", highest(0)),
    ("clocks.max.sm", "max_clocks/sm_clock", "Max Clocks/SM", highest(1)),
    ("clocks.max.memory", "max_clocks/mem_clock", "Max Clocks/Memory", highest(2)),
    (None, "max_clocks/video_clock", "Max Clocks/Video", highest(3)),
    (
        "mig.mode.current",
        "mig_mode/current_mig",
        "MIG Mode/Current",
        lambda h: switch(pynvml.nvmlDeviceGetMigMode(h)[0]),
    ),
    ("c2c.mode", "c2c_mode", "GPU C2C Mode", None),
    ("fabric.state", "fabric/state", "Fabric/State", None),
    (
        "retired_pages.pending",
        "retired_pages/pending_retirement",
        "Retired Pages/Pending Page Blacklist",
        None,
    ),
]


def plain(told: object) -> str:
    """A value without what one way of telling it has and another has not: brackets, units, the x of widths, 0x."""
    said = str(told)
    if said.startswith("[") or said == "N/A":
        return "N/A"
    number = re.fullmatch(r"(-?[0-9.]+)(x| (MiB|MHz|W|%|C|KB/s))?", said)
    return number[1] if number else said.removeprefix("0x").upper()


def entries(text: str) -> dict[str, str]:
    """The lines of -q, by their labels and those of the sections above."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in text.split("GPU 0000", 1)[1].splitlines()[1:]:
        if line.strip():
            label, colon, value = line.partition(" : ") if " : " in line else line.partition(": ")
            above[(len(line) - len(line.lstrip())) // 4 - 1 :] = [label.strip()]
            if colon:
                found.setdefault("/".join(above), value)
    return found


def contradictions(gpu: Gpu) -> list[tuple[str | None, dict[str, str]]]:
    at = str(gpu.index)
    fields = [field for field, *_ in TOLD if field]
    row = nvidia_smi(f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "-i", at).stdout.rstrip("\n")
    csv = dict(zip(fields, row.split(", "), strict=True))
    xml = ElementTree.fromstring(nvidia_smi("-q", "-x", "-i", at).stdout).find("gpu")
    text = entries(nvidia_smi("-q", "-i", at).stdout)
    assert xml is not None
    found = []
    handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
    for field, element, labels, ask in TOLD:
        told: dict[str, str | None] = {}
        if field:
            told["--query-gpu"] = csv[field]
        if element:
            told["-q -x"] = xml.findtext(element)
        if labels:
            told["-q"] = text.get(labels)
        if ask:
            try:
                told["NVML"] = str(ask(handle))
            except pynvml.NVMLError_NotSupported:
                told["NVML"] = "N/A"
        said = {way: value for way, value in told.items() if value is not None}
        if len({plain(value) for value in said.values()}) != 1 or len(said) < len(told):
            found.append((field or element, {way: str(value) for way, value in told.items()}))
    return found


@pytest.mark.parametrize("profile", profile_names())
def test_all_ways_of_telling_agree(driver: Driver, profile: str) -> None:
    gpu = driver.add_gpu(profile)
    assert contradictions(gpu) == []
    driver.process(gpu, "3 GiB")
    activity = gpu.activity
    activity.busy, activity.gpu_percent, activity.memory_percent = True, 97, 41
    activity.encoder_percent, activity.decoder_percent, activity.temperature, activity.power = 5, 7, 71, 64.25
    activity.pcie_rx_kib_s, activity.pcie_tx_kib_s, activity.pstate = 4096, 1024, 2
    activity.fan_percent = 60 if gpu.profile.fans else 0
    activity.clocks_mhz["sm"] = 1200
    activity.said["clocks_event_reasons.sw_power_cap"] = "Active"
    assert contradictions(gpu) == []
    activity.said["clocks_event_reasons.active"] = "0x0000000000000148"
    assert contradictions(gpu) == []


def test_they_agree_on_windows_and_on_a_partitioned_card(driver: Driver) -> None:
    first, second = driver.add_gpu("rtx-4090"), driver.add_gpu("h200")
    platforms.wddm(driver, first)
    platforms.partition(second, "3g.71gb")
    assert contradictions(first) == contradictions(second) == []
    assert nvidia_smi("--query-gpu=persistence_mode", "--format=csv,noheader").stdout == "[N/A]\nEnabled\n"


def clocks_of_nvml(gpu: Gpu) -> list[tuple[int, int]]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
    return [
        (memory, graphics)
        for memory in pynvml.nvmlDeviceGetSupportedMemoryClocks(handle)
        for graphics in pynvml.nvmlDeviceGetSupportedGraphicsClocks(handle, memory)
    ]


@pytest.mark.parametrize("profile", profile_names())
def test_they_agree_on_the_clocks_that_can_be_set(driver: Driver, profile: str) -> None:
    expected = clocks_of_nvml(driver.add_gpu(profile))
    assert expected
    rows = nvidia_smi("--query-supported-clocks=mem,gr", "--format=csv,noheader,nounits").stdout.splitlines()
    assert [tuple(map(int, row.split(", "))) for row in rows] == expected
    root = ElementTree.fromstring(nvidia_smi("-q", "-x").stdout)
    assert [
        (int((choice.findtext("value") or "").split()[0]), int((one.text or "").split()[0]))
        for choice in root.iterfind("gpu/supported_clocks/supported_mem_clock")
        for one in choice.iterfind("supported_graphics_clock")
    ] == expected
    listed, memory = [], 0
    for label, mhz in re.findall(r"(Memory|Graphics) +: (\d+) MHz", nvidia_smi("-q", "-d", "SUPPORTED_CLOCKS").stdout):
        if label == "Memory":
            memory = int(mhz)
        else:
            listed.append((memory, int(mhz)))
    assert listed == expected


def test_a_geforce_card_has_ecc_that_is_switched_off(driver: Driver) -> None:
    gpu = driver.add_gpu("rtx-4090")
    handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
    assert pynvml.nvmlDeviceGetEccMode(handle) == [0, 0]
    assert nvidia_smi("--query-gpu=ecc.mode.current", "--format=csv,noheader").stdout == "Disabled\n"
    assert re.search(r" Off \|$", nvidia_smi().stdout, re.MULTILINE)
    assert contradictions(gpu) == []


def test_each_card_has_a_module_of_its_own_and_unprotected_memory(driver: Driver) -> None:
    gpus = [driver.add_gpu("h200"), driver.add_gpu("h200")]
    handles = [pynvml.nvmlDeviceGetHandleByIndex(gpu.index) for gpu in gpus]
    assert [pynvml.nvmlDeviceGetModuleId(handle, ctypes.c_uint()) for handle in handles] == [1, 2]
    assert [contradictions(gpu) for gpu in gpus] == [[], []]
    sizes = pynvml.nvmlDeviceGetConfComputeMemSizeInfo(handles[0])
    assert (sizes.protectedMemSizeKib, sizes.unprotectedMemSizeKib) == (0, gpus[0].memory.total // 1024)


def test_cards_that_remap_rows_print_their_histogram(driver: Driver) -> None:
    driver.add_gpu("l40s")
    assert " : 192 bank(s)" in nvidia_smi("-q", "-d", "ROW_REMAPPER").stdout
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetRowRemapperHistogram(handle).max == 192
