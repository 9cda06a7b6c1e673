"""A trace from a log that any lab can make with nvidia-smi alone:

    nvidia-smi --query-gpu=timestamp,index,uuid,memory.used,memory.free --format=csv -lms 100 > nvidia-smi.csv

Such a log has whole MiB, no processes and no events: the moment of the kill is given, or found by the largest gain.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fake_gpu.errors import InvalidValue
from fake_gpu.trace.files import read_bytes
from fake_gpu.trace.format import FORMAT, VERSION, Event, Header, Row, Sample, TracedGpu
from fake_gpu.trace.trace import ReclaimTrace
from fake_gpu.units import MIB, format_size, parse_duration

COLUMNS = ("timestamp", "index", "uuid", "memory.used", "memory.free")
"""What a log without a header line is taken to hold."""

LEAST_GAIN = 64 * MIB
"""Bytes that have to come back for a kill to be found without being told of it."""

_MEMORY = ("memory.used", "memory.free", "memory.total", "memory.reserved")
_STAMP = re.compile(r"(\d{4})/(\d{2})/(\d{2}) (\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?")
_QUANTITY = re.compile(r"(\d+)(?: ?([A-Za-z]+))?")
_UNREADABLE = re.compile(r"\[.*\]")
_EPOCH = datetime(1970, 1, 1)
_COMMAND = "nvidia-smi --query-gpu=timestamp,index,uuid,memory.used,memory.free --format=csv -lms 100"


@dataclass(frozen=True, slots=True)
class ImportedLog:
    """What came of a log. `notices` says what was left out, and how the kill was found."""

    trace: ReclaimTrace
    notices: tuple[str, ...]


@dataclass(slots=True)
class _Card:
    index: int
    uuid: str
    name: str = ""
    total: int | None = None
    reserved: int | None = None
    most: int = 0


@dataclass(slots=True)
class _Log:
    path: Path
    columns: tuple[str, ...] = ()
    cards: dict[int, _Card] = field(default_factory=dict)
    driver: str = ""
    first_stamp: str = ""
    first_ns: int = 0
    before_ns: int = 0
    before_stamp: str = ""
    free: list[tuple[int, int, int | None]] = field(default_factory=list)
    """(t_ns, index, bytes or None), in order."""


def import_log(
    path: str | os.PathLike[str], *, killed_at: str | None = None, columns: str | None = None
) -> ImportedLog:
    """A trace from nvidia-smi's CSV. Raises InvalidValue naming file and line for what is not to be understood.

    `killed_at`: when the process was killed: a time stamp as in the log, or a duration since its first line ("12.5s").
    None: the last line before the largest gain of free memory. `columns`: the columns of a log without a header
    line, as given to --query-gpu.
    """
    log = _Log(Path(path))
    notices: list[str] = []
    if columns is not None:
        log.columns = _header([part.strip() for part in columns.split(",")], "columns=")
    text, cut = read_bytes(log.path)
    for number, line, ended in _lines(log.path, text):
        if not ended and not _is_whole(log, line):
            cut = True
            notices.append(f"line {number} was cut off and left out: {line!r}")
        else:
            _read_line(log, line, f"{log.path}, line {number}")
    if cut and not notices:
        notices.append("the compressed file was cut off; what can be read of it is kept")
    if not log.free:
        raise InvalidValue(f"{log.path} holds no readings. Such a log is made by: {_COMMAND}")
    gpus = _gpus(log, notices)
    known = {gpu.index for gpu in gpus}
    samples = _samples([one for one in log.free if one[1] in known])
    kill_ns, text_of_kill = _kill(log, samples, killed_at)
    notices.append(text_of_kill)
    kill = Event(t_ns=kill_ns, event="kill_sent", text=text_of_kill)
    rows: list[Row] = sorted([*samples, kill], key=lambda row: (row.t_ns, isinstance(row, Event)))
    header = Header(
        format=FORMAT,
        version=VERSION,
        gpus=gpus,
        source="nvidia-smi",
        tool="fake-gpu import",
        recorded=log.first_stamp.replace("/", "-").replace(" ", "T"),
        driver=log.driver,
        notes={"import": "; ".join(notices)},
    )
    return ImportedLog(ReclaimTrace(header, tuple(rows), torn=cut), tuple(notices))


# -- lines


def _lines(path: Path, raw: bytes) -> list[tuple[int, str, bool]]:
    """(number, text, whether it has an end) of each line that is not blank."""
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # PowerShell's > writes UTF-16
    try:
        text = raw.decode(encoding, errors="strict" if encoding != "utf-16" else "ignore")
    except UnicodeDecodeError as error:
        raise InvalidValue(
            f"{path}, line {raw[: error.start].count(10) + 1}: this is not text: {error}. Is it nvidia-smi's CSV?"
        ) from error
    found = [(n, line.strip(), line.endswith("\n")) for n, line in enumerate(text.splitlines(keepends=True), 1)]
    return [one for one in found if one[1]]


def _is_whole(log: _Log, line: str) -> bool:
    """Whether a line without an end lacks nothing: all its columns, and a unit, which comes last."""
    cells = _cells(line)
    return len(cells) == len(log.columns or COLUMNS) and cells[-1].endswith(("MiB", "]"))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]


def _read_line(log: _Log, line: str, where: str) -> None:
    cells = _cells(line)
    if any(cell.split(" ")[0] in ("timestamp", *_MEMORY) for cell in cells):
        columns = _header(cells, where)
        if log.columns and log.free and columns != log.columns:
            raise InvalidValue(f"{where}: another header than before: {line!r}. Import each log on its own")
        log.columns = columns
        return
    if not log.columns:
        log.columns = COLUMNS
    if len(cells) != len(log.columns):
        raise InvalidValue(f"{where}: {_why_not_cells(cells, line, log.columns)}")
    row = dict(zip(log.columns, cells, strict=True))
    _read_row(log, row, where)


def _header(cells: list[str], where: str) -> tuple[str, ...]:
    columns = []
    for cell in cells:
        name, _, unit = cell.partition(" ")
        if name in _MEMORY and unit not in ("", "[MiB]"):
            raise InvalidValue(f"{where}: {name} is in {unit}; nvidia-smi's CSV is in MiB, and so has this to be")
        columns.append(name)
    missing = [name for name in ("timestamp", "memory.free") if name not in columns]
    if "index" not in columns and "uuid" not in columns:
        missing.append("index or uuid")
    if "memory.used" not in columns and "memory.total" not in columns:
        missing.append("memory.used or memory.total")
    if missing:
        raise InvalidValue(f"{where}: no column {', '.join(missing)} in {', '.join(cells)}. It is made by: {_COMMAND}")
    return tuple(columns)


def _why_not_cells(cells: list[str], line: str, columns: tuple[str, ...]) -> str:
    if ";" in line and len(cells) == 1:
        return f"columns are separated by ';' in {line!r}: nvidia-smi writes ','. Import the log as nvidia-smi wrote it"
    if len(cells) > len(columns) and re.fullmatch(r"\d{1,9}", cells[1]) and ":" in cells[0]:
        return f"a decimal comma in {line!r}: nvidia-smi writes '.'. Import the log as nvidia-smi wrote it"
    wanted = ", ".join(columns)
    return (
        f"{len(cells)} columns in {line!r}, where {len(columns)} belong: {wanted}. "
        f"Where the log has no header line, name its columns (--columns)"
    )


# -- rows


def _read_row(log: _Log, row: dict[str, str], where: str) -> None:
    stamp = row["timestamp"]
    stamp_ns = _time(stamp, where)
    if not log.free:
        log.first_ns, log.first_stamp = stamp_ns, stamp
    elif stamp_ns < log.before_ns:
        raise InvalidValue(
            f"{where}: time runs back, from {log.before_stamp} to {stamp}: the clock was set, or summer time ended. "
            f"Import what is before this line and what is after it as two logs"
        )
    log.before_ns, log.before_stamp = stamp_ns, stamp
    card = _card(log, row, where)
    sizes = {name: _size(row[name], name, where) for name in _MEMORY if name in row}
    free, used = sizes["memory.free"], sizes.get("memory.used")
    log.driver = row.get("driver_version", log.driver)
    card.name = row.get("name", card.name)
    card.total = sizes.get("memory.total") or card.total
    card.reserved = sizes.get("memory.reserved") or card.reserved
    card.most = max(card.most, (free or 0) + (used or 0))
    log.free.append((stamp_ns - log.first_ns, card.index, free))


def _card(log: _Log, row: dict[str, str], where: str) -> _Card:
    uuid = row.get("uuid", "")
    if "index" in row:
        if not row["index"].isascii() or not row["index"].isdecimal():
            raise InvalidValue(
                f"{where}: {row['index']!r} is not the index of a GPU. Are the columns {', '.join(row)}?"
            )
        index = int(row["index"])
    else:
        index = next((card.index for card in log.cards.values() if card.uuid == uuid), len(log.cards))
    card = log.cards.setdefault(index, _Card(index, uuid or f"index-{index}"))
    if uuid and card.uuid != uuid:
        raise InvalidValue(
            f"{where}: GPU {index} is {uuid}, and was {card.uuid}: the GPUs were renumbered. "
            f"Import what is before this line and what is after it as two logs"
        )
    return card


def _time(stamp: str, where: str) -> int:
    match = _STAMP.fullmatch(stamp)
    if match is None:
        raise InvalidValue(
            f"{where}: {stamp!r} is not a time as nvidia-smi writes it, such as '2026/11/23 14:03:22.123' "
            f"(year/month/day). Import the log as nvidia-smi wrote it; without a header, name its columns (--columns)"
        )
    try:
        whole = datetime(*(int(part) for part in match.groups()[:6]))  # type: ignore[arg-type]  # six ints, no tzinfo
    except ValueError as error:
        raise InvalidValue(f"{where}: {stamp!r} is not a time: {error}") from None
    since = whole - _EPOCH
    return (since.days * 86400 + since.seconds) * 10**9 + int((match[7] or "0").ljust(9, "0"))


def _size(text: str, column: str, where: str) -> int | None:
    if _UNREADABLE.fullmatch(text):
        return None  # [N/A], [Unknown Error], [GPU is lost]
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InvalidValue(
            f"{where}: {column} is {text!r}; nvidia-smi writes whole MiB, such as '81559 MiB' or '81559'"
        )
    if match[2] not in (None, "MiB"):
        raise InvalidValue(
            f"{where}: {column} is in {match[2]} ({text!r}); nvidia-smi writes MiB. Convert it, or log anew"
        )
    return int(match[1]) * MIB


# -- the trace


def _gpus(log: _Log, notices: list[str]) -> tuple[TracedGpu, ...]:
    found = []
    for card in sorted(log.cards.values(), key=lambda card: card.index):
        total = max(card.total or 0, card.most)
        if all(free is None for _, index, free in log.free if index == card.index):
            notices.append(f"GPU {card.index} never told its free memory, and was left out")
            continue
        reserved = card.reserved if card.reserved is not None and card.reserved < total else None
        if card.total is not None and card.most and reserved is None and card.most < card.total:
            reserved = card.total - card.most  # what is neither used nor free
        found.append(TracedGpu(index=card.index, uuid=card.uuid, total=total, reserved=reserved, name=card.name))
    if not found:
        raise InvalidValue(f"{log.path}: no GPU tells its free memory ([N/A] in every line): nothing can be made of it")
    return tuple(found)


def _samples(readings: list[tuple[int, int, int | None]]) -> list[Sample]:
    """Readings of one query share a sample, which has the time of the first of them; the first has all GPUs."""
    everyone = {index for _, index, _ in readings}
    first = {index: next(free for _, other, free in readings if other == index) for index in everyone}
    samples: list[Sample] = []
    last: dict[int, int | None] = {}
    rounds: list[tuple[int, dict[int, int | None]]] = []
    for t_ns, index, free in readings:
        if not rounds or index in rounds[-1][1]:
            rounds.append((t_ns, {}))
        rounds[-1][1][index] = free
    for number, (t_ns, read) in enumerate(rounds):
        told = {**first, **read} if number == 0 else read
        changed = {index: free for index, free in sorted(told.items()) if index not in last or last[index] != free}
        samples.append(Sample(t_ns=t_ns, free=changed))
        last.update(told)
    return samples


def _kill(log: _Log, samples: list[Sample], killed_at: str | None) -> tuple[int, str]:
    end = samples[-1].t_ns
    if killed_at is not None:
        if _STAMP.fullmatch(killed_at):
            kill_ns = _time(killed_at, "killed_at") - log.first_ns
        else:
            kill_ns = _duration(killed_at, log)
        if not 0 <= kill_ns <= end:
            raise InvalidValue(
                f"killed_at={killed_at!r} is not in {log.path}, which goes from {log.first_stamp} to {log.before_stamp}"
            )
        return kill_ns, f"killed at {killed_at}, as was given"
    totals = _totals(samples)
    low, high = _largest_gain(totals)
    gain = totals[high][1] - totals[low][1]
    if gain < LEAST_GAIN:
        raise InvalidValue(
            f"{log.path}: no kill can be found: free memory grows by {format_size(max(gain, 0))} at most. "
            f"If there is one, say when (--killed-at '{log.first_stamp}')"
        )
    nearly = totals[low][1] + max(2 * MIB, gain // 100)
    kill_ns, _ = next(one for one in reversed(totals[low:high]) if one[1] <= nearly)
    return kill_ns, (
        f"killed at {kill_ns / 1e9:.3f} s, found by the largest gain of free memory ({format_size(gain)}): a pause of "
        f"the driver's before it gives anything back cannot be seen in such a log; --killed-at tells"
    )


def _duration(killed_at: str, log: _Log) -> int:
    try:
        return parse_duration(killed_at)
    except InvalidValue:
        raise InvalidValue(
            f"killed_at={killed_at!r}: give a time stamp as in the log, such as {log.first_stamp!r}, or a duration "
            f"since its first line, such as '12.5s'"
        ) from None


def _totals(samples: list[Sample]) -> list[tuple[int, int]]:
    """Free memory of all cards together, from when each was read once: what comes in late is no gain."""
    cards = {index for sample in samples for index, free in sample.free.items() if free is not None}
    now: dict[int, int] = {}
    totals = []
    for sample in samples:
        now.update({index: free for index, free in sample.free.items() if free is not None})
        if now.keys() == cards:
            totals.append((sample.t_ns, sum(now.values())))
    return totals


def _largest_gain(totals: list[tuple[int, int]]) -> tuple[int, int]:
    """Places of the lowest and the highest total between which free memory grows most."""
    lowest = low = high = 0
    for place, (_, free) in enumerate(totals):
        if free <= totals[lowest][1]:
            lowest = place
        if free - totals[lowest][1] > totals[high][1] - totals[low][1]:
            low, high = lowest, place
    return low, high
