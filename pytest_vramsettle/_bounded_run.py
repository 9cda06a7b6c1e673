"""Running a command that may wedge, within a budget: nothing of it is left when this returns."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from pytest_vramsettle._bounded_call import call_within
from pytest_vramsettle._budget import POLL_NS, ProbeBudget, ProbeFailed
from pytest_vramsettle._quantities import MILLISECOND, to_seconds

# More than a machine with many GPUs prints, and little enough that a command gone mad cannot fill the memory.
_MOST_OUTPUT = 4 * 1024 * 1024

# A process that was sent SIGKILL is gone within a millisecond or two, unless it is stuck inside the kernel.
_REAP_NS = 50 * MILLISECOND

# Commands that SIGKILL did not end yet: children of this process, so there is one place for them.
_undying: dict[str, subprocess.Popen[bytes]] = {}


class Finished(NamedTuple):
    """What a command left: its exit status (negative: killed by that signal) and its output."""

    status: int
    stdout: str
    stderr: str


def run_within(budget: ProbeBudget, argv: list[str]) -> Finished:
    """Run `argv` and collect its output.

    When the budget ends first, the command and everything in its process group is killed and reaped. As long as an
    earlier run of the same program will not die (it is stuck inside the kernel), no other one is started. Raises
    ProbeFailed when it cannot be run or prints without end, ProbeTimeout and ProbeInterrupted as the budget says.
    """
    budget.check()
    stuck = _undying.pop(argv[0], None)
    if stuck is not None and stuck.poll() is None:
        _undying[argv[0]] = stuck
        raise ProbeFailed(f"{argv[0]} (PID {stuck.pid}) was killed and is still there, stuck inside the driver")
    own_group: dict[str, int] = {} if os.name == "nt" else {"process_group": 0}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            **own_group,  # type: ignore[call-overload]  # the overloads take no keywords from a dict
        )
    except OSError as error:
        raise ProbeFailed(f"{argv[0]} cannot be run: {error}") from error
    if os.name == "nt":  # where a selector takes sockets only
        return _communicate_in_thread(budget, process)
    return _Run(process, budget).finish()


class _Run:
    def __init__(self, process: subprocess.Popen[bytes], budget: ProbeBudget) -> None:
        self._process = process
        self._budget = budget
        self._output: dict[int, bytearray] = {}
        self._open: set[int] = set()
        self._exit_fd = _pidfd(process.pid)
        self._exited = False

    def finish(self) -> Finished:
        try:
            stdout, stderr = self._read()
        finally:
            self._end()
        return Finished(self._process.returncode, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"))

    def _read(self) -> tuple[bytearray, bytearray]:
        streams = self._process.stdout, self._process.stderr
        descriptors = [stream.fileno() for stream in streams if stream is not None]
        for descriptor in descriptors:
            os.set_blocking(descriptor, False)
            self._output[descriptor] = bytearray()
            self._open.add(descriptor)
        with self._selector() as selector:
            # Over when the command is: not at the end of its output, which a grandchild that inherited the pipe can
            # put off for ever. What the command wrote itself is in the pipe by then.
            while not self._exited:
                for key, _ in selector.select(self._timeout()):
                    self._take(selector, key.fd)
                if not self._exited:
                    self._look_for_exit()
                    self._budget.check()
            for descriptor in tuple(self._open):
                while self._read_some(descriptor):
                    pass
        return self._output[descriptors[0]], self._output[descriptors[1]]

    @contextmanager
    def _selector(self) -> Iterator[selectors.BaseSelector]:
        with selectors.DefaultSelector() as selector:
            for descriptor in self._open:
                selector.register(descriptor, selectors.EVENT_READ)
            if self._exit_fd is not None:
                selector.register(self._exit_fd, selectors.EVENT_READ)
            interrupts = self._budget.interrupts
            if interrupts is not None:
                selector.register(interrupts.fileno(), selectors.EVENT_READ)
            yield selector

    def _timeout(self) -> float:
        if self._exit_fd is not None:
            return self._budget.timeout(woken=True)
        return min(self._budget.timeout(woken=True), to_seconds(POLL_NS))

    def _take(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        if descriptor == self._exit_fd:
            self._exited = True
        elif descriptor in self._open:
            self._read_some(descriptor)
            if descriptor not in self._open:
                selector.unregister(descriptor)

    def _read_some(self, descriptor: int) -> bool:
        """False when there is nothing to read now, or never again."""
        try:
            data = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._open.discard(descriptor)
            return False
        self._output[descriptor] += data
        if len(self._output[descriptor]) > _MOST_OUTPUT:
            raise ProbeFailed(f"{self._process.args!r} printed more than {_MOST_OUTPUT} bytes")
        return True

    def _look_for_exit(self) -> None:
        if self._exit_fd is None and self._process.poll() is not None:
            self._exited = True

    def _end(self) -> None:
        """Leave no process, no zombie and no descriptor, in bounded time."""
        try:
            if not self._exited or self._open:
                _kill_group(self._process)
            if not self._reap():
                _undying[_program(self._process)] = self._process
        finally:
            if self._exit_fd is not None:
                os.close(self._exit_fd)
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()

    def _reap(self) -> bool:
        deadline = time.monotonic_ns() + _REAP_NS
        with selectors.DefaultSelector() as selector:
            if self._exit_fd is not None:
                selector.register(self._exit_fd, selectors.EVENT_READ)
            while self._process.poll() is None:
                rest = deadline - time.monotonic_ns()
                if rest <= 0:
                    return False
                # Without a pidfd this is a plain sleep.
                selector.select(to_seconds(rest if self._exit_fd is not None else min(rest, MILLISECOND)))
        return True


def _pidfd(pid: int) -> int | None:
    """Readable when the process has ended; None where the system has no such thing, or forbids it."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    # The group's number is the command's PID, which stays taken while the command is not reaped or a member lives.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _program(process: subprocess.Popen[bytes]) -> str:
    args = process.args
    return str(args[0]) if isinstance(args, list) else str(args)


def _communicate_in_thread(budget: ProbeBudget, process: subprocess.Popen[bytes]) -> Finished:
    try:
        stdout, stderr = call_within(budget, process.communicate, key=("run", process.pid))
    except BaseException:
        process.kill()
        raise
    return Finished(process.returncode, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"))
