"""The socket that native clients talk to: one thread, which never sleeps and never waits on a clock.

A late answer is an entry in a heap. On a real clock the thread's own timeout gets it out; a clock that jumps is told
who waits until when, and wakes the thread when it gets there.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import heapq
import itertools
import logging
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from fake_gpu.clock import Cancel
from fake_gpu.nvml.abi import checksum
from fake_gpu.nvml.codes import CODES
from fake_gpu.nvml.dispatch import NEVER, BadRequest, Session, failure
from fake_gpu.smi.execution import Execution, broken, execute

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.llama.servers import LlamaSession

log = logging.getLogger("fake_gpu.server")

FRAME_LIMIT = 1 << 20
_HELLO = struct.Struct("<4sBBHIi")
_CREDENTIALS = struct.Struct("3i")
_U32 = struct.Struct("<I")
_PROTOCOL_VERSION = 1
_MISMATCH = _U32.pack(CODES["LIB_RM_VERSION_MISMATCH"])


class ProtocolError(Exception):
    """What came over a connection is not of this protocol."""


class Connection:
    """One client: a thread of a process that uses NVML, or a run of nvidia-smi."""

    __slots__ = ("cancel_wait", "incoming", "llama", "mismatch", "outgoing", "pid", "role", "session", "socket")

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.socket = sock
        self.pid = pid
        self.role = ""
        self.mismatch = False
        self.session: Session | None = None
        self.llama: LlamaSession | None = None
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.cancel_wait: Cancel | None = None

    def frames(self) -> list[bytes]:
        """The whole frames that have come in. Raises ProtocolError for a length that cannot be."""
        found = []
        while len(self.incoming) >= 4:
            (length,) = _U32.unpack_from(self.incoming)
            if not 0 < length <= FRAME_LIMIT:
                raise ProtocolError(f"a frame of {length} bytes; 1 to {FRAME_LIMIT} are possible")
            if len(self.incoming) < 4 + length:
                break
            found.append(bytes(self.incoming[4 : 4 + length]))
            del self.incoming[: 4 + length]
        return found


class _LlamaLink:
    """A connection, as a fake llama-server's logic sees it."""

    def __init__(self, server: Server, connection: Connection) -> None:
        self._server, self._connection = server, connection
        self.pid = connection.pid

    def send(self, data: bytes) -> None:
        self._server._send(self._connection, data)

    def wait(self, delay_ns: int, then: Callable[[], None]) -> None:
        self._server._after(self._connection, delay_ns, then)


