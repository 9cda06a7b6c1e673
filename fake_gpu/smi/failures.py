"""What nvidia-smi says, and with which status it ends, when something is wrong with NVML or with a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fake_gpu.nvml.codes import CODES, TEXTS
from fake_gpu.smi.run import Output, Run

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
            f"NVML library version: {'.'.join(driver_version.split('.')[:2])}\n"
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


def report(gpu: Gpu, error: int) -> tuple[str, int]:
    """The line in place of a GPU's own, and the exit status of the run."""
    place = f"{gpu.pci_domain:04X}:{gpu.pci_bus:02X}:{gpu.pci_device:02X}.0"
    what = TEXTS.get(error, TEXTS[CODES["UNKNOWN"]])
    if error == CODES["GPU_IS_LOST"]:
        what += ".  Reboot the system to recover this GPU"
    code = error if error in _STATUSES else _OTHER
    return f"Unable to determine the device handle for GPU {place}: {what}\n", code


def line_by_line(run: Run, lines_of: Callable[[Gpu], str], header: str = "") -> Output:
    """What `lines_of` prints for each GPU that is reported; for one that fails, what is wrong with it instead.

    The exit status is that of the last failure, 0 without one.
    """
    printed = [header]
    code = 0
    for gpu in run.gpus:
        failed = run.failure(gpu)
        if failed:
            text, code = report(gpu, failed)
            printed.append(text)
        else:
            printed.append(lines_of(gpu))
    return Output("".join(printed), code)
