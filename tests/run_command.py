"""`fake-gpu run` as a command, with and without a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

COMMAND = [sys.executable, "-c", "from pytest_vramsettle.cli import fake_gpu; fake_gpu()", "run"]


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], input=stdin, capture_output=True, text=True, timeout=30, check=False)


class Terminal:
    """A pseudo terminal and what its session has written there."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.text = ""

    def expect(self, wanted: str) -> None:
        """Reads until `wanted` is there, and forgets up to it."""
        while wanted not in self.text:
            ready, _, _ = select.select([self.fd], [], [], 20)
            try:
                more = os.read(self.fd, 4096) if ready else b""
            except OSError:  # the other end is closed
                more = b""
            if not more:
                raise AssertionError(f"{wanted!r} did not come; there is {self.text!r}")
            self.text += more.decode()
        self.text = self.text.partition(wanted)[2]

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def hang_up(self) -> None:
        """Closes it."""
        os.close(self.fd)
        self.fd = -1

    def wait(self) -> int:
        """The exit status of what runs there when it has ended, -n where signal n ended it."""
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def terminal(words: list[str]) -> Iterator[Terminal]:
    """Has it in the foreground of a terminal of its own, and kills it afterwards."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(words[0], words)
    there = Terminal(pid, fd)
    try:
        yield there
    finally:
        if there.fd >= 0:
            there.hang_up()
        if there.pid:
            os.kill(pid, signal.SIGKILL)
            there.wait()
