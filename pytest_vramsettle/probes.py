"""Ways to ask for free GPU memory: nvidia-smi, NVML, or a callable of yours. None creates a CUDA context.

A probe is an object with `read(budget, *, holders)`. A plain callable without arguments serves as well: it returns
`[(index, free_mib), ...]` or `[(uuid, free_mib), ...]`, or a `Reading`. It is called in a thread of its own, so that
one that hangs holds up nobody; it is the same probe as long as it is the same function or bound method, and of one
probe no more than one call runs at a time.
"""

from __future__ import annotations

import importlib
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from pytest_vramsettle._bounded_call import call_within, key_of
from pytest_vramsettle._budget import (
    GpuLost,
    ProbeBudget,
    ProbeFailed,
    ProbeInterrupted,
    ProbeMissing,
    ProbeTimeout,
)
from pytest_vramsettle._quantities import MIB
from pytest_vramsettle._smi import NvidiaSmiProbe
from pytest_vramsettle.readings import GpuKey, GpuReading, Reading

__all__ = [
    "CallableProbe",
    "FirstInstalled",
    "GpuKey",
    "GpuLost",
    "GpuReading",
    "NvidiaSmiProbe",
    "NvmlProbe",
    "Probe",
    "ProbeBudget",
    "ProbeFailed",
    "ProbeInterrupted",
    "ProbeLike",
    "ProbeMissing",
    "ProbeTimeout",
    "Reading",
    "as_probe",
    "baseline_probe",
    "default_probe",
]


@runtime_checkable
class Probe(Protocol):
    """Takes one reading of free memory, within a budget."""

    def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
        """Every GPU's free memory and, with `holders`, where the probe can tell, what each process holds.

        Returns before the budget's deadline, and at once when its interrupts say so, or raises ProbeTimeout or
        ProbeInterrupted. Raises ProbeFailed or one of its kinds for what it cannot read; any other Exception counts
        as a failure too.
        """


ProbeLike = Probe | Callable[[], "Reading | Iterable[tuple[GpuKey, float]]"]
"""A probe, or a callable without arguments (see this module's description)."""


class CallableProbe:
    """A plain callable as a probe. Its free memory is in MiB, by index (an int) or UUID (a str)."""

    def __init__(self, function: Callable[[], Reading | Iterable[tuple[GpuKey, float]]]) -> None:
        self._function = function

    def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
        """Raises ProbeFailed when the callable returns something else than readings; passes on what it raises."""
        answer = call_within(budget, self._answer, key=key_of(self._function))
        return answer if isinstance(answer, Reading) else _reading_of(answer)

    def _answer(self) -> Any:
        answer = self._function()
        # A generator does its work while it is read, so it is read in the thread that may be left behind.
        return answer if isinstance(answer, Reading) else list(answer)

    def __repr__(self) -> str:
        return f"CallableProbe({self._function!r})"


def _reading_of(answer: list[Any]) -> Reading:
    gpus: list[GpuReading] = []
    for item in answer:
        try:
            key, free = item
        except (TypeError, ValueError):
            raise ProbeFailed(f"the probe returned {item!r} where a pair (index or UUID, free MiB) belongs") from None
        if not isinstance(free, numbers.Real) or not math.isfinite(free) or free < 0:
            raise ProbeFailed(f"the probe returned {free!r} MiB of free memory for GPU {key!r}")
        free_bytes = round(float(free) * MIB)
        if isinstance(key, str):
            gpus.append(GpuReading(None, key, free_bytes))
        elif isinstance(key, numbers.Integral) and int(key) >= 0:
            gpus.append(GpuReading(int(key), None, free_bytes))
        else:
            raise ProbeFailed(f"the probe returned {key!r} where a GPU's index or UUID belongs")
    keys = [gpu.key for gpu in gpus]
    if len(set(keys)) != len(keys):
        raise ProbeFailed(f"the probe returned a GPU twice: {keys!r}")
    return Reading(tuple(gpus))


# NVML's return codes, from nvml.h.
_NVML_LIBRARY_NOT_FOUND = 12
_NVML_GPU_IS_LOST = 15


class NvmlProbe:
    """Free memory by UUID from NVML, through the module `pynvml` (nvidia-ml-py), imported at the first reading.

    NVML is initialised and shut down around each reading, so that cards that came or went are seen. It lists compute
    processes only, as nvidia-smi does, so that the two can be compared.
    """

    def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
        """Raises ProbeMissing without the module or the library, GpuLost, else ProbeFailed; or as the budget says."""
        reading: Reading = call_within(budget, lambda: _read_nvml(holders), key="nvml")
        return reading

    def __repr__(self) -> str:
        return "NvmlProbe()"


def _read_nvml(holders: bool) -> Reading:
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError as error:
        raise ProbeMissing("the module pynvml (nvidia-ml-py) is not installed") from error
    try:
        nvml.nvmlInit()
        try:
            count = nvml.nvmlDeviceGetCount()
            return Reading(tuple(_nvml_gpu(nvml, index, holders) for index in range(count)))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        code = int(getattr(error, "value", -1))
        kind = {_NVML_LIBRARY_NOT_FOUND: ProbeMissing, _NVML_GPU_IS_LOST: GpuLost}.get(code, ProbeFailed)
        raise kind(f"NVML: {error}") from error


def _nvml_gpu(nvml: Any, index: int, holders: bool) -> GpuReading:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid = nvml.nvmlDeviceGetUUID(handle)
    if isinstance(uuid, bytes):  # older bindings
        uuid = uuid.decode("ascii", "replace")
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        free, total = memory.free, memory.total
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission):
        free = total = None
    return GpuReading(index, uuid, free, total, _nvml_holders(nvml, handle) if holders else None)


def _nvml_holders(nvml: Any, handle: Any) -> dict[int, int | None] | None:
    try:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission):
        return None
    holders: dict[int, int | None] = {}
    for process in processes:
        before, used = holders.get(process.pid, 0), process.usedGpuMemory
        holders[process.pid] = None if before is None or used is None else before + used
    return holders


class FirstInstalled:
    """The first of several probes that is installed here. Raises ProbeMissing when none is."""

    def __init__(self, *probes: Probe) -> None:
        self._probes = probes

    def read(self, budget: ProbeBudget, *, holders: bool) -> Reading:
        """As the probe that answers. Only a missing one is passed over; a failing one has answered."""
        missing: list[str] = []
        for probe in self._probes:
            try:
                return probe.read(budget, holders=holders)
            except ProbeMissing as error:
                missing.append(str(error))
        raise ProbeMissing("; ".join(missing))

    def __repr__(self) -> str:
        return f"FirstInstalled({', '.join(map(repr, self._probes))})"


def default_probe() -> Probe:
    """What a wait asks: nvidia-smi, because a driver that hangs then hangs a child that can be killed; else NVML."""
    return FirstInstalled(NvidiaSmiProbe(), NvmlProbe())


def baseline_probe() -> Probe:
    """What a kill record asks before a kill: NVML, which answers in the 250 ms that it has; else nvidia-smi."""
    return FirstInstalled(NvmlProbe(), NvidiaSmiProbe())


def as_probe(probe: ProbeLike) -> Probe:
    """`probe` itself, or a callable as a probe. Raises TypeError for anything else."""
    if isinstance(probe, Probe):
        return probe
    if callable(probe):
        return CallableProbe(probe)
    raise TypeError(f"{probe!r} is no probe: give a callable that returns [(index, free_mib), ...], or a Probe")
