"""Fields of `--query-gpu`: memory, utilization, errors, temperature, power, clocks, modes."""

from __future__ import annotations

from typing import Final

from fake_gpu.derived import averages_power, clock_mhz, counts_sram_errors, margin_to_slowdown, module_id
from fake_gpu.smi.columns import Column, Value
from fake_gpu.smi.fields import DEPRECATED, field, fixed, fixed_all, switch
from fake_gpu.smi.run import Reading


def _unless_mig(reading: Reading, percent: int) -> Value:
    return None if reading.profile.mig else percent  # a partitioned card has no utilization of its own


MEMORY: Final[tuple[Column, ...]] = (
    field("memory.total", "MiB", lambda r: r.run.mib(r.memory.total) if r.gpu.view.memory else None),
    field("memory.reserved", "MiB", lambda r: r.run.mib(r.memory.reserved) if r.gpu.view.memory else None),
    field("memory.used", "MiB", lambda r: r.run.mib(r.memory.used) if r.gpu.view.memory else None),
    field("memory.free", "MiB", lambda r: r.run.mib(r.memory.free) if r.gpu.view.memory else None),
    fixed("compute_mode", "", "Default"),
    field("compute_cap", "", lambda r: "{}.{}".format(*r.profile.compute_capability)),
    field("utilization.gpu", "%", lambda r: _unless_mig(r, r.gpu.activity.gpu_percent)),
    field("utilization.memory", "%", lambda r: _unless_mig(r, r.gpu.activity.memory_percent)),
    field("utilization.encoder", "%", lambda r: _unless_mig(r, r.gpu.activity.encoder_percent)),
    field("utilization.decoder", "%", lambda r: _unless_mig(r, r.gpu.activity.decoder_percent)),
    field("utilization.jpeg", "%", lambda r: _unless_mig(r, 0)),
    field("utilization.ofa", "%", lambda r: _unless_mig(r, 0)),
    *fixed_all("encoder.stats.sessionCount encoder.stats.averageFps encoder.stats.averageLatency", "", 0),
    *fixed_all("dramEncryption.mode.current dramEncryption.mode.pending"),
)


_PLACES: Final = [
    "device_memory",
    "dram",
    "register_file",
    "l1_cache",
    "l2_cache",
    "texture_memory",
    "cbu",
    "sram",
    "total",
]
_COUNTED: Final = frozenset({"device_memory", "dram", "sram", "total"})
"""By these a Hopper card with ECC counts its errors; the other counters belong to older ones."""


def _error_count(kind: str, span: str, place: str) -> Column:
    name = f"ecc.errors.{kind}.{span}.{place}"
    if place not in _COUNTED:
        return fixed(name)
    return field(name, "", lambda r: 0 if r.profile.ecc else None)


def _sram_count(name: str, none: Value = 0) -> Column:
    return field(f"ecc.errors.uncorrected.{name}", "", lambda r: none if counts_sram_errors(r.profile) else None)


ERRORS: Final[tuple[Column, ...]] = (
    field("ecc.mode.current", "", lambda r: switch(r.profile.ecc)),
    field("ecc.mode.pending", "", lambda r: switch(r.profile.ecc)),
    *(
        _error_count(kind, span, place)
        for kind in ("corrected", "uncorrected")
        for span in ("volatile", "aggregate")
        for place in _PLACES
    ),
    _sram_count("volatile.sram.parity"),
    _sram_count("volatile.sram.secded"),
    _sram_count("aggregate.sram.parity"),
    _sram_count("aggregate.sram.secded"),
    _sram_count("aggregate.sram.thresholdExceeded", "No"),
    *(_sram_count(f"aggregate.sram.{unit}") for unit in ("l2", "sm", "mcu", "pcie", "other")),
    *fixed_all("retired_pages.single_bit_ecc.count retired_pages.double_bit.count retired_pages.pending"),
    *fixed_all(
        "remapped_rows.correctable remapped_rows.correctable_inactive remapped_rows.uncorrectable "
        "remapped_rows.uncorrectable_inactive remapped_rows.pending remapped_rows.failure "
        "remapped_rows.histogram.max remapped_rows.histogram.high remapped_rows.histogram.partial "
        "remapped_rows.histogram.low remapped_rows.histogram.none"
    ),
)


def _memory_temperature(reading: Reading) -> Value:
    idle = reading.profile.temperature.memory_idle
    return "N/A" if idle is None else idle  # without brackets, unlike every other field


