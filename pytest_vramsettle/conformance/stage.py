"""The machine of one scenario: a fake driver on a virtual clock, its victims, and what is seen on it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import mmap
import os
import signal
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import fake_gpu
import pytest_vramsettle
from fake_gpu import Call as DriverCall
from fake_gpu import Driver, Gpu, Process
from pytest_vramsettle import _procfs
from pytest_vramsettle.clock import proc
from pytest_vramsettle.conformance.model import SECOND, Observation, Sighting, seconds
from pytest_vramsettle.timeline import Event, Timeline, Wait, collect

if TYPE_CHECKING:
    from pytest_vramsettle.clock import VirtualClock

CHILD_GRACE = 0.3
"""Real seconds without work after which a child, or a thread that is blocked, no longer holds a scenario's clock.

Less than the clock's own second: an implementation that leaves one behind pays it in every scenario.
"""
_PATIENCE_NS = 60 * SECOND
"""Virtual time beyond what a scenario allows after which an implementation is given up."""
_TOGETHER_NS = SECOND // 1000
"""NVML calls of one process that follow each other's answers within this are one probe."""
_LEFT_GRACE = 15.0
"""Virtual seconds after which a process that a wait has left behind is called left: probes have timeouts of 10 s."""
_LOG_WIDTH = 160
_LOOK = 0.01
_STILL_LOOKS, _MOST_LOOKS = 20, 300
"""Looks, so much real time apart, after which one that does nothing is called left, and one that goes on working."""


@dataclass(slots=True)
class _Call:
    """A call of the implementation, in a thread of its own so that it can be given up."""

    done: bool = False
    result: Any = None
    error: str | None = None
    ended_ns: int = 0
    missing: int = 0
    cancel: Callable[[], object] | None = None
    forked: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 1))
    """Shared with children: 1 where one of them returned from the call, too."""


