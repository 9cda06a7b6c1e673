"""What a card is, where it sits, and the modes that it is in."""

from __future__ import annotations

import struct

from fake_gpu.derived import ARCHITECTURES, is_at_least, module_id, on_windows, pdi, quoted
from fake_gpu.gpu import Gpu
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import PAIR, expect_version, known, number, one_of, text, u32

_KEPLER = 2
"""NVML's number for the first architecture; the others follow."""

_BRANDS = {
    "quadro": 1,
    "tesla": 2,
    "nvs": 3,
    "grid": 4,
    "geforce": 5,
    "titan": 6,
    "quadro rtx": 12,
    "nvidia rtx": 13,
    "rtx": 13,
    "nvidia": 14,
}
_INFOROM_OBJECTS = ("oem", "ecc", "pwr")
_DRIVER_MODELS = {"WDDM": 0, "TCC": 1, "MCDM": 2}
_ADDRESSING_MODES = {"None": 0, "HMM": 1, "ATS": 2}
_BUS_TYPE_PCIE = 2
_DISPLAY_CONTROLLER = 3

_PCI_V1 = struct.Struct("<16s4I")
_PCI_V2 = struct.Struct("<16s5I")
_PCI_V3 = struct.Struct("<16s5I32s")
_PCI_EXT = struct.Struct("<8I32s")
_PDI = struct.Struct("<I4xQ")


# -- names and numbers


@nvml("nvmlDeviceGetName")
def name(call: Call, gpu: Gpu, room: int | None, length: int) -> bytes:
    return text(gpu.name, room)


@nvml("nvmlDeviceGetUUID")
def uuid(call: Call, gpu: Gpu, room: int | None, length: int) -> bytes:
    return text(gpu.uuid, room)


@nvml("nvmlDeviceGetSerial")
def serial(call: Call, gpu: Gpu, room: int | None, length: int) -> bytes:
    return text(gpu.serial, room)


@nvml("nvmlDeviceGetBoardPartNumber")
def part_number(call: Call, gpu: Gpu, room: int | None, length: int) -> bytes:
    return text(gpu.profile.part_number, room)


@nvml("nvmlDeviceGetVbiosVersion")
def vbios_version(call: Call, gpu: Gpu, room: int | None, length: int) -> bytes:
    return text(gpu.profile.vbios, room)


@nvml("nvmlDeviceGetInforomImageVersion")
def inforom_image_version(call: Call, gpu: Gpu, room: int | None, length: int) -> bytes:
    return text(gpu.profile.smi.get("inforom.img"), room)


@nvml("nvmlDeviceGetInforomVersion")
def inforom_version(call: Call, gpu: Gpu, part: int, room: int | None, length: int) -> bytes:
    one_of(part, 4)
    part_name = _INFOROM_OBJECTS[part] if part < len(_INFOROM_OBJECTS) else ""
    return text(gpu.profile.smi.get(f"inforom.{part_name}"), room)


@nvml("nvmlDeviceGetIndex")
def index(call: Call, gpu: Gpu) -> bytes:
    return u32(call.driver.enumerated.index(gpu))


@nvml("nvmlDeviceGetMinorNumber")
def minor_number(call: Call, gpu: Gpu) -> bytes:
    """The N of /dev/nvidiaN, which need not agree with the index."""
    return u32(gpu.minor_number)


@nvml("nvmlDeviceGetBoardId")
def board_id(call: Call, gpu: Gpu) -> bytes:
    """What real cards make of their place: 0x100 for bus 1."""
    return u32((gpu.pci_domain << 16 | gpu.pci_bus << 8 | gpu.pci_device) & 0xFFFF_FFFF)


@nvml("nvmlDeviceGetPdi")
def device_identifier(call: Call, gpu: Gpu, request: bytes) -> bytes:
    expect_version(request, _PDI.size)
    return _PDI.pack(_PDI.size | 1 << 24, int(known(quoted(gpu, "pdi", pdi(gpu))), 16))


@nvml("nvmlDeviceGetModuleId")
def module(call: Call, gpu: Gpu) -> bytes:
    return u32(int(known(quoted(gpu, "platform.module_id", module_id(gpu)))))


@nvml("nvmlDeviceGetMultiGpuBoard", "nvmlDeviceGetVirtualizationMode")
def never(call: Call, gpu: Gpu) -> bytes:
    """One GPU to a board, on bare metal."""
    return u32(0)


@nvml("nvmlDeviceGetBrand")
def brand(call: Call, gpu: Gpu) -> bytes:
    return u32(_BRANDS[gpu.profile.brand])


@nvml("nvmlDeviceGetArchitecture")
def architecture(call: Call, gpu: Gpu) -> bytes:
    return u32(_KEPLER + ARCHITECTURES.index(gpu.profile.architecture))


