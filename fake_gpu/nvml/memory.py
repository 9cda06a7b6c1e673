"""Memory: the card's own, and the window onto it."""

from __future__ import annotations

import struct

from fake_gpu.derived import bar1_used, quoted
from fake_gpu.gpu import Gpu, Memory
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import expect_version, known, number
from fake_gpu.units import MIB

_V1 = struct.Struct("<3Q")
_CONFIDENTIAL = struct.Struct("<2Q")
_V2 = struct.Struct("<I4x4Q")
_V2_VERSION = 2 << 24 | _V2.size


def _memory(call: Call, gpu: Gpu) -> Memory:
    if not gpu.view.memory:
        raise NvmlError("NOT_SUPPORTED")
    return gpu.memory_at(call.now_ns)


def pack_memory(memory: Memory) -> bytes:
    """The first version of the call counts what is reserved as used."""
    total, reserved, used, free = memory
    return _V1.pack(total, free, used + reserved)


def check_version(request: bytes) -> None:
    """Raises ARGUMENT_VERSION_MISMATCH where a structure is not of the call's second version."""
    expect_version(request, _V2.size, 2)


def pack_memory_v2(memory: Memory) -> bytes:
    """The second version has it apart."""
    total, reserved, used, free = memory
    return _V2.pack(_V2_VERSION, total, reserved, free, used)


def pack_window(total: int, used: int) -> bytes:
    """Of the window onto the memory, in bytes."""
    return _V1.pack(total, total - used, used)


@nvml("nvmlDeviceGetMemoryInfo")
def memory_info(call: Call, gpu: Gpu) -> bytes:
    return pack_memory(_memory(call, gpu))


@nvml("nvmlDeviceGetMemoryInfo_v2")
def memory_info_v2(call: Call, gpu: Gpu, request: bytes) -> bytes:
    check_version(request)
    return pack_memory_v2(_memory(call, gpu))


@nvml("nvmlDeviceGetBAR1MemoryInfo")
def bar1_memory_info(call: Call, gpu: Gpu) -> bytes:
    return pack_window(gpu.profile.memory.bar1_mib * MIB, bar1_used(gpu))


@nvml("nvmlDeviceGetMemoryBusWidth")
def memory_bus_width(call: Call, gpu: Gpu) -> bytes:
    return number(gpu.profile.memory.bus_width)


# -- confidential computing, which no card here has switched on


@nvml("nvmlDeviceGetConfComputeProtectedMemoryUsage")
def protected_memory(call: Call, gpu: Gpu) -> bytes:
    """In the order total, free, used, as nvidia-smi's `protected_memory` fields."""
    names = ("total", "free", "used")
    said = (known(quoted(gpu, f"protected_memory.{name}", "0")) for name in names)
    return _V1.pack(*(int(one.split()[0]) * MIB for one in said))


@nvml("nvmlDeviceGetConfComputeMemSizeInfo")
def protected_and_unprotected(call: Call, gpu: Gpu) -> bytes:
    """KiB: where nothing is protected, the rest is all of the card's memory."""
    protected = int(known(quoted(gpu, "protected_memory.total", "0")).split()[0]) * MIB
    return _CONFIDENTIAL.pack(protected // 1024, (_memory(call, gpu).total - protected) // 1024)
