"""The parent's side of a worker process: start it, ask it, read its stacks when it hangs, kill it, replace it.

Messages are JSON with a length before them, over a private pair of sockets. Real time throughout.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MESSAGE_LIMIT = 64 * 1024 * 1024
"""Bytes; a longer one is taken for garbage."""
STACKS_SIGNAL = signal.SIGRTMAX - 3
"""What has a worker write the stacks of its threads."""
_STARTING = 60.0
_ENDING = 10.0
_STACKS = 1.0
_BOOT = (
    "import json, sys; told = json.loads(sys.argv[1]); sys.path[:] = told['path']; "
    "from pytest_vramsettle.conformance.child import main; main(told)"
)


class WorkerLost(Exception):
    """The worker did not answer: it hangs, or it died. The text says which, with its stacks where it hangs."""


class Worker:
    """A worker process. `told` is what its `child.main` is given; `environment` replaces this process's."""

    def __init__(self, told: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> None:
        self._socket, theirs = socket.socketpair()
        self._stacks = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the worker
        message = {
            **told,
            "path": sys.path,
            "fd": theirs.fileno(),
            "stacks": self._stacks.fileno(),
            "parent": os.getpid(),
        }
        flags = [f"-W{option}" for option in sys.warnoptions] + ["-O"] * sys.flags.optimize
        try:
            self._process = subprocess.Popen(
                [sys.executable, *flags, "-c", _BOOT, json.dumps(message)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._stacks.fileno()),
                env=None if environment is None else dict(environment),
                start_new_session=True,  # so that it can be killed with all that it has started
            )
        except BaseException:
            self._socket.close()
            self._stacks.close()
            raise
        finally:
            theirs.close()
        self._ready = False

    def ask(self, message: Mapping[str, Any], limit: float) -> Iterator[Any]:
        """The worker's messages up to the one that is None. Raises WorkerLost, and the worker is killed then.

        `limit` is in real seconds, for all of them; a worker that starts has 60 s more.
        """
        try:
            if not self._ready:
                self._receive(_now() + _STARTING, "to start", _STARTING)
                self._ready = True
            self._send(message)
            deadline = _now() + limit
            while (answer := self._receive(deadline, "to answer", limit)) is not None:
                yield answer
        except BaseException:
            self.kill()
            raise

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._socket.sendall(framed(message))
        except OSError:
            raise WorkerLost(self._death()) from None

    def _receive(self, deadline: float, doing: str, limit: float) -> Any:
        head = self._read(4, deadline, doing, limit)
        length = int.from_bytes(head, "big")
        if length > MESSAGE_LIMIT:
            raise WorkerLost(f"the worker process sent garbage: a message of {length} bytes")
        try:
            return json.loads(self._read(length, deadline, doing, limit))
        except ValueError as error:
            raise WorkerLost(f"the worker process sent garbage: {error}") from None

    def _read(self, count: int, deadline: float, doing: str, limit: float) -> bytes:
        data, poll = b"", select.poll()
        poll.register(self._socket, select.POLLIN)
        while len(data) < count:
            if not poll.poll(max(0.0, deadline - _now()) * 1000):
                raise WorkerLost(
                    f"it hung: the worker process took more than {limit:g} real seconds {doing}, and was killed. "
                    f"Its threads:\n{self._read_stacks()}"
                )
            part = os.read(self._socket.fileno(), min(count - len(data), 1 << 20))
            if not part:
                raise WorkerLost(self._death())
            data += part
        return data

    def _read_stacks(self) -> str:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, STACKS_SIGNAL)
        until, text = _now() + _STACKS, ""
        while _now() < until:
            select.poll().poll(20)
            self._stacks.seek(0)
            found = self._stacks.read().decode("utf-8", "replace")
            if found and found == text:
                break
            text = found
        return text or "(none could be had)"

    def _death(self) -> str:
        try:
            status = self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            return "the worker process closed its connection, and was killed"
        if status < 0:
            return f"it ended the worker process: killed by {_signal_name(-status)}"
        return f"it ended the worker process: exit status {status}"

    def close(self) -> None:
        """Lets the worker finish, tear down and exit; kills it, and what is left of its group, after 10 s."""
        self._socket.close()
        self._end(_now() + _ENDING)

    def kill(self) -> None:
        """Ends it and its group at once."""
        self._socket.close()
        self._end(0.0)

    def _end(self, deadline: float) -> None:
        if self._process.returncode is None:
            # It is not reaped before its group is killed, so that the group's number is still its own.
            while _now() < deadline and os.waitid(os.P_PID, self._process.pid, _PEEK) is None:
                select.poll().poll(5)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stacks.close()


_PEEK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def framed(message: Any) -> bytes:
    """As it is sent."""
    data = json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data


def _now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)  # which no virtual clock moves


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def plain(values: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """Those values that JSON holds as they are."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name in without:
            continue
        with contextlib.suppress(TypeError, ValueError):
            if json.loads(json.dumps(value)) == value:
                kept[name] = value
    return kept
