"""Runs the rounds and prints them. On a terminal the chart of a round grows in real time while it runs."""

from __future__ import annotations

import time

from rich.console import Console, RenderableType
from rich.live import Live

from pytest_vramsettle.demo import drawing
from pytest_vramsettle.demo.chart import ASCII, BLOCKS, Gap, Glyphs, gap_of
from pytest_vramsettle.demo.race import WAYS, Machine, Round, Way, machine, race_virtually

_WIDEST = 110
_PER_SECOND = 15


def show(console: Console) -> None:
    """The whole demo. Takes about two seconds, five on a terminal, where a round goes on until the ramp is over."""
    glyphs = BLOCKS if console.encoding.lower().startswith("utf") else ASCII
    width = min(console.width, _WIDEST)
    with machine() as first:
        console.print(drawing.opening(first.setting(), glyphs), width=width)
    rounds = []
    for number, way in enumerate(WAYS, 1):
        with machine() as fresh:
            rounds.append(Showing(console, fresh, number, way, width, glyphs).run())
        console.print(drawing.finished(number, rounds[-1], width, glyphs), width=width)
    console.print(drawing.virtually(rounds, race_virtually()), width=width)
    console.print(drawing.summary(rounds, glyphs), width=width)
    console.print(drawing.what_next(), width=width)


class Showing:
    """One round in real time."""

    def __init__(self, console: Console, fresh: Machine, number: int, way: Way, width: int, glyphs: Glyphs) -> None:
        self._console, self._machine, self._number, self._way = console, fresh, number, way
        self._width, self._glyphs = width, glyphs
        self._gap: Gap | None = None

    def run(self) -> Round:
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            return self._machine.race(self._way)
        with Live(get_renderable=self._frame, console=self._console, refresh_per_second=_PER_SECOND, transient=True):
            one = self._machine.race(self._way)
            self._gap = gap_of(one)
            time.sleep(max(0.0, one.timeline.end - self._machine.now))
        return one

    def _frame(self) -> RenderableType:
        timeline = self._machine.timeline(known=self._machine.now)
        return drawing.running(self._number, self._way.title, timeline, self._gap, self._width, self._glyphs)
