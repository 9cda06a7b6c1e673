"""From the bytes of a call to the function that answers it, and back to bytes.

A request holds the arguments in order: an integer or handle as 8 bytes, a pointer as a 32-bit length (all ones: NULL)
and, where it is read, that many bytes. A reply holds the return code and, for every pointer that is written and is not
NULL, a 32-bit length and that many bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, TypeVar

from fake_gpu.errors import FakeGpuError
from fake_gpu.fault import Fault
from fake_gpu.gpu import Gpu, Presence
from fake_gpu.mig import MigInstance
from fake_gpu.nvml.abi import INPUTS, OUTPUTS, Argument, Function, Kind, functions
from fake_gpu.nvml.codes import CODES, NvmlError

if TYPE_CHECKING:
    from fake_gpu.driver import Driver

NULL = 0xFFFF_FFFF
NEVER = -1
"""In place of a delay: this call gets no answer."""

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_ZERO = _U32.pack(0)
_ARRAYS = frozenset({Kind.ARRAY_BY_VALUE, Kind.ARRAY_BY_POINTER, Kind.NESTED})

Outs = bytes | tuple[bytes | None, ...] | None
Handler = Callable[..., Outs]
_H = TypeVar("_H", bound=Handler)


class BadRequest(FakeGpuError):
    """A request that its function's line in the table does not explain: whoever sent it is not our library."""


@dataclass(slots=True)
class Session:
    """What NVML keeps for one client process: how often it was initialised and not shut down."""

    pid: int
    initialised: int = 0
    event_sets: dict[int, set[int]] = field(default_factory=dict)
    """The handles of the cards whose events each has."""


class Call:
    """What every function's Python code is given first: the driver, the client's session, and the time.

    `now_ns` is the time that all of this call's answer is of; the driver has been brought up to date to it.
    """

    __slots__ = ("driver", "now_ns", "session")

    def __init__(self, driver: Driver, session: Session, now_ns: int) -> None:
        self.driver = driver
        self.session = session
        self.now_ns = now_ns

    @property
    def wall_us(self) -> int:
        """Microseconds since the epoch, as NVML stamps samples."""
        return int(self.driver.wall_time() * 1e6)


_registry: dict[str, Handler] = {}
_of_mig_devices: dict[str, Handler] = {}
_without_init: set[str] = set()


def nvml(*names: str, without_init: bool = False) -> Callable[[_H], _H]:
    """Makes a Python function the implementation of NVML functions.

    It is called with a Call and, for each argument in the table's order: a Gpu for a device, an int for another value
    or a count, a str for a string, bytes for what is read, and for an array the number of elements that fit (None
    where the pointer is NULL). What is only written has no parameter. It returns the bytes of each written argument
    in order (one: bare; None: leave it as it is), or raises NvmlError.
    """

    def register(handler: _H) -> _H:
        for name in names:
            if name in _registry:
                raise ValueError(f"{name} is implemented twice")
            _registry[name] = handler
        if without_init:
            _without_init.update(names)
        return handler

    return register


def nvml_of_mig(*names: str) -> Callable[[_H], _H]:
    """Makes a Python function what answers NVML functions for the handle of a MIG device.

    It is called as `nvml` says, with a MigInstance in place of the Gpu. What has none answers NOT_SUPPORTED.
    """

    def register(handler: _H) -> _H:
        for name in names:
            if name in _of_mig_devices:
                raise ValueError(f"{name} is implemented twice for MIG devices")
            _of_mig_devices[name] = handler
        return handler

    return register


def registered() -> frozenset[str]:
    """The functions that have an implementation so far."""
    return frozenset(_registry)


class Entry:
    """One function of the table, ready to be called."""

    __slots__ = (
        "all_written",
        "arguments",
        "devices",
        "fixed",
        "handler",
        "handler_of_mig",
        "name",
        "needs_init",
        "reply",
        "values",
    )

    def __init__(self, function: Function) -> None:
        self.name = function.name
        self.arguments = function.arguments
        self.handler = _registry.get(function.name)
        self.handler_of_mig = _of_mig_devices.get(function.name)
        self.needs_init = function.name not in _without_init
        self.devices = tuple(place for place, one in enumerate(function.arguments) if one.type == "device")
        """The handler's arguments that are handles of GPUs; they come before anything that has no parameter."""
        written = [one for one in function.arguments if one.kind in OUTPUTS]
        self.all_written = [True] * len(written)
        # Most functions take unsigned integers and then write through pointers: one unpack reads such a request.
        self.values = sum(one.kind is Kind.VALUE and one.type != "i32" for one in function.arguments)
        plain = all(one.kind is Kind.OUT for one in function.arguments[self.values :])
        layout = "Q" * self.values + "I" * len(written)
        self.fixed = struct.Struct("<" + layout) if plain else None
        self.reply = struct.Struct(f"<II{written[0].size}s") if plain and len(written) == 1 else None

    def decode(self, request: bytes) -> tuple[list[Any], list[bool], bool]:
        """The handler's arguments, which written pointers are not NULL, and whether one is NULL that must not be."""
        if self.fixed is not None and len(request) == self.fixed.size:
            words = self.fixed.unpack(request)
            if NULL not in words:
                return list(words[: self.values]), self.all_written, False
        return _decode(self, request)