@dataclass(slots=True)
class Stage:
    """Where a scenario plays. `zero_ns` is its beginning: the kill, where there is one."""

    driver: Driver
    clock: VirtualClock
    seed: int | None = None
    """Of the order of threads."""
    victims: list[Process] = field(default_factory=list)
    server_command: list[str] = field(default_factory=list)
    """What starts a llama-server, where the scenario has one."""
    events: list[Event] = field(default_factory=list)
    """What a drawing has to tell beside memory, deaths and probes; on the clock."""
    waits: list[Wait] = field(default_factory=list)
    """The calls of the implementation; on the clock."""
    zero_ns: int = 0
    _orders: list[tuple[int, tuple[Gpu, ...]]] = field(default_factory=list)
    _calls_before: int = 0
    _children_before: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.zero_ns = self.clock.monotonic_ns()
        self.note_what_is_there()

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the beginning."""
        return self.clock.monotonic_ns() - self.zero_ns

    def begin(self) -> None:
        """From now on time counts, and memory is recorded."""
        self.zero_ns = self.clock.monotonic_ns()
        self._look()
        self.clock.before_jump(self._look)

    def note_what_is_there(self) -> None:
        """The processes that are there now are not the implementation's to end."""
        self._children_before = _children()

    def mark(self, told: str) -> None:
        """Something happened now."""
        self.events.append(Event(self.clock.monotonic_ns(), told))

    def called(self, label: str, began_ns: int, ended_ns: int, outcome: str, **judged: Any) -> None:
        """A call of the implementation, for the drawing; the instants as in an Observation."""
        begin, end = self.zero_ns + began_ns, self.zero_ns + ended_ns
        self.waits.append(Wait(begin, end, outcome, text=f"{label}: {outcome}", label=label, **judged))

    def unreturned(self) -> int:
        """Bytes that all the dead have not given back now."""
        return sum(sum(one.used.values()) for one in list(self.driver.processes) if not one.alive)

    def missing(self) -> int:
        """Bytes that the victims, dead ones, have not given back now."""
        return sum(sum(victim.used.values()) for victim in self.victims if not victim.alive)

    # -- what the script does

    def kill(self, recording: Callable[[int], Any] | None) -> float:
        """SIGKILL to every victim, within the implementation's own record. Returns `time.monotonic()` after it."""
        with contextlib.ExitStack() as stack:
            for victim in self.victims:
                if recording is not None:
                    stack.enter_context(recording(victim.pid))
            self.begin()
            for victim in self.victims:
                victim.kill()
        self.driver.sync()
        return time.monotonic()

    def call(
        self,
        function: Callable[[], Any],
        *,
        allowed: float,
        meanwhile: Callable[[_Call], tuple[tuple[str, Any], ...]] | None = None,
        label: str = "wait",
    ) -> Observation:
        """Calls the implementation; `meanwhile` runs beside it and returns notes. Gives up 60 s beyond `allowed`.

        `label` says what it is, in the drawing; the word of a "wait" is about memory.
        """
        self._calls_before = len(self.driver.calls)
        call, began_ns = _Call(), self.now_ns
        with self.recorded() as logs:
            thread = threading.Thread(target=self._run, args=(call, function), name="under-test", daemon=True)
            thread.start()
            notes = () if meanwhile is None else meanwhile(call)
            thread.join(allowed + _PATIENCE_NS / SECOND)
        if not call.done:
            call.ended_ns = self.now_ns
        seen = Observation(
            began_ns=began_ns,
            ended_ns=call.ended_ns,
            returned=call.done and call.error is None,
            result=call.result,
            error=call.error,
            probes=self.sightings(),
            missing=call.missing,
            logs=tuple(logs),
            left=self._left_by(call) if call.done else (),
            notes=notes,
        )
        wait = label == "wait"
        relied_on = seen.returned and seen.trusted is not False
        self.called(label, began_ns, seen.ended_ns, seen.outcome, trusted=relied_on or not wait, about_memory=wait)
        return seen

    def _run(self, call: _Call, function: Callable[[], Any]) -> None:
        own = os.getpid()
        try:
            result = function()
            if inspect.isawaitable(result):
                result = asyncio.run(_awaited(result, call))
            call.result = result
        except BaseException as error:  # SystemExit and all: it is the implementation's
            call.error = described(error)
        if os.getpid() != own:  # a child that the implementation has forked, and that came back like its parent
            call.forked[0] = 1
            os._exit(0)
        call.ended_ns, call.missing, call.done = self.now_ns, self.missing(), True

    # -- what is seen

    def _look(self) -> None:
        self._orders.append((self.clock.monotonic_ns(), self.driver.enumerated))

    def _free_at(self, now_ns: int) -> tuple[int, ...]:
        """Bytes by index at an instant on the clock."""
        orders = [gpus for at_ns, gpus in self._orders if at_ns <= now_ns]
        return tuple(self.driver.history.memory(gpu, [now_ns])[0].free for gpu in (orders[-1] if orders else ()))

    @staticmethod
    def recorded() -> contextlib.AbstractContextManager[list[logging.LogRecord]]:
        """What is logged, at every level that the loggers themselves let through."""
        return _recorded_logs()

    def sightings(self) -> tuple[Sighting, ...]:
        """The probes since the last call, or since the beginning."""
        self._look()
        seen: list[Sighting] = []
        latest: dict[int, int] = {}  # the place in `seen` of each process's last NVML call
        for call in self.driver.calls[self._calls_before :]:
            one = self._sighting(call)
            place = latest.get(call.pid) if call.via == "nvml" else None
            if place is None or not _follows(seen[place], one):
                place = len(seen) - 1 if seen and seen[-1].at_ns == one.at_ns else len(seen)
            if place == len(seen):
                seen.append(one)
            else:
                seen[place] = _joined(seen[place], one)
            if call.via == "nvml":
                latest[call.pid] = place
        return tuple(seen)

    def _sighting(self, call: DriverCall) -> Sighting:
        answered = None if call.code is None else call.at_ns + sum(fault.delay_ns for fault in call.faults)
        free = self._free_at(call.at_ns if answered is None else min(answered, self.clock.monotonic_ns()))
        end_ns = None if answered is None else answered - self.zero_ns
        return Sighting(call.at_ns - self.zero_ns, end_ns, call.via, call.code, free, call.covered)

    def _left_by(self, call: _Call) -> tuple[str, ...]:
        left = self.left()
        return (*left, "a copy of the caller: it forked, and the child returned as well") if call.forked[0] else left

    def left(self) -> tuple[str, ...]:
        """Processes that are there and were not, in words; they are killed. Takes 0.2 real s where some are."""
        strangers = self._strangers()
        if strangers:
            for pid in strangers:  # what they still do takes real time, and no other
                self.clock.detach(pid)
            self.clock.sleep(_LEFT_GRACE)
            self._let_end()
        left = {pid: _name(pid) for pid in sorted(self._strangers())}
        for pid in left:  # named here, and nobody else's to end
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return tuple(f"process {pid} ({name})" for pid, name in left.items())

    def _let_end(self) -> None:
        """Gives strangers real time to end, while they use the processor."""
        before: dict[int, tuple[bool, int]] = {}
        still = 0
        for _ in range(_MOST_LOOKS):
            now = {pid: proc.activity(pid) for pid in self._strangers()}
            works = now != before or any(runs for runs, _ in now.values())
            still, before = 0 if works else still + 1, now
            if not now or still >= _STILL_LOOKS:
                return
            self.clock.real_sleep(_LOOK)

    def _strangers(self) -> frozenset[int]:
        own = {*(process.pid for process in self.driver.processes), *(one.pid for one in self.driver.llama.running)}
        return _children() - self._children_before - own

    def timeline(self) -> Timeline:
        """What has happened until now, to be drawn."""
        return collect(self.driver, self.waits, events=self.events)


