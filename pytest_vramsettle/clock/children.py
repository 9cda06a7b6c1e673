"""Child processes on the clock: which of them hold it.

A child that was started by a thread of the clock holds it, in real time, until it exits, is known to wait for an answer
of the driver's, is detached, or has used no processor for `grace` real seconds. A client that is no such child (one
that a shell started, or a stranger) is followed by its own PID, and holds only between an answer and its next question.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from pytest_vramsettle.clock import proc, real
from pytest_vramsettle.clock.child import Child
from pytest_vramsettle.clock.engine import Engine
from pytest_vramsettle.clock.traffic import QUIET
from pytest_vramsettle.clock.waits import CANCELLED, NOTIFIED, Callback
from pytest_vramsettle.clock.watchdog import PERIOD, Watchdog
from pytest_vramsettle.clock.watcher import Watcher

# How often, in real seconds, children are looked at.
_PERIOD = 0.02
# A process that has a handler for a signal, and was at rest, has come to rest again: real seconds without work.
_HANDLED = 0.05


class ClientWait(Callback):
    """A client's wait for an answer: the clock calls `wake` when it is due."""

    __slots__ = ("child", "children")

    def __init__(self, children: Children, child: Child | None, pid: int, wake: Callable[[], None]) -> None:
        super().__init__(f"answer for process {pid}", wake)
        self.children = children
        self.child = child

    def due(self) -> None:
        if self.child is not None:
            self.children.answered(self.child, self)


