"""Recording on real hardware: start a program, wait until it holds memory, kill it, sample until all is still."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

from fake_gpu.errors import DriverStateError, FakeGpuError, InvalidValue
from fake_gpu.process import open_pidfd, wait_for_pidfd
from fake_gpu.trace.files import TraceWriter, refuse_existing
from fake_gpu.trace.format import FORMAT, VERSION, Header
from fake_gpu.trace.nvml_reader import NvmlReader, machine, process_tree
from fake_gpu.trace.sampler import BACK_ENOUGH, STILL, Sampler, Stillness, now_ns
from fake_gpu.units import MIB, Duration, parse_duration

Outcome = Literal["settled", "not settled", "interrupted"]

LEAST_HELD = 64 * MIB
"""Bytes by which free memory has to fall for a program to hold some, where the driver does not list its PID."""

_LOOK_EVERY_S = 0.02
_PROGRESS_EVERY_NS = 100_000_000


class RecordingFailed(FakeGpuError, RuntimeError):
    """There was nothing to record: the program ended by itself, or never held memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a recording goes. Durations as everywhere: seconds, or texts such as "1ms". Raises InvalidValue."""

    period: Duration = "1ms"
    """From one reading to the next."""
    signal: Literal["KILL", "TERM", "INT"] = "KILL"
    group: bool = False
    """The signal goes to the program's whole process group, not only to its first process."""
    after: Duration | None = None
    """The kill comes so long after the start, whatever the program does."""
    ready_line: str | None = None
    """The kill comes once the program has written a line with this text to its standard output."""
    still: Duration = "2s"
    """Without the two above: once the program holds memory and free memory has not moved for so long."""
    ready_timeout: Duration = "10min"
    lead: Duration = "500ms"
    """Sampling begins so long before the kill."""
    rest: Duration = "3s"
    """The recording ends when nothing has moved for so long after the death."""
    limit: Duration = "2min"
    """It ends so long after the kill at the latest."""

    def __post_init__(self) -> None:
        if self.signal not in ("KILL", "TERM", "INT"):
            raise InvalidValue(f"signal={self.signal!r}: give KILL, TERM or INT")
        if self.after is not None and self.ready_line is not None:
            raise InvalidValue("after= and ready_line= both say when to kill: give one of them")
        if parse_duration(self.period) == 0:
            raise InvalidValue("period=0: give the time from one reading to the next, such as '1ms'")
        for duration in (self.after or 0, self.still, self.ready_timeout, self.lead, self.rest, self.limit):
            parse_duration(duration)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a recording is. `phase` says what it waits for; `free` is in bytes by GPU index."""

    phase: str
    pid: int
    seconds: float
    readings: int
    free: Mapping[int, int | None]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recording came to."""

    path: Path
    outcome: Outcome
    readings: int


class Target:
    """The program that is killed: one that we start, which ends with this context, or one that runs."""

    def __init__(self, command: Sequence[str] | None, pid: int | None, *, wants_line: str | None) -> None:
        """Raises InvalidValue for a command that cannot be started, DriverStateError for a PID that is none."""
        if (command is None) == (pid is None):
            raise InvalidValue("give a command to run, or the PID of a process that runs")
        if pid is not None and wants_line is not None:
            raise InvalidValue("ready_line= needs a command: the output of a process that runs already cannot be read")
        self.said_it = threading.Event()
        self._popen: subprocess.Popen[bytes] | None = None
        if command is not None:
            self._popen = _start(command, piped=wants_line is not None)
            if self._popen.stdout is not None and wants_line is not None:
                listen = (self._popen.stdout, wants_line.encode(), self.said_it)
                threading.Thread(target=_pass_on, args=listen, daemon=True).start()
        self.pid: int = pid if pid is not None else self._popen.pid if self._popen is not None else 0
        try:
            self._pidfd = open_pidfd(self.pid)
        except BaseException:
            self._end_own()
            raise

    @property
    def is_ours(self) -> bool:
        return self._popen is not None

    @property
    def alive(self) -> bool:
        return not wait_for_pidfd(self._pidfd, 0)

    def wait(self, seconds: float) -> None:
        """Until it dies, so many seconds at most."""
        select.select([self._pidfd], [], [], seconds)

    def kill(self, plan: Plan) -> None:
        """Sends the signal; a process that has just died by itself gets none."""
        number = signal.Signals[f"SIG{plan.signal}"]
        with contextlib.suppress(ProcessLookupError):
            if plan.group:
                os.killpg(self.pid, number)  # it leads a group of its own; see _start
            else:
                signal.pidfd_send_signal(self._pidfd, number)

    def _end_own(self) -> None:
        if self._popen is None:
            return
        # Its first process is not reaped yet, so that the group's number is still its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._pidfd)
        self._end_own()


