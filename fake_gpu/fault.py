"""What can go wrong with a probe. A fault is a value; `Driver.inject` says whom it meets, and how often."""

from __future__ import annotations

import _thread
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fake_gpu.errors import InvalidValue
from fake_gpu.nvml.codes import CODES
from fake_gpu.units import Duration, format_duration, parse_duration

FaultKind = Literal["slow", "hang", "exit", "nvml", "garbled", "truncated", "ignores_sigterm", "holds_pipe"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a probe goes wrong. Made by the class methods below.

    `slow`, `hang` and `nvml` meet NVML calls and nvidia-smi runs alike; the others are nvidia-smi's alone.
    """

    kind: FaultKind
    delay_ns: int = 0
    code: int = 0

    @classmethod
    def slow(cls, delay: Duration) -> Fault:
        """The answer is right and comes `delay` later, on the driver's clock."""
        delay_ns = parse_duration(delay)
        if delay_ns == 0:
            raise InvalidValue("Fault.slow: the delay has to be positive")
        return cls("slow", delay_ns=delay_ns)

    @classmethod
    def hang(cls) -> Fault:
        """No answer, ever: the caller waits until it gives up or is killed."""
        return cls("hang")

    @classmethod
    def exit(cls, code: int) -> Fault:
        """nvidia-smi ends with this exit status and says what the real one says with it (0 to 255)."""
        if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code <= 255:
            raise InvalidValue(f"Fault.exit({code!r}): an exit status is a whole number from 0 to 255")
        return cls("exit", code=code)

    @classmethod
    def nvml(cls, error: str | int) -> Fault:
        """NVML answers with this error: a name such as "GPU_IS_LOST", with or without NVML_ERROR_, or its number.

        nvidia-smi, which is a client of NVML, ends as the real one does when it meets that error.
        """
        if isinstance(error, str):
            name = error.upper().removeprefix("NVML_ERROR_")
            if name not in CODES or name == "SUCCESS":
                known = ", ".join(sorted(name for name in CODES if name != "SUCCESS"))
                raise InvalidValue(f"Fault.nvml({error!r}): there is no such NVML error; there are {known}")
            return cls("nvml", code=CODES[name])
        if isinstance(error, bool) or error not in CODES.values() or error == 0:
            raise InvalidValue(f"Fault.nvml({error!r}): no NVML error has this number; names work too: 'GPU_IS_LOST'")
        return cls("nvml", code=error)

    @classmethod
    def garbled(cls) -> Fault:
        """nvidia-smi prints noise where its numbers should be, and exits 0."""
        return cls("garbled")

    @classmethod
    def truncated(cls) -> Fault:
        """nvidia-smi is cut off in the middle of its output, and exits 0."""
        return cls("truncated")

    @classmethod
    def ignores_sigterm(cls) -> Fault:
        """nvidia-smi never answers, and only SIGKILL ends it."""
        return cls("ignores_sigterm")

    @classmethod
    def holds_pipe(cls) -> Fault:
        """nvidia-smi answers and exits, but leaves a grandchild that keeps its output pipe open."""
        return cls("holds_pipe")

    @property
    def nvidia_smi_only(self) -> bool:
        """True where an NVML call cannot go wrong in this way."""
        return self.kind in ("exit", "garbled", "truncated", "ignores_sigterm", "holds_pipe")

    def __repr__(self) -> str:
        match self.kind:
            case "slow":
                return f"Fault.slow({format_duration(self.delay_ns)!r})"
            case "exit":
                return f"Fault.exit({self.code})"
            case "nvml":
                name = next(name for name, code in CODES.items() if code == self.code)
                return f"Fault.nvml({name!r})"
        return f"Fault.{self.kind}()"


@dataclass(slots=True, eq=False)
class Injection:
    """A fault, whom it meets, and how many matching calls have come by."""

    fault: Fault
    via: str | None
    gpu_uuid: str | None
    after: int
    times: int | None
    seen: int = 0
    applied: int = 0

    def meets(self, via: str, name: str, gpu_uuids: frozenset[str] | None) -> bool:
        """Counts a call and says whether this fault meets it. `gpu_uuids`: the GPUs that it reports (None: none).

        Raises nothing; the caller holds the driver's lock.
        """
        if self.via not in (None, via, name) or (self.fault.nvidia_smi_only and via != "nvidia-smi"):
            return False
        if self.gpu_uuid is not None and (gpu_uuids is None or self.gpu_uuid not in gpu_uuids):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.applied >= self.times):
            return False
        self.applied += 1
        return True


class Injections:
    """The faults that a driver's calls meet."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._injections: list[Injection] = []

    def __bool__(self) -> bool:
        return bool(self._injections)

    def add(self, injection: Injection) -> Callable[[], None]:
        """Adds one. Returns what takes it back."""
        with self._lock:
            self._injections.append(injection)

        def take_back() -> None:
            with self._lock:
                if injection in self._injections:
                    self._injections.remove(injection)

        return take_back

    def met_by(self, via: str, name: str, gpu_uuids: frozenset[str] | None) -> tuple[Injection, ...]:
        """Counts one call against every injection, and returns those that meet it."""
        if not self._injections:
            return ()
        with self._lock:
            return tuple(one for one in self._injections if one.meets(via, name, gpu_uuids))
