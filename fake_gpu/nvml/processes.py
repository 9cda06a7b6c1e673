"""Who uses a card: running processes, their utilization, accounting."""

from __future__ import annotations

import struct
from collections.abc import Callable

from fake_gpu.derived import is_at_least
from fake_gpu.gpu import Gpu
from fake_gpu.mig import MigInstance
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml, nvml_of_mig
from fake_gpu.nvml.pack import PAIR, counted, expect_version, u32
from fake_gpu.process import Process

_NOT_AVAILABLE = 0xFFFF_FFFF_FFFF_FFFF
"""NVML_VALUE_NOT_AVAILABLE of nvml.h, as an unsigned number."""
_NO_INSTANCE = 0xFFFF_FFFF
"""GPU and compute instance of a process on a card that is not partitioned."""

_V1 = struct.Struct("<I4xQ")
_V2 = struct.Struct("<I4xQII")  # the third version has the same layout
_DETAIL = struct.Struct("<I4xQIIQ")
_SAMPLE = struct.Struct("<I4xQIIII")
_INFO = struct.Struct("<QIIIIIII4x")
_DETAIL_LIST = struct.Struct("<III")  # without the pointer that follows
_ACCOUNTING_BUFFER = 4000
"""Processes; what real cards answer."""

_ENGINES = ("sm", "mem", "enc", "dec")

_MODE_TYPES = (("C", "C+G"), ("G", "C+G"), (), ("C", "G", "C+G"))
"""The types of process that NVML's process modes stand for: compute, graphics, MPS, all."""

Packer = Callable[[int, int, int, int], bytes]
"""Of a PID, bytes, and the ids of GPU instance and compute instance."""


def _pack_v1(pid: int, size: int, instance: int, compute: int) -> bytes:
    return _V1.pack(pid, size)


def _pack_detail(pid: int, size: int, instance: int, compute: int) -> bytes:
    return _DETAIL.pack(pid, size, instance, compute, 0)


def _place(process: Process, gpu: Gpu) -> tuple[int, int]:
    instance = process.instance
    if instance is None or instance.gpu is not gpu:
        return _NO_INSTANCE, _NO_INSTANCE
    return instance.facts.gpu_instance, instance.facts.compute_instance


def _running(call: Call, device: Gpu | MigInstance, mode: int, pack: Packer) -> list[bytes]:
    """Those of a card, or of one MIG device."""
    types = _MODE_TYPES[mode]
    gpu = device.gpu if isinstance(device, MigInstance) else device
    return [
        pack(one.pid, _NOT_AVAILABLE if one.size is None else one.size, *_place(one.process, gpu))
        for one in gpu.listed_at(call.now_ns)
        if one.process.compute_type in types and (device is gpu or one.process.instance is device)
    ]


def _register(mode: int, kind: str) -> None:
    def register(suffix: str, pack: Packer) -> None:
        name = f"nvmlDeviceGet{kind}RunningProcesses{suffix}"

        @nvml_of_mig(name)
        @nvml(name)
        def running(call: Call, device: Gpu | MigInstance, count: int, room: int | None) -> tuple[bytes, bytes]:
            return counted(_running(call, device, mode, pack), count, room)

    register("", _pack_v1)
    register("_v2", _V2.pack)
    register("_v3", _V2.pack)


for _mode, _kind in enumerate(("Compute", "Graphics", "MPSCompute")):
    _register(_mode, _kind)


@nvml_of_mig("nvmlDeviceGetRunningProcessDetailList")
@nvml("nvmlDeviceGetRunningProcessDetailList")
def process_details(call: Call, device: Gpu | MigInstance, request: bytes, room: int | None) -> tuple[bytes, bytes]:
    expect_version(request, 24)
    gpu = device.gpu if isinstance(device, MigInstance) else device
    if not is_at_least(gpu.profile, "hopper"):
        raise NvmlError("NOT_SUPPORTED")  # nvml.h: for Hopper or newer
    version, mode, count = _DETAIL_LIST.unpack_from(request)
    if mode >= len(_MODE_TYPES):
        raise NvmlError("INVALID_ARGUMENT")
    found = _running(call, device, mode, _pack_detail)
    head = _DETAIL_LIST.pack(version, mode, len(found))
    return _into_nested(head, found, count, room)


def _into_nested(head: bytes, items: list[bytes], count: int, room: int | None) -> tuple[bytes, bytes]:
    """As `counted`, for an array whose address and capacity stand in a structure. `head`: its start, with the count."""
    if len(items) > count or (items and room is None):
        raise NvmlError("INSUFFICIENT_SIZE", (head, None))
    return head, b"".join(items)


# -- utilization: what `Process.percent` says, else the card's in equal parts to those that hold memory on it


def _shares(call: Call, gpu: Gpu, after_us: int) -> tuple[int, list[tuple[int, ...]]]:
    """The sample's time in µs since the epoch, and (pid, SM, memory, encoder, decoder) in percent of each process.

    Raises NOT_FOUND where no process did anything since `after_us`.
    """
    if gpu.profile.mig:
        raise NvmlError("NOT_SUPPORTED")  # nvml.h: not for cards with MIG
    seen_us = call.wall_us
    doing = gpu.activity
    card = (doing.gpu_percent, doing.memory_percent, doing.encoder_percent, doing.decoder_percent)
    listed = gpu.listed_at(call.now_ns)
    rest = sum(not one.process.percent for one in listed)
    shares = []
    for one in listed:
        said = one.process.percent
        parts = (said.get(name, 0) if said else percent // rest for name, percent in zip(_ENGINES, card, strict=True))
        shares.append((one.pid, *parts))
    active = [share for share in shares if any(share[1:])]
    if not active or after_us >= seen_us:
        raise NvmlError("NOT_FOUND")
    return seen_us, active


@nvml("nvmlDeviceGetProcessUtilization")
def process_utilization(call: Call, gpu: Gpu, room: int | None, count: int, after_us: int) -> tuple[bytes, bytes]:
    seen_us, shares = _shares(call, gpu, after_us)
    if room is None or count < len(shares):
        raise NvmlError("INSUFFICIENT_SIZE", (None, u32(len(shares))))
    return b"".join(_SAMPLE.pack(pid, seen_us, *rest) for pid, *rest in shares), u32(len(shares))


@nvml("nvmlDeviceGetProcessesUtilizationInfo")
def processes_utilization(call: Call, gpu: Gpu, request: bytes, room: int | None) -> tuple[bytes, bytes]:
    expect_version(request, 24)
    version, count = PAIR.unpack_from(request)
    seen_us, shares = _shares(call, gpu, int.from_bytes(request[8:16], "little"))
    found = [_INFO.pack(seen_us, *share, 0, 0) for share in shares]
    return _into_nested(PAIR.pack(version, len(found)), found, count, room)


# -- accounting: switched off, as it is unless root switches it on


@nvml("nvmlDeviceGetAccountingMode")
def accounting_mode(call: Call, gpu: Gpu) -> bytes:
    return u32(0)


@nvml("nvmlDeviceGetAccountingBufferSize")
def accounting_buffer_size(call: Call, gpu: Gpu) -> bytes:
    return u32(_ACCOUNTING_BUFFER)


@nvml("nvmlDeviceGetAccountingPids", "nvmlDeviceGetAccountingStats", "nvmlDeviceGetAccountingStats_v2")
def accounting_is_off(call: Call, gpu: Gpu, *rest: object) -> None:
    raise NvmlError("NOT_SUPPORTED")