def _average_power(reading: Reading) -> Value:
    return float(reading.gpu.activity.power) if averages_power(reading.profile) else None


POWER: Final[tuple[Column, ...]] = (
    field("temperature.gpu", "", lambda r: r.gpu.activity.temperature),
    field("temperature.gpu.tlimit", "", lambda r: margin_to_slowdown(r.gpu)),
    field("temperature.memory", "", _memory_temperature),
    fixed("power.management", "", DEPRECATED),
    field("power.draw", "W", lambda r: float(r.gpu.activity.power)),
    field("power.draw.average", "W", _average_power),
    field("power.draw.instant", "W", lambda r: float(r.gpu.activity.power)),
    field("power.limit", "W", lambda r: float(r.profile.power.default_limit)),
    field("enforced.power.limit", "W", lambda r: float(r.profile.power.default_limit)),
    field("power.default_limit", "W", lambda r: float(r.profile.power.default_limit)),
    field("power.min_limit", "W", lambda r: float(r.profile.power.min_limit)),
    field("power.max_limit", "W", lambda r: float(r.profile.power.max_limit)),
    *fixed_all(
        "module.power.draw.average module.power.draw.instant module.power.limit module.enforced.power.limit "
        "module.power.default_limit module.power.min_limit module.power.max_limit",
        "W",
    ),
    fixed("power_smoothing.delayed_power_smoothing_supported"),
    *fixed_all(
        "power_smoothing.primary_power_floor power_smoothing.secondary_power_floor "
        "power_smoothing.min_primary_floor_activation_offset power_smoothing.min_primary_floor_activation_point",
        "W",
    ),
    fixed("power_smoothing.window_multiplier", "ms"),
    *(
        fixed(f"power_smoothing.{whose}.{name}", unit)
        for whose in ("curr_profile", "admin_override")
        for name, unit in (
            ("secondary_power_floor", "W"),
            ("primary_floor_act_window_multiplier", ""),
            ("primary_floor_tar_window_multiplier", ""),
            ("primary_floor_act_offset", "W"),
        )
    ),
    fixed("edpp_multiplier", "%"),
)

CLOCKS: Final[tuple[Column, ...]] = (
    field("clocks.current.graphics", "MHz", lambda r: clock_mhz(r.gpu, "graphics")),
    field("clocks.current.sm", "MHz", lambda r: clock_mhz(r.gpu, "sm")),
    field("clocks.current.memory", "MHz", lambda r: clock_mhz(r.gpu, "memory")),
    field("clocks.current.video", "MHz", lambda r: clock_mhz(r.gpu, "video")),
    *fixed_all(
        "clocks.applications.graphics clocks.applications.memory "
        "clocks.default_applications.graphics clocks.default_applications.memory",
        "MHz",
        DEPRECATED,
    ),
    field("clocks.max.graphics", "MHz", lambda r: r.profile.clocks.graphics.max),
    field("clocks.max.sm", "MHz", lambda r: r.profile.clocks.sm.max),
    field("clocks.max.memory", "MHz", lambda r: r.profile.clocks.memory.max),
)

MODES: Final[tuple[Column, ...]] = (
    field("mig.mode.current", "", lambda r: switch(r.profile.mig)),
    field("mig.mode.pending", "", lambda r: switch(r.profile.mig)),
    *fixed_all("gsp.mode.current gsp.mode.default", "", "Enabled"),
    fixed("c2c.mode"),
    *fixed_all("protected_memory.total protected_memory.used protected_memory.free", "MiB", 0),
    *fixed_all(
        "fabric.state fabric.status fabric.cliqueId fabric.clusterUuid fabric.health.summary fabric.health.bandwidth "
        "fabric.health.route_recovery_in_progress fabric.health.route_unhealthy "
        "fabric.health.access_timeout_recovery fabric.health.incorrect_configuration "
        "fabric.health.partition_assigned",
        "",
        "N/A",  # without brackets
    ),
    fixed("platform.chassis_serial_number", "", ""),
    *fixed_all("platform.slot_number platform.tray_index", "", 0),
    fixed("platform.host_id", "", 1),
    fixed("platform.peer_type", "", "Direct Connected"),
    field("platform.module_id", "", lambda r: module_id(r.gpu)),
    fixed("platform.gpu_fabric_guid", "", "0x0000000000000000"),
    fixed("hostname"),
)
