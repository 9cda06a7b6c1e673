"""What `/proc` says about a process: its parent, its processor time, what a signal will do to it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

# Default action: nothing, or a stop that only SIGCONT ends. The process does not die and runs no code by them.
_HARMLESS = frozenset(
    {
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGURG,
        signal.SIGWINCH,
    }
)
DIES, HANDLES, IGNORES = "dies", "handles", "ignores"


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        # ProcessLookupError too: the process ended between open and read.
        return ""


def _stat(of: int | str) -> list[str]:
    # The name, in parentheses, may contain anything; state is the field after it (proc(5)).
    return _read(f"/proc/{of}/stat").rpartition(")")[2].split()


def parent(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[1]) if stat else None


def ancestors(pid: int) -> list[int]:
    """Parents of a process, nearest first, up to this one (excluded) or to init."""
    found: list[int] = []
    above = parent(pid)
    while above is not None and above > 1 and above != os.getpid() and above not in found:
        found.append(above)
        above = parent(above)
    return found


def activity(pid: int) -> tuple[bool, int]:
    """Whether the process or one below it runs this moment (or waits for a disk), and their processor ticks."""
    runs, ticks = False, 0
    below = [pid]
    while below:
        pid = below.pop()
        stat = _stat(pid)
        if not stat:
            continue
        runs = runs or stat[0] in ("R", "D")
        ticks += sum(int(field) for field in stat[11:15])
        below += _children(pid)
    return runs, ticks


def _children(pid: int | str) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")  # names, not paths
    except OSError:
        return []
    return [int(child) for task in tasks for child in _read(f"/proc/{pid}/task/{task}/children").split()]


def has_children() -> bool:
    """Whether this process has any that live, whoever started them: but for multiprocessing's own that serve nobody."""
    return any(not (pid in _servants() and not _children(pid)) for pid in _children("self") if not _is_dead(pid))


def _is_dead(pid: int) -> bool:
    """Whether it is a zombie, for which nobody has waited, or gone."""
    return _stat(pid)[:1] in ([], ["Z"], ["X"])


def _servants() -> set[int | None]:
    """The resource tracker and the fork server, which live as long as this process."""
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    server: Any = sys.modules.get("multiprocessing.forkserver")
    return {
        None if tracker is None else getattr(tracker._resource_tracker, "_pid", None),
        None if server is None else getattr(server._forkserver, "_forkserver_pid", None),
    }


def thread_runs(native: int) -> bool:
    """Whether a thread of this process runs, or would if it got a processor, or waits for a disk."""
    stat = _stat(f"self/task/{native}")
    return bool(stat) and stat[0] in ("R", "D")


def fate(pid: int, number: int) -> str:
    """What the process will do on a signal: die of it, handle it, or ignore it."""
    if number == signal.SIGKILL:
        return DIES
    status = dict(line.split(":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":" in line)
    bit = 1 << (number - 1)
    if bit & (int(status.get("SigIgn", "0"), 16) | int(status.get("SigBlk", "0"), 16)):
        return IGNORES
    if bit & int(status.get("SigCgt", "0"), 16):
        return HANDLES
    return IGNORES if number in _HARMLESS else DIES