class Children:
    """All methods take the engine's mutex themselves, except where they say that it is held."""

    def __init__(self, grace: float, seed: int | None = None) -> None:
        self.grace = grace
        self.watcher = Watcher(self._look, self._period)
        self.engine = Engine(self.watcher.poke, self.watcher.rouse, grace, seed)
        self.engine.has_children = self._any
        self._watchdog = Watchdog(self.engine, grace)
        self._looked_at = 0.0
        self._by_pid: dict[int, Child] = {}
        self._detached: set[int] = set()

    # Coming and going

    def track(self, pid: int, name: str, guest: bool = False) -> Child | None:
        """The process, from now on known to the clock. None if it is gone, or cannot be watched."""
        known = self._by_pid.get(pid)
        if known is not None and (guest or not known.guest):
            return known
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            if not isinstance(error, ProcessLookupError):
                self.engine.note(f"process {pid} ({name}) cannot be watched and does not hold the clock: {error}")
            return None
        above = proc.ancestors(pid) if guest else []
        parent = proc.parent(pid)
        with self.engine.mu:
            known = self._by_pid.get(pid)
            if known is not None or self.engine.closed:
                os.close(pidfd)
            if self.engine.closed or (known is not None and guest):
                return known
            if known is None:
                child = self._by_pid[pid] = Child(pid, pidfd, name, guest)
                child.is_ours = parent == self.engine.pid
                child.detached = pid in self._detached
                self._detached.discard(pid)
            else:
                # It came to the driver before its starter came here.
                child = known
                child.name, child.guest, child.active = name, False, True
            if guest:
                child.root = next((self._by_pid[ancestor] for ancestor in above if ancestor in self._by_pid), None)
            else:
                for other in self._by_pid.values():
                    if other.guest and other.root is None and pid in proc.ancestors(other.pid):
                        other.root = child
                        self._update(other)
                self.engine.note(f"{child!r} was started")
            self._update(child)
            if known is None:
                self.watcher.add(pidfd)
        return child

    def find(self, pid: int) -> Child | None:
        return self._by_pid.get(pid)

    def all(self) -> list[Child]:
        with self.engine.mu:
            return list(self._by_pid.values())

    def detach(self, pid: int) -> None:
        with self.engine.mu:
            child = self._by_pid.get(pid)
            if child is None:
                self._detached.add(pid)
                return
            child.detached = True
            self.engine.note(f"{child!r} was detached")
            self._update(child)
        self.engine.reconsider()

    def _update(self, child: Child) -> None:
        """After any change to a child. The mutex is held."""
        if child.holds():
            if child not in self.engine.holders:
                child.ticks = -1
                self.engine.holders.add(child)
        else:
            self.engine.holders.discard(child)
        root = child.root
        if root is not None:
            if child.alive and (child.asking or child.below):
                root.below.add(child)
            else:
                root.below.discard(child)
            self._update(root)

    # Clients of the driver

    def client_waits(self, pid: int, deadline: int | None, wake: Callable[[], None]) -> Callable[[], None]:
        # A thread of this very process has no PID of its own to hold the clock with: a deadline like any other.
        child = None if pid == self.engine.pid else self.track(pid, "client", guest=True)
        wait = ClientWait(self, child, pid, wake)
        with self.engine.mu:
            if child is not None and child.alive:
                child.waits.add(wait)
                child.asking, child.idle = True, False
                self._update(child)
            if deadline is not None:
                self.engine.push(deadline, wait)
        self.engine.reconsider()

        def cancel() -> None:
            with self.engine.mu:
                if wait.why is not None:
                    return
                wait.why = CANCELLED
                if child is not None and child.alive:
                    # It went away from the driver, not from the world.
                    self.answered(child, wait)

        return cancel

    def answered(self, child: Child, wait: ClientWait) -> None:
        """The mutex is held."""
        child.waits.discard(wait)
        child.asking = child.idle = False
        child.active = True
        self._update(child)

    # Signals

    def before_signal(self, pid: int, number: int, belongs: bool) -> Callable[[], None]:
        """A signal is about to be sent: hold the clock until the process has died of it, if it will.

        Returns what takes that back (the signal could not be sent).
        """
        child = self._by_pid.get(pid)
        if pid == self.engine.pid or (child is None and not belongs):
            return _nothing
        fate = proc.fate(pid, number)
        if child is None and fate is proc.DIES:
            child = self.track(pid, "killed", guest=True)
        if child is None or fate is proc.IGNORES:
            return _nothing
        with self.engine.mu:
            before = child.signalled
            if before is not proc.DIES:
                child.signalled, child.ticks = fate, -1
            self._update(child)

        def take_back() -> None:
            with self.engine.mu:
                child.signalled = before
                self._update(child)
            self.engine.reconsider()

        return take_back

    def in_group(self, group: int) -> list[int]:
        found = []
        for child in self.all():
            try:
                if os.getpgid(child.pid) == group:
                    found.append(child.pid)
            except ProcessLookupError:
                continue
        return found

    # The watcher's thread

    def _any(self) -> bool:
        return bool(self._by_pid)

    def _period(self) -> float | None:
        if len(self.engine.members) > 1 or self.engine.doubtful or self.engine.expecting:
            return PERIOD
        return _PERIOD if self._by_pid else None

    def _look(self, ready: list[int]) -> None:
        engine = self.engine
        try:
            resting = self._resting()
            with engine.mu:
                for child in [child for child in self._by_pid.values() if child.pidfd in ready]:
                    self._exited(child)
                for child in resting:
                    self._rests(child)
                self._watchdog.look()
                engine.advance()
        except BaseException as error:
            # Nobody is above this thread to be told, and a clock that is held for ever tells nothing either.
            with engine.mu:
                engine.failures.append(error)
                engine.holders.clear()

    def _exited(self, child: Child) -> None:
        self.watcher.remove(child.pidfd)
        os.close(child.pidfd)
        del self._by_pid[child.pid]
        child.alive = False
        for wait in child.waits:
            wait.why = CANCELLED
        child.waits.clear()
        for other in self._by_pid.values():
            if other.root is child:
                other.root = None
        if not child.guest and not child.is_ours:
            # Its parent, multiprocessing's server, has yet to tell.
            self.engine.expect_until(real.monotonic() + QUIET)
        # Its waiters run before it lets go of the clock.
        for waiter in child.exits:
            self.engine.fire(waiter, NOTIFIED)
        self._update(child)
        if not child.guest:
            self.engine.note(f"{child!r} exited")

    def _resting(self) -> list[Child]:
        """The children that hold the clock without doing anything, for too long."""
        now = real.monotonic()
        if now - self._looked_at < _PERIOD:
            return []
        self._looked_at = now
        with self.engine.mu:
            holding = [holder for holder in self.engine.holders if isinstance(holder, Child)]
        found = []
        for child in holding:
            runs, ticks = proc.activity(child.pid)
            if runs or ticks != child.ticks:
                child.ticks, child.still_since = ticks, now
            elif now - child.still_since >= (_HANDLED if child.signalled is proc.HANDLES else self.grace):
                found.append(child)
        return found

    def _rests(self, child: Child) -> None:
        if not child.holds():
            return
        if child.signalled is proc.HANDLES:
            child.signalled, child.ticks = None, -1
        else:
            child.signalled, child.idle = None, True
            self.engine.note(
                f"{child!r} has used no processor for {self.grace} s of real time: it no longer holds the clock. "
                "detach() says so without that wait"
            )
        self._update(child)

    def close(self) -> None:
        self.watcher.stop()
        for child in self._by_pid.values():
            child.alive = False
            os.close(child.pidfd)
        self._by_pid.clear()


def _nothing() -> None:
    pass