class Server:
    """Listens on a Unix socket in the driver's private directory until `close`."""

    def __init__(self, driver: Driver, path: str) -> None:
        self._driver = driver
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(path)
        self._listener.listen(128)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._epoll.register(self._wakeup, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._sessions: dict[int, Session] = {}
        self._session_of: dict[int, int] = {}  # PIDs of clients by their pidfds
        self._late: list[tuple[int, int, Connection, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._watched: set[int] = set()
        self._stopping = False
        self._interrupt: Callable[[], bool] | None = None
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        # Not threading.Thread: a virtual clock takes threads that are started under it for its own.
        _thread.start_new_thread(self._run, ())

    # -- called by other threads

    def watch(self, pidfd: int) -> None:
        """Has the driver notice at once when the process behind `pidfd` dies."""
        self._watched.add(pidfd)
        self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def forget(self, pidfd: int) -> None:
        """Before `pidfd` is closed: its number will be another descriptor's."""
        self._watched.discard(pidfd)
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(pidfd)

    def interrupt_soon(self, is_answering: Callable[[], bool]) -> None:
        """Has the main thread interrupted, as by Ctrl-C, at a moment at which it does not answer a call."""
        self._interrupt = is_answering
        self.wake()

    def wake(self) -> None:
        """Has the thread look at what is due. Safe from any thread, and from a clock's callback."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """Ends the thread and every connection: blocked clients find no driver."""
        self._stopping = True
        self.wake()
        self._ended.acquire()
        self._let_go()

    def forked(self) -> None:
        """In a forked child: closes the copies of the descriptors; there is no thread here."""
        self._let_go()

    def _let_go(self) -> None:
        for connection in list(self._connections.values()):
            connection.socket.close()
        self._connections.clear()
        self._listener.close()
        self._epoll.close()
        for descriptor in (self._wakeup, self._spare, *self._session_of):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    # -- the thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                events = self._epoll.poll(self._timeout())
                for fd, _ in events:
                    self._handle(fd)
                self._answer_what_is_due()
                # A moment after it was asked for, so that whoever asked has gone on.
                if self._interrupt is not None and not events and not self._interrupt():
                    self._interrupt = None
                    _thread.interrupt_main()
        except BaseException as error:
            log.exception("the fake driver's server ended")
            self._driver.keep(error)
        finally:
            for connection in list(self._connections.values()):
                self._drop(connection)
            self._listener.close()  # whoever comes now finds no driver, instead of waiting for an answer
            self._ended.release()

    def _timeout(self) -> float | None:
        if self._interrupt is not None:
            return 0.001
        if not self._late or not self._driver.clock.is_real_time:
            return None
        return max(0.0, (self._late[0][0] - self._driver.clock.monotonic_ns()) / 1e9)

    def _handle(self, fd: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        elif fd == self._wakeup:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)
        elif fd in self._watched:
            self._watched.discard(fd)  # it is registered for one event
            self._driver.notice()
        elif fd in self._session_of:
            self._sessions.pop(self._session_of.pop(fd), None)
            self._epoll.unregister(fd)
            os.close(fd)
        elif fd in self._connections:
            self._serve(self._connections[fd])

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or self._spare < 0:
                    raise
                self._turn_away(error)
                return
            sock.setblocking(False)
            pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            if uid not in (os.getuid(), 0):  # the directory is private, but a descriptor can be passed on
                sock.close()
                return
            connection = Connection(sock, pid)
            self._connections[sock.fileno()] = connection
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            self._serve(connection)  # most clients have spoken by now

    def _turn_away(self, error: OSError) -> None:
        """This process has no descriptor left: the client finds no driver, instead of waiting, and the test is told."""
        self._driver.keep(error)
        os.close(self._spare)
        self._spare = -1
        try:
            sock, _ = self._listener.accept()
            sock.close()
        finally:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _serve(self, connection: Connection) -> None:
        try:
            if connection.outgoing:
                self._flush(connection)
            try:
                data = connection.socket.recv(1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._drop(connection)
                return
            connection.incoming += data
            if not connection.role and not self._greet(connection):
                return
            for frame in connection.frames():
                self._answer(connection, frame)
        except (OSError, ProtocolError, BadRequest) as error:
            log.debug("connection of process %d dropped: %s", connection.pid, error)
            self._drop(connection)
        except Exception as error:
            self._driver.keep(error)
            self._drop(connection)

    def _greet(self, connection: Connection) -> bool:
        if len(connection.incoming) < _HELLO.size:
            if not b"FGPU".startswith(bytes(connection.incoming[:4])):
                raise ProtocolError("it does not begin with a greeting")
            return False
        magic, version, role, _, table, forked_from = _HELLO.unpack_from(connection.incoming)
        del connection.incoming[: _HELLO.size]
        if magic != b"FGPU" or chr(role) not in "NSL":
            raise ProtocolError("it does not begin with a greeting")
        if version != _PROTOCOL_VERSION:
            raise ProtocolError(f"protocol version {version}, not {_PROTOCOL_VERSION}")
        connection.role = chr(role)
        if connection.role == "N":
            connection.mismatch = table != checksum()
            connection.session = self._session(connection.pid, forked_from)
        elif connection.role == "L":
            connection.llama = self._driver.llama.session(_LlamaLink(self, connection))
        return True

    def _session(self, pid: int, forked_from: int) -> Session:
        """What NVML keeps for a process, for as long as that lives: connections come and go with its threads."""
        if pid not in self._sessions:
            with contextlib.suppress(OSError):  # it is gone already, or cannot be watched: then it is kept
                pidfd = os.pidfd_open(pid)
                self._session_of[pidfd] = pid
                self._epoll.register(pidfd, select.EPOLLIN)
            parent = self._sessions.get(forked_from)
            if forked_from == os.getpid():
                parent = self._driver.own_session
            self._sessions[pid] = Session(pid, 0 if parent is None else parent.initialised)
        return self._sessions[pid]

    def _answer(self, connection: Connection, frame: bytes) -> None:
        if connection.llama is not None:
            connection.llama.frame(frame)
            return
        if connection.role == "S":
            self._obey(connection, lambda: execute(self._driver, frame, connection.pid))
            return
        if connection.mismatch:
            self._send(connection, _U32.pack(4) + _MISMATCH)
            return
        if len(frame) < 4 or connection.session is None:
            raise ProtocolError("a call without a function")
        try:
            reply, delay = self._driver.nvml.call(_U32.unpack_from(frame)[0], frame[4:], connection.session)
        except BadRequest:
            raise
        except Exception as error:  # a mistake in our own code, or in what a test has put into the model
            self._driver.keep(error)
            reply, delay = failure("UNKNOWN"), 0
        self._send_after(connection, _U32.pack(len(reply)) + reply, delay)

    def _obey(self, connection: Connection, asked: Callable[[], Execution]) -> None:
        try:
            execution = asked()
        except BadRequest:
            raise
        except Exception as error:
            self._driver.keep(error)
            execution = broken()
        if execution.at_once:
            self._send(connection, execution.at_once)
        self._send_after(connection, execution.orders, execution.delay_ns, execution)

    def _send_after(self, connection: Connection, data: bytes, delay_ns: int, then: Execution | None = None) -> None:
        self._after(connection, delay_ns, lambda: self._deliver(connection, data, then))

    def _after(self, connection: Connection, delay_ns: int, call: Callable[[], None]) -> None:
        """Has `call` called so much later (NEVER: not at all); until then the client waits."""
        if delay_ns == 0:
            call()
        else:
            self._later(connection, delay_ns, call)

    def _later(self, connection: Connection, delay_ns: int, call: Callable[[], None]) -> None:
        deadline = None if delay_ns == NEVER else self._driver.clock.monotonic_ns() + delay_ns
        if deadline is not None:
            heapq.heappush(self._late, (deadline, next(self._sequence), connection, call))
        connection.cancel_wait = self._driver.clock.client_waits(connection.pid, deadline, self.wake)

    def _deliver(self, connection: Connection, data: bytes, then: Execution | None) -> None:
        self._send(connection, data)
        if then is not None and then.again is not None:
            again = then.again
            self._later(connection, then.again_ns, lambda: self._obey(connection, again))

    def _answer_what_is_due(self) -> None:
        if not self._late:
            return
        now = self._driver.clock.monotonic_ns()
        while self._late and self._late[0][0] <= now:
            _, _, connection, call = heapq.heappop(self._late)
            if connection.socket.fileno() < 0:
                continue  # it went away meanwhile
            connection.cancel_wait = None
            try:
                call()
            except OSError:
                self._drop(connection)
            except Exception as error:
                self._driver.keep(error)
                self._drop(connection)

    def _send(self, connection: Connection, data: bytes) -> None:
        connection.outgoing += data
        self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            while connection.outgoing:
                sent = connection.socket.send(connection.outgoing, socket.MSG_NOSIGNAL)
                del connection.outgoing[:sent]
        except BlockingIOError:
            pass
        interest = select.EPOLLIN | (select.EPOLLOUT if connection.outgoing else 0)
        self._epoll.modify(connection.socket.fileno(), interest)

    def _drop(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        if self._connections.pop(fd, None) is None:
            return
        if connection.cancel_wait is not None:
            connection.cancel_wait()
        with contextlib.suppress(OSError, KeyError):
            self._epoll.unregister(fd)
        connection.socket.close()
