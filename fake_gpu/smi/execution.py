"""A run of the nvidia-smi executable: from what it sent to the orders that it obeys."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from fake_gpu.nvml.dispatch import NEVER
from fake_gpu.run_request import strings_of
from fake_gpu.smi import modes
from fake_gpu.smi.arguments import RefusedError, Request, parse
from fake_gpu.smi.failures import NO_DEVICES, NO_DEVICES_TEXT
from fake_gpu.smi.misfortune import Misfortune, add_up
from fake_gpu.smi.run import Output, Run
from fake_gpu.smi.selection import select

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.fault import Fault
    from fake_gpu.gpu import Gpu

_U32: Final = struct.Struct("<I")
_CHUNK: Final = (1 << 20) - 1
"""Bytes of output in one order: a frame has 1 MiB at most, and its first byte is the order."""

_IGNORE_SIGTERM: Final = _U32.pack(1) + b"i"
_WAIT: Final = _U32.pack(1) + b"w"
"""It waits for the answer. Until its first order the executable holds SIGTERM back, which that may be to ignore."""
_LEAVE_GRANDCHILD: Final = _U32.pack(1) + b"g"
_FORTUNE: Final = Misfortune({})


@dataclass(frozen=True, slots=True)
class Execution:
    """What the executable is to do: frames for now, and frames for `delay_ns` later (0: now too; NEVER: not at all)."""

    at_once: bytes
    orders: bytes
    delay_ns: int
    again_ns: int = 0
    """So long after the orders `again` says what comes next; 0: nothing does."""
    again: Callable[[], Execution] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What follows from the arguments alone. `refusal`: the answer to bad ones. `needs_gpus`: it is about GPUs."""

    request: Request
    needs_gpus: bool
    refusal: Output | None = None
    covered: bool = True
    asks_for_fields: bool = False
    """It is refused for a field that a card's own profile may know."""

    def selected(self, counted: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
        """Those of all GPUs that it reports."""
        return select(counted, self.request.ids) if self.needs_gpus or self.asks_for_fields else ()


def execute(driver: Driver, frame: bytes, pid: int) -> Execution:
    """Answers one run of process `pid`, and logs it. Raises BadRequest for a frame that our executable never sends."""
    command_line, plan = _read(frame)
    return _round(driver, command_line, plan, pid, 1)


def _round(driver: Driver, command_line: str, plan: Plan, pid: int, number: int) -> Execution:
    """One output of a run; a loop has several, and each is a call of its own to faults and the log."""
    now = driver.sync()
    counted = driver.enumerated
    gpus = plan.selected(counted)
    fortune = _FORTUNE
    faults: tuple[Fault, ...] = ()
    if driver.has_faults:
        reported = frozenset([gpu.uuid for gpu in gpus])
        met = driver.injections_met("nvidia-smi", command_line, reported)
        faults = tuple([injection.fault for injection in met])
        fortune = add_up(met, reported)
    request = plan.request if number == 1 else replace(plan.request, header=False)
    run = Run(driver, request, counted, gpus, now, fortune.failures)
    output = _misfortunes(plan, run, fortune) or output_of(plan, run)
    code, delay_ns = (None, None) if fortune.delay_ns == NEVER else (output.code, fortune.delay_ns)
    driver.log.write(("nvidia-smi", command_line, pid, now, code, faults, plan.covered, delay_ns))
    first = _IGNORE_SIGTERM if fortune.ignores_sigterm else _WAIT if fortune.delay_ns else b""
    if number == 1 and request.filename is not None:
        first += _into_file(request.filename)
    if request.every_ns is None or number == request.count or output.code:
        return Execution(first, _orders(output, fortune), fortune.delay_ns)
    return Execution(
        first,
        _orders(output, fortune, ends=False),
        fortune.delay_ns,
        request.every_ns,
        lambda: _round(driver, command_line, plan, pid, number + 1),
    )


def _into_file(name: str) -> bytes:
    failure = f"ERROR: Could not open {name} for writing\n"
    order = b"f" + name.encode("utf-8", "surrogateescape") + b"\0" + failure.encode("utf-8", "surrogateescape")
    return _U32.pack(len(order)) + order


def _misfortunes(plan: Plan, run: Run, fortune: Misfortune) -> Output | None:
    """What faults make it print instead of everything else."""
    if fortune.exit_status is not None or (fortune.nvml_error and plan.needs_gpus):
        return fortune.output(run.driver_version)
    return None


def output_of(plan: Plan, run: Run) -> Output:
    """What a run with this plan prints where nothing goes wrong."""
    if plan.refusal is not None and not (plan.asks_for_fields and modes.cards_know(run)):
        return plan.refusal
    if (plan.needs_gpus or plan.asks_for_fields) and not run.gpus:
        return Output(NO_DEVICES_TEXT, NO_DEVICES)
    return modes.render(run)


def _orders(output: Output, fortune: Misfortune, *, ends: bool = True) -> bytes:
    text = output.text if fortune is _FORTUNE else fortune.spoil(output.text)
    data = text.encode("utf-8", "surrogateescape")
    parts: list[bytes] = []
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK]
        parts += (_U32.pack(1 + len(chunk)), b"o", chunk)
    if fortune.holds_pipe:
        parts.append(_LEAVE_GRANDCHILD)
    if ends:
        parts += (_U32.pack(2), b"x", output.code.to_bytes(1, "little"))
    return b"".join(parts)


@lru_cache(maxsize=512)
def _read(frame: bytes) -> tuple[str, Plan]:
    """The command line and the plan of a request."""
    arguments = strings_of(frame)[1:-2]  # the rest: its own name, its working directory, its terminal
    return " ".join(["nvidia-smi", *arguments]), plan_of(tuple(arguments))


def plan_of(arguments: tuple[str, ...]) -> Plan:
    """What is to be done for these arguments."""
    request = Request()
    try:
        request = parse(arguments)
        modes.check(request)
    except RefusedError as refused:
        said = Output(refused.text, refused.code)
        return Plan(request, False, said, refused.covered, request.mode == "query-gpu")
    return Plan(request, request.mode not in modes.NEED_NO_GPU)


def broken() -> Execution:
    """What is printed where the driver's own code failed: status 255, as the real one ends for reasons of its own."""
    return Execution(b"", _orders(Output("Unknown Error\n", 255), Misfortune({})), 0)
