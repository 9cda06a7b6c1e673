"""Reclaim traces: what was recorded while a real driver gave memory back. One JSON object a line.

    {"kind": "header", "format": "vramsettle-trace", "version": 1, "gpus": [{"uuid": "GPU-…", "total": 150754820096}]}
    {"kind": "sample", "t": 0.000, "free": {"GPU-…": 75161927680}}
    {"kind": "event", "t": 0.012, "event": "pid_gone", "pid": 4242}

`t` is in seconds from any start and never runs back; sizes are bytes. Events: `kill_sent`, `pid_gone` (the kernel
has reaped it), `pid_gone_from_nvml`. Unknown keys in the header and in events are allowed and kept out of
the way, so that a recorder can say more about its machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from fake_gpu.errors import InvalidValue

FORMAT = "vramsettle-trace"
VERSION = 1


class TracedGpu(msgspec.Struct, frozen=True):
    """A card in a trace; `total` in bytes."""

    uuid: str
    total: int
    name: str = ""


class Header(msgspec.Struct, frozen=True, tag_field="kind", tag="header"):
    """The first line."""

    format: str
    version: int
    gpus: tuple[TracedGpu, ...]


class Sample(msgspec.Struct, frozen=True, tag_field="kind", tag="sample", forbid_unknown_fields=True):
    """Free bytes by GPU UUID at a time in seconds."""

    t: float
    free: dict[str, int]


class Event(msgspec.Struct, frozen=True, tag_field="kind", tag="event"):
    """Something that happened at a time in seconds."""

    t: float
    event: Literal["kill_sent", "pid_gone", "pid_gone_from_nvml"]
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class ReclaimTrace:
    """A trace as it was read. `torn` says that the last line was cut off and left out."""

    path: Path
    header: Header
    samples: tuple[Sample, ...]
    events: tuple[Event, ...]
    torn: bool = False

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ReclaimTrace:
        """Reads a file. Raises InvalidValue with the file, the line and the reason where it is not a trace."""
        path = Path(path)
        try:
            text = path.read_bytes()
        except OSError as error:
            raise InvalidValue(f"the trace {path} cannot be read: {error.strerror}") from error
        lines = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]
        torn = bool(lines) and not text.endswith(b"\n")
        header: Header | None = None
        samples: list[Sample] = []
        events: list[Event] = []
        before = float("-inf")
        for number, line in lines:
            try:
                row = _decode(line)
            except msgspec.DecodeError as error:
                if torn and number == lines[-1][0] and header is not None:
                    break
                raise InvalidValue(f"{path}, line {number}: {error}. Is this a reclaim trace?") from error
            if isinstance(row, Header):
                if header is not None or row.format != FORMAT or row.version != VERSION:
                    raise InvalidValue(
                        f"{path}, line {number}: one header is wanted, of format {FORMAT!r}, version {VERSION}; "
                        f"this is {row.format!r}, version {row.version}"
                    )
                header = row
                continue
            if header is None:
                raise InvalidValue(f"{path}, line {number}: the header has to come first")
            if not row.t >= before:
                raise InvalidValue(f"{path}, line {number}: time runs back, from {before} to {row.t} s")
            before = row.t
            if isinstance(row, Sample):
                samples.append(row)
            else:
                events.append(row)
        if header is None:
            raise InvalidValue(f"{path} is empty: a reclaim trace begins with a header line")
        complete = len(samples) + len(events) + 1 == len(lines)
        return cls(path, header, tuple(samples), tuple(events), torn=not complete)

    def shares(self, gpu: str | None = None) -> list[tuple[float, float]]:
        """(seconds since the death, share reclaimed) of one GPU, as `Ramp.points` wants them.

        The death is the `pid_gone` event, or `kill_sent` where there is none. What another process takes meanwhile does
        not make the share fall. `gpu` may be left out where memory came back on one GPU only. Raises InvalidValue.
        """
        death = self._death()
        gains = {uuid: gain for uuid in self._uuids(gpu) if (gain := self._gain(uuid, death)) > 0}
        if len(gains) != 1:
            known = ", ".join(known.uuid for known in self.header.gpus)
            raise InvalidValue(
                f"{self.path}: memory comes back on {len(gains)} GPUs{f' of those asked for ({gpu})' if gpu else ''}; "
                f"a ramp is of one: pass gpu=, one of {known}"
            )
        ((uuid, gain),) = gains.items()
        start = self._free_at(uuid, death)
        best = 0.0
        points = [(0.0, 0.0)]
        for sample in self.samples:
            if sample.t > death and uuid in sample.free:
                best = max(best, min(1.0, (sample.free[uuid] - start) / gain))
                points.append((sample.t - death, best))
        return points

    def _uuids(self, gpu: str | None) -> list[str]:
        known = [one.uuid for one in self.header.gpus]
        if gpu is not None and gpu not in known:
            raise InvalidValue(f"{self.path} has no GPU {gpu!r}; it has {', '.join(known)}")
        return known if gpu is None else [gpu]

    def _death(self) -> float:
        first: Mapping[str, float] = {event.event: event.t for event in reversed(self.events)}
        for name in ("pid_gone", "kill_sent"):
            if name in first:
                return first[name]
        raise InvalidValue(f"{self.path} has neither a pid_gone nor a kill_sent event: nobody dies in it")

    def _free_at(self, uuid: str, t: float) -> int:
        of_gpu = [sample for sample in self.samples if uuid in sample.free]
        if not of_gpu:
            raise InvalidValue(f"{self.path} has no sample of GPU {uuid}")
        return next((sample.free[uuid] for sample in reversed(of_gpu) if sample.t <= t), of_gpu[0].free[uuid])

    def _gain(self, uuid: str, death: float) -> int:
        after = [sample.free[uuid] for sample in self.samples if sample.t > death and uuid in sample.free]
        return max(after) - self._free_at(uuid, death) if after else 0


_decoder = msgspec.json.Decoder(Header | Sample | Event)


def _decode(line: bytes) -> Header | Sample | Event:
    row: Header | Sample | Event = _decoder.decode(line)
    return row
