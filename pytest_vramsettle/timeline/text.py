"""A timeline as lines of text for a terminal, with colours or without. Pure: data in, text out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_vramsettle._visible import visible
from pytest_vramsettle.timeline.model import Row, Timeline, free_at, rows_of
from pytest_vramsettle.timeline.quantities import size
from pytest_vramsettle.timeline.scale import ticks

ROWS = 4
_LABEL = 14
_WIDEST, _NARROWEST = 110, 50
_MOST_LANES = 6

_COLOURS = {"free": 36, "death": 31, "probe": 33, "good": 32, "bad": 31, "hold": 35, "event": 34, "dim": 2}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What pictures are made of. `bars` go from empty to full."""

    bars: str
    death: str
    probe: str
    unanswered: str
    during: str
    decision: str
    event: str
    wall: str
    axis: str
    corner: str
    tick: str
    gone: str
    cut: str


BLOCKS = Glyphs(" ▁▂▃▄▅▆▇█", "✝", "▲", "?", "━", "◆", "●", "│", "─", "└", "┴", "·", "…")
ASCII = Glyphs("    #####", "x", "^", "?", "=", "D", "o", "|", "-", "+", "+", ".", "...")
"""For terminals that do not speak UTF-8."""

_Cells = list[tuple[str, str]]
"""(character, style) of each column."""


def draw(timeline: Timeline, width: int = 100, *, glyphs: Glyphs = BLOCKS, colours: bool = False) -> list[str]:
    """Free memory of each GPU over time, then kills, probes, waits, lock holds and events below it."""
    return _Drawing(timeline, min(max(width, _NARROWEST), _WIDEST), glyphs, colours).lines()


