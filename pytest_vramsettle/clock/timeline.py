"""The time that the clock shows, and the heap of what is due."""

from __future__ import annotations

import heapq
import itertools
import math

from pytest_vramsettle.clock import real
from pytest_vramsettle.clock.waits import Due

# How far, in seconds, the float clock may be from the integer's after a jump: what is less rounds away in a duration.
_APART = 0.4e-9


class Timeline:
    """Whoever changes it holds the engine's mutex."""

    def __init__(self) -> None:
        self.now = self.start = 0
        # The clock as a float. Waits that are shorter than a nanosecond move only this.
        self.seconds = 0.0
        # What it was after the last jump.
        self.landed = 0.0
        self.notes: list[str] = []
        self._heap: list[tuple[int, int, Due]] = []
        self._compact_at = 256
        self._order = itertools.count()

    def begin_now(self) -> None:
        self.now = self.start = real.monotonic_ns()
        self.seconds = self.landed = self.now / 1e9

    def move_to(self, instant: int) -> None:
        # As the code under test adds, so that no rest of `end - time()` is left by rounding; and rounded up as far as
        # that goes, because whoever slept for a second asks whether `time() - start >= 1`.
        jump, exact = (instant - self.now) / 1e9, instant / 1e9
        seconds = self.landed + jump
        if seconds - self.landed < jump:
            seconds = math.nextafter(seconds, math.inf)
        # Never back: waits below a nanosecond may have moved it on.
        self.seconds = self.landed = max(self.seconds, seconds if abs(seconds - exact) < _APART else exact)
        self.now = instant

    def push(self, deadline: int, item: Due) -> None:
        """Ties come out in the order in which they went in."""
        item.deadline = deadline
        heapq.heappush(self._heap, (deadline, next(self._order), item))
        if len(self._heap) > self._compact_at:
            self._heap = [entry for entry in self._heap if entry[2].why is None]
            heapq.heapify(self._heap)
            self._compact_at = max(256, 2 * len(self._heap))

    def next_deadline(self) -> int | None:
        """Of what is not over yet."""
        heap = self._heap
        while heap and heap[0][2].why is not None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def next_due(self) -> Due | None:
        """Takes out what is due by now, one at a time."""
        deadline = self.next_deadline()
        if deadline is None or deadline > self.now:
            return None
        return heapq.heappop(self._heap)[2]

    def until_next(self) -> int:
        """Nanoseconds, 0 where nothing is due."""
        deadline = self.next_deadline()
        return 0 if deadline is None else max(0, deadline - self.now)

    def pending_items(self) -> list[Due]:
        return [item for _, _, item in sorted(self._heap) if item.why is None]

    def note(self, text: str) -> None:
        self.notes.append(f"+{(self.now - self.start) / 1e9:.9f} {text}")
