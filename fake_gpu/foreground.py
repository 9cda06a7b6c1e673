"""A program in the foreground, as if it had been started in our place: same terminal, same process group.

The terminal's own signals (Ctrl-C, Ctrl-Z, a change of its size) reach the program because it is in our group; those
that somebody else than the program sends to us are passed on. When it stops, we stop, so that a shell above us sees a
stopped job.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from fake_gpu.errors import FakeGpuError

PASSED_ON = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGTSTP,
        signal.SIGCONT,
        signal.SIGWINCH,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""What the interpreter ignores, and a program would inherit."""
_OF_A_HANGUP = (signal.SIGHUP, signal.SIGCONT)
"""What the kernel sends to a session's leader alone when its terminal goes away."""
_SHELL = "/bin/sh"


class CannotRun(FakeGpuError):
    """A command that cannot be started. `found`: there is such a program, and it cannot be executed."""

    def __init__(self, message: str, *, found: bool) -> None:
        super().__init__(message)
        self.found = found


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Holds back, in this thread and in threads started within, what `run` passes on: for all of a run's set-up.

    Only the main thread can do that.
    """
    children = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it was ignored, nobody could be waited for
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*PASSED_ON, signal.SIGCHLD})
    try:
        yield
    finally:
        while signal.sigtimedwait(PASSED_ON, 0) is not None:  # too late: whom they were for has ended
            continue
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if children is not None:  # None: C code had a handler of its own there
            signal.signal(signal.SIGCHLD, children)


def ending_signal() -> int | None:
    """A signal that was held back meanwhile and asks us to end; None where there is none."""
    pending = signal.sigpending()
    return next((int(number) for number in _ENDING if number in pending), None)


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    due: Sequence[float] = (),
    on_due: Callable[[], object] = lambda: None,
) -> int:
    """Runs `command` to its end and returns its exit status, -n where signal n ended it.

    Call it within `signals_held`. `on_due` is called at each of the seconds in `due`, from now. Raises CannotRun.
    """
    start = time.monotonic()
    waiting = [start + seconds for seconds in due]
    with _terminal_given_back():
        pid = _start(command, environment)
        while True:
            received = _next_signal(waiting)
            while waiting and waiting[0] <= time.monotonic():
                waiting.pop(0)
                on_due()
            if received is None:
                continue
            if received.si_signo != signal.SIGCHLD:
                _pass_on(received, pid)
                continue
            status = _look_at(pid)
            if status is not None:
                return status


def _start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Its PID. Raises CannotRun."""
    name, *arguments = command
    try:
        return _spawn(name, command, environment)
    except ValueError:
        raise CannotRun(f"{name!r} cannot be run: that is no name of a program", found=False) from None
    except OSError as error:
        path = name if os.path.dirname(name) else shutil.which(name, path=environment.get("PATH"))
        if error.errno == errno.ENOEXEC and path is not None and _is_text(path):
            return _spawn(_SHELL, [_SHELL, path, *arguments], environment)  # as shells and execvp take it
        raise CannotRun(f"{name!r} cannot be run: {_reason(error, path)}", found=error.errno != errno.ENOENT) from error


def _spawn(name: str, words: Sequence[str], environment: Mapping[str, str]) -> int:
    return os.posix_spawnp(name, list(words), dict(environment), setsigmask=[], setsigdef=list(_IGNORED_BY_PYTHON))


def _is_text(path: str) -> bool:
    """Whether it may be a script that does not name its interpreter, and not a program for another machine."""
    try:
        with open(path, "rb") as file:
            return b"\0" not in file.read(128)
    except OSError:
        return False


def _reason(error: OSError, path: str | None) -> str:
    if error.errno != errno.ENOENT:
        return str(error.strerror)
    if path is None:
        return "no directory of PATH has a program of that name"
    if os.path.exists(path):
        return f"{path} needs an interpreter that is not there"
    return "there is no such file"


def _pass_on(received: signal.struct_siginfo, pid: int) -> None:
    if received.si_code > 0 and not (received.si_signo in _OF_A_HANGUP and os.getsid(0) == os.getpid()):
        return  # the kernel sent it to all of our group, for a terminal: the program has it too
    if received.si_pid == pid:
        return  # the program sent it, and mostly to its whole group: not twice
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, received.si_signo)


def _next_signal(waiting: Sequence[float]) -> signal.struct_siginfo | None:
    """The next signal, or None where something is due before one comes."""
    wanted = {*PASSED_ON, signal.SIGCHLD}
    if not waiting:
        return signal.sigwaitinfo(wanted)
    return signal.sigtimedwait(wanted, max(0.0, waiting[0] - time.monotonic()))


def _look_at(pid: int) -> int | None:
    """The exit status of a program that has ended, -n where signal n ended it. Stops with one that has stopped."""
    while True:
        seen, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if seen == 0:
            return None
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        _stop(os.WSTOPSIG(status))
        with contextlib.suppress(ProcessLookupError):  # we go on: somebody continued us
            os.kill(pid, signal.SIGCONT)


def _stop(number: int) -> None:
    """Stops this process, as by the signal `number`. Returns when it is continued."""
    os.kill(os.getpid(), number)
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})  # here it stops
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _terminal_given_back() -> Iterator[None]:
    """A shell that is killed leaves the terminal to a process group that is gone; it was ours, and is again."""
    terminal = next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)
    ours = False
    if terminal is not None:
        with contextlib.suppress(OSError):  # the terminal of another session
            ours = os.tcgetpgrp(terminal) == os.getpgrp()
    try:
        yield
    finally:
        if terminal is not None and ours:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            with contextlib.suppress(OSError):
                os.tcsetpgrp(terminal, os.getpgrp())
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