class Nvml:
    """Answers NVML calls for one driver, from this process or over the socket."""

    def __init__(self, driver: Driver) -> None:
        from fake_gpu.nvml import implementation

        implementation.load()
        self._driver = driver
        self._handles = driver.handles
        self._log = driver.log.write
        self._entries = _entries()

    def call(self, index: int, request: bytes, session: Session) -> tuple[bytes, int]:
        """The reply, and the nanoseconds after which to give it (0: now; NEVER: not at all).

        Raises BadRequest where the request does not fit the table.
        """
        driver = self._driver
        try:
            entry = self._entries[index]
        except IndexError:
            raise BadRequest(f"there is no NVML function number {index}") from None
        now = driver.sync()
        values, present, missing = entry.decode(request)
        faults: tuple[Fault, ...] = ()
        delay = 0
        try:
            if entry.needs_init and not session.initialised:
                raise NvmlError("UNINITIALIZED")
            if missing:
                raise NvmlError("INVALID_ARGUMENT")
            handler, gpus = self._look_up(entry, values)
            code, outs = 0, None
            if driver.has_faults:
                faults = driver.faults("nvml", entry.name, frozenset(gpu.uuid for gpu in gpus) if gpus else None)
                delay, code = _effect(faults)
            for gpu in gpus:
                if gpu.presence_in_model is not Presence.PRESENT:
                    raise NvmlError("GPU_IS_LOST")
            if code == 0:
                if handler is None:
                    raise NvmlError("NOT_SUPPORTED")
                outs = handler(Call(driver, session, now), *values)
        except NvmlError as error:
            code, outs = error.code, error.outs
            if error.delay_ns and delay != NEVER:
                delay += error.delay_ns
        never = delay == NEVER
        self._log(
            (
                "nvml",
                entry.name,
                session.pid,
                now,
                None if never else code,
                faults,
                entry.handler is not None,
                None if never else delay,
            )
        )
        if entry.reply is not None and code == 0 and outs.__class__ is bytes:
            return entry.reply.pack(0, len(outs), outs), delay
        return _encode(code, outs, present), delay

    def _look_up(self, entry: Entry, values: list[Any]) -> tuple[Handler | None, list[Gpu]]:
        """Puts devices in the place of their handles. Returns who answers for such devices, and the cards meant."""
        handler = entry.handler
        gpus = []
        for place in entry.devices:
            gpu = self._handles.get(values[place])
            if gpu is None:
                device = self._mig_device(values[place])
                values[place], gpu, handler = device, device.gpu, entry.handler_of_mig
            else:
                values[place] = gpu
            gpus.append(gpu)
        return handler, gpus

    def _mig_device(self, handle: int) -> MigInstance:
        """The MIG device that a handle is of. A card that is partitioned anew has other ones."""
        for gpu in self._handles.values():
            for instance in gpu.instances:
                if instance.handle == handle:
                    return instance
        raise NvmlError("INVALID_ARGUMENT")


def _effect(faults: tuple[Fault, ...]) -> tuple[int, int]:
    """What faults do to one call: the delay of its answer in nanoseconds, or NEVER, and the return code."""
    delay = code = 0
    for fault in faults:
        if fault.kind == "hang":
            delay = NEVER
        elif fault.kind == "slow" and delay != NEVER:
            delay += fault.delay_ns
        elif fault.kind == "nvml":
            code = fault.code
    return delay, code


def failure(name: str) -> bytes:
    """A reply that holds nothing but an error: for a library that asks after the driver has gone."""
    return _U32.pack(CODES[name])


def _decode(entry: Entry, request: bytes) -> tuple[list[Any], list[bool], bool]:
    """What `Entry.decode` returns, argument by argument."""
    values: list[Any] = []
    present: list[bool] = []
    missing = False
    at = 0
    try:
        for argument in entry.arguments:
            if argument.kind is Kind.VALUE:
                (word,) = _U64.unpack_from(request, at)
                values.append(word if argument.type != "i32" else _signed(word))
                at += 8
                continue
            (length,) = _U32.unpack_from(request, at)
            at += 4
            null = length == NULL
            missing = missing or (null and argument.kind not in _ARRAYS)
            if argument.kind in OUTPUTS:
                present.append(not null)
            data = b""
            if not null and argument.kind in INPUTS:
                data = request[at : at + length]
                if len(data) != length:
                    raise BadRequest(f"{entry.name}: the request ends inside an argument")
                at += length
            if argument.kind is not Kind.OUT:
                values.append(_value(argument, data, None if null else length))
    except struct.error:
        raise BadRequest(f"{entry.name}: the request ends before its arguments do") from None
    if at != len(request):
        raise BadRequest(f"{entry.name}: {len(request) - at} bytes behind the last argument")
    return values, present, missing


def _value(argument: Argument, data: bytes, room: int | None) -> int | str | bytes | None:
    if argument.kind in _ARRAYS:
        return None if room is None else room // argument.size
    if argument.kind is Kind.STRING:
        return data.decode("utf-8", "replace")
    if argument.kind is Kind.COUNT:
        return int.from_bytes(data, "little")
    return data


def _signed(word: int) -> int:
    word &= 0xFFFF_FFFF
    return word - (1 << 32) if word & 0x8000_0000 else word


def _encode(code: int, outs: Outs, present: list[bool]) -> bytes:
    parts = chain((outs,) if isinstance(outs, bytes) else outs or (), repeat(None))
    pieces = [_U32.pack(code)]
    for there, part in zip(present, parts, strict=False):
        if there:
            pieces += (_U32.pack(len(part)), part) if part else (_ZERO,)
    return b"".join(pieces)


@cache
def _entries() -> tuple[Entry, ...]:
    """Of the whole table, once every implementation is registered."""
    return tuple(map(Entry, functions()))
