"""A reclaim trace: what was recorded while a real driver gave memory back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fake_gpu.errors import InvalidValue
from fake_gpu.trace.files import check, read_rows, write_rows
from fake_gpu.trace.format import Event, EventName, Header, Row, Sample
from fake_gpu.trace.story import Story, shares, tell
from fake_gpu.units import format_size

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.trace.replay import Replay


@dataclass(frozen=True)
class ReclaimTrace:
    """A trace, as it was read or put together. `torn` says that its last line was cut off and left out.

    Times are whole nanoseconds since the recording began. Raises InvalidValue for rows that cannot be.
    """

    header: Header
    rows: tuple[Row, ...]
    path: Path | None = None
    torn: bool = False

    def __post_init__(self) -> None:
        if self.path is None:
            check(self.header, self.rows, "the trace")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ReclaimTrace:
        """Reads a file (.jsonl, or .jsonl.gz). Raises InvalidValue with file, line and reason where it is no trace."""
        header, rows, torn = read_rows(Path(path))
        return cls(header, rows, Path(path), torn)

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes a file, compressed where its name ends in .gz. Raises InvalidValue where it is there or cannot be."""
        write_rows(Path(path), self.header, self.rows, overwrite=overwrite)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples, in order."""
        return tuple(row for row in self.rows if isinstance(row, Sample))

    @property
    def events(self) -> tuple[Event, ...]:
        """The events, in order."""
        return tuple(row for row in self.rows if isinstance(row, Event))

    # -- the kill

    def _times(self, name: EventName) -> list[int]:
        ours = self.header.killed
        return [one.t_ns for one in self.events if one.event == name and (one.pid in (None, *ours) or not ours)]

    @property
    def kill_ns(self) -> int:
        """When the first signal was sent, or the first process went without one. InvalidValue where nobody dies."""
        return min([*self._times("kill_sent"), self.death_ns])

    @property
    def death_ns(self) -> int:
        """When the last process of the tree left the kernel; the kill where that was not recorded. Or InvalidValue."""
        for times in (self._times("pid_gone")[-1:], self._times("kill_sent")[:1]):
            if times:
                return times[0]
        raise InvalidValue(f"{self._name} has neither a pid_gone nor a kill_sent event: nobody dies in it")

    @cached_property
    def stories(self) -> tuple[Story, ...]:
        """Who held what when, for each GPU that could be read. Raises InvalidValue where nobody dies."""
        return tuple(tell(self.rows, self.header.gpus, self.header.killed, self.kill_ns))

    # -- the truth, to judge a wait by

    @property
    def settled_after(self) -> float:
        """Seconds from the death to the sample from which on no more than 2 MiB came back on any GPU."""
        death = self.death_ns
        return max((story.settled_after(death) for story in self.stories), default=0) / 1e9

    @property
    def never_back(self) -> int:
        """Bytes of the dead that were still missing when the recording ended, on all GPUs together."""
        return sum(story.frames[-1].dead_bytes for story in self.stories)

    # -- its uses

    def shares(self, gpu: str | int | None = None) -> list[tuple[str, float]]:
        """(time since the death, share reclaimed) of one GPU, as `Ramp.points` wants them.

        The share is of what the dead held before the kill. What another process takes meanwhile does not make it
        fall. `gpu` (UUID or index) may be left out where memory came back on one GPU only. Raises InvalidValue.
        """
        stories = [story for story in self.stories if gpu in (None, story.gpu.uuid, story.gpu.index)]
        known = ", ".join(f"{one.index} ({one.uuid})" for one in self.header.gpus)
        if gpu is not None and gpu not in [name for one in self.header.gpus for name in (one.uuid, one.index)]:
            raise InvalidValue(f"{self._name} has no GPU {gpu!r}; it has {known}")
        held = [story for story in stories if story.held and sum(story.held.values()) > 0]
        if len(held) != 1:
            raise InvalidValue(
                f"{self._name}: memory comes back on {len(held)} GPUs{f' of those asked for ({gpu})' if gpu else ''}; "
                f"a ramp is of one: pass gpu=, one of {known}"
            )
        return shares(sum(held[0].held.values()), held[0].missing_after(self.death_ns))

    def replay(self, driver: Driver, *, whole: bool = False, spawn: bool = False) -> Replay:
        """Puts the trace's machine on a driver: see `fake_gpu.trace.replay.Replay`. Raises InvalidValue."""
        from fake_gpu.trace.replay import Replay  # who only reads traces needs no driver

        return Replay(driver, self, whole=whole, spawn=spawn)

    def describe(self) -> list[str]:
        """A few lines on what is in it, for people."""
        seconds = (self.rows[-1].t_ns - self.rows[0].t_ns) / 1e9 if self.rows else 0.0
        lines = [f"{len(self.samples)} samples in {seconds:.3f} s, {len(self.events)} events"]
        if self.torn:
            lines.append("its last line was cut off and left out")
        dies = bool(self._times("pid_gone") or self._times("kill_sent"))
        for story in self.stories if dies else ():
            held = sum(story.held.values())
            lines.append(
                f"GPU {story.gpu.index} {story.gpu.name or story.gpu.uuid}: the dead held {format_size(held)}, "
                f"{format_size(story.frames[-1].dead_bytes)} never came back, settled "
                f"{story.settled_after(self.death_ns) / 1e9:.3f} s after the death"
            )
        return lines

    @property
    def _name(self) -> str:
        return "the trace" if self.path is None else str(self.path)

    def __repr__(self) -> str:
        torn = ", torn" if self.torn else ""
        return f"<ReclaimTrace {self._name}: {len(self.header.gpus)} GPUs, {len(self.samples)} samples{torn}>"
