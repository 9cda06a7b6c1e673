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
from collections.abc import Callable, Iterable, Iterator

from pytest_vramsettle.clock import real

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


class _Connection:
    """A socket that is one end of a connection. `inside`: the other end is in this process."""

    __slots__ = ("_since", "_vain", "inside", "stream")

    def __init__(self, stream: bool, inside: bool) -> None:
        self.inside = inside
        # TCP tells when something was sent and received.
        self.stream = stream
        self._since = 0.0
        self._vain = 0

    def is_busy(self, fd: int, since: float, beside_others: Callable[[], bool]) -> bool:
        if self.inside and not (self.stream and beside_others()):
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
_ON_ITS_WAY = _Connection(stream=True, inside=False)


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
            if connection is not None and connection.is_busy(fd, since, beside_others):
                return True
        return False

    def may_come(self, fds: Iterable[int]) -> bool:
        """Whether anybody outside of this process might ever bring something on one of these."""
        return any((connection := self._connection(fd)) is None or not connection.inside for fd in fds)

    def came(self, fds: Iterable[int]) -> None:
        """Something was ready."""
        for fd in fds if self._mute else ():
            connection = self._connection(fd)
            if connection is not None:
                connection.came()

    def _connection(self, fd: int) -> _Connection | None:
        """None for what is no connection: a pipe, a server's socket."""
        try:
            status = os.fstat(fd)
            if status.st_ino not in self._known:
                found = _look_at(fd) if stat.S_ISSOCK(status.st_mode) else None
                if found is None or found is _ON_ITS_WAY:
                    return found
                self._known[status.st_ino] = found
                self._mute = self._mute or not (found.stream or found.inside)
            return self._known[status.st_ino]
        except OSError:
            # It was closed meanwhile.
            return None


def _look_at(fd: int) -> _Connection | None:
    with _borrowed(fd) as one:
        if one.family == socket.AF_UNIX:
            pid, uid, _ = _PEER.unpack(one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            return None if uid == _NOBODY else _Connection(False, pid == os.getpid())
        if one.family not in (socket.AF_INET, socket.AF_INET6) or one.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            return None
        stream = one.type == socket.SOCK_STREAM
        try:
            host, port = one.getpeername()[:2]
        except OSError:
            # It is not connected yet, or answers anybody.
            return _ON_ITS_WAY if stream else None
        return _Connection(stream, host == one.getsockname()[0] and port in _own_ports(but=fd))


def _own_ports(but: int) -> set[int]:
    """The ports of this process's other sockets, those of servers among them."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) != but and stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with _borrowed(int(name)) as one:
                    if one.family in (socket.AF_INET, socket.AF_INET6):
                        found.add(one.getsockname()[1])
    return found


def _still_for(fd: int, waited: float) -> float:
    """Seconds since the last traffic of a TCP socket, as the kernel tells."""
    with _borrowed(fd) as one:
        info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED + _MILLISECONDS.size)
    if info[0] == _CONNECTING:
        return waited
    return float(min(_MILLISECONDS.unpack_from(info, place)[0] for place in (_SENT, _RECEIVED))) / 1000


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket object for a descriptor that belongs to another one."""
    one = socket.socket(fileno=fd)
    try:
        yield one
    finally:
        one.detach()