def _start(command: Sequence[str], *, piped: bool) -> subprocess.Popen[bytes]:
    try:
        # A group of its own: Ctrl-C is for the recording, which then ends the group.
        return subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if piped else None, process_group=0
        )
    except OSError as error:
        raise InvalidValue(f"{command[0]!r} cannot be run: {error.strerror}") from error


def _pass_on(output: IO[bytes], wanted: bytes, said_it: threading.Event) -> None:
    with output:
        for line in output:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            if wanted in line:
                said_it.set()


def record(
    path: str | os.PathLike[str],
    command: Sequence[str] | None = None,
    *,
    pid: int | None = None,
    plan: Plan | None = None,
    progress: Callable[[Progress], object] = lambda _: None,
    overwrite: bool = False,
) -> Recorded:
    """Runs `command` (or takes process `pid`), kills it, and writes to `path` what NVML says until all is still.

    Ctrl-C while it samples ends the recording, which is kept. Whatever happens, the command and its process group are
    gone afterwards, and the file holds what was recorded until then. Raises InvalidValue for what cannot be asked,
    NvmlUnusable without a GPU, RecordingFailed where there was nothing to kill.
    """
    plan = plan or Plan()
    path = Path(path)
    refuse_existing(path, overwrite)
    if plan.group and pid is not None:
        raise InvalidValue("group=True needs a command: the group of a process that runs already may be anybody's")
    reader = NvmlReader()
    try:
        before = {gpu.index: reader.free(gpu.index) for gpu in reader.gpus}
        with Target(command, pid, wants_line=plan.ready_line) as target:
            _Wait(reader, target, plan, before, progress).until_ready()
            tree = process_tree(target.pid)
            header = Header(
                format=FORMAT,
                version=VERSION,
                gpus=reader.gpus,
                source="nvml",
                tool="fake-gpu record",
                recorded=datetime.now(UTC).isoformat(timespec="milliseconds"),
                driver=reader.driver_version,
                machine=machine(),
                period_ns=parse_duration(plan.period),
                killed=tree,
            )
            with TraceWriter(path, header, overwrite=overwrite) as writer:
                sampler = Sampler(reader, before, writer)
                started_with = before if target.is_ours else {}
                with _Recording(sampler, target, tree, plan, started_with, progress) as recording:
                    outcome = recording.run()
    finally:
        reader.close()
    return Recorded(path, outcome, sampler.readings)


class _Wait:
    """For the moment to kill."""

    def __init__(
        self,
        reader: NvmlReader,
        target: Target,
        plan: Plan,
        before: Mapping[int, int | None],
        progress: Callable[[Progress], object],
    ) -> None:
        self._reader, self._target, self._plan, self._before = reader, target, plan, before
        self._progress = progress
        self._stillness = Stillness()

    def until_ready(self) -> None:
        plan, target = self._plan, self._target
        begun_ns, timeout_ns = now_ns(), parse_duration(plan.ready_timeout)
        while True:
            since_ns = now_ns() - begun_ns
            free = {gpu.index: self._reader.free(gpu.index) for gpu in self._reader.gpus}
            self._progress(Progress(self._phase(), target.pid, since_ns / 1e9, 0, free))
            if not target.alive:
                raise RecordingFailed(
                    f"process {target.pid} ended by itself before it was to be killed; nothing recorded"
                )
            if self._is_ready(since_ns, free):
                return
            if since_ns >= timeout_ns:
                raise RecordingFailed(
                    f"{self._phase()}: not within {plan.ready_timeout}; nothing recorded. --after or --ready-line say "
                    f"when to kill, --ready-timeout how long to wait"
                )
            target.wait(_LOOK_EVERY_S)

    def _phase(self) -> str:
        plan = self._plan
        if plan.after is not None:
            return f"waiting {plan.after} before the kill"
        if plan.ready_line is not None:
            return f"waiting for a line with {plan.ready_line!r}"
        return f"waiting until it holds memory and that is still for {plan.still}"

    def _is_ready(self, since_ns: int, free: Mapping[int, int | None]) -> bool:
        plan = self._plan
        if plan.after is not None:
            return since_ns >= parse_duration(plan.after)
        if plan.ready_line is not None:
            return self._target.said_it.is_set()
        sizes = {index: size for index, size in free.items() if size is not None}
        still_ns = self._stillness.look(since_ns, sizes)
        return still_ns >= parse_duration(plan.still) and self._holds_memory(sizes)

    def _holds_memory(self, free: Mapping[int, int]) -> bool:
        tree = process_tree(self._target.pid)
        if any(pid in (self._reader.held(gpu.index) or {}) for gpu in self._reader.gpus for pid in tree):
            return True
        fallen = sum((self._before[index] or size) - size for index, size in free.items())
        return self._target.is_ours and fallen >= LEAST_HELD


