"""What the clock knows of one process, and whether that process holds it."""

from __future__ import annotations

from pytest_vramsettle.clock.waits import Callback, Waiter


class Child:
    __slots__ = (
        "active",
        "alive",
        "asking",
        "below",
        "detached",
        "exits",
        "guest",
        "idle",
        "is_ours",
        "name",
        "pid",
        "pidfd",
        "root",
        "signalled",
        "still_since",
        "ticks",
        "waits",
    )

    def __init__(self, pid: int, pidfd: int, name: str, guest: bool) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.name = name
        self.alive = True
        self.detached = False
        # No child of a thread of the clock: it is nobody's business until it was given an answer.
        self.guest = guest
        self.active = not guest
        # Whether this process is its parent.
        self.is_ours = True
        # It has asked the driver, and was not answered since.
        self.asking = False
        self.idle = False
        # What a signal will do to it: nothing may be due before that is done.
        self.signalled: str | None = None
        self.waits: set[Callback] = set()
        # The child that a guest was started by, and the guests of a child that wait: it waits for them.
        self.root: Child | None = None
        self.below: set[Child] = set()
        self.exits: list[Waiter] = []
        self.ticks = -1
        self.still_since = 0.0

    def holds(self) -> bool:
        if not self.alive:
            return False
        if self.signalled is not None:
            return True
        return self.active and not (self.detached or self.idle or self.asking or self.below)

    def __repr__(self) -> str:
        return f"process {self.pid} ({self.name})"
