"""Fields of `--query-gpu`: what the card is, where it sits, how it is set up, what its clocks obey."""

from __future__ import annotations

from typing import Final

from fake_gpu.derived import EVENT_REASONS, event_reasons, link_generation, link_limit, on_windows
from fake_gpu.smi.columns import Column, Value
from fake_gpu.smi.fields import DEPRECATED, field, fixed, fixed_all, switch
from fake_gpu.smi.run import Reading

IDENTITY: Final[tuple[Column, ...]] = (
    field("timestamp", "", lambda r: r.run.timestamp),
    field("driver_version", "", lambda r: r.run.driver_version),
    field("kmd_version", "", lambda r: r.run.driver_version),
    fixed("vgpu_driver_capability.heterogenous_multivGPU"),
    field("count", "", lambda r: len(r.run.counted)),
    field("name", "", lambda r: r.profile.name),
    field("serial", "", lambda r: r.gpu.serial),
    field("uuid", "", lambda r: r.gpu.uuid),
)

PCI: Final[tuple[Column, ...]] = (
    field("pci.bus_id", "", lambda r: r.gpu.pci_bus_id),
    field("pci.domain", "", lambda r: f"0x{r.gpu.pci_domain:04X}"),
    field("pci.bus", "", lambda r: f"0x{r.gpu.pci_bus:02X}"),
    field("pci.device", "", lambda r: f"0x{r.gpu.pci_device:02X}"),
    fixed("pci.baseClass", "", "0x3"),
    field("pci.subClass", "", lambda r: f"0x{r.profile.pci.sub_class:X}"),
    field("pci.device_id", "", lambda r: f"0x{r.profile.pci.device_id:08X}"),
    field("pci.sub_device_id", "", lambda r: f"0x{r.profile.pci.subsystem_id:08X}"),
    *fixed_all(
        "vgpu_device_capability.fractional_multiVgpu vgpu_device_capability.heterogeneous_timeSlice_profile "
        "vgpu_device_capability.heterogeneous_timeSlice_sizes vgpu_device_capability.homogeneous_placements "
        "vgpu_device_capability.mig_timeSlicing vgpu_device_capability.mig_timeSlicing_mode"
    ),
    field("pcie.link.gen.current", "", lambda r: link_generation(r.gpu)),
    field("pcie.link.gen.gpucurrent", "", lambda r: link_generation(r.gpu)),
    field("pcie.link.gen.max", "", lambda r: link_limit(r.profile)),
    field("pcie.link.gen.gpumax", "", lambda r: r.profile.pci.max_generation),
    field("pcie.link.gen.hostmax", "", lambda r: r.profile.pci.host_generation),
    field("pcie.link.width.current", "", lambda r: r.profile.pci.max_width),
    field("pcie.link.width.max", "", lambda r: r.profile.pci.max_width),
)

SETUP: Final[tuple[Column, ...]] = (
    field("index", "", lambda r: r.run.index(r.gpu)),
    fixed("display_mode", "", DEPRECATED),
    fixed("display_attached", "", "Yes"),  # even an H200 says so since driver 590
    field("display_active", "", lambda r: switch(r.profile.display)),
    field("persistence_mode", "", lambda r: None if on_windows(r.gpu) else switch(r.profile.persistence)),
    fixed("addressing_mode", "", "None"),
    fixed("accounting.mode", "", "Disabled"),
    fixed("accounting.buffer_size", "", 4000),
    *fixed_all("driver_model.current driver_model.pending"),
    field("vbios_version", "", lambda r: r.profile.vbios),
    *fixed_all("inforom.img inforom.oem inforom.ecc inforom.pwr"),
    fixed("inforom.checksum_validation", "", "valid"),
    fixed("gpu_recovery_action", "", "None"),
    *fixed_all("gom.current gom.pending"),
    field("fan.speed", "%", lambda r: r.gpu.activity.fan_percent if r.profile.fans else None),
    field("pstate", "", lambda r: f"P{r.gpu.activity.pstate}"),
)


def _bits(reading: Reading) -> Value:
    said = reading.said.get("clocks_event_reasons.active", "")
    return said if said.startswith("[") else f"0x{event_reasons(reading.gpu):016X}"


def reason(name: str) -> Column:
    """Whether clocks are held down for that reason; one source with the bits, unless the card does not say."""
    quoted, bit = f"clocks_event_reasons.{name}", EVENT_REASONS[name]

    def read(reading: Reading) -> Value:
        said = reading.said.get(quoted, "Active")
        if said not in ("Active", "Not Active"):
            return said
        return "Active" if event_reasons(reading.gpu) & bit else "Not Active"

    return Column(quoted, "", read)


CLOCK_REASONS: Final[tuple[Column, ...]] = (
    fixed("clocks_event_reasons.supported", "", "0x00000000000001FF"),
    Column("clocks_event_reasons.active", "", _bits),
    *(
        reason(name)
        for name in (
            "gpu_idle",
            "applications_clocks_setting",
            "sw_power_cap",
            "hw_slowdown",
            "hw_thermal_slowdown",
            "hw_power_brake_slowdown",
            "sw_thermal_slowdown",
            "sync_boost",
        )
    ),
    *fixed_all(
        "clocks_event_reasons_counters.sw_power_cap clocks_event_reasons_counters.sync_boost "
        "clocks_event_reasons_counters.sw_thermal_slowdown clocks_event_reasons_counters.hw_thermal_slowdown "
        "clocks_event_reasons_counters.hw_power_brake_slowdown",
        "us",
        0,
    ),
)
