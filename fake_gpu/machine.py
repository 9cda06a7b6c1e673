"""A machine as data: GPUs, processes, faults and what happens when, from a TOML file or from options.

Cards and processes are counted from 0, in the order of the file; docs/run.md has every key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from fake_gpu.driver import Driver
from fake_gpu.errors import FakeGpuError, InvalidValue
from fake_gpu.fault import Fault
from fake_gpu.gpu import Gpu
from fake_gpu.machine_file import Step, dotted, line_of, read_toml
from fake_gpu.process import ComputeType, Process
from fake_gpu.ramp import DEFAULT_RECLAIM, Ramp
from fake_gpu.units import parse_duration

Count = Annotated[int, msgspec.Meta(ge=0)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Duration = str | float | int
_MANY = 64
"""GPUs in one machine: no real one has more, and a slip of the finger should not make thousands."""


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ActivitySpec(_Table, frozen=True, kw_only=True):
    """What a card is doing; what is left out stays as its profile has it when idle."""

    gpu_percent: Percent | None = None
    memory_percent: Percent | None = None
    encoder_percent: Percent | None = None
    decoder_percent: Percent | None = None
    fan_percent: Percent | None = None
    temperature: Annotated[int, msgspec.Meta(ge=-50, le=200)] | None = None
    """Degrees Celsius."""
    power: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Watts."""
    pstate: Annotated[int, msgspec.Meta(ge=0, le=15)] | None = None
    busy: bool | None = None
    pcie_rx_kib_s: Count | None = None
    pcie_tx_kib_s: Count | None = None


class GpuSpec(_Table, frozen=True, kw_only=True):
    """`[[gpu]]`: `count` cards of a profile, or of explicit values."""

    profile: str | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=_MANY)] = 1
    name: str | None = None
    memory: str | int | None = None
    reserved: str | int | None = None
    uuid: str | None = None
    unlisted: str | int = 0
    """In use without a process that is listed for it."""
    activity: ActivitySpec = ActivitySpec()


class ProcessSpec(_Table, frozen=True, kw_only=True):
    """`[[process]]`: a real process that holds memory, on one card or on several."""

    gpu: Count | list[Count] = 0
    memory: str | int
    """On each of them."""
    name: str = "llama-server"
    type: ComputeType = "C"
    reclaim: str | None = None
    ignores_sigterm: bool = False


class FaultSpec(_Table, frozen=True, kw_only=True):
    """`[[fault]]`: as `Driver.inject`. `delay` is for "slow", `error` for "nvml", `status` for "exit"."""

    kind: Literal["slow", "hang", "exit", "nvml", "garbled", "truncated", "ignores_sigterm", "holds_pipe"]
    delay: Duration | None = None
    error: str | None = None
    status: int | None = None
    via: str | None = None
    gpu: Count | None = None
    after: Count = 0
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None


class EventSpec(_Table, frozen=True, kw_only=True):
    """`[[event]]`: at a time after the start, one thing happens to a card, or a process is killed."""

    at: Duration
    lose: Count | None = None
    remove: Count | None = None
    restore: Count | None = None
    kill: Count | None = None
    """A process, by its place in the file."""


class Machine(_Table, frozen=True, kw_only=True):
    """All of a file."""

    driver_version: str = "590.48.01"
    cuda_version: Annotated[str, msgspec.Meta(pattern=r"^\d{1,3}\.\d{1,2}$")] = "13.1"
    reclaim: str | None = None
    """How the memory of a killed process comes back, where the process does not say."""
    gpu: list[GpuSpec] = []
    process: list[ProcessSpec] = []
    fault: list[FaultSpec] = []
    event: list[EventSpec] = []


def read_machine(path: Path) -> Machine:
    """A machine from a file. Raises InvalidValue, with the file, the line and the key, for what cannot be."""
    return read_toml(path, Machine, "the machine")


def new_driver(machine: Machine) -> Driver:
    """Its driver, not started. Raises InvalidValue for versions that do not fit."""
    major, minor = (int(part) for part in machine.cuda_version.split("."))
    return Driver(driver_version=machine.driver_version, cuda_version=(major, minor))


def furnish(driver: Driver, machine: Machine, source: Path | None = None) -> list[float]:
    """Gives a started driver what the machine has: cards, real processes, faults, events.

    Returns the seconds from now at which events are due: nothing ticks, so whoever wants one on time, and not at the
    next reading, calls `driver.sync` then. Raises InvalidValue where something does not fit; `source` is the file that
    it was read from, for the message.
    """
    build = _Build(driver, machine, source)
    build.cards()
    build.processes()
    build.faults()
    return build.events()


