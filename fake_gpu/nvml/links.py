"""PCIe and NVLink."""

from __future__ import annotations

from fake_gpu.derived import link_generation, link_limit
from fake_gpu.gpu import Gpu
from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml
from fake_gpu.nvml.pack import one_of, u32, u64

_MEGATRANSFERS = (2500, 5000, 8000, 16000, 32000, 64000)
"""A lane's, by PCIe generation."""
_NVLINK_VERSIONS = {"pascal": 1, "volta": 2, "turing": 3, "ampere": 4, "hopper": 6, "blackwell": 7}
"""NVML's numbers for NVLink 1.0, 2.0, 2.2, 3.0, 4.0, 5.0."""
_NVLINK_CAPABILITIES = (1, 1, 1, 1, 0, 1)
"""Peer to peer, system memory, atomics of both, SLI, valid."""
_NVLINK_ERRORS = 4
_MOST_NVLINKS = 36


@nvml("nvmlDeviceGetCurrPcieLinkGeneration")
def generation(call: Call, gpu: Gpu) -> bytes:
    return u32(link_generation(gpu))


@nvml("nvmlDeviceGetMaxPcieLinkGeneration")
def highest_generation(call: Call, gpu: Gpu) -> bytes:
    """Of card and host together."""
    return u32(link_limit(gpu.profile))


@nvml("nvmlDeviceGetGpuMaxPcieLinkGeneration")
def cards_generation(call: Call, gpu: Gpu) -> bytes:
    return u32(gpu.profile.pci.max_generation)


@nvml("nvmlDeviceGetCurrPcieLinkWidth", "nvmlDeviceGetMaxPcieLinkWidth")
def width(call: Call, gpu: Gpu) -> bytes:
    return u32(gpu.profile.pci.max_width)


@nvml("nvmlDeviceGetPcieLinkMaxSpeed")
def highest_speed(call: Call, gpu: Gpu) -> bytes:
    """NVML's numbers for speeds are those of the generations."""
    return u32(link_limit(gpu.profile))


@nvml("nvmlDeviceGetPcieSpeed")
def speed(call: Call, gpu: Gpu) -> bytes:
    return u32(_MEGATRANSFERS[link_generation(gpu) - 1])


@nvml("nvmlDeviceGetPcieThroughput")
def throughput(call: Call, gpu: Gpu, direction: int) -> bytes:
    """KiB a second; 0: sent, 1: received."""
    return u32((gpu.activity.pcie_tx_kib_s, gpu.activity.pcie_rx_kib_s)[one_of(direction, 2)])


@nvml("nvmlDeviceGetPcieReplayCounter")
def replays(call: Call, gpu: Gpu) -> bytes:
    return u32(0)


# -- NVLink


def check_nvlink(gpu: Gpu, link: int) -> None:
    """Raises INVALID_ARGUMENT for a link that the card does not have, NOT_SUPPORTED where it has none at all."""
    one_of(link, _MOST_NVLINKS)
    if not gpu.profile.nvlinks:
        raise NvmlError("NOT_SUPPORTED")
    one_of(link, gpu.profile.nvlinks)


def nvlink_version_number(gpu: Gpu) -> int:
    """NVML's number for the version of a card's NVLink; 0 where there is none."""
    return _NVLINK_VERSIONS.get(gpu.profile.architecture, 0)


@nvml("nvmlDeviceGetNvLinkState")
def nvlink_state(call: Call, gpu: Gpu, link: int) -> bytes:
    check_nvlink(gpu, link)
    return u32(gpu.profile.nvlinks_active)


@nvml("nvmlDeviceGetNvLinkVersion")
def nvlink_version(call: Call, gpu: Gpu, link: int) -> bytes:
    check_nvlink(gpu, link)
    return u32(nvlink_version_number(gpu))


@nvml("nvmlDeviceGetNvLinkCapability")
def nvlink_capability(call: Call, gpu: Gpu, link: int, capability: int) -> bytes:
    one_of(capability, len(_NVLINK_CAPABILITIES))
    check_nvlink(gpu, link)
    return u32(_NVLINK_CAPABILITIES[capability])


@nvml("nvmlDeviceGetNvLinkErrorCounter")
def nvlink_errors(call: Call, gpu: Gpu, link: int, counter: int) -> bytes:
    one_of(counter, _NVLINK_ERRORS)
    check_nvlink(gpu, link)
    return u64(0)
