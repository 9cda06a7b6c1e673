"""One stretch of time on a machine, as data and as plain text: memory of each GPU, probes, what happened when.

Times are nanoseconds since the stretch began, memory is in bytes. Knows nothing of drivers, clocks or tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SECOND = 1_000_000_000
MIB = 1024 * 1024
GIB = 1024 * MIB
_LABELS = 10
_ROWS = 4


@dataclass(frozen=True, slots=True)
class Lane:
    """Free memory of one GPU: (instant, bytes) points with straight lines between, the instants rising."""

    name: str
    points: tuple[tuple[int, int], ...]

    def at(self, instant_ns: int) -> int | None:
        """Bytes at an instant; None before the first point, and after it the last one's once they are over."""
        before: tuple[int, int] | None = None
        for point in self.points:
            if point[0] > instant_ns:
                if before is None:
                    return None
                return before[1] + (point[1] - before[1]) * (instant_ns - before[0]) // (point[0] - before[0])
            before = point
        return None if before is None else before[1]


@dataclass(frozen=True, slots=True)
class Span:
    """One probe: from when it was asked until it answered; `answered` False: until nobody waited for it any more."""

    begin_ns: int
    end_ns: int
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at an instant: a kill, a return. `sign` is one character."""

    at_ns: int
    sign: str
    told: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """What `draw` draws."""

    begin_ns: int
    end_ns: int
    lanes: tuple[Lane, ...] = ()
    probes: tuple[Span, ...] = ()
    marks: tuple[Mark, ...] = ()


def draw(timeline: Timeline, width: int = 78) -> str:
    """Plain ASCII text, `width` columns: an area for each GPU, a line of probes, a line of marks, an axis, a legend.

    GPUs whose memory is the same throughout share an area.
    """
    columns = max(20, width - _LABELS)
    lines: list[str] = []
    for name, lane in _distinct(timeline.lanes):
        lines += _area(timeline, name, lane, columns)
    lines.append(_row("probes", _probes(timeline, columns)))
    lines.append(_row("", _marks(timeline, columns)))
    lines += [_row("", line) for line in _axis(timeline, columns)]
    lines += [f"  {mark.sign} {mark.at_ns / SECOND:.3f} s  {mark.told}" for mark in timeline.marks]
    return "\n".join(line.rstrip() for line in lines)


def _distinct(lanes: Sequence[Lane]) -> list[tuple[str, Lane]]:
    names: dict[tuple[tuple[int, int], ...], list[Lane]] = {}
    for lane in lanes:
        names.setdefault(lane.points, []).append(lane)
    return [(", ".join(lane.name for lane in same), same[0]) for same in names.values()]


def _area(timeline: Timeline, name: str, lane: Lane, columns: int) -> list[str]:
    values = [lane.at(_instant(timeline, column, columns)) for column in range(columns)]
    known = [value for value in values if value is not None]
    if not known:
        return [f"{name}: nothing known"]
    low, high = min(known), max(known)
    head = f"{name}, free: {_size(low)}" + (f" to {_size(high)}" if high > low else " throughout")
    rows = _ROWS if high > low else 1
    lines = [head]
    for row in range(rows, 0, -1):
        floor = low + (high - low) * (2 * row - 1) // (2 * rows)
        cells = "".join(" " if value is None else "#" if value >= floor else "." for value in values)
        label = _size(high) if row == rows else _size(low) if row == 1 else ""
        lines.append(_row(label, cells))
    return lines


def _probes(timeline: Timeline, columns: int) -> str:
    cells = [" "] * columns
    for span in timeline.probes:
        first = _column(timeline, span.begin_ns, columns)
        last = _column(timeline, span.end_ns, columns)
        cells[first : last + 1] = ["="] * (last + 1 - first)
        if not span.answered:
            cells[last] = "?"
    for span in timeline.probes:  # a probe begins on top of one that is still under way
        cells[_column(timeline, span.begin_ns, columns)] = "|"
    return "".join(cells)


def _marks(timeline: Timeline, columns: int) -> str:
    cells = [" "] * columns
    for mark in timeline.marks:
        at = _column(timeline, mark.at_ns, columns)
        while at < columns - 1 and cells[at] != " ":
            at += 1
        cells[at] = mark.sign
    return "".join(cells)


def _axis(timeline: Timeline, columns: int) -> tuple[str, str]:
    marks, labels = ["-"] * columns, [" "] * (columns + 8)
    step = _step((timeline.end_ns - timeline.begin_ns) / SECOND)
    tick = -(-timeline.begin_ns // round(step * SECOND))
    while (instant := round(tick * step * SECOND)) <= timeline.end_ns:
        at = _column(timeline, instant, columns)
        marks[at] = "+"
        text = f"{instant / SECOND:g} s"
        labels[at : at + len(text)] = text
        tick += 1
    return "".join(marks), "".join(labels)


def _step(seconds: float) -> float:
    return next((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60) if seconds / step <= 8), max(1.0, seconds / 8))


def _instant(timeline: Timeline, column: int, columns: int) -> int:
    return timeline.begin_ns + (timeline.end_ns - timeline.begin_ns) * (2 * column + 1) // (2 * columns)


def _column(timeline: Timeline, instant_ns: int, columns: int) -> int:
    span = max(1, timeline.end_ns - timeline.begin_ns)
    return min(columns - 1, max(0, (instant_ns - timeline.begin_ns) * columns // span))


def _row(label: str, cells: str) -> str:
    return f"{label:>{_LABELS - 1}} {cells}"


def _size(size: int) -> str:
    return f"{size // MIB} MiB" if size < 10 * GIB else f"{size / GIB:.1f} GiB"
