"""What follows from a card's facts and activity, where nvidia-smi shows neither as it is."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Final, get_args

from fake_gpu.gpu import Gpu
from fake_gpu.profile import Architecture, Clock, ClockName, Profile
from fake_gpu.units import MIB

ARCHITECTURES: Final[tuple[Architecture, ...]] = get_args(Architecture)
"""In the order in which they came."""


def is_at_least(profile: Profile, architecture: Architecture) -> bool:
    """Whether a card's architecture is this one or a later one."""
    return ARCHITECTURES.index(profile.architecture) >= ARCHITECTURES.index(architecture)


def is_idle(gpu: Gpu) -> bool:
    """Whether the card says that it clocks down because nothing runs."""
    return not gpu.activity.busy and gpu.activity.gpu_percent == 0


def clock_mhz(gpu: Gpu, name: ClockName) -> int:
    """MHz now."""
    said = gpu.activity.clocks_mhz.get(name)
    if said is not None:
        return said
    clock: Clock = getattr(gpu.profile.clocks, name)
    return clock.max if gpu.activity.busy else clock.idle


_CLOCK_STEP_MHZ: Final = 15
"""Between the graphics clocks that a card can be set to: a T4's list goes 1590, 1575, 1560 …"""

EVENT_REASONS: Final[Mapping[str, int]] = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
    "display_clock_setting": 0x100,
}
"""Why clocks are not higher, by nvidia-smi's names: the bits of NVML's nvmlClocksEventReason…"""


def event_reasons(gpu: Gpu) -> int:
    """The reasons that hold now, as NVML's bits: idle, and what is quoted (by the bits, or reason by reason).

    What `activity.said` has wins over the profile, and of each of them single reasons win over the bits.
    """
    reasons = EVENT_REASONS["gpu_idle"] if is_idle(gpu) else 0
    for quoted in (gpu.profile.smi, gpu.activity.said):
        reasons = _quoted_reasons(quoted, reasons)
    return reasons


def _quoted_reasons(quoted: Mapping[str, str], reasons: int) -> int:
    bits = quoted.get("clocks_event_reasons.active", "")
    with contextlib.suppress(ValueError):  # not quoted, or [N/A]
        reasons = int(bits, 16)
    for name, bit in EVENT_REASONS.items():
        said = quoted.get(f"clocks_event_reasons.{name}")
        if said == "Active":
            reasons |= bit
        elif said is not None:
            reasons &= ~bit
    return reasons


def supported_clocks(profile: Profile) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """MHz of the memory, highest first, and of the graphics clocks that go with each.

    Where the profile does not list those: all steps between the highest one and the idle one.
    """
    clocks = profile.clocks
    if clocks.supported_graphics:
        return tuple(zip(clocks.supported_memory, clocks.supported_graphics, strict=False))
    steps = tuple(range(clocks.graphics.max, clocks.graphics.idle - 1, -_CLOCK_STEP_MHZ))
    return tuple((memory, steps) for memory in clocks.supported_memory)


def quoted(gpu: Gpu, name: str, otherwise: str) -> str | None:
    """What nvidia-smi prints for a field: as it is quoted, or `otherwise`. None: that the card has none."""
    said = gpu.activity.said.get(name, gpu.profile.smi.get(name, otherwise)).strip("[]")
    return None if said in ("", "N/A") else said


def on_windows(gpu: Gpu) -> bool:
    """Whether the card has a driver model ("WDDM", "TCC"), which there is on Windows alone."""
    return quoted(gpu, "driver_model.current", "") is not None


def pdi(gpu: Gpu) -> str:
    """The card's per-device identifier, 64 bits, as nvidia-smi prints it."""
    return "0x" + hashlib.sha256(gpu.uuid.encode()).hexdigest()[:16]


def module_id(gpu: Gpu) -> str:
    """Where on its board the card sits, counted from 1, as nvidia-smi prints it."""
    return str(gpu.minor_number + 1)


def link_limit(profile: Profile) -> int:
    """The highest PCIe generation that card and host have in common."""
    host = profile.pci.host_generation
    return profile.pci.max_generation if host is None else min(profile.pci.max_generation, host)


def link_generation(gpu: Gpu) -> int:
    """The PCIe generation of the link now."""
    idle = gpu.profile.pci.idle_generation
    return link_limit(gpu.profile) if gpu.activity.busy or idle is None else idle


def tells_margin(profile: Profile) -> bool:
    """Whether the card tells its temperatures as what is left to a limit, too."""
    told = profile.temperature.tells_margin
    return is_at_least(profile, "hopper") if told is None else told


def margin_to_slowdown(gpu: Gpu) -> int | None:
    """Degrees Celsius left ("T.Limit"): only Hopper and later say. On an H200 it is 87 minus the temperature."""
    highest = gpu.profile.temperature.gpu_max
    if highest is None or not tells_margin(gpu.profile):
        return None
    return highest - gpu.activity.temperature


def averages_power(profile: Profile) -> bool:
    """Whether the card averages its power draw: a Turing card answers N/A, Ada and Hopper cards do."""
    return is_at_least(profile, "ampere")


def counts_sram_errors(profile: Profile) -> bool:
    """Whether it has counters of SRAM errors by unit: an RTX 4080 has them even without ECC memory, Turing has none."""
    return is_at_least(profile, "ampere")


def bar1_used(gpu: Gpu) -> int:
    """Bytes of the window through which the host sees the card's memory, as an idle A100 shows."""
    return MIB
