"""What follows from a card's facts and activity, where nvidia-smi shows neither as it is."""

from __future__ import annotations

from typing import Final, Literal

from fake_gpu.gpu import Gpu
from fake_gpu.profile import Clock, Profile
from fake_gpu.units import MIB

_BEFORE_AMPERE: Final = frozenset({"kepler", "maxwell", "pascal", "volta", "turing"})
_WITH_TLIMIT: Final = frozenset({"hopper", "blackwell"})


def is_idle(gpu: Gpu) -> bool:
    """Whether the card says that it clocks down because nothing runs."""
    return not gpu.activity.busy and gpu.activity.gpu_percent == 0


ClockName = Literal["graphics", "sm", "memory", "video"]


def clock_mhz(gpu: Gpu, name: ClockName) -> int:
    """MHz now."""
    said = gpu.activity.clocks_mhz.get(name)
    if said is not None:
        return said
    clock: Clock = getattr(gpu.profile.clocks, name)
    return clock.max if gpu.activity.busy else clock.idle


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
    return profile.architecture in _WITH_TLIMIT if told is None else told


def margin_to_slowdown(gpu: Gpu) -> int | None:
    """Degrees Celsius left ("T.Limit"): only Hopper and later say. On an H200 it is 87 minus the temperature."""
    highest = gpu.profile.temperature.gpu_max
    if highest is None or not tells_margin(gpu.profile):
        return None
    return highest - gpu.activity.temperature


def averages_power(profile: Profile) -> bool:
    """Whether the card averages its power draw: a Turing card answers N/A, Ada and Hopper cards do."""
    return profile.architecture not in _BEFORE_AMPERE


def counts_sram_errors(profile: Profile) -> bool:
    """Whether it has counters of SRAM errors by unit: an RTX 4080 has them even without ECC memory, Turing has none."""
    return profile.architecture not in _BEFORE_AMPERE


def bar1_used(gpu: Gpu) -> int:
    """Bytes of the window through which the host sees the card's memory, as an idle A100 shows."""
    return MIB
