"""Which fields of an output are of the moment, and which are of one card rather than of its kind."""

from __future__ import annotations

from typing import Final

IDENTITY: Final = frozenset(
    [
        "timestamp",
        "driver_version",
        "kmd_version",
        "count",
        "index",
        "name",
        "serial",
        "uuid",
        "pci.bus_id",
        "pci.domain",
        "pci.bus",
        "pci.device",
        "minor_number",
        "pdi",
        "board_id",
        "gsp_version",
    ]
)
"""A machine knows these of each card; a profile does not have them."""

MODELLED: Final = frozenset({"memory.total", "memory.reserved", "memory.used", "memory.free"})
"""Fields that are never quoted: the driver's model of the memory says them."""

_LIVE: Final = frozenset(
    [
        "memory.used",
        "memory.free",
        "temperature.gpu",
        "temperature.gpu.tlimit",
        "temperature.memory",
        "pstate",
        "fan.speed",
        "pcie.link.gen.current",
        "pcie.link.gen.gpucurrent",
        "pcie.link.width.current",
        "pcie.tx",
        "pcie.rx",
        "pcie.replays",
        "bar1.used",
        "bar1.free",
        "voltage.graphics",
    ]
)
_LIVE_GROUPS: Final = (
    "utilization.",
    "encoder.stats.",
    "fbc.stats.",
    "power.draw",
    "module.power.draw",
    "memory.power.draw",
    "clocks.current.",
    "clocks_event_reasons.",
    "clocks_event_reasons_counters.",
)


def is_live(name: str) -> bool:
    """Whether a field changes while the machine runs: it is the activity's, not the profile's."""
    if name == "clocks_event_reasons.supported":
        return False
    return name in _LIVE or name.startswith(_LIVE_GROUPS)
