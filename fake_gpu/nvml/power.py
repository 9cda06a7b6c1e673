"""Power in milliwatts, energy in millijoules, performance states."""

from __future__ import annotations

from fake_gpu.derived import is_at_least
from fake_gpu.gpu import Gpu
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import u32, u64

_PSTATE_UNKNOWN = 32
_ENABLED = 1


def milliwatts(watts: float) -> int:
    """As NVML counts power."""
    return round(watts * 1000)


def energy_mj(gpu: Gpu, now_ns: int) -> int:
    """Millijoules at a time: the card's idle power since it was added. Raises NOT_SUPPORTED before Volta."""
    if not is_at_least(gpu.profile, "volta"):
        raise NvmlError("NOT_SUPPORTED")
    return milliwatts(gpu.profile.power.idle) * max(0, now_ns - gpu.added_ns) // 1_000_000_000


@nvml("nvmlDeviceGetPowerUsage")
def power_usage(call: Call, gpu: Gpu) -> bytes:
    return u32(milliwatts(gpu.activity.power))


@nvml(
    "nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetPowerManagementDefaultLimit"
)
def power_limit(call: Call, gpu: Gpu) -> bytes:
    """Nobody has set another limit than the default one."""
    return u32(milliwatts(gpu.profile.power.default_limit))


@nvml("nvmlDeviceGetPowerManagementLimitConstraints")
def power_limit_range(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    power = gpu.profile.power
    return u32(milliwatts(power.min_limit)), u32(milliwatts(power.max_limit))


@nvml("nvmlDeviceGetPowerManagementMode")
def power_management(call: Call, gpu: Gpu) -> bytes:
    return u32(_ENABLED)


@nvml("nvmlDeviceGetTotalEnergyConsumption")
def energy(call: Call, gpu: Gpu) -> bytes:
    return u64(energy_mj(gpu, call.now_ns))


@nvml("nvmlDeviceGetPerformanceState", "nvmlDeviceGetPowerState")
def performance_state(call: Call, gpu: Gpu) -> bytes:
    return u32(gpu.activity.pstate)


@nvml("nvmlDeviceGetSupportedPerformanceStates")
def performance_states(call: Call, gpu: Gpu, room: int | None, size: int) -> bytes:
    """P0 and the state that the card idles in; what is left of the array is "unknown"."""
    if room is None:
        raise NvmlError("INVALID_ARGUMENT")
    states = sorted({0, gpu.profile.idle_pstate})
    places = room // 4
    if places < len(states):
        raise NvmlError("INSUFFICIENT_SIZE")
    return b"".join(map(u32, states)) + u32(_PSTATE_UNKNOWN) * (min(places, 16) - len(states))
