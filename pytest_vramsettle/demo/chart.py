"""True free memory over time, with the probes on the time axis and the misread as a gap. Pure: data in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from pytest_vramsettle.demo.race import Round, Timeline

ROWS = 6
_LEFT, _RIGHT = 9, 7
_GIB = 1024


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What charts are made of. `bars` go from empty to full."""

    bars: str
    other: str
    gap: str
    probe: str
    decision: str
    axis: str
    corner: str
    good: str
    bad: str

    @property
    def full(self) -> str:
        """A whole cell of free memory."""
        return self.bars[-1]


BLOCKS = Glyphs(" ▁▂▃▄▅▆▇█", "┈", "┃", "▲", "◆", "─", "┴", "✓", "✗")
ASCII = Glyphs("    #####", "-", "!", "^", "D", "_", "|", "ok", "x")
"""For terminals that do not speak UTF-8."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The reading that decided on the drawn GPU, beside what was to be free there. Seconds since the kill; MiB."""

    moment: float
    read: float
    final: float
    misread_mib: int
    is_misread: bool


def gap_of(one: Round) -> Gap:
    """The decision of a round, on the GPU of its server."""
    return Gap(one.decided, one.placement.read[0].free_mib, one.right.read[0].free_mib, one.misread_mib, one.is_misread)


def chart(timeline: Timeline, gap: Gap | None, width: int, glyphs: Glyphs = BLOCKS) -> list[Text]:
    """GPU 0's free memory as an area, the other GPUs' as lines; `width` columns, ROWS + 2 lines."""
    return _Chart(timeline, gap, width, glyphs).lines()


class _Chart:
    """The grid of one chart: cells of (character, style), the top row last."""

    def __init__(self, timeline: Timeline, gap: Gap | None, width: int, glyphs: Glyphs) -> None:
        self._timeline, self._gap, self._glyphs = timeline, gap, glyphs
        self._columns = max(20, width - _LEFT - _RIGHT)
        # Whole GiB a row, so that the labels are round numbers.
        self._row_mib = max(1, -(-int(timeline.most) // (ROWS * _GIB))) * _GIB
        self._cells = [[(" ", "")] * self._columns for _ in range(ROWS)]

    def lines(self) -> list[Text]:
        for gpu in range(len(self._timeline.free) - 1, -1, -1):
            self._draw_area() if gpu == 0 else self._draw_line(gpu)
        if self._gap is not None and self._gap.is_misread:
            self._draw_gap(self._gap)
        body = [self._line(row) for row in range(ROWS - 1, -1, -1)]
        return [*body, self._axis(), self._times()]

    # -- places

    def _moment(self, column: int) -> float:
        span = self._timeline.end - self._timeline.start
        return self._timeline.start + span * (column + 0.5) / self._columns

    def _column(self, moment: float) -> int:
        span = self._timeline.end - self._timeline.start
        return min(self._columns - 1, max(0, int((moment - self._timeline.start) / span * self._columns)))

    def _row(self, mib: float) -> int:
        return min(ROWS - 1, int(mib / self._row_mib))

    # -- what is in the grid

    def _draw_area(self) -> None:
        steps = len(self._glyphs.bars) - 1
        for column in range(self._columns):
            free = self._timeline.free_at(0, self._moment(column))
            for row in range(ROWS if free is not None else 0):
                filled = min(1.0, max(0.0, (free or 0.0) / self._row_mib - row))
                glyph = self._glyphs.bars[round(filled * steps)]
                if glyph != " ":
                    self._cells[row][column] = (glyph, "cyan")

    def _draw_line(self, gpu: int) -> None:
        for column in range(self._columns):
            free = self._timeline.free_at(gpu, self._moment(column))
            if free is not None:
                self._cells[self._row(free)][column] = (self._glyphs.other, "bright_blue")

    def _draw_gap(self, gap: Gap) -> None:
        column = self._column(gap.moment)
        rows = [row for row in range(self._row(gap.read), self._row(gap.final) + 1) if self._is_free(row, column)]
        for row in rows:
            self._cells[row][column] = (self._glyphs.gap, "bold red")
        label = f" {gap.misread_mib} MiB misread"
        for row in reversed(rows[:-1]):
            places = range(column + 1, column + 1 + len(label))
            if places.stop <= self._columns and all(self._cells[row][place][0] == " " for place in places):
                for place, letter in zip(places, label, strict=True):
                    self._cells[row][place] = (letter, "bold red")
                return

    def _is_free(self, row: int, column: int) -> bool:
        return self._cells[row][column][0] in (" ", self._glyphs.other)

    # -- lines of text

    def _line(self, row: int) -> Text:
        top_gib = (row + 1) * self._row_mib // _GIB
        label = f"{top_gib} GiB" if row in (ROWS - 1, ROWS // 2 - 1) else ""
        line = Text(f"{label:>{_LEFT - 1}} ", style="")
        for glyph, style in self._cells[row]:
            line.append(glyph, style or None)
        return line.append(self._names(row))

    def _names(self, row: int) -> Text:
        """The GPUs whose free memory ends in this row."""
        ends: Sequence[tuple[int, float]] = [(gpu, free[-1]) for gpu, free in enumerate(self._timeline.free) if free]
        named = [gpu for gpu, free in ends if self._row(free) == row]
        styles = ["cyan" if gpu == 0 else "bright_blue" for gpu in named]
        if not named:
            return Text()
        stub = " " if 0 in named else self._glyphs.other
        return Text(f"{stub}GPU {','.join(map(str, named))}", style=styles[0])

    def _axis(self) -> Text:
        marks = [(self._glyphs.axis, "dim")] * self._columns
        for moment in self._timeline.probes:
            if moment >= self._timeline.start:
                marks[self._column(moment)] = (self._glyphs.probe, "yellow")
        if self._gap is not None:
            style = "bold red" if self._gap.is_misread else "bold green"
            marks[self._column(self._gap.moment)] = (self._glyphs.decision, style)
        line = Text(f"{'0 ':>{_LEFT - 1}}{self._glyphs.corner}")
        for glyph, style in marks:
            line.append(glyph, style)
        return line

    def _times(self) -> Text:
        line = [" "] * (self._columns + _RIGHT)
        ticks = [(0.0, "kill")]
        step = 0.5 if self._timeline.end < 4 else 2.0
        ticks += [(step * n, f"{step * n:g} s") for n in range(1, int(self._timeline.end / step) + 1)]
        for moment, label in ticks:
            at = self._column(moment)
            line[at : at + len(label)] = label
        return Text(" " * _LEFT + "".join(line).rstrip(), style="dim")