class _Drawing:
    def __init__(self, timeline: Timeline, width: int, glyphs: Glyphs, colours: bool) -> None:
        self._line = timeline
        self._glyphs = glyphs
        self._colours = colours
        self._columns = width - _LABEL - 2
        self._span = max(1, timeline.end_ns - timeline.begin_ns)

    def lines(self) -> list[str]:
        parts = [*self._cards(), *self._lanes(), self._axis(), self._times()]
        return parts if self._line.cards or len(parts) > 2 else ["  nothing happened on the fake machine"]

    # -- places

    def _column(self, at_ns: int) -> int:
        return min(self._columns - 1, max(0, (at_ns - self._line.begin_ns) * self._columns // self._span))

    def _moment(self, column: int) -> int:
        """The end of a column, so that what happened in it is seen in it."""
        return self._line.begin_ns + self._span * (column + 1) // self._columns

    def _blank(self) -> _Cells:
        return [(" ", "")] * self._columns

    def _text(self, label: str, row: _Cells, wall: str | None = None) -> str:
        return f"{visible(label)[:_LABEL]:>{_LABEL}} {wall or self._glyphs.wall}{self._painted(row)}".rstrip()

    def _painted(self, row: _Cells) -> str:
        if not self._colours:
            return "".join(glyph for glyph, _ in row)
        return "".join(f"\x1b[{_COLOURS[style]}m{glyph}\x1b[0m" if style else glyph for glyph, style in row)

    # -- memory

    def _cards(self) -> list[str]:
        rows = rows_of(self._line.cards)
        lines = [line for row in rows if row.card.moves for line in self._card(row)]
        return lines + [self._still(row) for row in rows if not row.card.moves]

    def _card(self, row: Row) -> list[str]:
        """Its free memory as an area. A line is a share of what can be free at all."""
        card = row.card
        most = max((free for free in card.free if free is not None), default=0) or 1
        shown = [free_at(self._line.moments, card.free, self._moment(column)) for column in range(self._columns)]
        lines = [self._titled(row, f"free memory, at most {size(most)}")]
        for level in range(ROWS - 1, -1, -1):
            label = size(most * (level + 1) // ROWS) if level in (ROWS - 1, ROWS // 2 - 1) else ""
            lines.append(self._text(label, [self._cell(free, most, level) for free in shown]))
        return lines

    def _cell(self, free: int | None, most: int, level: int) -> tuple[str, str]:
        if free is None:
            return self._glyphs.gone, "dim"
        filled = min(1.0, max(0.0, free / most * ROWS - level))
        return self._glyphs.bars[round(filled * (len(self._glyphs.bars) - 1))], "free"

    def _still(self, row: Row) -> str:
        free = row.card.free[0] if row.card.free else None
        return self._titled(row, "not there" if free is None else f"{size(free)} free all the time")

    def _titled(self, row: Row, told: str) -> str:
        """A line about GPUs. Where it would be too long, the card's name is cut."""
        name, cut = visible(row.card.name), self._glyphs.cut
        room = max(1, self._columns + _LABEL + 2 - len(f"  {row.label} (): {told}"))
        return f"  {row.label} ({name if len(name) <= room else name[: max(1, room - len(cut))] + cut}): {told}"

    # -- lanes

    def _lanes(self) -> list[str]:
        line = self._line
        lanes: list[tuple[str, _Cells]] = []
        if line.deaths:
            lanes.append(("deaths", self._marks((death.at_ns for death in line.deaths), self._glyphs.death, "death")))
        lanes += [(via, self._probes(via)) for via in dict.fromkeys(probe.via for probe in line.probes)]
        lanes += self._waits()
        lanes += [(name, self._holds(name)) for name in line.locks[:_MOST_LANES]]
        if line.events:
            lanes.append(("events", self._events()))
        return [self._text(label, row) for label, row in lanes]

    def _marks(self, times: Iterable[int], glyph: str, style: str) -> _Cells:
        row = self._blank()
        for at_ns in times:
            row[self._column(at_ns)] = (glyph, style)
        return row

    def _events(self) -> _Cells:
        """What happened stands beside its sign, where the next one leaves room for it."""
        row = self._marks((event.at_ns for event in self._line.events), self._glyphs.event, "event")
        columns = [self._column(event.at_ns) for event in self._line.events]
        for column, event in zip(columns, self._line.events, strict=True):
            end = min((other for other in columns if other > column), default=self._columns)
            text = f" {visible(event.text)}"
            if column + 1 + len(text) < end or column + 1 + len(text) <= self._columns == end:
                row[column + 1 : column + 1 + len(text)] = [(letter, "event") for letter in text]
        return row

    def _probes(self, via: str) -> _Cells:
        row = self._blank()
        mine = [probe for probe in self._line.probes if probe.via == via]
        for probe in mine:
            end = probe.at_ns + probe.took_ns if probe.took_ns is not None else self._line.end_ns
            self._bar(row, probe.at_ns, end, "probe")
        for probe in mine:  # begins are drawn over the bars of others
            row[self._column(probe.at_ns)] = (self._glyphs.probe, "bad" if probe.code != 0 else "probe")
            if probe.took_ns is None:
                row[self._columns - 1] = (self._glyphs.unanswered, "bad")
        return row

    def _bar(self, row: _Cells, begin_ns: int, end_ns: int, style: str) -> None:
        first, last = self._column(begin_ns), self._column(end_ns)
        if last > first:
            row[first : last + 1] = [(self._glyphs.during, style)] * (last - first + 1)

    def _waits(self) -> list[tuple[str, _Cells]]:
        """A lane for each wait; its decision stands beside its end, or below where there is no room."""
        lanes = []
        for label, wait in self._line.labels()[-_MOST_LANES:]:
            row, at = self._blank(), self._column(wait.end_ns)
            style = "good" if wait.good else "bad"
            self._bar(row, wait.begin_ns, wait.end_ns, "dim")
            row[at] = (self._glyphs.decision, style)
            lanes.append((label, row))
            text = f" {visible(wait.decision)} "
            behind = at + 1 if at + len(text) < self._columns else None
            start = behind if behind is not None else at - len(text)
            if start < 0:
                start, row = 0, self._blank()
                lanes.append(("", row))
            for place, letter in zip(range(start, self._columns), text, strict=False):
                row[place] = (letter, style)
        return lanes

    def _holds(self, lock: str) -> _Cells:
        row = self._blank()
        for hold in self._line.holds:
            if hold.lock == lock:
                row[self._column(hold.begin_ns)] = (self._glyphs.during, "hold")
                self._bar(row, hold.begin_ns, hold.end_ns, "hold")
        return row

    # -- time

    def _ticks(self) -> list[tuple[int, str]]:
        """(column, text), none over another."""
        shown: list[tuple[int, str]] = []
        for at_ns, text in ticks(self._line):
            column = self._column(at_ns)
            if (not shown or column > shown[-1][0] + len(shown[-1][1])) and column + len(text) <= self._columns:
                shown.append((column, text))
        return shown

    def _axis(self) -> str:
        row: _Cells = [(self._glyphs.axis, "dim")] * self._columns
        for column, _ in self._ticks():
            row[column] = (self._glyphs.tick, "dim")
        return self._text("", row, self._glyphs.corner)

    def _times(self) -> str:
        row = self._blank()
        for column, text in self._ticks():
            row[column : column + len(text)] = [(letter, "dim") for letter in text]
        since = "since death" if self._line.deaths else ""
        return self._text(since, row, " ")
