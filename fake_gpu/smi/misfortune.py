"""Injected faults, as a run of nvidia-smi shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fake_gpu.fault import Injection
from fake_gpu.nvml.codes import CODES
from fake_gpu.nvml.dispatch import NEVER
from fake_gpu.smi.failures import exit_text, initialisation
from fake_gpu.smi.run import Output

_ONE_GPU_AT_A_TIME: Final = frozenset({CODES["GPU_IS_LOST"], CODES["NOT_SUPPORTED"]})
"""Errors that NVML gives for a GPU, never for all of itself."""

_NOISE: Final = str.maketrans("0123456789", "~^%?#@&*!$")


@dataclass(slots=True)
class Misfortune:
    """What a run's faults come to. `failures`: NVML errors by GPU UUID. `delay_ns`: as in Execution."""

    failures: dict[str, int]
    nvml_error: int = 0
    exit_status: int | None = None
    delay_ns: int = 0
    garbled: bool = False
    truncated: bool = False
    ignores_sigterm: bool = False
    holds_pipe: bool = False

    def output(self, driver_version: str) -> Output:
        """What a run without an output of its own says."""
        if self.exit_status is not None:
            return Output(exit_text(self.exit_status, driver_version), self.exit_status)
        return Output(*initialisation(self.nvml_error, driver_version))

    def spoil(self, text: str) -> str:
        """The output as it comes out."""
        if self.garbled:
            text = text.translate(_NOISE)
        return text[: len(text) // 2] if self.truncated else text


def add_up(injections: Sequence[Injection], gpu_uuids: frozenset[str]) -> Misfortune:
    """What several faults come to: delays add up, and no answer at all beats every other one."""
    sum_ = Misfortune({})
    for injection in injections:
        fault = injection.fault
        match fault.kind:
            case "slow":
                sum_.delay_ns = NEVER if sum_.delay_ns == NEVER else sum_.delay_ns + fault.delay_ns
            case "hang":
                sum_.delay_ns = NEVER
            case "ignores_sigterm":
                sum_.delay_ns, sum_.ignores_sigterm = NEVER, True
            case "exit":
                sum_.exit_status = fault.code
            case "nvml":
                _add_error(sum_, injection, gpu_uuids)
            case "garbled":
                sum_.garbled = True
            case "truncated":
                sum_.truncated = True
            case "holds_pipe":
                sum_.holds_pipe = True
    return sum_


def _add_error(sum_: Misfortune, injection: Injection, gpu_uuids: frozenset[str]) -> None:
    error = injection.fault.code
    if injection.gpu_uuid is not None:
        sum_.failures[injection.gpu_uuid] = error
    elif error in _ONE_GPU_AT_A_TIME:
        sum_.failures.update(dict.fromkeys(gpu_uuids, error))
    else:
        sum_.nvml_error = error
