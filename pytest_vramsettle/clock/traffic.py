"""Traffic with other processes: what is on its way must not lose against a timeout of a clock that jumps.

A socket whose other end is in another process may bring something at any moment of real time. So no jump is made until
there has been no traffic on it for a while. What a child of the clock does needs none of this: it holds the clock.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable

from pytest_vramsettle.clock import real, sockets

QUIET = 0.05
"""Real seconds without traffic after which nothing more is waited for."""

# How many waits in a row are held up for a socket that does not tell its traffic, while nothing comes.
_IN_VAIN = 20
# From linux/tcp.h: the state is the first byte; at these places are the milliseconds since data was sent and received.
_CONNECTING = 2
_SENT, _RECEIVED = 44, 52
_MILLISECONDS = struct.Struct("I")
# pid, uid and gid of who made the other end (unix(7)); the uid of nobody where there is none.
_PEER = struct.Struct("=iII")
_NOBODY = 0xFFFFFFFF
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class _Connection:
    """A socket that is one end of a connection.

    `inside`: the other end is in this process. `stream`: it is TCP, which tells when something was sent and received.
    `private`: one of a pair, whose ends no stranger has.
    """

    __slots__ = ("_since", "_vain", "inside", "private", "stream")

    def __init__(self, *, inside: bool, stream: bool = False, private: bool = False) -> None:
        self.inside = inside
        self.stream = stream
        self.private = private
        self._since = 0.0
        self._vain = 0

    def is_busy(self, fd: int, since: float, beside_others: Callable[[], bool]) -> bool:
        """Raises OSError where the descriptor was closed meanwhile."""
        if self.inside and (self.private or not beside_others()):
            return False
        waited = real.monotonic() - since
        if self.stream:
            return _still_for(fd, waited) < QUIET
        if since > self._since:
            self._since = since
            self._vain += 1
        return waited < QUIET and self._vain <= _IN_VAIN

    def came(self) -> None:
        self._vain = 0


# Its other end may turn out to be anywhere.
_ON_ITS_WAY = _Connection(inside=False, stream=True)


class Traffic:
    """Looks at the descriptors that threads wait for in selectors. The engine's mutex is held."""

    def __init__(self) -> None:
        # By inode, which is the socket's own; a descriptor's number is given out again.
        self._known: dict[int, _Connection] = {}
        # Whether one of them does not tell its traffic.
        self._mute = False

    def under_way(self, fds: Iterable[int], since: float, beside_others: Callable[[], bool]) -> bool:
        """Whether something may be about to come, for a thread that has waited for it since that real time.

        `beside_others`: whether threads in real time may serve connections inside this process.
        """
        for fd in fds:
            connection = self._connection(fd)
            with contextlib.suppress(OSError):
                if connection is not None and connection.is_busy(fd, since, beside_others):
                    return True
        return False

    def may_come(self, fds: Iterable[int], beside_strangers: Callable[[], bool]) -> bool:
        """Whether anybody outside of this process might ever bring something on one of these.

        `beside_strangers`: whether this process has children that the clock does not know: one of a pair may be theirs.
        """
        return any(
            (connection := self._connection(fd)) is None
            or not connection.inside
            or (connection.private and beside_strangers())
            for fd in fds
        )

    def came(self, fds: Iterable[int]) -> None:
        """Something was ready."""
        for fd in fds if self._mute else ():
            connection = self._connection(fd)
            if connection is not None:
                connection.came()

    def _connection(self, fd: int) -> _Connection | None:
        """None for what is no connection: a pipe, a server's socket, a descriptor that was closed meanwhile."""
        try:
            status = os.fstat(fd)
            if not stat.S_ISSOCK(status.st_mode):
                return None
            if status.st_ino not in self._known:
                found = _look_at(fd)
                if found is None or found is _ON_ITS_WAY:
                    return found
                self._known[status.st_ino] = found
                self._mute = self._mute or not (found.stream or found.private)
            return self._known[status.st_ino]
        except OSError:
            return None


def _look_at(fd: int) -> _Connection | None:
    family = sockets.number(fd, socket.SO_DOMAIN)
    if family == socket.AF_UNIX:
        pid, uid, _ = _PEER.unpack(sockets.option(fd, socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        named = sockets.is_named(sockets.name(fd)) or sockets.is_named(sockets.peer(fd))
        return None if uid == _NOBODY else _Connection(inside=pid == os.getpid(), private=not named)
    if family not in _INTERNET or sockets.number(fd, socket.SO_ACCEPTCONN):
        return None
    kind = sockets.number(fd, socket.SO_TYPE)
    stream = kind == socket.SOCK_STREAM
    try:
        address = sockets.peer(fd)
    except OSError:
        # It is not connected yet, or answers anybody.
        return _ON_ITS_WAY if stream else None
    here = sockets.host(address) == sockets.host(sockets.name(fd))
    return _Connection(inside=here and sockets.port(address) in _own_ports(kind, but=fd), stream=stream)


def _own_ports(kind: int, but: int) -> set[int]:
    """The ports of this process's other sockets of a kind, those of servers among them."""
    found = set()
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if number != but and stat.S_ISSOCK(os.fstat(number).st_mode):
                address = sockets.name(number)
                if sockets.family(address) in _INTERNET and sockets.number(number, socket.SO_TYPE) == kind:
                    found.add(sockets.port(address))
    return found


def _still_for(fd: int, waited: float) -> float:
    """Seconds since the last traffic of a TCP socket, as the kernel tells. Raises OSError."""
    info = sockets.option(fd, socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED + _MILLISECONDS.size)
    if info[0] == _CONNECTING:
        return waited
    return float(min(_MILLISECONDS.unpack_from(info, place)[0] for place in (_SENT, _RECEIVED))) / 1000