@nvml("nvmlDeviceGetCudaComputeCapability")
def compute_capability(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    major, minor = gpu.profile.compute_capability
    return u32(major), u32(minor)


@nvml("nvmlDeviceGetNumGpuCores")
def cores(call: Call, gpu: Gpu) -> bytes:
    if gpu.profile.mig:
        raise NvmlError("NOT_SUPPORTED")  # nvml.h: not for cards with MIG
    return number(gpu.profile.cuda_cores)


@nvml("nvmlDeviceGetGspFirmwareVersion")
def gsp_firmware_version(call: Call, gpu: Gpu) -> bytes:
    """The driver's own version, where the card has a system processor: Turing and later."""
    gsp_firmware_mode(call, gpu)
    return text(call.driver.driver_version, 64)


@nvml("nvmlDeviceGetGspFirmwareMode")
def gsp_firmware_mode(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    if not is_at_least(gpu.profile, "turing"):
        raise NvmlError("NOT_SUPPORTED")
    return u32(1), u32(1)


# -- place


def _pci_words(gpu: Gpu) -> tuple[int, int, int, int, int]:
    pci = gpu.profile.pci
    return gpu.pci_domain, gpu.pci_bus, gpu.pci_device, pci.device_id, pci.subsystem_id


def _legacy_bus_id(gpu: Gpu) -> bytes:
    return f"{gpu.pci_domain:04X}:{gpu.pci_bus:02X}:{gpu.pci_device:02X}.0".encode()


@nvml("nvmlDeviceGetPciInfo")
def pci_info_v1(call: Call, gpu: Gpu) -> bytes:
    """Its structure ended before the subsystem's id: a byte more would land behind the caller's."""
    return _PCI_V1.pack(_legacy_bus_id(gpu), *_pci_words(gpu)[:4])


@nvml("nvmlDeviceGetPciInfo_v2")
def pci_info_v2(call: Call, gpu: Gpu) -> bytes:
    """Its structure ended, but for reserved words, with the subsystem's id."""
    return _PCI_V2.pack(_legacy_bus_id(gpu), *_pci_words(gpu))


@nvml("nvmlDeviceGetPciInfo_v3")
def pci_info_v3(call: Call, gpu: Gpu) -> bytes:
    return _PCI_V3.pack(_legacy_bus_id(gpu), *_pci_words(gpu), gpu.pci_bus_id.encode())


@nvml("nvmlDeviceGetPciInfoExt")
def pci_info_extended(call: Call, gpu: Gpu, request: bytes) -> bytes:
    expect_version(request, _PCI_EXT.size)
    version = int.from_bytes(request[:4], "little")
    classes = (_DISPLAY_CONTROLLER, gpu.profile.pci.sub_class)
    return _PCI_EXT.pack(version, *_pci_words(gpu), *classes, gpu.pci_bus_id.encode())


@nvml("nvmlDeviceGetBusType")
def bus_type(call: Call, gpu: Gpu) -> bytes:
    return u32(_BUS_TYPE_PCIE)


# -- modes


@nvml("nvmlDeviceGetDisplayMode", "nvmlDeviceGetDisplayActive")
def display(call: Call, gpu: Gpu) -> bytes:
    return u32(gpu.profile.display)


@nvml("nvmlDeviceGetPersistenceMode")
def persistence_mode(call: Call, gpu: Gpu) -> bytes:
    if on_windows(gpu):
        raise NvmlError("NOT_SUPPORTED")  # Linux alone has it
    return u32(gpu.profile.persistence)


@nvml("nvmlDeviceGetComputeMode", "nvmlDeviceGetPowerSource")
def default_mode(call: Call, gpu: Gpu) -> bytes:
    """Any number of compute processes; power from the mains."""
    return u32(0)


@nvml("nvmlDeviceGetDriverModel", "nvmlDeviceGetDriverModel_v2")
def driver_model(call: Call, gpu: Gpu) -> tuple[bytes, bytes]:
    """Windows'. Elsewhere a card has none."""
    said = (gpu.profile.smi.get(f"driver_model.{which}", "") for which in ("current", "pending"))
    current, pending = (number(_DRIVER_MODELS.get(one)) for one in said)
    return current, pending


@nvml("nvmlDeviceGetAddressingMode")
def addressing_mode(call: Call, gpu: Gpu, request: bytes) -> bytes:
    """How the card reaches the host's pageable memory."""
    expect_version(request, PAIR.size)
    said = known(quoted(gpu, "addressing_mode", "None"))
    return PAIR.pack(PAIR.size | 1 << 24, known(_ADDRESSING_MODES.get(said)))


@nvml("nvmlDeviceGetC2cModeInfoV")
def c2c_mode(call: Call, gpu: Gpu) -> bytes:
    return u32(known(gpu.profile.smi.get("c2c.mode")) == "Enabled")


@nvml("nvmlGpmQueryDeviceSupport")
def gpm_support(call: Call, gpu: Gpu, request: bytes) -> bytes:
    """No card here has performance metrics. Its version is a plain number, unlike other structures'."""
    version = int.from_bytes(request[:4], "little")
    if version != 1:
        raise NvmlError("ARGUMENT_VERSION_MISMATCH")
    return PAIR.pack(version, 0)
