"""What the model was like at moments gone by: who held how much of each card, and whether the card was there.

The dead give memory back by their ramps, which are functions of time; what is noted here is the rest, when it changed.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fake_gpu.gpu import Gpu, Memory, Presence
    from fake_gpu.process import Process

LIMIT = 100_000
"""Changes that are kept, of each kind; the oldest are forgotten first."""


class History:
    """The changes of one driver's model. Written under the driver's lock."""

    __slots__ = ("_held", "_presence")

    def __init__(self) -> None:
        self._held: deque[tuple[int, Gpu, Process | None, int]] = deque(maxlen=LIMIT)
        self._presence: deque[tuple[int, Gpu, Presence]] = deque(maxlen=LIMIT)

    def held(self, at_ns: int, gpu: Gpu, process: Process | None, size: int) -> None:
        """From now on `process` holds `size` bytes of `gpu`; None: somebody who is not listed does."""
        self._held.append((at_ns, gpu, process, size))

    def presence(self, at_ns: int, gpu: Gpu, presence: Presence) -> None:
        """From now on clients see `gpu` so."""
        self._presence.append((at_ns, gpu, presence))

    def changes(self) -> list[int]:
        """When something changed, in nanoseconds on the driver's clock, each once, in order."""
        return sorted({row[0] for row in self._held.copy()} | {row[0] for row in self._presence.copy()})

    def presences(self, gpu: Gpu) -> list[tuple[int, Presence]]:
        """When and how `gpu`'s presence changed, in order. It was present before the first."""
        return [(at_ns, presence) for at_ns, one, presence in self._presence.copy() if one is gpu]

    def memory(self, gpu: Gpu, moments: Sequence[int]) -> list[Memory]:
        """`gpu`'s bytes at these moments, in nanoseconds on the driver's clock; a change counts from its moment on."""
        steps: dict[Process | None, tuple[list[int], list[int]]] = {}
        for at_ns, one, process, size in self._held.copy():
            if one is gpu:
                times, sizes = steps.setdefault(process, ([], []))
                times.append(at_ns)
                sizes.append(size)
        return [gpu.with_used(sum(_held(gpu, who, *step, moment) for who, step in steps.items())) for moment in moments]


def _held(gpu: Gpu, process: Process | None, times: list[int], sizes: list[int], moment: int) -> int:
    died_ns = None if process is None else process.death_in_model
    if process is not None and died_ns is not None and moment >= died_ns:
        return process.held_at(gpu, moment)
    place = bisect.bisect_right(times, moment)
    return sizes[place - 1] if place else 0
