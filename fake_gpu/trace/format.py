"""The lines of a reclaim trace, and what has to be true of them. docs/traces.md describes the format in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from fake_gpu.errors import InvalidValue

FORMAT = "vramsettle-trace"
VERSION = 1

LIMIT = 1 << 60
"""Bytes and nanoseconds stay below: an EiB, 36 years."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=LIMIT)]
Positive = Annotated[int, msgspec.Meta(gt=0, lt=LIMIT)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
EventName = Literal["kill_sent", "pid_gone", "pid_gone_nvml", "settled", "note"]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Unknown fields are refused: a misspelt `free` would otherwise read as "nothing has changed"."""


class TracedGpu(_Strict, frozen=True, kw_only=True):
    """A card; sizes in bytes. `index` is its NVML index when the trace began, and names it in the samples."""

    index: Count
    uuid: Text
    total: Positive
    reserved: Count | None = None
    """What the driver keeps for itself; None where that was not recorded."""
    name: str = ""


class Machine(_Strict, frozen=True, kw_only=True):
    """Where it was recorded. No host name, no user, no command line: traces are for publishing."""

    system: str = ""
    kernel: str = ""
    machine: str = ""


class Header(_Strict, frozen=True, kw_only=True, tag_field="kind", tag="header"):
    """The first line."""

    format: str
    version: int
    gpus: tuple[TracedGpu, ...]
    source: Literal["nvml", "nvidia-smi", ""] = ""
    """What was read. nvidia-smi tells whole MiB; NVML tells bytes."""
    tool: str = ""
    recorded: str = ""
    """When, as ISO 8601."""
    driver: str = ""
    """The driver's version."""
    machine: Machine = Machine()
    period_ns: Count = 0
    """Nanoseconds from one reading to the next, as asked for; 0: not known."""
    killed: tuple[Positive, ...] = ()
    """PIDs of the process tree that dies, its leader first; empty where they are not known."""
    notes: dict[str, str] = {}
    """Anything else worth telling."""


class Sample(_Strict, frozen=True, kw_only=True, tag_field="kind", tag="sample"):
    """One reading of all GPUs, by index. What is left out is as it was in the sample before."""

    t_ns: Count
    """Nanoseconds since the recording began."""
    free: dict[int, Count | None] = {}
    """Free bytes. None: the GPU could not be read."""
    held: dict[int, dict[int, Count | None]] = {}
    """By GPU, then PID: bytes that each process holds, all processes of that GPU. None: the driver does not tell."""


class Event(_Strict, frozen=True, kw_only=True, tag_field="kind", tag="event"):
    """Something that happened."""

    t_ns: Count
    event: EventName
    pid: Positive | None = None
    signal: str = ""
    """Of `kill_sent`: "KILL", "TERM", …"""
    text: str = ""


Row = Sample | Event


class _Claim(msgspec.Struct):
    """What any version of the format says of itself."""

    format: str
    version: int


_decoder = msgspec.json.Decoder(Header | Sample | Event)
_encoder = msgspec.json.Encoder()


def decode(line: bytes) -> Header | Row:
    """One line. Raises msgspec.DecodeError with what does not fit."""
    try:
        row: Header | Row = _decoder.decode(line)
    except UnicodeDecodeError as error:  # of a text whose field is looked at before the rest is
        raise msgspec.DecodeError(f"it is no UTF-8: {error}") from None
    return row


def check_claim(line: bytes, where: str) -> None:
    """Raises InvalidValue for the header of another format or version, whatever else stands in it."""
    try:
        claim = msgspec.json.decode(line, type=_Claim)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # no header at all: `decode` says what it is
    _check_claim(claim.format, claim.version, where)


def _check_claim(name: str, version: int, where: str) -> None:
    if (name, version) != (FORMAT, VERSION):
        raise InvalidValue(
            f"{where}: a trace of format {FORMAT!r}, version {VERSION}, is wanted; this is {name!r}, version {version}"
        )


def encode(row: Header | Row) -> bytes:
    """One line, with its end."""
    return _encoder.encode(row) + b"\n"


class Checker:
    """Looks at the lines of one trace in order. `where` names a line: it goes before each complaint."""

    def __init__(self) -> None:
        self._totals: Mapping[int, int] = {}
        self._before_ns = 0
        self._is_first = True

    def header(self, header: Header, where: str) -> None:
        """Raises InvalidValue for another format or version, and for GPUs that cannot be."""
        _check_claim(header.format, header.version, where)
        if not header.gpus:
            raise InvalidValue(f"{where}: the header names no GPU; a trace is of one at least")
        for what, values in (
            ("index", [str(gpu.index) for gpu in header.gpus]),
            ("uuid", [gpu.uuid for gpu in header.gpus]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise InvalidValue(f"{where}: two GPUs have the {what} {twice[0]}")
        for gpu in header.gpus:
            if not 0 < gpu.total < LIMIT:
                raise InvalidValue(
                    f"{where}: GPU {gpu.index} has {gpu.total} bytes: more than 0, less than 1 EiB can be"
                )
            if gpu.reserved is not None and gpu.reserved >= gpu.total:
                raise InvalidValue(
                    f"{where}: GPU {gpu.index} reserves {gpu.reserved} of {gpu.total} bytes: nothing would be left"
                )
        self._totals = {gpu.index: gpu.total for gpu in header.gpus}

    def row(self, row: Row, where: str) -> None:
        """Raises InvalidValue for time that runs back, a GPU that is not in the header, more free than there is."""
        if row.t_ns < self._before_ns:
            raise InvalidValue(f"{where}: time runs back, from t_ns {self._before_ns} to {row.t_ns}")
        if row.t_ns >= LIMIT:
            raise InvalidValue(f"{where}: t_ns {row.t_ns} is more than 36 years: it counts from the trace's beginning")
        self._before_ns = row.t_ns
        if isinstance(row, Event):
            return
        known = ", ".join(map(str, self._totals))
        for index in (*row.free, *row.held):
            if index not in self._totals:
                raise InvalidValue(f"{where}: there is no GPU {index} in the header, which names {known}")
        for index, free in row.free.items():
            if free is not None and free > self._totals[index]:
                raise InvalidValue(
                    f"{where}: {free} bytes are free on GPU {index}, which has {self._totals[index]} in all"
                )
        if self._is_first and len(row.free) < len(self._totals):
            missing = ", ".join(str(index) for index in self._totals if index not in row.free)
            raise InvalidValue(f"{where}: the first sample tells what is free on every GPU; GPU {missing} is missing")
        self._is_first = False
