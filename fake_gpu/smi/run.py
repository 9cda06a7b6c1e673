"""One run of nvidia-smi, as those who print its output see it."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from fake_gpu.gpu import Presence
from fake_gpu.nvml.codes import CODES
from fake_gpu.smi import frames
from fake_gpu.units import MIB, to_mib

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from fake_gpu.driver import Driver
    from fake_gpu.gpu import Gpu, Memory
    from fake_gpu.smi.arguments import Request

SUCCESS: Final = CODES["SUCCESS"]
LOST: Final = CODES["GPU_IS_LOST"]
NOT_SUPPORTED: Final = CODES["NOT_SUPPORTED"]


_FIRST_THAT_ROUNDS: Final = 545
"""Drivers 515 and 535 cut MiB, 570 and later round them up; those between nobody has looked at."""


def cuts_mib(driver_version: str) -> bool:
    """Whether a driver cuts MiB, instead of rounding them up."""
    return 0 < branch(driver_version) < _FIRST_THAT_ROUNDS


def branch(driver_version: str) -> int:
    """The number before the first dot; 0 where there is none."""
    major = driver_version.split(".")[0]
    return int(major) if major.isascii() and major.isdigit() else 0


def library_version(driver_version: str) -> str:
    """NVML's version as nvidia-smi prints it: the driver's, of which it has two parts."""
    return ".".join(driver_version.split(".")[:2])


class Output(NamedTuple):
    """What is printed to stdout, and the exit status."""

    text: str
    code: int = SUCCESS


class Run:
    """Who is asked for what, and when. Everything printed is of one time, `now_ns` on the driver's clock.

    `counted`: the GPUs in the order of their indices. `gpus`: those of them that it reports. `failures`: NVML errors
    that some of them answer with, by UUID.
    """

    def __init__(
        self,
        driver: Driver,
        request: Request,
        counted: tuple[Gpu, ...],
        gpus: tuple[Gpu, ...],
        now_ns: int,
        failures: Mapping[str, int],
    ) -> None:
        self.driver = driver
        self.request = request
        self.counted = counted
        self.gpus = gpus
        self.now_ns = now_ns
        self._failures = failures

    def index(self, gpu: Gpu) -> int:
        """Its index in this run, whatever the test does to it meanwhile."""
        return self.counted.index(gpu)

    def failure(self, gpu: Gpu) -> int:
        """The NVML error that keeps a GPU's handle from being had, 0 where it is well."""
        if gpu.presence_in_model is not Presence.PRESENT:
            return LOST
        error = self._failures.get(gpu.uuid, 0) if self._failures else 0
        return 0 if error == NOT_SUPPORTED else error

    def measures(self, gpu: Gpu) -> bool:
        """False where NVML says NOT_SUPPORTED to questions for quantities, as a GB10 does when asked for memory."""
        return not self._failures or self._failures.get(gpu.uuid) != NOT_SUPPORTED

    @property
    def driver_version(self) -> str:
        """Such as "590.48.01"."""
        return self.driver.driver_version

    @property
    def cuda_version(self) -> str:
        """Such as "13.1"."""
        return "{}.{}".format(*self.driver.cuda_version)

    @cached_property
    def major(self) -> int:
        """The driver's branch, such as 590; 0 where its version is no number."""
        return branch(self.driver_version)

    @cached_property
    def label_column(self) -> int:
        """Where the colon stands in `-q`, from 0."""
        return self.driver.label_column or frames.label_column(self.major)

    def without(self, gpus: Container[Gpu]) -> Run:
        """The same run for the GPUs that are left."""
        left = tuple(gpu for gpu in self.gpus if gpu not in gpus)
        run = Run(self.driver, self.request, self.counted, left, self.now_ns, self._failures)
        run.wall_time = self.wall_time
        return run

    def mib(self, size: int) -> int:
        """MiB as this driver prints them: see `units.to_mib`."""
        return size // MIB if self._cuts else to_mib(size)

    @cached_property
    def _cuts(self) -> bool:
        return cuts_mib(self.driver_version)

    @cached_property
    def wall_time(self) -> float:
        """Seconds since the epoch: the same in all stamps of a run."""
        return self.driver.wall_time()

    @cached_property
    def timestamp(self) -> str:
        """Local time as queries print it: "2026/07/03 22:10:46.109"."""
        shown = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(self.wall_time))
        return f"{shown}.{int(self.wall_time * 1000) % 1000:03d}"


class Reading:
    """One GPU in one run: the memory that it shows is of one instant."""

    __slots__ = ("_memory", "gpu", "profile", "run", "said")

    def __init__(self, run: Run, gpu: Gpu) -> None:
        self.run = run
        self.gpu = gpu
        self.profile = gpu.profile
        said = gpu.activity.said
        self.said: Mapping[str, str] = {**gpu.profile.smi, **said} if said else gpu.profile.smi
        """What is quoted instead of made up, by the names of fields."""
        self._memory: Memory | None = None

    @property
    def memory(self) -> Memory:
        """Bytes."""
        if self._memory is None:
            self._memory = self.gpu.memory_at(self.run.now_ns)
        return self._memory
