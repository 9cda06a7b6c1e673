"""The log of what clients asked."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fake_gpu.fault import Fault

LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Call:
    """One NVML call or one execution of nvidia-smi, as the driver saw it."""

    via: str
    """"nvml" or "nvidia-smi"."""
    name: str
    """The NVML function, or the command line."""
    pid: int
    """Who asked."""
    at_ns: int
    """When, on the driver's clock."""
    code: int | None
    """The NVML return code or exit status that it was answered with; None where it gets no answer."""
    faults: tuple[Fault, ...] = ()
    covered: bool = True
    """False where the fake does not know this option or function: its answer is not to be taken for truth."""
    delay_ns: int | None = 0
    """How long after `at_ns` it is answered, if its client lives so long; None where it gets no answer."""


class CallLog:
    """A bounded list of calls. Writing is cheap: the Call objects are made when somebody reads."""

    def __init__(self) -> None:
        self._rows: deque[tuple[str, str, int, int, int | None, tuple[Fault, ...], bool, int | None]] = deque(
            maxlen=LIMIT
        )
        self.write = self._rows.append
        """Takes the fields of a Call, in order, as one tuple."""

    def calls(self) -> list[Call]:
        return [Call(*row) for row in self._rows.copy()]
