"""ECC, retired pages, remapped rows: every counter stands at 0, where the card counts."""

from __future__ import annotations

import struct

from fake_gpu.derived import is_at_least
from fake_gpu.gpu import Gpu
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import counted, known, one_of, u32, u64

LOCATIONS = 8
"""Of memory, in the order of NVML's numbers."""
VOLATILE = 0
_COUNTED_LOCATIONS = frozenset({2, 7})
"""Device memory and SRAM: where Ampere cards and later count. Older ones count everywhere but in SRAM."""
_HISTOGRAM = struct.Struct("<5I")
_HISTOGRAM_FIELDS = ("max", "high", "partial", "low", "none")


@nvml("nvmlDeviceGetEccMode")
def ecc_mode(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    enabled = u32(known(gpu.profile.ecc))
    return enabled, enabled


@nvml("nvmlDeviceGetDefaultEccMode")
def default_ecc_mode(call: Call, gpu: Gpu) -> bytes:
    """On, but for GeForce cards, which come with it switched off."""
    known(gpu.profile.ecc)
    return u32(gpu.profile.brand != "geforce")


def check_ecc(gpu: Gpu) -> None:
    """Raises NOT_SUPPORTED where the card has no ECC memory, or has it switched off."""
    if not gpu.profile.ecc:
        raise NvmlError("NOT_SUPPORTED")


def counts_errors_in(gpu: Gpu, location: int) -> bool:
    """Whether the card has counters of this memory."""
    return (location in _COUNTED_LOCATIONS) if is_at_least(gpu.profile, "ampere") else location != 7


@nvml("nvmlDeviceGetTotalEccErrors")
def ecc_errors(call: Call, gpu: Gpu, kind: int, span: int) -> bytes:
    one_of(kind, 2)
    one_of(span, 2)
    check_ecc(gpu)
    return u64(0)


@nvml("nvmlDeviceGetDetailedEccErrors")
def detailed_ecc_errors(call: Call, gpu: Gpu, kind: int, span: int) -> bytes:
    return ecc_errors(call, gpu, kind, span) * 4


@nvml("nvmlDeviceGetMemoryErrorCounter")
def memory_errors(call: Call, gpu: Gpu, kind: int, span: int, location: int) -> bytes:
    one_of(location, LOCATIONS)
    count = ecc_errors(call, gpu, kind, span)
    if not counts_errors_in(gpu, location):
        raise NvmlError("NOT_SUPPORTED")
    return count


# -- cards before Ampere retire pages, later ones remap rows


def check_retires_pages(gpu: Gpu) -> None:
    """Raises NOT_SUPPORTED for a card that does not retire pages."""
    check_ecc(gpu)
    if is_at_least(gpu.profile, "ampere"):
        raise NvmlError("NOT_SUPPORTED")


def check_remaps_rows(gpu: Gpu) -> None:
    """Raises NOT_SUPPORTED for a card that does not remap rows, or has MIG devices, as nvml.h says."""
    check_ecc(gpu)
    if gpu.instances or not is_at_least(gpu.profile, "ampere"):
        raise NvmlError("NOT_SUPPORTED")


@nvml("nvmlDeviceGetRetiredPages")
def retired_pages(call: Call, gpu: Gpu, cause: int, count: int, room: int | None) -> tuple[bytes, bytes]:
    one_of(cause, 2)
    check_retires_pages(gpu)
    return counted([], count, room)


@nvml("nvmlDeviceGetRetiredPages_v2")
def retired_pages_v2(
    call: Call, gpu: Gpu, cause: int, count: int, room: int | None, times: int | None
) -> tuple[bytes, bytes]:
    return retired_pages(call, gpu, cause, count, room)


@nvml("nvmlDeviceGetRetiredPagesPendingStatus")
def pages_pending(call: Call, gpu: Gpu) -> bytes:
    check_retires_pages(gpu)
    return u32(0)


@nvml("nvmlDeviceGetRemappedRows")
def remapped_rows(call: Call, gpu: Gpu) -> tuple[bytes, bytes, bytes, bytes]:
    check_remaps_rows(gpu)
    return u32(0), u32(0), u32(0), u32(0)


@nvml("nvmlDeviceGetRowRemapperHistogram")
def remapper_histogram(call: Call, gpu: Gpu) -> bytes:
    check_remaps_rows(gpu)
    smi = gpu.profile.smi
    return _HISTOGRAM.pack(*(int(known(smi.get(f"remapped_rows.histogram.{name}"))) for name in _HISTOGRAM_FIELDS))


@nvml("nvmlDeviceGetUnrepairableMemoryFlag_v1")
def unrepairable_memory(call: Call, gpu: Gpu) -> bytes:
    return u32(0)
