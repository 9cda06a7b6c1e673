"""What a trace tells of one GPU: at each sample, who held its memory.

    used = total - reserved - free = what others hold + what the dead hold or have not given back + what nobody is
    listed for

The first term is what the driver listed. What the dead held before the kill is what the driver listed for them or,
where it listed none, what came back. After the kill their part falls as the rest of `used` falls, and never grows: what
grows again belongs to nobody that is listed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fake_gpu.trace.format import Row, Sample, TracedGpu
from fake_gpu.units import MIB

UNKNOWN_PID = 0
"""Stands for the dead where nobody knows their PIDs."""

SETTLED_WITHIN = 2 * MIB
"""Bytes of what is still missing that count as nothing: two roundings of nvidia-smi's."""

_LEAST_SHARE = 100
"""Where the dead are not listed, a GPU that gains less than a hundredth of what another gains held none of theirs."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One GPU at a time. `free` is None where it could not be read, `held` where the driver never told."""

    t_ns: int
    free: int | None
    held: Mapping[int, int | None] | None


@dataclass(frozen=True, slots=True)
class Frame:
    """Whose the used bytes are, at a time. `others` and `dead` are by PID."""

    t_ns: int
    others: Mapping[int, int]
    dead: Mapping[int, int]
    unlisted: int

    @property
    def dead_bytes(self) -> int:
        """What the dead hold, or have not given back."""
        return sum(self.dead.values())


@dataclass(frozen=True, slots=True)
class Story:
    """One GPU's part of a trace. `held`: what the dead held there before the kill, by PID."""

    gpu: TracedGpu
    reserved: int
    readings: tuple[Reading, ...]
    frames: tuple[Frame, ...]
    held: Mapping[int, int]

    def frame_at(self, t_ns: int) -> Frame:
        """The last frame that is not after a time; the first where all are."""
        return self.frames[max(0, bisect_right(self.frames, t_ns, key=lambda frame: frame.t_ns) - 1)]

    def missing_after(self, t_ns: int) -> list[tuple[int, int]]:
        """(nanoseconds since `t_ns`, bytes the dead have not given back), from 0 on."""
        after = [(frame.t_ns - t_ns, frame.dead_bytes) for frame in self.frames if frame.t_ns > t_ns]
        return [(0, self.frame_at(t_ns).dead_bytes), *after]

    def settled_after(self, t_ns: int) -> int:
        """Nanoseconds from `t_ns` to the first sample from which on no more than 2 MiB came back."""
        missing = self.missing_after(t_ns)
        enough = missing[-1][1] + SETTLED_WITHIN
        return next((missing[n + 1][0] for n in reversed(range(len(missing) - 1)) if missing[n][1] > enough), 0)


def readings_of(rows: Iterable[Row], index: int) -> tuple[Reading, ...]:
    """Of one GPU, at every sample, with what samples leave out; of several at one time the last."""
    found: list[Reading] = []
    free: int | None = None
    held: Mapping[int, int | None] | None = None
    for row in rows:
        if not isinstance(row, Sample):
            continue
        free = row.free.get(index, free)
        held = row.held.get(index, held)
        if found and found[-1].t_ns == row.t_ns:
            found.pop()
        found.append(Reading(row.t_ns, free, held))
    return tuple(found)


def tell(rows: tuple[Row, ...], gpus: tuple[TracedGpu, ...], killed: tuple[int, ...], kill_ns: int) -> list[Story]:
    """One story for each GPU that could be read, in the order of the header."""
    parts = [part for gpu in gpus if (part := _Part.of(rows, gpu, killed, kill_ns)) is not None]
    if not any(part.listed for part in parts):
        largest = max((part.gain for part in parts), default=0)
        for part in parts:
            part.caps = {part.leader: part.gain} if part.gain * _LEAST_SHARE > largest else {}
    return [part.story() for part in parts]


@dataclass(slots=True)
class _Part:
    """One GPU while its story is made. `caps`: what the dead held before the kill, by PID."""

    gpu: TracedGpu
    readings: tuple[Reading, ...]
    reserved: int
    killed: tuple[int, ...]
    base_ns: int
    caps: dict[int, int]
    listed: bool

    @classmethod
    def of(cls, rows: tuple[Row, ...], gpu: TracedGpu, killed: tuple[int, ...], kill_ns: int) -> _Part | None:
        readings = readings_of(rows, gpu.index)
        readable = [one for one in readings if one.free is not None]
        if not readable:
            return None
        most = max(one.free or 0 for one in readable)
        base = next((one for one in reversed(readable) if one.t_ns <= kill_ns), readable[0])
        held = base.held or {}
        part = cls(
            gpu,
            readings,
            min(gpu.reserved or 0, gpu.total - most),
            killed,
            base.t_ns,
            {},
            any(held.get(pid) for pid in killed),
        )
        if part.listed:
            caps = _shared_out({pid: held.get(pid) or 0 for pid in killed}, part.mine(base))
            # Who held nothing there is no process of this GPU's.
            part.caps = {pid: size for pid, size in caps.items() if size}
        return part

    @property
    def leader(self) -> int:
        return self.killed[0] if self.killed else UNKNOWN_PID

    def others(self, reading: Reading) -> dict[int, int]:
        """What the others hold, as far as there is room for it: the list is read a moment after free memory."""
        listed = {pid: size or 0 for pid, size in (reading.held or {}).items() if pid not in self.killed}
        return _shared_out(listed, self.used(reading))

    def used(self, reading: Reading) -> int:
        return self.gpu.total - self.reserved - (reading.free or 0)

    def mine(self, reading: Reading) -> int:
        """What is used and no other's."""
        return self.used(reading) - sum(self.others(reading).values())

    @property
    def gain(self) -> int:
        """The most that came back after the kill."""
        later = [self.mine(one) for one in self.readings if one.t_ns >= self.base_ns and one.free is not None]
        return later[0] - min(later)

    def story(self) -> Story:
        frames: list[Frame] = []
        left = sum(self.caps.values())
        unlisted = 0
        for reading in self.readings:
            if reading.free is None:
                continue
            others, mine = self.others(reading), self.mine(reading)
            if reading.t_ns <= self.base_ns:
                held = self.caps
                if self.listed and reading.held is not None:
                    held = {pid: reading.held.get(pid) or 0 for pid in self.caps}
                dead = _shared_out(held, mine)
                unlisted = mine - sum(dead.values())
            else:
                left = min(left, max(0, mine - unlisted))
                dead = _shared_out(self.caps, left)
            frames.append(Frame(reading.t_ns, others, dead, mine - sum(dead.values())))
        return Story(self.gpu, self.reserved, self.readings, tuple(frames), self.caps)


def _shared_out(wanted: Mapping[int, int], room: int) -> dict[int, int]:
    """The same sizes, in order, as long as there is room."""
    given: dict[int, int] = {}
    for pid, size in wanted.items():
        given[pid] = min(size, room)
        room -= given[pid]
    return given


def shares(held: int, missing: Iterable[tuple[int, int]]) -> list[tuple[str, float]]:
    """(duration, share reclaimed) points for `Ramp.points`, of which `held` bytes give exactly what is missing.

    What lies on a level stretch is left out.
    """
    points: list[tuple[int, float]] = []
    for t_ns, size in missing:
        back = held - size
        share = back / held
        if int(held * share) < back:
            share = math.nextafter(share, 1.0)  # the quotient was rounded down
        if len(points) > 1 and points[-2][1] == points[-1][1] == share:
            points.pop()
        points.append((t_ns, share))
    return [(f"{t_ns}ns", share) for t_ns, share in points]
