"""Initialisation, shutdown, and finding devices."""

from __future__ import annotations

import struct

from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.gpu import Gpu

_U32 = struct.Struct("<I")
_HANDLE = struct.Struct("<Q")


@nvml("nvmlInit", "nvmlInit_v2", without_init=True)
def init(call: Call) -> None:
    call.session.initialised += 1


@nvml("nvmlInitWithFlags", without_init=True)
def init_with_flags(call: Call, flags: int) -> None:
    call.session.initialised += 1


@nvml("nvmlShutdown")
def shutdown(call: Call) -> None:
    call.session.initialised -= 1


@nvml("nvmlDeviceGetCount", "nvmlDeviceGetCount_v2")
def device_count(call: Call) -> bytes:
    return _U32.pack(len(call.driver.enumerated))


@nvml("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByIndex_v2")
def handle_by_index(call: Call, index: int) -> bytes:
    gpus = call.driver.enumerated
    if index >= len(gpus):
        raise NvmlError("INVALID_ARGUMENT")
    return _HANDLE.pack(gpus[index].handle)


@nvml("nvmlDeviceGetMemoryInfo")
def memory_info(call: Call, gpu: Gpu) -> bytes:
    """The first version of this call counts what is reserved as used."""
    total, reserved, used, free = gpu.memory_at(call.now_ns)
    return struct.pack("<QQQ", total, free, used + reserved)
