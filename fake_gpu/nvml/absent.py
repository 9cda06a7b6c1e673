"""What no card here can do, and what only root may: answered as a real driver answers an ordinary user."""

from __future__ import annotations

from fake_gpu.nvml.codes import NvmlError
from fake_gpu.nvml.dispatch import Call, nvml


@nvml(
    "nvmlDeviceGetGpuOperationMode",  # Kepler
    "nvmlDeviceGetBridgeChipInfo",  # boards with two GPUs
    "nvmlDeviceGetAutoBoostedClocksEnabled",  # Kepler
    "nvmlDeviceGetNumaNodeId",  # GPUs that are NUMA nodes
    "nvmlDeviceGetHostVgpuMode",  # virtualization hosts
    "nvmlDeviceGetActiveVgpus",
    "nvmlDeviceGetSupportedVgpus",
    "nvmlDeviceGetCreatableVgpus",
)
def not_on_these_cards(call: Call, *arguments: object) -> None:
    raise NvmlError("NOT_SUPPORTED")


@nvml(
    "nvmlDeviceSetPersistenceMode",
    "nvmlDeviceSetComputeMode",
    "nvmlDeviceSetEccMode",
    "nvmlDeviceClearEccErrorCounts",
    "nvmlDeviceSetPowerManagementLimit",
    "nvmlDeviceSetPowerManagementLimit_v2",
    "nvmlDeviceSetApplicationsClocks",
    "nvmlDeviceResetApplicationsClocks",
    "nvmlDeviceSetGpuLockedClocks",
    "nvmlDeviceResetGpuLockedClocks",
    "nvmlDeviceSetMemoryLockedClocks",
    "nvmlDeviceResetMemoryLockedClocks",
    "nvmlDeviceSetFanSpeed_v2",
    "nvmlDeviceSetDefaultFanSpeed_v2",
    "nvmlDeviceSetFanControlPolicy",
    "nvmlDeviceSetTemperatureThreshold",
    "nvmlDeviceSetAccountingMode",
    "nvmlDeviceClearAccountingPids",
    "nvmlDeviceModifyDrainState",
    "nvmlDeviceRemoveGpu",
    "nvmlDeviceRemoveGpu_v2",
)
def only_for_root(call: Call, *arguments: object) -> None:
    raise NvmlError("NO_PERMISSION")
