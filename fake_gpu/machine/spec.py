"""A machine as data: GPUs, processes, faults and what happens when, from a TOML file or from options.

Cards and processes are counted from 0, in the order of the file; docs/run.md has every key. Each table checks itself;
what they say of each other is for `furnish`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from fake_gpu import checks, values
from fake_gpu.activity import Celsius, KibPerSecond, Percent, Pstate, Watts, check_power
from fake_gpu.errors import InvalidValue
from fake_gpu.fault import Fault
from fake_gpu.gpu import check_fits
from fake_gpu.process import ComputeType
from fake_gpu.profile import Profile
from fake_gpu.ramp import Ramp
from fake_gpu.toml.file import decode, read_text
from fake_gpu.toml.table import Refused, Table, refusing
from fake_gpu.units import parse_duration, parse_size

Count = Annotated[int, msgspec.Meta(ge=0)]
Duration = str | float | int
MANY: Final = 64
"""GPUs in one machine: no real one has more, and a slip of the finger should not make thousands."""


class ActivitySpec(Table, frozen=True, kw_only=True):
    """What a card is doing; what is left out stays as its profile has it when idle."""

    gpu_percent: Percent | None = None
    memory_percent: Percent | None = None
    encoder_percent: Percent | None = None
    decoder_percent: Percent | None = None
    fan_percent: Percent | None = None
    temperature: Celsius | None = None
    """Degrees Celsius."""
    power: Watts | None = None
    """Watts."""
    pstate: Pstate | None = None
    busy: bool | None = None
    pcie_rx_kib_s: KibPerSecond | None = None
    pcie_tx_kib_s: KibPerSecond | None = None


class GpuSpec(Table, frozen=True, kw_only=True):
    """`[[gpu]]`: `count` cards of a profile, or of explicit values."""

    profile: str | None = None
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    name: str | None = None
    memory: str | int | None = None
    reserved: str | int | None = None
    uuid: str | None = None
    platform: Literal["wddm", "wsl", "container", "unified-memory"] | None = None
    """As the function of that name in `fake_gpu.platforms`."""
    mig: tuple[str, ...] = ()
    """The devices that it is partitioned into, such as "3g.71gb"."""
    persistence: bool | None = None
    """Its persistence mode; None: the profile's."""
    unlisted: str | int = 0
    """In use without a process that is listed for it."""
    activity: ActivitySpec = ActivitySpec()

    def card(self) -> tuple[Profile, int, int]:
        """Its facts, its total and its reserved bytes. Raises Refused."""
        return checks.card(self.profile, self.name, self.memory, self.reserved, self.uuid)

    def check(self) -> None:
        if self.count > MANY:
            raise Refused(("count",), f"a machine has {MANY} GPUs at most")
        if self.uuid is not None and self.count > 1:
            raise Refused(("uuid",), f"{self.count} GPUs cannot have the same UUID: leave it out, or count")
        facts, total, reserved = self.card()
        with refusing("unlisted"):
            check_fits(parse_size(self.unlisted), f"this {facts.name}", total, reserved)
        if self.activity.fan_percent and not facts.fans:
            raise Refused(("activity", "fan_percent"), f"this {facts.name} has no fans")
        with refusing("activity", "power"):
            check_power(self.activity.power or 0, facts.power.max_limit)


class ProcessSpec(Table, frozen=True, kw_only=True):
    """`[[process]]`: a real process that holds memory, on one card or on several."""

    gpu: Count | list[Count] = 0
    memory: str | int
    """On each of them."""
    instance: Count | None = None
    """Of the card's `mig`, counted from 0; None: the first in which it fits."""
    name: str = "llama-server"
    type: ComputeType = "C"
    reclaim: str | None = None
    ignores_sigterm: bool = False

    @property
    def gpus(self) -> list[int]:
        """The indices of the cards that it holds memory on."""
        return [self.gpu] if isinstance(self.gpu, int) else self.gpu

    def check(self) -> None:
        if not self.gpus:
            raise Refused(("gpu",), "give the indices of the GPUs that it holds memory on")
        for place, index in enumerate(self.gpus):
            if index in self.gpus[:place]:
                raise Refused(("gpu", place), f"GPU {index} is named twice: memory is what it holds on each")
        if self.instance is not None and len(self.gpus) > 1:
            raise Refused(("instance",), "a process on several GPUs runs in no single instance: name one GPU")
        with refusing("memory"):
            parse_size(self.memory)
        with refusing("name"):
            checks.process_name(self.name)
        if self.reclaim is not None:
            with refusing("reclaim"):
                parse_ramp(self.reclaim)