async def _awaited(result: Any, call: _Call) -> Any:
    task = asyncio.ensure_future(result)
    loop = asyncio.get_running_loop()
    call.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
    return await task


def _follows(before: Sighting, one: Sighting) -> bool:
    """Whether this NVML call belongs to the reading: what it was asked for follows the answer before it at once."""
    return before.answered_ns is not None and one.at_ns - before.answered_ns <= _TOGETHER_NS


def _joined(first: Sighting, more: Sighting) -> Sighting:
    status = more.status if first.status == 0 else first.status
    covered = first.covered and more.covered
    return replace(first, answered_ns=more.answered_ns, via=more.via, status=status, free=more.free, covered=covered)


def described(error: BaseException) -> str:
    """What was raised, and where: the innermost line that is the implementation's own."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    last = (own or frames)[-1:]
    place = "".join(f" ({frame.filename}:{frame.lineno}, in {frame.name})" for frame in last)
    return f"{type(error).__name__}: {error}{place}"


def _is_own(filename: str) -> bool:
    """Whether a file is of neither the standard library, nor an installed package, nor this plugin."""
    paths = sysconfig.get_paths()
    others = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    others += [*pytest_vramsettle.__path__, *fake_gpu.__path__]
    return not filename.startswith(("<frozen ", *(os.path.join(path, "") for path in others)))


def _children() -> frozenset[int]:
    own = os.getpid()
    return frozenset(one.pid for one in _procfs.tree(own) if one.pid != own)


def _name(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read(200).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return "gone"


@contextlib.contextmanager
def _recorded_logs() -> Iterator[list[logging.LogRecord]]:
    """What is logged, at every level that the loggers themselves let through."""
    records: list[logging.LogRecord] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    root, handler = logging.getLogger(), Recorder(level=0)
    before = root.level
    root.addHandler(handler)
    root.setLevel(1)
    try:
        yield records
    finally:
        root.setLevel(before)
        root.removeHandler(handler)


def told_probes(observation: Observation, limit: int = 14) -> list[str]:
    """The samples in lines, the middle left out where there are many."""
    lines = [f"  {one}" for one in observation.probes]
    if len(lines) <= limit:
        return lines or ["  none"]
    half = limit // 2
    return [*lines[:half], f"  … {len(lines) - 2 * half} more …", *lines[-half:]]


def told_logs(observation: Observation, limit: int = 6) -> list[str]:
    """The last of what was logged, which may be why; each record in one line, with what was raised."""
    records = [one for one in observation.logs if one.name != "asyncio"]
    lines = []
    for one in records[-limit:]:
        text = " ".join(one.getMessage().split())
        error = one.exc_info[1] if one.exc_info else None
        raised = "" if error is None else f" ({type(error).__name__}: {error})"
        lines.append(f"  {one.levelname} {one.name}: {text[:_LOG_WIDTH]}{raised[:_LOG_WIDTH]}")
    return [f"what was logged, the last {len(lines)} of {len(records)}:", *lines] if lines else []


def told_end(observation: Observation) -> str:
    """When and how it ended."""
    return f"{observation.said}, {seconds(observation.elapsed_ns)} after the call"
