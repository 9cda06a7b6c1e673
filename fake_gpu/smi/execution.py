"""A run of the nvidia-smi executable: from what it sent to the orders that it obeys."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from fake_gpu.nvml.dispatch import NEVER, BadRequest
from fake_gpu.smi import modes
from fake_gpu.smi.arguments import RefusedError, Request, parse
from fake_gpu.smi.failures import NO_DEVICES, NO_DEVICES_TEXT
from fake_gpu.smi.misfortune import Misfortune, add_up
from fake_gpu.smi.run import Output, Run
from fake_gpu.smi.selection import select

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.fault import Fault

_U32: Final = struct.Struct("<I")
_CHUNK: Final = (1 << 20) - 1
"""Bytes of output in one order: a frame has 1 MiB at most, and its first byte is the order."""

_IGNORE_SIGTERM: Final = _U32.pack(1) + b"i"
_LEAVE_GRANDCHILD: Final = _U32.pack(1) + b"g"
_FORTUNE: Final = Misfortune({})


@dataclass(frozen=True, slots=True)
class Execution:
    """What the executable is to do: frames for now, and frames for `delay_ns` later (0: now too; NEVER: not at all)."""

    at_once: bytes
    orders: bytes
    delay_ns: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """What follows from a request's bytes alone."""

    command_line: str
    wanted: Request | RefusedError


def execute(driver: Driver, frame: bytes, pid: int) -> Execution:
    """Answers one run of process `pid`, and logs it. Raises BadRequest for a frame that our executable never sends."""
    plan = _plan(frame)
    wanted = plan.wanted
    now = driver.sync()
    gpus = select(driver.enumerated, wanted.ids) if isinstance(wanted, Request) else ()
    fortune = _FORTUNE
    faults: tuple[Fault, ...] = ()
    if driver.has_faults:
        reported = frozenset([gpu.uuid for gpu in gpus]) if not _needs_no_gpu(wanted) else frozenset[str]()
        met = driver.injections_met("nvidia-smi", plan.command_line, reported)
        faults = tuple([injection.fault for injection in met])
        fortune = add_up(met, reported)
    if fortune.exit_status is not None or (fortune.nvml_error and not _needs_no_gpu(wanted)):
        output = fortune.output(driver.driver_version)
    elif isinstance(wanted, RefusedError):
        output = Output(wanted.text, wanted.code)
    elif not gpus and not _needs_no_gpu(wanted):
        output = Output(NO_DEVICES_TEXT, NO_DEVICES)
    else:
        output = modes.render(Run(driver, wanted, gpus, now, fortune.failures))
    code = None if fortune.delay_ns == NEVER else output.code
    covered = isinstance(wanted, Request) or wanted.covered
    driver.log.write(("nvidia-smi", plan.command_line, pid, now, code, faults, covered))
    return Execution(_IGNORE_SIGTERM if fortune.ignores_sigterm else b"", _orders(output, fortune), fortune.delay_ns)


def _needs_no_gpu(wanted: Request | RefusedError) -> bool:
    return isinstance(wanted, RefusedError) or wanted.mode in modes.NEED_NO_GPU


def _orders(output: Output, fortune: Misfortune) -> bytes:
    text = output.text if fortune is _FORTUNE else fortune.spoil(output.text)
    data = text.encode("utf-8", "surrogateescape")
    parts: list[bytes] = []
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK]
        parts += (_U32.pack(1 + len(chunk)), b"o", chunk)
    if fortune.holds_pipe:
        parts.append(_LEAVE_GRANDCHILD)
    parts += (_U32.pack(2), b"x", output.code.to_bytes(1, "little"))
    return b"".join(parts)


@lru_cache(maxsize=512)
def _plan(frame: bytes) -> _Plan:
    arguments = _strings(frame)[1:-2]  # the rest: its own name, its working directory, its terminal
    wanted: Request | RefusedError
    try:
        wanted = parse(tuple(arguments))
        modes.check(wanted)
    except RefusedError as refused:
        wanted = refused.with_traceback(None)  # it is kept
    return _Plan(" ".join(["nvidia-smi", *arguments]), wanted)


def _strings(frame: bytes) -> list[str]:
    """argv, the working directory, and "tty" or "": a count of the former, then a length and bytes for each."""
    if len(frame) < _U32.size:
        raise BadRequest("nvidia-smi: a request without a count of arguments")
    (count,) = _U32.unpack_from(frame)
    strings = []
    at = _U32.size
    while at < len(frame):
        if at + _U32.size > len(frame):
            raise BadRequest("nvidia-smi: the request ends inside a length")
        (length,) = _U32.unpack_from(frame, at)
        at += _U32.size + length
        if at > len(frame):
            raise BadRequest("nvidia-smi: the request ends inside a text")
        strings.append(frame[at - length : at].decode("utf-8", "surrogateescape"))
    if len(strings) != count + 2:
        raise BadRequest(f"nvidia-smi: {len(strings)} texts where {count} arguments and 2 more belong")
    return strings
