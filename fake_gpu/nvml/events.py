"""Event sets. No event ever arrives: a wait lasts for its timeout on the driver's clock, unless a card is lost."""

from __future__ import annotations

import itertools

from fake_gpu.gpu import Gpu, Presence
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import u64

_SINGLE_BIT_ECC, _DOUBLE_BIT_ECC, _PSTATE, _XID, _CLOCK = 1, 2, 4, 8, 16
_TYPES = 0xFF9F
"""Of events that nvml.h knows."""

_handles = itertools.count(0x5E70_0000_1000, 0x10)


def _supported(gpu: Gpu) -> int:
    return _PSTATE | _XID | _CLOCK | (_SINGLE_BIT_ECC | _DOUBLE_BIT_ECC if gpu.profile.ecc else 0)


def _watched(call: Call, event_set: int) -> set[int]:
    """The handles of the cards whose events a set has. Raises INVALID_ARGUMENT for a set that there is not."""
    found = call.session.event_sets.get(event_set)
    if found is None:
        raise NvmlError("INVALID_ARGUMENT")
    return found


@nvml("nvmlEventSetCreate")
def create(call: Call) -> bytes:
    handle = next(_handles)
    call.session.event_sets[handle] = set()
    return u64(handle)


@nvml("nvmlEventSetFree")
def free(call: Call, event_set: int) -> None:
    if call.session.event_sets.pop(event_set, None) is None:
        raise NvmlError("INVALID_ARGUMENT")


@nvml("nvmlDeviceGetSupportedEventTypes")
def supported_types(call: Call, gpu: Gpu) -> bytes:
    return u64(_supported(gpu))


@nvml("nvmlDeviceRegisterEvents")
def register(call: Call, gpu: Gpu, types: int, event_set: int) -> None:
    watched = _watched(call, event_set)
    if types & ~_TYPES:
        raise NvmlError("INVALID_ARGUMENT")
    if types & ~_supported(gpu):
        raise NvmlError("NOT_SUPPORTED")
    watched.add(gpu.handle)


@nvml("nvmlEventSetWait", "nvmlEventSetWait_v2")
def wait(call: Call, event_set: int, timeout_ms: int) -> None:
    gpus = [call.driver.handles.get(handle) for handle in list(_watched(call, event_set))]
    if any(gpu is not None and gpu.presence_in_model is not Presence.PRESENT for gpu in gpus):
        raise NvmlError("GPU_IS_LOST")
    raise NvmlError("TIMEOUT", delay_ns=timeout_ms * 1_000_000)
