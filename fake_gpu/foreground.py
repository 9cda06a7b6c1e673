"""A program in the foreground, as if it had been started in our place: same terminal, same process group.

The terminal's own signals (Ctrl-C, Ctrl-Z, a change of its size) reach the program because it is in our group; those
that somebody sends to us alone are passed on. When it stops, we stop, so that a shell above us sees a stopped job.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

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
    """Runs `command` to its end and returns its exit status, 128 + n where signal n ended it.

    Call it within `signals_held`. `on_due` is called at each of the seconds in `due`, from now. Raises OSError where
    the command cannot be started.
    """
    start = time.monotonic()
    waiting = [start + seconds for seconds in due]
    with _terminal_given_back():
        pid = os.posix_spawnp(
            command[0], list(command), dict(environment), setsigmask=[], setsigdef=list(_IGNORED_BY_PYTHON)
        )
        while True:
            received = _next_signal(waiting)
            while waiting and waiting[0] <= time.monotonic():
                waiting.pop(0)
                on_due()
            if received is None:
                continue
            if received.si_signo == signal.SIGCHLD:
                status = _look_at(pid)
                if status is not None:
                    return status
            elif received.si_code <= 0:  # from a process; what the kernel sends for a terminal, the program has too
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, received.si_signo)


def _next_signal(waiting: Sequence[float]) -> signal.struct_siginfo | None:
    """The next signal, or None where something is due before one comes."""
    wanted = {*PASSED_ON, signal.SIGCHLD}
    if not waiting:
        return signal.sigwaitinfo(wanted)
    return signal.sigtimedwait(wanted, max(0.0, waiting[0] - time.monotonic()))


def _look_at(pid: int) -> int | None:
    """The exit status of a program that has ended. Stops with one that has stopped."""
    while True:
        seen, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if seen == 0:
            return None
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
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
    ours = terminal is not None and os.tcgetpgrp(terminal) == os.getpgrp()
    try:
        yield
    finally:
        if terminal is not None and ours:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            with contextlib.suppress(OSError):
                os.tcsetpgrp(terminal, os.getpgrp())
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
