"""The processes that a server has started, as far as they can be seen from here: it has to be on this machine."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable

from pytest_vramsettle import _procfs
from pytest_vramsettle._procfs import ProcessIdentity
from pytest_vramsettle.smoke.report import Step

_LOOK_S = 0.005
_TITLE, _EXPECTED = "processes afterwards", "no process left"


class Processes:
    """What has been seen during a run. `leader` is the server's own process, if it is known.

    `gone_within`: seconds that what was killed may take to be gone.
    """

    def __init__(self, host: str, leader: int | None, gone_within: float) -> None:
        self._gone_within = gone_within
        self._is_local = _is_loopback(host)
        self._leader = leader
        self._before = frozenset(self._children())
        self._seen: dict[ProcessIdentity, None] = {}

    def saw(self, pid: int) -> None:
        """The server told of this process: it and what it has started are to be gone in the end."""
        if self._is_local:
            self._seen |= dict.fromkeys(_procfs.tree(pid))

    def left(self) -> tuple[str, ...]:
        """Which of those that were seen still live, after a moment if need be; in words."""
        return tuple(f"process {process.pid} ({_name(process.pid)}) is left" for process in self._living(self._seen))

    def step(self) -> Step:
        """The look for what is left, at the end."""
        if not self._is_local or not (self._seen or self._leader):
            note = "no PID is known" if self._is_local else "the server is on another machine"
            return Step(_TITLE, "", _EXPECTED, "not checked", 0.0, notes=(note,))
        started = time.monotonic()
        self._seen |= dict.fromkeys(child for child in self._children() if child not in self._before)
        problems = self.left()
        seconds = time.monotonic() - started
        return Step(_TITLE, "", _EXPECTED, "failed" if problems else "passed", seconds, problems)

    def _children(self) -> tuple[ProcessIdentity, ...]:
        return () if self._leader is None else _procfs.tree(self._leader)[1:]

    def _living(self, processes: Iterable[ProcessIdentity]) -> list[ProcessIdentity]:
        """Those that do not die within a moment."""
        living, deadline = list(dict.fromkeys(processes)), time.monotonic() + self._gone_within
        while living := [process for process in living if _procfs.is_alive(process)]:
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_S)
        return living


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "its name is not known"
