"""What a recording reads of the machine: NVML's figures, and the kernel's facts that may be published."""

from __future__ import annotations

import os
import platform
from typing import Any

from fake_gpu.errors import FakeGpuError
from fake_gpu.trace.format import Machine, TracedGpu


class NvmlUnusable(FakeGpuError, RuntimeError):
    """NVML cannot be used here, or counts no GPU."""


class NvmlReader:
    """NVML, initialised until `close`. GPUs are those that were there at the beginning, by their index then."""

    def __init__(self) -> None:
        """Raises NvmlUnusable with NVML's reason."""
        import pynvml  # read where it is used: who reads traces needs no NVML

        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise NvmlUnusable(
                f"NVML cannot be used: {error}. A recording needs an NVIDIA GPU and its driver"
            ) from error
        try:
            self._handles = dict(enumerate(map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))))
            self.gpus: tuple[TracedGpu, ...] = tuple(map(self._describe, self._handles))
            self.driver_version: str = str(pynvml.nvmlSystemGetDriverVersion())
            if not self.gpus:
                raise NvmlUnusable("NVML counts no GPU here: there is nothing to record")
        except pynvml.NVMLError as error:
            self.close()
            raise NvmlUnusable(f"NVML does not describe this machine's GPUs: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the use of NVML."""
        self._nvml.nvmlShutdown()

    def _describe(self, index: int) -> TracedGpu:
        nvml, handle = self._nvml, self._handles[index]
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
            total, reserved = memory.total, memory.reserved
        except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported, nvml.NVMLError_ArgumentVersionMismatch):
            total, reserved = nvml.nvmlDeviceGetMemoryInfo(handle).total, None
        name = nvml.nvmlDeviceGetName(handle)
        return TracedGpu(index=index, uuid=nvml.nvmlDeviceGetUUID(handle), total=total, reserved=reserved, name=name)

    def free(self, index: int) -> int | None:
        """Free bytes; None where the GPU cannot be read now."""
        try:
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handles[index]).free)
        except self._nvml.NVMLError:
            return None

    def held(self, index: int) -> dict[int, int | None] | None:
        """Bytes by PID, of compute and graphics processes; None where the driver does not list them."""
        nvml, handle = self._nvml, self._handles[index]
        found: dict[int, int | None] = {}
        try:
            for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
                for process in ask(handle):
                    if found.get(process.pid) is None:  # one that does both is on both lists
                        found[process.pid] = process.usedGpuMemory
        except nvml.NVMLError:
            return None
        return found


def machine() -> Machine:
    """System, kernel and architecture of this machine."""
    return Machine(system=platform.system(), kernel=platform.release(), machine=platform.machine())


def process_tree(pid: int) -> tuple[int, ...]:
    """A process and its living descendants, itself first, as the kernel knows them now."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (parent := _parent(name)) is not None:
            children.setdefault(parent, []).append(int(name))
    tree = [pid]
    for known in tree:  # it grows meanwhile
        tree.extend(sorted(child for child in children.get(known, []) if child not in tree))
    return tuple(tree)


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name is in parentheses and may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[1])
