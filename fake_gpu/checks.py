"""What a test hands to the driver, checked where it is handed over: later it would fail in a client's process."""

from __future__ import annotations

import os
import reprlib
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

import msgspec

from fake_gpu import values
from fake_gpu.clock import Clock, RealClock, time_stands_still
from fake_gpu.errors import DriverStateError, InvalidValue
from fake_gpu.fault import Fault
from fake_gpu.gpu import Gpu, total_and_reserved
from fake_gpu.mig_layout import check_devices
from fake_gpu.nvml.abi import functions
from fake_gpu.process import ComputeType
from fake_gpu.profile import Profile, load_profile
from fake_gpu.toml.table import Refused, refusing
from fake_gpu.units import MIB, Size, parse_size

if TYPE_CHECKING:
    from fake_gpu.driver import Driver

PROCESS_NAME_LIMIT = 8192
MEMORY_LIMIT = 1 << 60
PID_LIMIT = (1 << 32) - 1
"""NVML keeps a PID in an unsigned int."""


def size(value: Size) -> int:
    """Bytes that a card can have. Raises InvalidValue."""
    wanted = parse_size(value)
    if not 0 < wanted < MEMORY_LIMIT:
        raise InvalidValue(f"{value!r}: a card has more than 0 bytes and less than 1 EiB")
    return wanted


def card(
    profile: str | os.PathLike[str] | Profile | None,
    name: str | None,
    memory: Size | None,
    reserved: Size | None,
    uuid: str | None,
) -> tuple[Profile, int, int]:
    """What `Driver.add_gpu` is given: facts, total and reserved bytes. Raises Refused, with the argument's name."""
    with refusing("profile"):
        facts = profile if isinstance(profile, Profile) else load_profile("generic" if profile is None else profile)
    if name is not None:
        with refusing("name"):
            facts = msgspec.structs.replace(facts, name=values.name(name))
    if uuid is not None:
        with refusing("uuid"):
            values.uuid(uuid)
    with refusing("memory"):
        total = None if memory is None else size(memory)
    with refusing("reserved"):
        kept = None if reserved is None else parse_size(reserved)
    with refusing("memory" if reserved is None else "reserved"):
        whole, kept = total_and_reserved(facts, total, kept)
    if total is not None:
        _check_partition(facts, total)
    return facts, whole, kept


