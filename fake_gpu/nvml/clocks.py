"""Clocks in MHz, and why they are not higher."""

from __future__ import annotations

from typing import get_args

from fake_gpu.derived import clock_mhz, event_reasons, supported_clocks
from fake_gpu.gpu import Gpu
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import counted, one_of, u32, u64
from fake_gpu.profile import Clock, ClockName

_NAMES: tuple[ClockName, ...] = get_args(ClockName)
"""In the order of NVML's numbers."""
_IDS = 4
_CURRENT, _CUSTOMER_BOOST = 0, 3
_ALL_REASONS = 0x1FF


def _domain(gpu: Gpu, domain: int) -> Clock:
    clock: Clock = getattr(gpu.profile.clocks, _NAMES[one_of(domain, len(_NAMES))])
    return clock


@nvml("nvmlDeviceGetClockInfo")
def clock(call: Call, gpu: Gpu, domain: int) -> bytes:
    return u32(clock_mhz(gpu, _NAMES[one_of(domain, len(_NAMES))]))


@nvml("nvmlDeviceGetMaxClockInfo")
def highest_clock(call: Call, gpu: Gpu, domain: int) -> bytes:
    return u32(_domain(gpu, domain).max)


@nvml("nvmlDeviceGetMaxCustomerBoostClock")
def customer_boost_clock(call: Call, gpu: Gpu, domain: int) -> bytes:
    if gpu.profile.brand == "geforce":
        raise NvmlError("NOT_SUPPORTED")
    return u32(_domain(gpu, domain).max)


@nvml("nvmlDeviceGetClock")
def clock_by_id(call: Call, gpu: Gpu, domain: int, kind: int) -> bytes:
    _domain(gpu, domain)
    if one_of(kind, _IDS) == _CURRENT:
        return clock(call, gpu, domain)
    if kind == _CUSTOMER_BOOST:
        return customer_boost_clock(call, gpu, domain)
    return applications_clock(call, gpu, domain)


@nvml("nvmlDeviceGetApplicationsClock", "nvmlDeviceGetDefaultApplicationsClock")
def applications_clock(call: Call, gpu: Gpu, domain: int) -> bytes:
    """Drivers since 580 have none any more; `nvidia-smi` of such a driver prints that they are deprecated."""
    _domain(gpu, domain)
    raise NvmlError("DEPRECATED")


@nvml("nvmlDeviceGetSupportedMemoryClocks")
def memory_clocks(call: Call, gpu: Gpu, count: int, room: int | None) -> tuple[bytes, bytes]:
    choices = supported_clocks(gpu.profile)
    if not choices:
        raise NvmlError("NOT_SUPPORTED")
    return counted([u32(mhz) for mhz, _ in choices], count, room)


@nvml("nvmlDeviceGetSupportedGraphicsClocks")
def graphics_clocks(call: Call, gpu: Gpu, memory_mhz: int, count: int, room: int | None) -> tuple[bytes, bytes]:
    choices = dict(supported_clocks(gpu.profile))
    if not choices:
        raise NvmlError("NOT_SUPPORTED")
    if memory_mhz not in choices:
        raise NvmlError("NOT_FOUND")
    return counted([u32(mhz) for mhz in choices[memory_mhz]], count, room)


@nvml("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
def reasons_now(call: Call, gpu: Gpu) -> bytes:
    return u64(event_reasons(gpu))


@nvml("nvmlDeviceGetSupportedClocksEventReasons", "nvmlDeviceGetSupportedClocksThrottleReasons")
def possible_event_reasons(call: Call, gpu: Gpu) -> bytes:
    return u64(_ALL_REASONS)
