"""What torch.cuda says of memory, from a fake driver: many backends ask it where nvidia-smi is not to be had.

torch asks the CUDA driver, which no fake library can be: the functions are replaced, in this process, for a while.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from fake_gpu import Driver, Gpu
from fake_gpu.profile import Architecture

CORES_PER_MULTIPROCESSOR: dict[Architecture, int] = {
    "kepler": 192,
    "maxwell": 128,
    "pascal": 128,
    "volta": 64,
    "turing": 64,
    "ampere": 128,
    "ada": 128,
    "hopper": 128,
    "blackwell": 128,
}
"""FP32 cores (CUDA C++ Programming Guide, compute capabilities); the data-centre chips 6.0 and 8.0 have 64."""

_FEWER = frozenset({(6, 0), (8, 0)})


@dataclass(frozen=True, slots=True)
class CudaDeviceProperties:
    """What `torch.cuda.get_device_properties` returns, as far as the driver knows it. `total_memory` in bytes."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    uuid: str
    pci_domain_id: int
    pci_bus_id: int
    pci_device_id: int
    warp_size: int = 32
    is_integrated: bool = False
    is_multi_gpu_board: bool = False


class TorchCuda:
    """A driver's GPUs as CUDA shows them: those of CUDA_VISIBLE_DEVICES, counted once, at the first question.

    Total is what NVML calls total less what the driver keeps, as cudaMemGetInfo has it; free is NVML's free. The
    context that a real process would take memory for is not modelled: let a process of the test's hold it.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._visible: tuple[Gpu, ...] | None = None
        self._current = 0

    @property
    def devices(self) -> tuple[Gpu, ...]:
        """The GPUs, in the order of their CUDA ordinals."""
        if self._visible is None:
            self._visible = visible(self._driver.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        return self._visible

    def device_count(self) -> int:
        """As torch.cuda.device_count."""
        return len(self.devices)

    def is_available(self) -> bool:
        """As torch.cuda.is_available."""
        return bool(self.devices)

    def current_device(self) -> int:
        """As torch.cuda.current_device."""
        self._gpu(None)
        return self._current

    def set_device(self, device: object) -> None:
        """As torch.cuda.set_device."""
        ordinal = self._ordinal(device)
        if ordinal >= 0:  # torch ignores a negative one
            self._gpu(ordinal)
            self._current = ordinal

    def exchange_device(self, ordinal: int) -> int:
        """Makes a device the current one and returns which was; a negative one changes nothing and returns -1.

        What `with torch.cuda.device(...)` calls on entering and leaving.
        """
        if ordinal < 0:
            return -1
        self._gpu(ordinal)
        before, self._current = self._current, ordinal
        return before

    def synchronize(self, device: object = None) -> None:
        """As torch.cuda.synchronize: nothing computes here, so there is nothing to wait for."""
        self._gpu(device)

    def ipc_collect(self) -> None:
        """As torch.cuda.ipc_collect: no tensor is here, so none is given back."""
        self._gpu(None)

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        """As torch.cuda.mem_get_info: free and total bytes. Raises RuntimeError for a GPU that is lost or removed."""
        gpu = self._gpu(device)
        if gpu.presence.value != "present":
            raise RuntimeError(f"CUDA error: the fake driver's {gpu!r} does not answer")
        memory = gpu.memory
        return memory.free, memory.total - memory.reserved

    def get_device_properties(self, device: object = None) -> CudaDeviceProperties:
        """As torch.cuda.get_device_properties. Raises AssertionError for an ordinal without a GPU."""
        if self.devices and not 0 <= self._ordinal(device) < len(self.devices):
            raise AssertionError("Invalid device id")
        gpu = self._gpu(device)
        major, minor = gpu.profile.compute_capability
        cores = 64 if (major, minor) in _FEWER else CORES_PER_MULTIPROCESSOR[gpu.profile.architecture]
        memory = gpu.memory
        return CudaDeviceProperties(
            name=gpu.name,
            major=major,
            minor=minor,
            total_memory=memory.total - memory.reserved,
            multi_processor_count=(gpu.profile.cuda_cores or 0) // cores,
            uuid=gpu.uuid.removeprefix("GPU-"),
            pci_domain_id=gpu.pci_domain,
            pci_bus_id=gpu.pci_bus,
            pci_device_id=gpu.pci_device,
        )

    def get_device_name(self, device: object = None) -> str:
        """As torch.cuda.get_device_name."""
        return self.get_device_properties(device).name

    def get_device_capability(self, device: object = None) -> tuple[int, int]:
        """As torch.cuda.get_device_capability."""
        properties = self.get_device_properties(device)
        return properties.major, properties.minor

    def _gpu(self, device: object) -> Gpu:
        ordinal = self._ordinal(device)
        if not self.devices:
            raise RuntimeError("No CUDA GPUs are available")
        if not 0 <= ordinal < len(self.devices):
            raise RuntimeError(f"CUDA error: invalid device ordinal: {ordinal} of {len(self.devices)} devices")
        return self.devices[ordinal]

    def _ordinal(self, device: object) -> int:
        """Of None, 1, "cuda", "cuda:1" or a torch.device. Raises ValueError for what is no CUDA device."""
        number: Any
        if isinstance(device, str):
            kind, _, number = device.partition(":")
        else:
            kind = getattr(device, "type", "cuda")
            number = getattr(device, "index", device)
        if kind != "cuda" or not (number in (None, "") or str(number).lstrip("-").isdecimal()):
            raise ValueError(f"Expected a cuda device, but got: {device}")
        return self._current if number in (None, "") else int(str(number))


SERVED = (
    "device_count",
    "is_available",
    "current_device",
    "set_device",
    "mem_get_info",
    "get_device_properties",
    "get_device_name",
    "get_device_capability",
    "synchronize",
    "ipc_collect",
)
"""The functions of torch.cuda that are replaced."""

_OF_THE_CONTEXT_MANAGER = ("_exchange_device", "_maybe_exchange_device")
"""What torch.cuda.device, torch's own class, changes the current device with."""


@contextmanager
def torch_on(driver: Driver, torch: ModuleType) -> Iterator[TorchCuda]:
    """Serves `SERVED` of torch.cuda from `driver`, mem_get_info of torch.cuda.memory, where it is defined, and the
    context manager torch.cuda.device.
    """
    served = TorchCuda(driver)
    memory = getattr(torch.cuda, "memory", None)
    places: list[tuple[Any, str, Callable[..., object]]] = [
        *((torch.cuda, name, getattr(served, name)) for name in SERVED),
        *((torch.cuda, name, served.exchange_device) for name in _OF_THE_CONTEXT_MANAGER),
        (memory, "mem_get_info", served.mem_get_info),
    ]
    replaced: list[tuple[Any, str, Callable[..., object]]] = []
    try:
        for module, name, ours in places:
            if hasattr(module, name):
                replaced.append((module, name, getattr(module, name)))
                setattr(module, name, ours)
        yield served
    finally:
        for module, name, before in reversed(replaced):
            setattr(module, name, before)


def visible(gpus: tuple[Gpu, ...], setting: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order: indices or UUIDs (their beginnings), up to the first
    that there is not; none where one is named twice.

    Indices are NVML's, as with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    if setting is None:
        return gpus
    chosen: list[Gpu] = []
    for word in setting.split(","):
        name = word.strip()
        if name.isdecimal():
            found = [gpus[int(name)]] if int(name) < len(gpus) else []
        else:
            found = [gpu for gpu in gpus if name and gpu.uuid.startswith(name)]
        if len(found) != 1:
            break
        chosen += found
    return tuple(chosen) if len(set(chosen)) == len(chosen) else ()
