"""Processes by identity, from /proc: a PID alone is not one, because the kernel hands it out again.

Where there is no /proc, a process is its PID alone, without its children.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

_PROC = "/proc"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A PID and the start time that tells it from an earlier or later owner of the number.

    `start` is in clock ticks since boot (field 22 of /proc/PID/stat); None where that cannot be read.
    """

    pid: int
    start: int | None


class _Stat(NamedTuple):
    state: str
    parent: int
    start: int


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"{_PROC}/{pid}/stat", "rb") as file:
            text = file.read().decode("ascii", "replace")
    except OSError:
        return None
    # The command's name is in parentheses and may itself contain spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20:
        return None
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def _has_procfs() -> bool:
    return os.access(f"{_PROC}/self/stat", os.F_OK)


def _ended(pid: int, stat: _Stat) -> bool:
    if stat.state not in "ZXx":
        return False
    # A process whose first thread alone has ended looks like a zombie, and lives.
    try:
        return len(os.listdir(f"{_PROC}/{pid}/task")) <= 1
    except OSError:
        return True


def _answers_signal_0(pid: int) -> bool:
    if os.name == "nt":
        # There, os.kill(pid, 0) would end the process; nothing in the standard library tells.
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def identify(pid: int) -> ProcessIdentity | None:
    """The living process with that PID, or None; a zombie has died."""
    stat = _stat(pid)
    if stat is not None:
        return None if _ended(pid, stat) else ProcessIdentity(pid, stat.start)
    if _has_procfs():
        return None
    # Without /proc on Windows, assume that the caller names a process that is there.
    return ProcessIdentity(pid, None) if os.name == "nt" or _answers_signal_0(pid) else None


def is_zombie(pid: int) -> bool:
    """True for a process that has died and was not reaped by its parent yet."""
    stat = _stat(pid)
    return stat is not None and _ended(pid, stat)


def is_alive(process: ProcessIdentity) -> bool:
    """Whether that very process lives; False when its PID belongs to another one by now."""
    stat = _stat(process.pid)
    if stat is not None:
        return stat.start == process.start and not _ended(process.pid, stat)
    return not _has_procfs() and _answers_signal_0(process.pid)


def is_reused(process: ProcessIdentity) -> bool:
    """True when the PID belongs to a living process that is not this one."""
    now = identify(process.pid)
    return now is not None and process.start is not None and now.start != process.start


def tree(pid: int) -> tuple[ProcessIdentity, ...]:
    """The living process `pid` and its living descendants, itself first. Empty when it does not live."""
    leader = identify(pid)
    if leader is None:
        return ()
    found = {pid: leader}
    queue = [pid]
    parents: dict[int, list[int]] | None = None
    while queue:
        parent = queue.pop()
        children = _children_from_tasks(parent) if parents is None else parents.get(parent, [])
        if children is None:  # a kernel built without CONFIG_PROC_CHILDREN
            parents = _children_by_parent()
            children = parents.get(parent, [])
        for child in children:
            identity = identify(child) if child not in found else None
            if identity is not None:
                found[child] = identity
                queue.append(child)
    return tuple(found.values())


def _children_from_tasks(pid: int) -> list[int] | None:
    children: list[int] = []
    try:
        tasks = os.listdir(f"{_PROC}/{pid}/task")
    except OSError:
        return []
    for task in tasks:
        try:
            with open(f"{_PROC}/{pid}/task/{task}/children", "rb") as file:
                children.extend(map(int, file.read().split()))
        except FileNotFoundError:
            if os.access(f"{_PROC}/{pid}/task/{task}", os.F_OK):
                return None
        except OSError:
            continue
    return children


def _children_by_parent() -> dict[int, list[int]]:
    by_parent: dict[int, list[int]] = {}
    for name in os.listdir(_PROC):
        stat = _stat(int(name)) if name.isdigit() else None
        if stat is not None:
            by_parent.setdefault(stat.parent, []).append(int(name))
    return by_parent
