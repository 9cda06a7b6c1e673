"""`--version`, and the versions at the head of `-q`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fake_gpu.smi.frames import FIRST_WITH_KMD
from fake_gpu.smi.run import Output, Run, library_version


@dataclass(frozen=True, slots=True)
class Wording:
    """How one output words versions. `deprecated`: of drivers that have the versions below new labels, too."""

    driver: str
    cuda: str
    deprecated: str


OF_LOG: Final = Wording(
    "Driver Version", "CUDA Version", "{version} [Deprecated; will be removed in CUDA 14.0. Use {label} instead]"
)
_OF_VERSION: Final = Wording("DRIVER version", "CUDA Version", 'Deprecated, see "{label}" instead')


def versions(run: Run, wording: Wording) -> tuple[tuple[str, str], ...]:
    """Labels and what they say: the driver's version and CUDA's, in drivers from 610 on below both names."""
    driver, cuda = run.driver_version, run.cuda_version
    if run.major < FIRST_WITH_KMD:
        return (wording.driver, driver), (wording.cuda, cuda)
    word = wording.driver.rpartition(" ")[2]
    return (
        (wording.driver, wording.deprecated.format(version=driver, label=f"KMD {word}")),
        (f"CUDA {word}", wording.deprecated.format(version=cuda, label=f"CUDA UMD {word}")),
        (f"KMD {word}", driver),
        (f"CUDA UMD {word}", cuda),
    )


def render(run: Run) -> Output:
    """The executable's, NVML's, the driver's and CUDA's version."""
    version = run.driver_version
    lines = (
        ("NVIDIA-SMI version", version),
        ("NVML version", library_version(version)),
        *versions(run, _OF_VERSION),
    )
    return Output("".join(f"{label:<20}: {said}\n" for label, said in lines))
