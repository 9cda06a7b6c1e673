"""Memory: the card's own, and the window onto it."""

from __future__ import annotations

import struct

from fake_gpu.derived import bar1_used
from fake_gpu.gpu import Gpu, Memory
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import number
from fake_gpu.units import MIB

_V1 = struct.Struct("<3Q")
_V2 = struct.Struct("<I4x4Q")
_V2_VERSION = 2 << 24 | _V2.size


def _memory(call: Call, gpu: Gpu) -> Memory:
    if not gpu.view.memory:
        raise NvmlError("NOT_SUPPORTED")
    return gpu.memory_at(call.now_ns)


@nvml("nvmlDeviceGetMemoryInfo")
def memory_info(call: Call, gpu: Gpu) -> bytes:
    """The first version of this call counts what is reserved as used."""
    total, reserved, used, free = _memory(call, gpu)
    return _V1.pack(total, free, used + reserved)


@nvml("nvmlDeviceGetMemoryInfo_v2")
def memory_info_v2(call: Call, gpu: Gpu, request: bytes) -> bytes:
    if int.from_bytes(request[:4], "little") != _V2_VERSION:
        raise NvmlError("ARGUMENT_VERSION_MISMATCH")
    total, reserved, used, free = _memory(call, gpu)
    return _V2.pack(_V2_VERSION, total, reserved, free, used)


@nvml("nvmlDeviceGetBAR1MemoryInfo")
def bar1_memory_info(call: Call, gpu: Gpu) -> bytes:
    total = gpu.profile.memory.bar1_mib * MIB
    used = bar1_used(gpu)
    return _V1.pack(total, total - used, used)


@nvml("nvmlDeviceGetMemoryBusWidth")
def memory_bus_width(call: Call, gpu: Gpu) -> bytes:
    return number(gpu.profile.memory.bus_width)
