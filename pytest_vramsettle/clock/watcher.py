"""The clock's own thread: it sees children exit, and moves the clock for those who must not do it themselves.

A raw thread, started with the first child or second thread: it appears in no list of threads, and a clock without
either has none.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import select
from collections.abc import Callable


class Watcher:
    """Calls `look(fds)` with the watched descriptors that are ready, after a poke, and every `period()` seconds."""

    def __init__(self, look: Callable[[list[int]], None], period: Callable[[], float | None]) -> None:
        self._look = look
        self._period = period
        # Whether it sleeps until it is poked, or may do so presently.
        self._asleep = True
        self._stopping = False
        self._running: _thread.LockType | None = None
        self._mu = _thread.allocate_lock()
        self._epoll: select.epoll | None = None
        self._eventfd = -1

    def start(self) -> None:
        """Idempotent, and nothing at all once the watcher was stopped."""
        with self._mu:
            if self._running is not None or self._stopping:
                return
            self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll = select.epoll()
            self._epoll.register(self._eventfd, select.EPOLLIN)
            self._running = _thread.allocate_lock()
            self._running.acquire()
            _thread.start_new_thread(self._run, (self._epoll, self._running))

    def add(self, fd: int) -> None:
        self.start()
        if self._epoll is not None:
            self._epoll.register(fd, select.EPOLLIN)
            # It may sleep without a limit, having had nothing to look at.
            self.poke()

    def remove(self, fd: int) -> None:
        if self._epoll is not None and not self._epoll.closed:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def poke(self) -> None:
        self.start()
        with self._mu:
            if self._epoll is not None:
                os.eventfd_write(self._eventfd, 1)

    def rouse(self) -> None:
        """There is something to look at every now and then."""
        if self._asleep:
            self.poke()

    def _run(self, epoll: select.epoll, running: _thread.LockType) -> None:
        try:
            while not self._stopping:
                self._asleep = True
                period = self._period()
                self._asleep = period is None
                fds = [fd for fd, _ in epoll.poll(period)]
                if self._eventfd in fds:
                    fds.remove(self._eventfd)
                    os.eventfd_read(self._eventfd)
                if not self._stopping:
                    self._look(fds)
        finally:
            running.release()

    def stop(self) -> None:
        self._stopping = True
        if self._running is None:
            return
        os.eventfd_write(self._eventfd, 1)
        # It never waits for anything of the caller's for long; should it, its descriptors are left to it.
        if self._running.acquire(timeout=5.0):
            with self._mu:
                if self._epoll is not None:
                    self._epoll.close()
                    self._epoll = None
                    os.close(self._eventfd)