class FaultSpec(Table, frozen=True, kw_only=True):
    """`[[fault]]`: as `Driver.inject`. `delay` is for "slow", `error` for "nvml", `status` for "exit"."""

    kind: Literal["slow", "hang", "exit", "nvml", "garbled", "truncated", "ignores_sigterm", "holds_pipe"]
    delay: Duration | None = None
    error: str | None = None
    status: int | None = None
    via: str | None = None
    gpu: Count | None = None
    after: Count = 0
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def fault(self) -> Fault:
        """Raises Refused where the kind's own key is missing or cannot be, or another's is there."""
        own: dict[str, tuple[str, Any]] = {
            "slow": ("delay", self.delay),
            "nvml": ("error", self.error),
            "exit": ("status", self.status),
        }
        needed, value = own.pop(self.kind, (None, None))
        for kind, (key, given) in own.items():
            if given is not None:
                raise Refused((key,), f"{key} belongs to faults of the kind {kind!r}, not to {self.kind!r}")
        make = getattr(Fault, self.kind)
        if needed is None:
            return make()  # type: ignore[no-any-return]  # a class method of Fault
        with refusing(needed):
            if value is None:
                raise InvalidValue(f"a fault of the kind {self.kind!r} needs {needed}")
            return make(value)  # type: ignore[no-any-return]  # the same

    def check(self) -> None:
        fault = self.fault()
        with refusing("via"):
            checks.reach(fault, self.via)


class EventSpec(Table, frozen=True, kw_only=True):
    """`[[event]]`: at a time after the start, one thing happens to a card, or a process is killed."""

    at: Duration
    lose: Count | None = None
    remove: Count | None = None
    restore: Count | None = None
    kill: Count | None = None
    """A process, by its place in the file."""

    @property
    def deed(self) -> tuple[str, int]:
        """What happens, and the index of the GPU or the place of the process that it happens to. Raises Refused."""
        deeds = {"lose": self.lose, "remove": self.remove, "restore": self.restore, "kill": self.kill}
        given = [(key, value) for key, value in deeds.items() if value is not None]
        if len(given) != 1:
            steps = [key for key, _ in given[1:2]]
            raise Refused(
                steps, "an event is one of lose, remove, restore (a GPU's index) and kill (a process's place)"
            )
        return given[0]

    @property
    def at_ns(self) -> int:
        """Nanoseconds after the start."""
        return parse_duration(self.at)

    def check(self) -> None:
        with refusing("at"):
            parse_duration(self.at)
        self.deed  # noqa: B018 - it raises


class MachineSpec(Table, frozen=True, kw_only=True):
    """All of a file."""

    driver_version: str = "590.48.01"
    cuda_version: str = "13.1"
    platform: Literal["version-mismatch", "driver-not-loaded"] | None = None
    """As the function of that name in `fake_gpu.platforms`."""
    wake: Duration | None = None
    """The driver lets go of idle cards: as `platforms.persistence_off` with this delay."""
    reclaim: str | None = None
    """How the memory of a killed process comes back, where the process does not say."""
    gpu: tuple[GpuSpec, ...] = ()
    process: tuple[ProcessSpec, ...] = ()
    fault: tuple[FaultSpec, ...] = ()
    event: tuple[EventSpec, ...] = ()

    def check(self) -> None:
        with refusing("driver_version"):
            values.driver_version(self.driver_version)
        with refusing("cuda_version"):
            values.cuda_version(self.cuda_version)
        if self.wake is not None:
            with refusing("wake"):
                Fault.slow(self.wake)
        if self.reclaim is not None:
            with refusing("reclaim"):
                parse_ramp(self.reclaim)


def read_machine_spec(path: Path) -> MachineSpec:
    """A machine from a file. Raises InvalidValue, with the file, the line and the key, for what cannot be.

    A process, a fault or an event may be of cards that are not in the file: `furnish.new_driver` knows them all.
    """
    what = f"the machine {path}"
    return decode(read_text(path, what), MachineSpec, what)


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