class _Build:
    """One driver being furnished."""

    def __init__(self, driver: Driver, machine: Machine, source: Path | None) -> None:
        self._driver = driver
        self._machine = machine
        self._source = source
        self._gpus: list[Gpu] = []
        self._processes: list[Process] = []

    @contextmanager
    def _at(self, *steps: Step) -> Iterator[None]:
        """Whatever is refused in here is said with its place in the file."""
        try:
            yield
        except FakeGpuError as error:
            line = None
            if self._source is not None and self._source.is_file():  # a pipe has nothing left to read
                line = line_of(self._source.read_text(encoding="utf-8"), list(steps))
            if line is None:  # it is not the file's: a command line's option, say
                raise
            raise InvalidValue(f"the machine {self._source}, line {line}, {dotted(list(steps))}: {error}") from error

    def cards(self) -> None:
        for place, spec in enumerate(self._machine.gpu):
            for _ in range(spec.count):
                with self._at("gpu", place, "uuid" if spec.uuid and spec.count > 1 else "profile"):
                    if len(self._gpus) == _MANY:
                        raise InvalidValue(f"a machine has {_MANY} GPUs at most")
                    gpu = self._driver.add_gpu(
                        spec.profile, name=spec.name, memory=spec.memory, reserved=spec.reserved, uuid=spec.uuid
                    )
                with self._at("gpu", place, "unlisted"):
                    gpu.hold_unlisted(spec.unlisted)
                for key, value in msgspec.structs.asdict(spec.activity).items():
                    if value is not None:
                        setattr(gpu.activity, key, value)
                self._gpus.append(gpu)

    def processes(self) -> None:
        with self._at("reclaim"):
            usual = DEFAULT_RECLAIM if self._machine.reclaim is None else parse_ramp(self._machine.reclaim)
        for place, spec in enumerate(self._machine.process):
            with self._at("process", place, "gpu"):
                indices = [spec.gpu] if isinstance(spec.gpu, int) else spec.gpu
                held = {self._gpu(index): spec.memory for index in indices}
                if not held:
                    raise InvalidValue("give the indices of the GPUs that it holds memory on")
            with self._at("process", place, "reclaim"):
                ramp = usual if spec.reclaim is None else parse_ramp(spec.reclaim)
            with self._at("process", place, "memory"):
                self._processes.append(
                    self._driver.spawn(
                        held,
                        name=spec.name,
                        reclaim=ramp,
                        compute_type=spec.type,
                        ignores_sigterm=spec.ignores_sigterm,
                    )
                )

    def faults(self) -> None:
        for place, spec in enumerate(self._machine.fault):
            with self._at("fault", place, "kind"):
                fault = _fault(spec)
                gpu = None if spec.gpu is None else self._gpu(spec.gpu)
                self._driver.inject(fault, via=spec.via, gpu=gpu, after=spec.after, times=spec.times)

    def events(self) -> list[float]:
        due = []
        for place, spec in enumerate(self._machine.event):
            with self._at("event", place, "at"):
                self._driver.at(spec.at, self._action(spec))
                due.append(parse_duration(spec.at) / 1e9)
        return sorted(due)

    def _action(self, spec: EventSpec) -> Callable[[], object]:
        given = [name for name in ("lose", "remove", "restore", "kill") if getattr(spec, name) is not None]
        if len(given) != 1:
            raise InvalidValue("an event is one of lose, remove, restore (a GPU's index) and kill (a process's place)")
        (name,) = given
        place = getattr(spec, name)
        if name != "kill":
            return getattr(self._gpu(place), name)  # type: ignore[no-any-return]  # a bound method of Gpu
        if place >= len(self._processes):
            raise InvalidValue(f"kill = {place}: there are {len(self._processes)} processes, counted from 0")
        process = self._processes[place]
        return lambda: process.kill() if process.alive_in_model else None  # somebody may have been faster

    def _gpu(self, index: int) -> Gpu:
        if index >= len(self._gpus):
            raise InvalidValue(f"there is no GPU {index}: the machine has {len(self._gpus)}, counted from 0")
        return self._gpus[index]


def _fault(spec: FaultSpec) -> Fault:
    """Raises InvalidValue where the kind's own key is missing, or another's is there."""
    own: dict[str, Any] = {
        "slow": ("delay", spec.delay),
        "nvml": ("error", spec.error),
        "exit": ("status", spec.status),
    }
    needed = own.get(spec.kind, (None, None))[0]
    for kind, (key, value) in own.items():
        if value is not None and key != needed:
            raise InvalidValue(f"{key} belongs to faults of the kind {kind!r}, not to {spec.kind!r}")
        if value is None and key == needed:
            raise InvalidValue(f"a fault of the kind {kind!r} needs {key}")
    make = getattr(Fault, spec.kind)
    return make() if needed is None else make(own[spec.kind][1])  # type: ignore[no-any-return]  # a class method of Fault


def parse_ramp(text: str) -> Ramp:
    """A ramp in words: "immediate", "never", "step 2s", "linear 2s", "exponential 500ms", each of the last two
    perhaps with "after 200ms", or "trace FILE".

    Raises InvalidValue, with these forms, for anything else.
    """
    words = text.split()
    match words:
        case ["immediate"]:
            return Ramp.immediate()
        case ["never"]:
            return Ramp.never()
        case ["step", after]:
            return Ramp.step(after)
        case ["linear", duration]:
            return Ramp.linear(duration)
        case ["linear", duration, "after", after]:
            return Ramp.linear(duration, after)
        case ["exponential", half_life]:
            return Ramp.exponential(half_life)
        case ["exponential", half_life, "after", after]:
            return Ramp.exponential(half_life, after)
        case ["trace", _, *_]:
            return Ramp.from_trace(text.split(None, 1)[1].strip())
    raise InvalidValue(
        f"{text!r} is no way for memory to come back: write 'immediate', 'never', 'step 2s', 'linear 2s', "
        f"'linear 2s after 200ms', 'exponential 500ms', 'exponential 500ms after 200ms' or 'trace FILE'"
    )
