"""Event sets. No event ever arrives: a wait lasts for its timeout, on the driver's clock."""

from __future__ import annotations

import itertools

from fake_gpu.gpu import Gpu
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import u64

_SINGLE_BIT_ECC, _DOUBLE_BIT_ECC, _PSTATE, _XID, _CLOCK = 1, 2, 4, 8, 16

_handles = itertools.count(0x5E70_0000_1000, 0x10)


def _supported(gpu: Gpu) -> int:
    return _PSTATE | _XID | _CLOCK | (_SINGLE_BIT_ECC | _DOUBLE_BIT_ECC if gpu.profile.ecc else 0)


def _check(call: Call, event_set: int) -> None:
    if event_set not in call.session.event_sets:
        raise NvmlError("INVALID_ARGUMENT")


@nvml("nvmlEventSetCreate")
def create(call: Call) -> bytes:
    handle = next(_handles)
    call.session.event_sets.add(handle)
    return u64(handle)


@nvml("nvmlEventSetFree")
def free(call: Call, event_set: int) -> None:
    _check(call, event_set)
    call.session.event_sets.discard(event_set)


@nvml("nvmlDeviceGetSupportedEventTypes")
def supported_types(call: Call, gpu: Gpu) -> bytes:
    return u64(_supported(gpu))


@nvml("nvmlDeviceRegisterEvents")
def register(call: Call, gpu: Gpu, types: int, event_set: int) -> None:
    _check(call, event_set)
    if types & ~_supported(gpu):
        raise NvmlError("NOT_SUPPORTED")


@nvml("nvmlEventSetWait", "nvmlEventSetWait_v2")
def wait(call: Call, event_set: int, timeout_ms: int) -> None:
    _check(call, event_set)
    raise NvmlError("TIMEOUT", delay_ns=timeout_ms * 1_000_000)
