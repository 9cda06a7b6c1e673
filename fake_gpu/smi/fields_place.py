"""Fields of `--query-gpu`: what the card is, where it sits, how it is set up, what its clocks obey."""

from __future__ import annotations

from typing import Final

from fake_gpu.derived import is_idle, link_generation, link_limit
from fake_gpu.smi.columns import Column
from fake_gpu.smi.fields import DEPRECATED, fact, fixed, fixed_all, live, switch

IDENTITY: Final[tuple[Column, ...]] = (
    live("timestamp", "", lambda r: r.run.timestamp),
    live("driver_version", "", lambda r: r.run.driver_version),
    live("kmd_version", "", lambda r: r.run.driver_version),
    fixed("vgpu_driver_capability.heterogenous_multivGPU"),
    live("count", "", lambda r: len(r.run.counted)),
    live("name", "", lambda r: r.profile.name),
    live("serial", "", lambda r: r.gpu.serial),
    live("uuid", "", lambda r: r.gpu.uuid),
)

PCI: Final[tuple[Column, ...]] = (
    live("pci.bus_id", "", lambda r: r.gpu.pci_bus_id),
    live("pci.domain", "", lambda r: f"0x{r.gpu.pci_domain:04X}"),
    live("pci.bus", "", lambda r: f"0x{r.gpu.pci_bus:02X}"),
    live("pci.device", "", lambda r: f"0x{r.gpu.pci_device:02X}"),
    fixed("pci.baseClass", "", "0x3"),
    fact("pci.subClass", "", lambda r: f"0x{r.profile.pci.sub_class:X}"),
    fact("pci.device_id", "", lambda r: f"0x{r.profile.pci.device_id:08X}"),
    fact("pci.sub_device_id", "", lambda r: f"0x{r.profile.pci.subsystem_id:08X}"),
    *fixed_all(
        "vgpu_device_capability.fractional_multiVgpu vgpu_device_capability.heterogeneous_timeSlice_profile "
        "vgpu_device_capability.heterogeneous_timeSlice_sizes vgpu_device_capability.homogeneous_placements "
        "vgpu_device_capability.mig_timeSlicing vgpu_device_capability.mig_timeSlicing_mode"
    ),
    live("pcie.link.gen.current", "", lambda r: link_generation(r.gpu)),
    live("pcie.link.gen.gpucurrent", "", lambda r: link_generation(r.gpu)),
    live("pcie.link.gen.max", "", lambda r: link_limit(r.profile)),
    live("pcie.link.gen.gpumax", "", lambda r: r.profile.pci.max_generation),
    live("pcie.link.gen.hostmax", "", lambda r: r.profile.pci.host_generation),
    live("pcie.link.width.current", "", lambda r: r.profile.pci.max_width),
    live("pcie.link.width.max", "", lambda r: r.profile.pci.max_width),
)

SETUP: Final[tuple[Column, ...]] = (
    live("index", "", lambda r: r.run.index(r.gpu)),
    fixed("display_mode", "", DEPRECATED),
    fixed("display_attached", "", "Yes"),  # even an H200 says so since driver 590
    live("display_active", "", lambda r: switch(r.profile.display)),
    live("persistence_mode", "", lambda r: switch(r.profile.persistence)),
    fixed("addressing_mode", "", "None"),
    fixed("accounting.mode", "", "Disabled"),
    fixed("accounting.buffer_size", "", 4000),
    *fixed_all("driver_model.current driver_model.pending"),
    live("vbios_version", "", lambda r: r.profile.vbios),
    *fixed_all("inforom.img inforom.oem inforom.ecc inforom.pwr"),
    fixed("inforom.checksum_validation", "", "valid"),
    fixed("gpu_recovery_action", "", "None"),
    *fixed_all("gom.current gom.pending"),
    live("fan.speed", "%", lambda r: r.gpu.activity.fan_percent if r.profile.fans else None),
    live("pstate", "", lambda r: f"P{r.gpu.activity.pstate}"),
)

_IDLE_BIT: Final = 0x1  # nvmlClocksEventReasonGpuIdle

CLOCK_REASONS: Final[tuple[Column, ...]] = (
    fixed("clocks_event_reasons.supported", "", "0x00000000000001FF"),
    live("clocks_event_reasons.active", "", lambda r: f"0x{_IDLE_BIT if is_idle(r.gpu) else 0:016X}"),
    live("clocks_event_reasons.gpu_idle", "", lambda r: "Active" if is_idle(r.gpu) else "Not Active"),
    *fixed_all(
        "clocks_event_reasons.applications_clocks_setting clocks_event_reasons.sw_power_cap "
        "clocks_event_reasons.hw_slowdown clocks_event_reasons.hw_thermal_slowdown "
        "clocks_event_reasons.hw_power_brake_slowdown clocks_event_reasons.sw_thermal_slowdown "
        "clocks_event_reasons.sync_boost",
        "",
        "Not Active",
    ),
    *fixed_all(
        "clocks_event_reasons_counters.sw_power_cap clocks_event_reasons_counters.sync_boost "
        "clocks_event_reasons_counters.sw_thermal_slowdown clocks_event_reasons_counters.hw_thermal_slowdown "
        "clocks_event_reasons_counters.hw_power_brake_slowdown",
        "us",
        0,
    ),
)
