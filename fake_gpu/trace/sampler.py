"""Readings into a trace, without saying twice what has not changed, and the judgement that nothing changes any more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fake_gpu.trace.files import TraceWriter
from fake_gpu.trace.format import Event, EventName, Sample
from fake_gpu.units import MIB

LIST_EVERY_NS = 10_000_000
"""Who holds what is asked this often while free memory stays as it is: the answer costs more than free memory does."""

HEARTBEAT_NS = 1_000_000_000
"""A sample that says "as before" is written this often, so that stillness is told from a recorder that has stopped."""

STILL = 2 * MIB
"""Bytes by which still memory may differ."""

BACK_ENOUGH = 0.9
"""Share of what the dead held that has to be back before stillness counts: a driver may pause on the way."""


class Reader(Protocol):
    """What a sampler asks; see `NvmlReader`."""

    def free(self, index: int) -> int | None: ...

    def held(self, index: int) -> dict[int, int | None] | None: ...


def now_ns() -> int:
    """Real monotonic time, by a name that clocks for tests leave alone."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Sampler:
    """Reads all GPUs and writes what is new, and before that the last reading that was as the one before."""

    def __init__(self, reader: Reader, indices: Iterable[int], writer: TraceWriter) -> None:
        self._reader = reader
        self._indices = tuple(indices)
        self._writer = writer
        self._zero_ns = now_ns()
        self._listed_ns = -LIST_EVERY_NS
        self._written_ns = 0
        self._unwritten_ns: int | None = None
        self.readings = 0
        self.free: dict[int, int | None] = {}
        """Bytes, at the last reading."""
        self.held: dict[int, dict[int, int | None]] = {}
        """By GPU and PID, where the driver tells, when last asked."""

    def sample(self, *, list_processes: bool = False) -> int:
        """One reading, whose time it returns. `list_processes`: in any case, not only when it is their turn."""
        t_ns = now_ns() - self._zero_ns
        first = self.readings == 0
        read = {index: self._reader.free(index) for index in self._indices}
        changed = {index: free for index, free in read.items() if first or free != self.free[index]}
        self.free = read
        self.readings += 1
        held = {}
        if changed or list_processes or t_ns - self._listed_ns >= LIST_EVERY_NS:
            self._listed_ns = t_ns
            listed = {index: self._reader.held(index) for index in self._indices}
            held = {index: pids for index, pids in listed.items() if pids is not None and pids != self.held.get(index)}
            self.held.update(held)
        if changed or held:
            self._write_pending()
            self._writer.write(Sample(t_ns=t_ns, free=changed, held=held))
            self._written_ns = t_ns
        else:
            self._unwritten_ns = t_ns
            if t_ns - self._written_ns >= HEARTBEAT_NS:
                self._write_pending()
                self._writer.flush()
        return t_ns

    def event(self, name: EventName, *, pid: int | None = None, signal: str = "", text: str = "") -> int:
        """Writes an event of now, whose time it returns."""
        self._write_pending()
        t_ns = now_ns() - self._zero_ns
        self._writer.write(Event(t_ns=t_ns, event=name, pid=pid, signal=signal, text=text))
        return t_ns

    def finish(self) -> None:
        """Writes what is left to write."""
        self._write_pending()

    def _write_pending(self) -> None:
        if self._unwritten_ns is not None:
            self._writer.write(Sample(t_ns=self._unwritten_ns))
            self._written_ns, self._unwritten_ns = self._unwritten_ns, None

    def listed(self, pids: Iterable[int]) -> set[int]:
        """Those of the PIDs that the driver listed on any GPU, when last asked."""
        return {pid for pid in pids for held in self.held.values() if pid in held}

    def without_others(self, mine: tuple[int, ...]) -> dict[int, int]:
        """Free bytes by GPU, as if nobody else held anything."""
        return {
            index: free + sum(size or 0 for pid, size in self.held.get(index, {}).items() if pid not in mine)
            for index, free in self.free.items()
            if free is not None
        }

    def held_by(self, mine: tuple[int, ...]) -> int:
        """Bytes that these processes hold on all GPUs."""
        return sum(held.get(pid) or 0 for held in self.held.values() for pid in mine)


@dataclass(slots=True)
class Stillness:
    """Since when nothing has moved by more than 2 MiB."""

    since_ns: int = 0
    _anchor: Mapping[int, int] = field(default_factory=dict)

    def look(self, t_ns: int, sizes: Mapping[int, int]) -> int:
        """Takes note of sizes at a time; returns for how many nanoseconds they have been still."""
        moved = sizes.keys() != self._anchor.keys() or any(
            abs(size - self._anchor[key]) > STILL for key, size in sizes.items()
        )
        if moved:
            self._anchor, self.since_ns = dict(sizes), t_ns
        return t_ns - self.since_ns