def _check_partition(facts: Profile, total: int) -> None:
    try:
        check_devices(facts.mig_devices, total // MIB)
    except Refused as error:
        raise Refused(("memory",), f"the profile's mig_devices do not fit: {error.reason}") from error


def pid(value: object) -> int:
    """A PID that NVML can show. Raises InvalidValue."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= PID_LIMIT:
        raise InvalidValue(f"{value!r} is not a PID: give a whole number from 1 to {PID_LIMIT}")
    return value


def compute_type(value: str) -> ComputeType:
    """How nvidia-smi's table classes a process. Raises InvalidValue."""
    for known in get_args(ComputeType):
        if value == known:
            return known  # type: ignore[no-any-return]  # get_args has no types
    raise InvalidValue(f"compute_type={value!r}: give one of {', '.join(map(repr, get_args(ComputeType)))}")


def process_name(value: object) -> None:
    """Raises InvalidValue for what no process is called."""
    if not isinstance(value, str) or not 0 < len(value) <= PROCESS_NAME_LIMIT or set("\0\r\n") & set(value):
        raise InvalidValue(f"{reprlib.repr(value)}: give a text of 1 to {PROCESS_NAME_LIMIT} characters, in one line")


def process(name: str | None, kind: str) -> None:
    """The name (None: the kernel's) and class of a process. Raises InvalidValue."""
    if name is not None:
        with refusing("name"):
            process_name(name)
    compute_type(kind)


def fault(value: object) -> Fault:
    """A fault. Raises InvalidValue, also for Fault.hang without its brackets."""
    if not isinstance(value, Fault):
        hint = f"; call it: Fault.{value.__name__}(…)" if callable(value) and hasattr(value, "__name__") else ""
        raise InvalidValue(f"inject({value!r}): give a Fault, such as Fault.hang() or Fault.slow('1.2s'){hint}")
    return value


def count(what: str, value: object, least: int) -> int:
    """A whole number. Raises InvalidValue."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidValue(f"{what}={value!r}: give a whole number, {least} or more")
    return value


def gpu(value: object, what: str = "gpu") -> Gpu:
    """A GPU object. Raises InvalidValue, also for its index."""
    if not isinstance(value, Gpu):
        raise InvalidValue(f"{what}={value!r}: give the object that add_gpu returned (or driver.gpus[index])")
    return value


def injection(what: object, via: str | None, where: object, after: object, times: object) -> None:
    """The arguments of `Driver.inject`. Raises InvalidValue."""
    meant = fault(what)
    count("after", after, 0)
    if times is not None:
        count("times", times, 1)
    if where is not None:
        gpu(where)
    reach(meant, via)


def reach(meant: Fault, via: str | None) -> None:
    """What a fault meets. Raises InvalidValue for a `via` that is none, or that the fault cannot meet."""
    if via not in (None, "nvidia-smi", "nvml") and via not in {function.name for function in functions()}:
        raise InvalidValue(f"inject(via={via!r}): give 'nvidia-smi', 'nvml', or the name of an NVML function")
    if meant.nvidia_smi_only and via not in (None, "nvidia-smi"):
        raise InvalidValue(f"{meant!r} can only meet nvidia-smi, not via={via!r}")


def version(what: str, value: object) -> tuple[int, int]:
    """A (major, minor) pair. Raises InvalidValue."""
    if (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(part) is int for part in value)
        and 0 <= value[0] <= 999
        and 0 <= value[1] <= 99
    ):
        return value
    raise InvalidValue(f"{what}={value!r}: give a pair of whole numbers, such as (13, 1)")


def clock(value: Clock | None) -> Clock:
    """The clock that is given, or the real one. Raises InvalidValue for what is none."""
    if value is None:
        return RealClock()
    wanted = ("is_real_time", "monotonic_ns", "wait", "call_at", "before_jump", "client_waits")
    missing = [name for name in wanted if not hasattr(value, name)]
    if missing:
        raise InvalidValue(
            f"clock={value!r} is no clock: it has no {', '.join(missing)}. Give a VirtualClock, or a RealClock"
        )
    return value


def same_time(given: bool) -> None:
    """Raises DriverStateError where a driver would run on real time, and the test on a clock that stands still."""
    if not given and time_stands_still():
        raise DriverStateError(
            "time.monotonic stands still in this thread (a virtual clock or a freezer of time is active), and this "
            "Driver would run on real time: pass that clock, Driver(clock=clock), or, if it is meant so, "
            "Driver(clock=RealClock())"
        )


def holdings(driver: Driver, given: Gpu | Mapping[Gpu, Size], used: Size | None) -> dict[Gpu, int]:
    """Bytes by GPU, of this driver's GPUs that are there. Raises InvalidValue, DriverStateError."""
    if isinstance(given, Gpu):
        if used is None:
            raise InvalidValue("say how much it holds: (gpu, used='20 GiB'), or a mapping {gpu: '20 GiB'}")
        given = {given: used}
    elif not isinstance(given, Mapping):
        raise InvalidValue(f"{given!r} is neither a GPU nor a mapping of GPUs to sizes, such as {{gpu: '20 GiB'}}")
    elif used is not None:
        raise InvalidValue("give one GPU with used=, or a mapping of GPUs to sizes, not both")
    held = {gpu(card): parse_size(amount) for card, amount in given.items()}
    for card in held:
        card.check_present(driver)
    return held


def none_kept(errors: deque[BaseException]) -> None:
    """Raises the oldest of the errors that a driver has kept, with notes of the others; none is kept then."""
    if errors:
        error = errors.popleft()
        while errors:
            error.add_note(f"The fake driver kept another error: {errors.popleft()!r}")
        raise error