class _Recording:
    """From the first sample to the last. A context manager: it closes what it opened."""

    def __init__(
        self,
        sampler: Sampler,
        target: Target,
        tree: tuple[int, ...],
        plan: Plan,
        free_at_start: Mapping[int, int | None],
        progress: Callable[[Progress], object],
    ) -> None:
        self._sampler, self._target, self._tree, self._plan = sampler, target, tree, plan
        self._free_at_start = free_at_start
        self._progress = progress
        self._period_ns = parse_duration(plan.period)
        self._living: dict[int, int] = {}  # PIDs by pidfd
        self._listed: set[int] = set()
        self._stillness = Stillness()
        self._expected = 0
        self._base: dict[int, int] = {}
        self._shown_ns = 0
        self._gone_ns = 0
        self._zero_ns = now_ns()

    def __enter__(self) -> _Recording:
        for pid in self._tree:
            with contextlib.suppress(DriverStateError):  # it has just ended
                self._living[open_pidfd(pid)] = pid
        return self

    def __exit__(self, *error: object) -> None:
        for pidfd in self._living:
            os.close(pidfd)

    def run(self) -> Outcome:
        outcome: Outcome = "interrupted"
        try:
            outcome = self._sample_all()
        except KeyboardInterrupt:
            self._sampler.event("note", text="interrupted")
        self._sampler.finish()
        return outcome

    def _sample_all(self) -> Outcome:
        plan, sampler = self._plan, self._sampler
        lead_ns = parse_duration(plan.lead)
        t_ns = sampler.sample(list_processes=True)
        while t_ns < lead_ns and self._target.alive:
            t_ns = self._next("sampling before the kill")
        sampler.sample(list_processes=True)
        self._listed = sampler.listed(self._tree)
        self._base = sampler.without_others(self._tree)
        self._expected = sampler.held_by(self._tree) or sum(
            max(0, (before or 0) - (sampler.free.get(index) or 0)) for index, before in self._free_at_start.items()
        )
        if self._target.alive:
            kill_ns = sampler.event("kill_sent", pid=self._target.pid, signal=plan.signal)
            self._target.kill(plan)
        else:
            kill_ns = sampler.event("note", text="it ended by itself before the kill")
        end_ns = kill_ns + parse_duration(plan.limit)
        while t_ns < end_ns:
            t_ns = self._next("waiting for its memory")
            if self._has_settled(t_ns):
                sampler.event("settled", text=f"still since t_ns {self._stillness.since_ns}")
                return "settled"
        sampler.event("note", text=f"not settled within {plan.limit}")
        return "not settled"

    def _next(self, phase: str) -> int:
        """Waits out the period, noting who dies meanwhile at once, and takes a sample."""
        due_ns = now_ns() + self._period_ns - (now_ns() - self._zero_ns) % self._period_ns
        while (rest_ns := due_ns - now_ns()) > 0:
            for pidfd in select.select(list(self._living), [], [], rest_ns / 1e9)[0]:
                self._gone_ns = self._sampler.event("pid_gone", pid=self._living.pop(pidfd))
                os.close(pidfd)
        t_ns = self._sampler.sample(list_processes=bool(self._listed))
        still_listed = self._sampler.listed(self._listed)
        for pid in sorted(self._listed - still_listed):
            self._sampler.event("pid_gone_nvml", pid=pid)
        self._listed &= still_listed
        if t_ns - self._shown_ns >= _PROGRESS_EVERY_NS:
            self._shown_ns = t_ns
            self._progress(
                Progress(phase, self._target.pid, t_ns / 1e9, self._sampler.readings, dict(self._sampler.free))
            )
        return t_ns

    def _has_settled(self, t_ns: int) -> bool:
        free = self._sampler.without_others(self._tree)
        self._stillness.look(t_ns, free)
        still_ns = t_ns - max(self._stillness.since_ns, self._gone_ns)
        if self._living or self._listed or still_ns < parse_duration(self._plan.rest):
            return False
        back = sum(size - self._base.get(index, size) for index, size in free.items())
        return back >= max(STILL, BACK_ENOUGH * self._expected)
