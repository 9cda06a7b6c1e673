"""Initialisation, shutdown, and finding devices."""

from __future__ import annotations

import re
from collections.abc import Callable

from fake_gpu.gpu import Gpu, Presence
from fake_gpu.mig import MigInstance
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import expect_version, one_of, u32, u64

_UUID_ASCII, _UUID_BINARY = 1, 2
_MIG_UUID_OF_OLD = re.compile(r"MIG-(?P<gpu>GPU-[^/]+)/(?P<instance>\d+)/(?P<compute>\d+)", re.IGNORECASE)
"""As drivers before 470 wrote it; later ones take both."""

# domain:bus:device.function, domain:bus:device, or bus:device.function, as nvml.h says; hexadecimal of any length.
_BUS_ID = re.compile(
    r"(?:(?P<domain>[0-9a-f]{1,8}):)?(?P<bus>[0-9a-f]{1,2}):(?P<device>[0-9a-f]{1,2})(?:\.(?P<function>[0-9a-f]))?",
    re.IGNORECASE,
)


@nvml("nvmlInit", "nvmlInit_v2", without_init=True)
def init(call: Call) -> None:
    with call.driver.lock:
        call.session.initialised += 1


@nvml("nvmlInitWithFlags", without_init=True)
def init_with_flags(call: Call, flags: int) -> None:
    init(call)


@nvml("nvmlShutdown")
def shutdown(call: Call) -> None:
    session = call.session
    with call.driver.lock:
        if not session.initialised:  # another thread was faster
            raise NvmlError("UNINITIALIZED")
        session.initialised -= 1
        if not session.initialised:
            session.event_sets.clear()


@nvml("nvmlDeviceGetCount", "nvmlDeviceGetCount_v2")
def device_count(call: Call) -> bytes:
    """Cards that fell off the bus are still counted."""
    return u32(len(call.driver.enumerated))


@nvml("nvmlUnitGetCount", "nvmlGetExcludedDeviceCount")
def none_of_these(call: Call) -> bytes:
    """S-class enclosures, and GPUs hidden from the driver: this machine has none."""
    return u32(0)


@nvml("nvmlUnitGetHandleByIndex", "nvmlGetExcludedDeviceInfoByIndex")
def no_such_index(call: Call, index: int) -> None:
    raise NvmlError("INVALID_ARGUMENT")


def _handle(gpu: Gpu) -> bytes:
    if gpu.presence_in_model is Presence.LOST:
        raise NvmlError("GPU_IS_LOST")
    return u64(gpu.handle)


def _find(call: Call, matches: Callable[[Gpu], bool]) -> bytes:
    for gpu in call.driver.enumerated:
        if matches(gpu):
            return _handle(gpu)
    raise NvmlError("NOT_FOUND")


def _find_mig_device(call: Call, matches: Callable[[MigInstance], bool]) -> bytes:
    for gpu in call.driver.enumerated:
        for instance in gpu.instances:
            if matches(instance):
                _handle(gpu)
                return u64(instance.handle)
    raise NvmlError("NOT_FOUND")


def _ids(instance: MigInstance) -> tuple[int, int]:
    return instance.facts.gpu_instance, instance.facts.compute_instance


def _digits(uuid: str) -> str:
    return uuid[4:].replace("-", "").lower()


@nvml("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByIndex_v2")
def handle_by_index(call: Call, index: int) -> bytes:
    gpus = call.driver.enumerated
    return _handle(gpus[one_of(index, len(gpus))])


@nvml("nvmlDeviceGetHandleByUUID")
def handle_by_uuid(call: Call, uuid: str) -> bytes:
    if not uuid:
        raise NvmlError("INVALID_ARGUMENT")
    old = _MIG_UUID_OF_OLD.fullmatch(uuid)
    if old is not None:
        wanted = (int(old["instance"]), int(old["compute"]))
        return _find_mig_device(call, lambda one: one.gpu.uuid == old["gpu"] and _ids(one) == wanted)
    if uuid.startswith("MIG-"):
        return _find_mig_device(call, lambda one: one.uuid == uuid)
    return _find(call, lambda gpu: gpu.uuid == uuid)


@nvml("nvmlDeviceGetHandleByUUIDV")
def handle_by_uuid_structure(call: Call, request: bytes) -> tuple[None, bytes]:
    expect_version(request, 52)
    kind, value = int.from_bytes(request[4:8], "little"), request[8:]
    if kind == _UUID_ASCII:
        return None, handle_by_uuid(call, value[:41].split(b"\0")[0].decode("utf-8", "replace"))
    if kind == _UUID_BINARY:
        digits = value[:16].hex()
        if any(_digits(one.uuid) == digits for gpu in call.driver.enumerated for one in gpu.instances):
            return None, _find_mig_device(call, lambda one: _digits(one.uuid) == digits)
        return None, _find(call, lambda gpu: _digits(gpu.uuid) == digits)
    raise NvmlError("INVALID_ARGUMENT")


@nvml("nvmlDeviceGetHandleBySerial")
def handle_by_serial(call: Call, serial: str) -> bytes:
    if not serial:
        raise NvmlError("INVALID_ARGUMENT")
    return _find(call, lambda gpu: gpu.serial == serial)


@nvml("nvmlDeviceGetHandleByPciBusId", "nvmlDeviceGetHandleByPciBusId_v2")
def handle_by_bus_id(call: Call, bus_id: str) -> bytes:
    found = _BUS_ID.fullmatch(bus_id)
    if found is None or (found["domain"] is None and found["function"] is None):
        raise NvmlError("INVALID_ARGUMENT")
    domain, bus, device, function = (int(part or "0", 16) for part in found.groups())
    return _find(call, lambda gpu: (gpu.pci_domain, gpu.pci_bus, gpu.pci_device, 0) == (domain, bus, device, function))
