"""From a machine as data to a driver that has it. What its tables say of each other is checked first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fake_gpu import platforms, values
from fake_gpu.driver import Driver
from fake_gpu.errors import InvalidValue
from fake_gpu.gpu import Gpu
from fake_gpu.machine.spec import MANY, GpuSpec, MachineSpec, parse_ramp
from fake_gpu.process import Process
from fake_gpu.ramp import DEFAULT_RECLAIM
from fake_gpu.toml.file import located, read_text
from fake_gpu.toml.lines import line_of
from fake_gpu.toml.table import Refused, Step, refusing
from fake_gpu.units import format_duration


def new_driver(machine: MachineSpec, source: Path | None = None) -> Driver:
    """Its driver, not started. Raises InvalidValue where the parts of the machine do not fit together.

    `source` is the file that it was read from, for the message.
    """
    with _told(source):
        _check_cards(machine)
        _check_partitions(machine)
        _check_processes(machine)
        _check_events(machine)
    return Driver(
        driver_version=machine.driver_version,
        cuda_version=values.cuda_version(machine.cuda_version),
    )


def furnish(driver: Driver, machine: MachineSpec, source: Path | None = None) -> list[float]:
    """Gives a started driver what the machine has: cards, real processes, faults, events.

    Returns the seconds from now at which events are due: nothing ticks, so whoever wants one on time, and not at the
    next reading, calls `driver.sync` then. Raises InvalidValue where memory does not fit; `source` as in `new_driver`.
    """
    with _told(source):
        gpus = _add_cards(driver, machine)
        processes = _add_processes(driver, machine, gpus)
        _add_faults(driver, machine, gpus)
        return _add_events(driver, machine, gpus, processes)


@contextmanager
def _told(source: Path | None) -> Iterator[None]:
    """Whatever is refused in here is said with its place in the file, where the file has it."""
    try:
        yield
    except Refused as error:
        what = f"the machine {source}"
        if source is None or not source.is_file():  # a pipe has nothing left to read
            raise InvalidValue(error.reason) from error
        text = read_text(source, what)
        if line_of(text, error.steps) is None:  # it is not the file's: a command line's option, say
            raise InvalidValue(error.reason) from error
        raise located(error, text, what) from error


# -- checks


def _check_cards(machine: MachineSpec) -> None:
    count = 0
    uuids: set[str] = set()
    for place, spec in enumerate(machine.gpu):
        count += spec.count
        if count > MANY:
            raise Refused(("gpu", place, "count"), f"a machine has {MANY} GPUs at most")
        if spec.uuid is None:
            continue
        if spec.uuid in uuids:
            raise Refused(("gpu", place, "uuid"), f"another GPU has the UUID {spec.uuid!r} already")
        uuids.add(spec.uuid)


def _check_partitions(machine: MachineSpec) -> None:
    """On cards of a driver that is never started: a partition is of a card."""
    trial = Driver()
    try:
        for place, spec in enumerate(machine.gpu):
            if spec.mig:
                gpu = trial.add_gpu(spec.profile, name=spec.name, memory=spec.memory, reserved=spec.reserved)
                with refusing("gpu", place, "mig"):
                    platforms.partition(gpu, *spec.mig)
    finally:
        trial.stop()


def _check_instance(machine: MachineSpec, place: int) -> None:
    process = machine.process[place]
    cards = [spec for spec in machine.gpu for _ in range(spec.count)]
    instances = len(cards[process.gpus[0]].mig)
    if process.instance is not None and process.instance >= instances:
        raise Refused(
            ("process", place, "instance"),
            f"there is no instance {process.instance}: GPU {process.gpus[0]} has {instances}, counted from 0",
        )


def _check_processes(machine: MachineSpec) -> None:
    for place, process in enumerate(machine.process):
        for number, index in enumerate(process.gpus):
            steps: tuple[Step, ...] = () if isinstance(process.gpu, int) else (number,)
            _check_index(machine, index, ("process", place, "gpu", *steps))
        _check_instance(machine, place)
    for place, fault in enumerate(machine.fault):
        if fault.gpu is not None:
            _check_index(machine, fault.gpu, ("fault", place, "gpu"))


def _check_index(machine: MachineSpec, index: int, steps: tuple[Step, ...]) -> None:
    count = sum(spec.count for spec in machine.gpu)
    if index >= count:
        raise Refused(steps, f"there is no GPU {index}: the machine has {count}, counted from 0")


def _check_events(machine: MachineSpec) -> None:
    """In the order of their times: what is lost or removed has to be there, what is restored has to be away."""
    away: dict[int, str] = {}
    dead: dict[int, str] = {}
    for place, spec in sorted(enumerate(machine.event), key=lambda one: one[1].at_ns):
        deed, index = spec.deed
        steps, when = ("event", place, deed), format_duration(spec.at_ns)
        if deed == "kill":
            if index >= len(machine.process):
                count = len(machine.process)
                raise Refused(steps, f"there is no process {index}: the machine has {count}, counted from 0")
            if index in dead:
                raise Refused(steps, f"process {index} is dead already at {when}: it was killed at {dead[index]}")
            dead[index] = when
            continue
        _check_index(machine, index, steps)
        if deed == "restore":
            if index not in away:
                raise Refused(steps, f"GPU {index} is neither lost nor removed at {when}: nothing is to be restored")
            del away[index]
        elif away.get(index) in (deed, "remove"):  # a lost one is still counted, and can be removed
            known = "lost" if away[index] == "lose" else "removed"
            raise Refused(steps, f"GPU {index} is {known} already at {when}: restore it before")
        else:
            away[index] = deed


# -- what is made


def _add_cards(driver: Driver, machine: MachineSpec) -> list[Gpu]:
    gpus = []
    for place, spec in enumerate(machine.gpu):
        for _ in range(spec.count):
            with refusing("gpu", place):
                gpu = driver.add_gpu(
                    spec.profile, name=spec.name, memory=spec.memory, reserved=spec.reserved, uuid=spec.uuid
                )
            _set_up(driver, gpu, spec)
            with refusing("gpu", place, "unlisted"):
                gpu.hold_unlisted(spec.unlisted)
            for key, value in msgspec.structs.asdict(spec.activity).items():
                if value is not None:
                    setattr(gpu.activity, key, value)
            gpus.append(gpu)
    return gpus


def _set_up(driver: Driver, gpu: Gpu, spec: GpuSpec) -> None:
    if spec.mig:
        platforms.partition(gpu, *spec.mig)
    if spec.persistence is not None:
        gpu.profile = msgspec.structs.replace(gpu.profile, persistence=spec.persistence)
    if spec.platform is not None:
        getattr(platforms, spec.platform.replace("-", "_"))(driver, gpu)


def _add_processes(driver: Driver, machine: MachineSpec, gpus: list[Gpu]) -> list[Process]:
    usual = DEFAULT_RECLAIM if machine.reclaim is None else parse_ramp(machine.reclaim)
    processes = []
    for place, spec in enumerate(machine.process):
        with refusing("process", place, "memory"):
            process = driver.spawn(
                {gpus[index]: spec.memory for index in spec.gpus},
                name=spec.name,
                reclaim=usual if spec.reclaim is None else parse_ramp(spec.reclaim),
                compute_type=spec.type,
                ignores_sigterm=spec.ignores_sigterm,
            )
        if spec.instance is not None:
            with refusing("process", place, "instance"):
                process.run_in(gpus[spec.gpus[0]].instances[spec.instance])
        processes.append(process)
    return processes


def _add_faults(driver: Driver, machine: MachineSpec, gpus: list[Gpu]) -> None:
    if machine.wake is not None:
        platforms.persistence_off(driver, machine.wake)
    if machine.platform is not None:
        getattr(platforms, machine.platform.replace("-", "_"))(driver)
    for place, spec in enumerate(machine.fault):
        with refusing("fault", place):
            gpu = None if spec.gpu is None else gpus[spec.gpu]
            driver.inject(spec.fault(), via=spec.via, gpu=gpu, after=spec.after, times=spec.times)


def _add_events(driver: Driver, machine: MachineSpec, gpus: list[Gpu], processes: list[Process]) -> list[float]:
    for spec in machine.event:
        deed, index = spec.deed
        driver.at(spec.at, _killer(processes[index]) if deed == "kill" else getattr(gpus[index], deed))
    return sorted(spec.at_ns / 1e9 for spec in machine.event)


def _killer(process: Process) -> Callable[[], object]:
    return lambda: process.kill() if process.alive_in_model else None  # somebody may have been faster
