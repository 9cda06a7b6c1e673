"""Partitioned cards: their mode, and what the handles of their devices answer.

What a MIG device does not answer is NOT_SUPPORTED, as its utilization is. nvml.h says which functions take its handle.
"""

from __future__ import annotations

import struct

from fake_gpu.gpu import Gpu, Memory
from fake_gpu.mig import MigInstance
from fake_gpu.mig_layout import parse_name
from fake_gpu.nvml import identity
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, Handler, Outs, nvml, nvml_of_mig
from fake_gpu.nvml.errors import LOCATIONS, VOLATILE, check_ecc
from fake_gpu.nvml.memory import check_version, pack_memory, pack_memory_v2, pack_window
from fake_gpu.nvml.pack import known, one_of, text, u32, u64
from fake_gpu.units import MIB

_MIG_DEVICES = 7
"""At most on one card, of every kind that can be partitioned."""
_MODES = 2
_ATTRIBUTES = struct.Struct("<8IQ")
_UNCORRECTED, _SRAM = 1, 7


# -- the card


@nvml("nvmlDeviceGetMigMode")
def mode(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    enabled = u32(known(gpu.profile.mig))
    return enabled, enabled


@nvml("nvmlDeviceSetMigMode")
def set_mode(call: Call, gpu: Gpu, wanted: int, status: bytes) -> None:
    """Only root may, where the card can be partitioned."""
    known(gpu.profile.mig)
    one_of(wanted, _MODES)
    raise NvmlError("NO_PERMISSION")


@nvml("nvmlDeviceGetMaxMigDeviceCount")
def most_devices(call: Call, gpu: Gpu) -> bytes:
    """Zero where MIG is off or impossible, as nvml.h says."""
    return u32(_MIG_DEVICES if gpu.profile.mig else 0)


@nvml("nvmlDeviceGetMigDeviceHandleByIndex")
def device_by_index(call: Call, gpu: Gpu, place: int) -> bytes:
    known(gpu.profile.mig)
    one_of(place, _MIG_DEVICES)
    for instance in gpu.instances:
        if instance.index == place:
            return u64(instance.handle)
    raise NvmlError("NOT_FOUND")


@nvml("nvmlDeviceIsMigDeviceHandle")
def is_no_mig_device(call: Call, gpu: Gpu) -> bytes:
    return u32(0)


@nvml(
    "nvmlDeviceGetAttributes",
    "nvmlDeviceGetAttributes_v2",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
)
def only_mig_devices_have_them(call: Call, gpu: Gpu) -> None:
    raise NvmlError("NOT_SUPPORTED")


@nvml("nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
def not_a_part(call: Call, gpu: Gpu) -> None:
    raise NvmlError("INVALID_ARGUMENT")


# -- its devices


@nvml_of_mig(
    "nvmlDeviceGetMigMode",
    "nvmlDeviceSetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
)
def only_cards_are_partitioned(call: Call, instance: MigInstance, *rest: object) -> None:
    raise NvmlError("INVALID_ARGUMENT")


@nvml_of_mig("nvmlDeviceIsMigDeviceHandle")
def is_mig_device(call: Call, instance: MigInstance) -> bytes:
    return u32(1)


@nvml_of_mig("nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
def card_of(call: Call, instance: MigInstance) -> bytes:
    return u64(instance.gpu.handle)


@nvml_of_mig("nvmlDeviceGetGpuInstanceId")
def gpu_instance_id(call: Call, instance: MigInstance) -> bytes:
    return u32(instance.facts.gpu_instance)


@nvml_of_mig("nvmlDeviceGetComputeInstanceId")
def compute_instance_id(call: Call, instance: MigInstance) -> bytes:
    return u32(instance.facts.compute_instance)


@nvml_of_mig("nvmlDeviceGetIndex")
def index(call: Call, instance: MigInstance) -> bytes:
    """Among the devices of its card."""
    return u32(instance.index)


@nvml_of_mig("nvmlDeviceGetName")
def name(call: Call, instance: MigInstance, room: int | None, length: int) -> bytes:
    """Such as "NVIDIA A100-SXM4-80GB MIG 2g.20gb"."""
    return text(f"{instance.gpu.name} MIG {instance.facts.name}", room)


@nvml_of_mig("nvmlDeviceGetUUID")
def uuid(call: Call, instance: MigInstance, room: int | None, length: int) -> bytes:
    return text(instance.uuid, room)


@nvml_of_mig("nvmlDeviceGetAttributes", "nvmlDeviceGetAttributes_v2")
def attributes(call: Call, instance: MigInstance) -> bytes:
    facts = instance.facts
    engines = (facts.multiprocessors, facts.copy_engines, facts.decoders, facts.encoders, facts.jpeg, facts.ofa)
    named = parse_name(facts.name)
    return _ATTRIBUTES.pack(*engines, named.slices, named.compute_slices, facts.memory_mib)


def _memory(call: Call, instance: MigInstance) -> Memory:
    """Nothing of it is reserved: `nvidia-smi -q` of an H100 says 0 MiB."""
    used = instance.used_at(call.now_ns)
    return Memory(instance.total, 0, used, max(0, instance.total - used))


@nvml_of_mig("nvmlDeviceGetMemoryInfo")
def memory_info(call: Call, instance: MigInstance) -> bytes:
    return pack_memory(_memory(call, instance))


@nvml_of_mig("nvmlDeviceGetMemoryInfo_v2")
def memory_info_v2(call: Call, instance: MigInstance, request: bytes) -> bytes:
    check_version(request)
    return pack_memory_v2(_memory(call, instance))


@nvml_of_mig("nvmlDeviceGetBAR1MemoryInfo")
def bar1_memory_info(call: Call, instance: MigInstance) -> bytes:
    return pack_window(instance.facts.bar1_mib * MIB, instance.bar1_used)


@nvml_of_mig("nvmlDeviceGetMemoryErrorCounter")
def memory_errors(call: Call, instance: MigInstance, kind: int, span: int, location: int) -> bytes:
    """Of errors that were not corrected, since the driver was loaded, not in its DRAM: the only ones, says nvml.h."""
    one_of(kind, 2)
    one_of(span, 2)
    one_of(location, LOCATIONS)
    check_ecc(instance.gpu)
    if (kind, span, location) != (_UNCORRECTED, VOLATILE, _SRAM):
        raise NvmlError("NOT_SUPPORTED")
    return u64(0)


# -- what their card answers for them


def _of_card(handler: Handler) -> Handler:
    def answer(call: Call, instance: MigInstance, *rest: object) -> Outs:
        return handler(call, instance.gpu, *rest)

    return answer


nvml_of_mig("nvmlDeviceGetDisplayMode", "nvmlDeviceGetDisplayActive")(_of_card(identity.display))
nvml_of_mig("nvmlDeviceGetComputeMode")(_of_card(identity.default_mode))
nvml_of_mig("nvmlDeviceGetCudaComputeCapability")(_of_card(identity.compute_capability))
nvml_of_mig("nvmlDeviceGetArchitecture")(_of_card(identity.architecture))
nvml_of_mig("nvmlDeviceGetBrand")(_of_card(identity.brand))
nvml_of_mig("nvmlGpmQueryDeviceSupport")(_of_card(identity.gpm_support))
