"""The machine of one scenario: a fake driver on a virtual clock, its victims, and what is seen on it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fake_gpu import Driver, Gpu, Process
from pytest_vramsettle import _procfs
from pytest_vramsettle.conformance.model import Observation, Sighting, seconds
from pytest_vramsettle.conformance.timeline import SECOND, Lane, Mark, Span, Timeline

if TYPE_CHECKING:
    from pytest_vramsettle.clock import VirtualClock

_GRID = 160
"""Instants at which a drawing looks at a ramp."""
_LOOK_AHEAD = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 22.0, 30.0)
_PATIENCE_NS = 60 * SECOND
"""Virtual time beyond what a scenario allows after which an implementation is given up."""
_LEFT_GRACE = 15.0
"""Virtual seconds after which a process that a wait has left behind is called left: probes have timeouts of 10 s."""


@dataclass(slots=True)
class _Call:
    """A call of the implementation, in a thread of its own so that it can be given up."""

    done: bool = False
    result: Any = None
    error: str | None = None
    ended_ns: int = 0
    missing: int = 0
    cancel: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class _Segment:
    """What was free from an instant on; what the dead give back later is computed."""

    at_ns: int
    free: dict[Gpu, int]
    dead: tuple[Process, ...]


@dataclass(slots=True)
class Stage:
    """Where a scenario plays. `zero_ns` is its beginning: the kill, where there is one."""

    driver: Driver
    clock: VirtualClock
    seed: int | None = None
    """Of the order of threads."""
    victims: list[Process] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    zero_ns: int = 0
    _segments: list[_Segment] = field(default_factory=list)
    _calls_before: int = 0
    _children_before: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.zero_ns = self.clock.monotonic_ns()
        self._children_before = _children()

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the beginning."""
        return self.clock.monotonic_ns() - self.zero_ns

    def begin(self) -> None:
        """From now on time counts, and memory is recorded."""
        self.zero_ns = self.clock.monotonic_ns()
        self._look()
        self.clock.before_jump(self._look)

    def mark(self, sign: str, told: str) -> None:
        """Something happened now."""
        self.marks.append(Mark(self.now_ns, sign, told))

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
        if self.victims:
            self.mark("K", f"killed: {', '.join(one.describe() for one in self.victims)}")
        self.driver.sync()
        return time.monotonic()

    def call(
        self,
        function: Callable[[], Any],
        *,
        allowed: float,
        meanwhile: Callable[[_Call], tuple[tuple[str, Any], ...]] | None = None,
    ) -> Observation:
        """Calls the implementation; `meanwhile` runs beside it and returns notes. Gives up 60 s beyond `allowed`."""
        self._calls_before = len(self.driver.calls)
        call, began_ns = _Call(), self.now_ns
        with _recorded_logs() as logs:
            thread = threading.Thread(target=self._run, args=(call, function), name="under-test", daemon=True)
            thread.start()
            notes = () if meanwhile is None else meanwhile(call)
            thread.join(allowed + _PATIENCE_NS / SECOND)
        if not call.done:
            call.ended_ns = self.now_ns
        self.marks.append(Mark(call.ended_ns, "R", _end_of(call)))
        return Observation(
            began_ns=began_ns,
            ended_ns=call.ended_ns,
            returned=call.done and call.error is None,
            result=call.result,
            error=call.error,
            probes=self._sightings(),
            missing=call.missing,
            logs=tuple(logs),
            left=self._left() if call.done else (),
            notes=notes,
        )

    def _run(self, call: _Call, function: Callable[[], Any]) -> None:
        try:
            result = function()
            if inspect.isawaitable(result):
                result = asyncio.run(_awaited(result, call))
            call.result = result
        except BaseException as error:  # SystemExit and all: it is the implementation's
            call.error = _told(error)
        call.ended_ns, call.missing, call.done = self.now_ns, self.missing(), True

    # -- what is seen

    def _look(self) -> None:
        now = self.clock.monotonic_ns()
        free = {gpu: gpu.memory_at(now).free for gpu in self.driver.enumerated}
        dead = tuple(one for one in self.driver.processes if not one.alive_in_model)
        if self._segments and self._segments[-1].at_ns == now:
            self._segments.pop()
        self._segments.append(_Segment(now, free, dead))

    def _free_at(self, now_ns: int) -> dict[Gpu, int]:
        """Bytes at an instant on the clock, by what was last seen before and what the dead gave back since."""
        last = next((one for one in reversed(self._segments) if one.at_ns <= now_ns), None)
        return {} if last is None else {gpu: _grown(last, gpu, now_ns) for gpu in last.free}

    def _sightings(self) -> tuple[Sighting, ...]:
        self._look()
        seen: dict[int, Sighting] = {}
        for call in self.driver.calls[self._calls_before :]:
            delay = sum(fault.delay_ns for fault in call.faults)
            answered = None if call.code is None else call.at_ns + delay
            free = self._free_at(call.at_ns if answered is None else min(answered, self.clock.monotonic_ns()))
            end_ns = None if answered is None else answered - self.zero_ns
            at_ns = call.at_ns - self.zero_ns
            before = seen.get(at_ns)
            status = call.code if before is None or before.status == 0 else before.status
            seen[at_ns] = Sighting(at_ns, end_ns, call.via, status, tuple(free.values()))
        return tuple(seen.values())

    def _left(self) -> tuple[str, ...]:
        if self._strangers():
            self.clock.sleep(_LEFT_GRACE)
            for _ in range(40):
                if not self._strangers():
                    break
                self.clock.real_sleep(0.01)
        left = {pid: _name(pid) for pid in sorted(self._strangers())}
        for pid in left:  # named here, and nobody else's to end
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return tuple(f"process {pid} ({name})" for pid, name in left.items())

    def _strangers(self) -> frozenset[int]:
        return _children() - self._children_before - {process.pid for process in self.driver.processes}

    def timeline(self, observation: Observation) -> Timeline:
        """The drawing's data: from a little before the beginning to a little after the end."""
        self._look()
        end = max(observation.ended_ns, SECOND // 2)
        last = end + max(end // 8, SECOND // 4)
        if observation.missing:
            last = max(last, self._back_ns())  # the picture shows what was missed
        lanes = tuple(self._lane(gpu, last) for gpu in self._segments[0].free) if self._segments else ()
        probes = tuple(_span(one, observation.ended_ns) for one in observation.probes if one.at_ns <= last)
        return Timeline(0, last, lanes, probes, tuple(sorted(self.marks, key=lambda mark: mark.at_ns)))

    def _back_ns(self) -> int:
        """When the dead's memory is all back, roughly; 0 where it will not be within half a minute."""
        for seconds_after in _LOOK_AHEAD:
            now = self.zero_ns + round(seconds_after * SECOND)
            if not any(one.held_at(gpu, now) for one in self.victims for gpu in one.used):
                return round(seconds_after * SECOND)
        return 0

    def _lane(self, gpu: Gpu, last_ns: int) -> Lane:
        points: list[tuple[int, int]] = []
        grid = [self.zero_ns + last_ns * step // _GRID for step in range(_GRID + 1)]
        ends = [*(one.at_ns for one in self._segments[1:]), self.zero_ns + last_ns]
        for segment, end in zip(self._segments, ends, strict=True):
            if gpu in segment.free:
                inside = [instant for instant in grid if segment.at_ns < instant < end]
                points += [(at - self.zero_ns, _grown(segment, gpu, at)) for at in (segment.at_ns, *inside, end)]
        first = next(number for number, one in enumerate(self._segments[0].free) if one is gpu)
        return Lane(f"GPU {first} ({gpu.uuid[:12]})", tuple(points))


def _span(probe: Sighting, ended_ns: int) -> Span:
    if probe.answered_ns is None:
        return Span(probe.at_ns, max(ended_ns, probe.at_ns), answered=False)
    return Span(probe.at_ns, probe.answered_ns)


def _grown(segment: _Segment, gpu: Gpu, now_ns: int) -> int:
    back = sum(one.held_at(gpu, segment.at_ns) - one.held_at(gpu, now_ns) for one in segment.dead)
    return segment.free[gpu] + back


async def _awaited(result: Any, call: _Call) -> Any:
    task = asyncio.ensure_future(result)
    loop = asyncio.get_running_loop()
    call.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
    return await task


def _end_of(call: _Call) -> str:
    if not call.done:
        return "given up: it had not returned"
    missing = f", {call.missing // (1 << 20)} MiB missing"
    return f"raised {call.error}{missing}" if call.error else f"returned{missing}"


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


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


def told_end(observation: Observation) -> str:
    """When and how it ended."""
    return f"{observation.said}, {seconds(observation.elapsed_ns)} after the call"
