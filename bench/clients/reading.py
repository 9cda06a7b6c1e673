"""What the readers share. Run by each client's own interpreter, so it needs the standard library alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MIB = 1 << 20
GIB = 1 << 30

Card = dict[str, Any]
"""What a client says of a card, in bytes: some of name, uuid, total, used, free, percent, watts, processes, error."""

Reader = Callable[[], list[Card]]

MARK = "cards of the client: "
"""Before the JSON: clients print what they like."""

_SCREEN = (50, 160)
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


def main(readers: dict[str, Reader]) -> None:
    """Runs the reader that the first argument names, and says what it read."""
    place = os.environ.pop("PYTHONPATH")  # was for this module; the client is to see none of it
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != place]
    cards = readers[sys.argv[1]]()
    print(f"\n{MARK}{json.dumps(cards)}", flush=True)


def program(name: str) -> str:
    """A program of this client's environment."""
    return str(Path(sys.executable).parent / name)


def output(*command: str, **changes: str) -> str:
    """What a command prints to stdout. Raises RuntimeError with the end of its stderr where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **changes})
    if done.returncode != 0:
        told = (done.stderr or done.stdout).strip().splitlines() or [""]
        raise RuntimeError(f"exit status {done.returncode}: {told[-1]}")
    return done.stdout


def screen(*command: str, until: Callable[[str], bool], seconds: float = 20.0, keys: str = "q") -> str:
    """The text that a full-screen program has written when `until` is content with it, or after some seconds.

    Moves of the cursor are line ends. The program is then sent `keys`, and killed if it stays.
    """
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", LINES=str(_SCREEN[0]), COLUMNS=str(_SCREEN[1]))
        os.execvp(command[0], command)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *_SCREEN, 0, 0))
    raw, text, end = b"", "", time.monotonic() + seconds
    while time.monotonic() < end and not until(text):
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            more = os.read(fd, 1 << 16)
        except OSError:  # it has ended
            break
        raw += more
        text = _ESCAPE.sub(lambda match: "\n" if match[0][-1] in "Hd" else "", raw.decode(errors="replace"))
    with contextlib.suppress(OSError):
        os.write(fd, keys.encode())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(fd)
    return text


def held(processes: Iterable[Any], pid: str = "pid", memory: str = "usedGpuMemory", unit: int = 1) -> dict[str, int]:
    """Bytes by PID, of objects or of mappings."""
    found = [
        one if isinstance(one, dict) else {name: getattr(one, name) for name in (pid, memory)} for one in processes
    ]
    return {str(one[pid]): one[memory] * unit for one in found}


def of_memory(memory: Any) -> Card:
    """The sizes of NVML's structure, or of another with the same names."""
    return {"total": memory.total, "used": memory.used, "free": memory.free}
