"""The baton: of the threads that could run, one does at a time, so the order is the same in every run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vramsettle.clock.waits import Waiter

NOBODY = 0
"""No thread has this identity."""


class Baton:
    """All of it with the engine's mutex held. `ready` are those whose wait is over, in the order in which it ended."""

    __slots__ = ("_random", "holder", "moves", "ready")

    def __init__(self, seed: int | None) -> None:
        self.holder = NOBODY
        self.ready: list[Waiter] = []
        # Counts what the threads do on the clock: for whoever looks whether anything has happened.
        self.moves = 0
        self._random = None if seed is None else random.Random(seed)

    def give(self) -> None:
        """To the next thread, if nobody has it."""
        ready = self.ready
        while ready and not self.holder:
            waiter = ready[0 if self._random is None else self._random.randrange(len(ready))]
            if not waiter.go:
                # In this order an interrupt between two of these lines leaves nobody who waits for ever.
                self.holder = waiter.ident
                self.moves += 1
                waiter.open()
                waiter.go = True
            ready.remove(waiter)

    def drop(self, ident: int) -> None:
        """The thread no longer has it, if it did."""
        self.moves += 1
        if self.holder == ident:
            self.holder = NOBODY

    def free_all(self) -> None:
        """Nobody waits for it any more: the clock is left."""
        self.holder = NOBODY
        for waiter in self.ready:
            waiter.open()
            waiter.go = True
        self.ready.clear()
