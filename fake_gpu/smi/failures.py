"""What nvidia-smi says, and with which status it ends, when something is wrong with NVML or with a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fake_gpu.nvml.codes import CODES, TEXTS
from fake_gpu.smi.run import Output, Run, library_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_gpu.gpu import Gpu

NO_DEVICES: Final = 6
"""Exit status: a query to find an object was unsuccessful."""

NO_DEVICES_TEXT: Final = "No devices were found\n"

_OTHER: Final = 255
_STATUSES: Final = frozenset({2, 3, 4, 6, 8, 9, 10, 12, 13, 14, 15, 18})
"""NVML's return codes that nvidia-smi passes on as its exit status."""

_NO_DRIVER: Final = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n"
)
_NO_LIBRARY: Final = (
    "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. "
    "Please make sure that the NVIDIA Display Driver is properly installed and present in your system.\n"
    "Please also try adding directory that contains libnvidia-ml.so to your system PATH.\n"
)


def initialisation(error: int, driver_version: str) -> tuple[str, int]:
    """Text and exit status of a run for which NVML cannot be had at all, by NVML's return code or the exit status."""
    code = error if error in _STATUSES else _OTHER
    if error == CODES["DRIVER_NOT_LOADED"]:
        return _NO_DRIVER, code
    if error == CODES["LIBRARY_NOT_FOUND"]:
        return _NO_LIBRARY, code
    if error == CODES["NOT_FOUND"]:
        return NO_DEVICES_TEXT, code
    if error == CODES["LIB_RM_VERSION_MISMATCH"]:
        return (
            f"Failed to initialize NVML: Driver/library version mismatch\n"
            f"NVML library version: {library_version(driver_version)}\n"
        ), code
    return f"Failed to initialize NVML: {TEXTS.get(error, TEXTS[CODES['UNKNOWN']])}\n", code


def exit_text(status: int, driver_version: str) -> str:
    """What a run that ends with `status` says. 0 is a run that says nothing and claims that all is well."""
    if status == 0:
        return ""
    if status == CODES["INVALID_ARGUMENT"]:
        from fake_gpu.smi.arguments import BAD_COMBINATION

        return BAD_COMBINATION
    return initialisation(status if status in _STATUSES else CODES["UNKNOWN"], driver_version)[0]


_WITHOUT_SPACE, _WITH_INDEX = 525, 565
"""The first branches that write "GPU0000:17:00.0" and "GPU2: 0000:1F:00.0": 520 has "GPU 0000:0B:00.0", 525 and 560 the
second form, 580 and 610 the third, and so has a log that is older than 575. See docs/nvidia-smi.md."""


def goes_on(run: Run) -> bool:
    """Whether this driver's nvidia-smi does what it can without a GPU that fails, and says that all is well."""
    return run.major >= _WITH_INDEX


def report(run: Run, gpu: Gpu, error: int, *, listing: bool = False) -> str:
    """The line in place of a GPU's own. `listing`: as -L has it, in each driver."""
    place = f"{gpu.pci_domain:04X}:{gpu.pci_bus:02X}:{gpu.pci_device:02X}.0"
    what = TEXTS.get(error, TEXTS[CODES["UNKNOWN"]])
    if error == CODES["GPU_IS_LOST"]:
        what += ".  Reboot the system to recover this GPU"
    if listing:
        which = f"gpu {place}"
    elif run.major >= _WITH_INDEX:
        which = f"GPU{run.index(gpu)}: {place}"
    else:
        which = f"GPU{place}" if run.major >= _WITHOUT_SPACE else f"GPU {place}"
    return f"Unable to determine the device handle for {which}: {what}\n"


def failed(run: Run) -> list[tuple[Gpu, int]]:
    """The GPUs whose handles cannot be had, and NVML's error for each."""
    return [(gpu, error) for gpu in run.gpus if (error := run.failure(gpu))]


def ending(run: Run, failures: list[tuple[Gpu, int]]) -> tuple[str, int]:
    """What follows the lines of GPUs that fail, and the exit status.

    A newer driver has success where a GPU is left, and else no devices; an older one the last failure.
    """
    if not failures:
        return "", 0
    if goes_on(run):
        return ("", 0) if len(failures) < len(run.gpus) else (NO_DEVICES_TEXT, NO_DEVICES)
    error = failures[-1][1]
    return "", error if error in _STATUSES else _OTHER


def as_a_whole(run: Run, render: Callable[[Run], str]) -> Output:
    """One text about all GPUs: with those that can be had, below what is wrong with the others; or without any."""
    failures = failed(run)
    if not failures:
        return Output(render(run))
    end, code = ending(run, failures)
    said = "".join(report(run, gpu, error) for gpu, error in failures) + end
    left = run.without({gpu for gpu, _ in failures})
    return Output(said + render(left) if goes_on(run) and left.gpus else said, code)


def line_by_line(run: Run, lines_of: Callable[[Gpu], str], header: str = "", *, listing: bool = False) -> Output:
    """What `lines_of` prints for each GPU that is reported; for one that fails, what is wrong with it instead."""
    failures = dict(failed(run))
    printed = [
        report(run, gpu, failures[gpu], listing=listing) if gpu in failures else lines_of(gpu) for gpu in run.gpus
    ]
    end, code = ending(run, list(failures.items()))
    return Output("".join((header, *printed, end)), code)
