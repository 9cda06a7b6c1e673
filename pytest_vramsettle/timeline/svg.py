"""A timeline as a picture in a page. Pure: data in, SVG out; the page's style sheet has the colours.

Drawn here and not by matplotlib: a page may have a picture for each of a thousand tests, and each says what is under
the pointer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pytest_vramsettle._visible import in_html
from pytest_vramsettle.timeline.model import Death, Probe, Row, Timeline, rows_of
from pytest_vramsettle.timeline.quantities import seconds, size
from pytest_vramsettle.timeline.scale import ticks

WIDTH = 960
_LEFT, _RIGHT = 130, 24
_AREA, _LANE = 84, 22
_MOST_LANES = 12

Lane = tuple[str, list[str]]
"""A label and the SVG elements beside it."""


def picture(timeline: Timeline) -> str:
    """One `<svg>` element: free memory of the GPUs where it moved, and everything else in lanes below."""
    return _Picture(timeline).svg()


class _Picture:
    def __init__(self, timeline: Timeline) -> None:
        self._line = timeline
        self._span = max(1, timeline.end_ns - timeline.begin_ns)
        self._parts: list[str] = []
        self._y = 6

    def svg(self) -> str:
        for row in rows_of(self._line.cards):
            if row.card.moves:
                self._card(row)
        for make in (self._deaths, self._probes, self._waits, self._holds, self._events):
            for label, marks in make():
                self._parts += [_text(_LEFT - 8, self._y + 15, label, "label", "end"), *marks]
                self._y += _LANE
        self._axis()
        body = "\n".join(self._parts)
        return f'<svg viewBox="0 0 {WIDTH} {self._y}" role="img" aria-label="free memory and probes">\n{body}\n</svg>'

    def _x(self, at_ns: int) -> float:
        share = min(1.0, max(0.0, (at_ns - self._line.begin_ns) / self._span))
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    # -- memory

    def _card(self, row: Row) -> None:
        card = row.card
        most = max((free for free in card.free if free is not None), default=0) or 1
        top = self._y + 18
        bottom = top + _AREA
        told = f"{row.label}: free memory, at most {size(most)} of {size(card.total)}"
        self._parts.append(_text(_LEFT, self._y + 12, f"{row.label}  {card.name}", "title"))
        self._parts.append(
            f'<rect class="ground" x="{_LEFT}" y="{top}" width="{WIDTH - _LEFT - _RIGHT}" height="{_AREA}"/>'
        )
        for points in _stretches(self._line.moments, card.free):
            corners = " ".join(f"{self._x(at)},{bottom - _AREA * free / most:.1f}" for at, free in points)
            first, last = self._x(points[0][0]), self._x(points[-1][0])
            outline = f"{first},{bottom} {corners} {last},{bottom}"
            self._parts.append(f'<polygon class="free" points="{outline}">{_title(told)}</polygon>')
        self._parts += [
            _text(_LEFT - 8, top + 10, size(most), "label", "end"),
            _text(_LEFT - 8, bottom, "0", "label", "end"),
        ]
        for death in self._line.deaths:
            if any(one.label in death.held for one in row.cards):
                at = self._x(death.at_ns)
                self._parts.append(f'<line class="death" x1="{at}" x2="{at}" y1="{top}" y2="{bottom}"/>')
        self._y = bottom + 10

    # -- lanes

    def _deaths(self) -> Iterator[Lane]:
        marks = [self._dot(death.at_ns, "death", told_of_death(death)) for death in self._line.deaths]
        if marks:
            yield "deaths", marks

    def _probes(self) -> Iterator[Lane]:
        for via in dict.fromkeys(probe.via for probe in self._line.probes):
            yield via, [mark for probe in self._line.probes if probe.via == via for mark in self._probe(probe)]

    def _probe(self, probe: Probe) -> list[str]:
        end = self._line.end_ns if probe.took_ns is None else probe.at_ns + probe.took_ns
        kind = "probe" if probe.code == 0 else "failed"
        told = told_of_probe(probe)
        return [self._bar(probe.at_ns, end, kind, told), self._dot(probe.at_ns, kind, told, radius=4)]

    def _waits(self) -> Iterator[Lane]:
        for label, wait in self._line.labels()[-_MOST_LANES:]:
            kind = "good" if wait.good else "bad"
            at = self._x(wait.end_ns)
            in_front = at > WIDTH / 2
            place, anchor = (at - 10, "end") if in_front else (at + 10, "start")
            said = _text(place, self._y + 15, wait.decision, kind, anchor)
            bar = self._bar(wait.begin_ns, wait.end_ns, "wait", wait.text)
            dot = self._dot(wait.end_ns, kind, wait.text)
            yield label, [bar, dot, said]

    def _holds(self) -> Iterator[Lane]:
        for lock in self._line.locks[:_MOST_LANES]:
            yield (
                lock,
                [
                    self._bar(
                        hold.begin_ns, hold.end_ns, "hold", f"{lock} held by {hold.holder}, taken at {hold.where}"
                    )
                    for hold in self._line.holds
                    if hold.lock == lock
                ],
            )

    def _events(self) -> Iterator[Lane]:
        marks = [
            self._dot(event.at_ns, "event", f"{self._when(event.at_ns)}: {event.text}") for event in self._line.events
        ]
        if marks:
            yield "events", marks

    def _when(self, at_ns: int) -> str:
        return seconds(self._line.seconds(at_ns))

    def _dot(self, at_ns: int, kind: str, told: str, radius: int = 5) -> str:
        return f'<circle class="{kind}" cx="{self._x(at_ns)}" cy="{self._y + 11}" r="{radius}">{_title(told)}</circle>'

    def _bar(self, begin_ns: int, end_ns: int, kind: str, told: str) -> str:
        begin, end = self._x(begin_ns), self._x(end_ns)
        width = max(1.5, round(end - begin, 1))
        return f'<rect class="{kind}" x="{begin}" y="{self._y + 7}" width="{width}" height="8">{_title(told)}</rect>'

    # -- time

    def _axis(self) -> None:
        self._parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{self._y}" y2="{self._y}"/>')
        for at_ns, text in ticks(self._line, about=8):
            at = self._x(at_ns)
            self._parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{self._y}" y2="{self._y + 5}"/>')
            self._parts.append(_text(at, self._y + 18, text, "label", "middle"))
        if self._line.deaths:
            self._parts.append(_text(_LEFT - 8, self._y + 18, "since the first death", "label", "end"))
        self._y += 26


def told_of_death(death: Death) -> str:
    """'llama-server (pid 42) died; it held 20.0 GiB on GPU 0'."""
    held = ", ".join(f"{size(amount)} on {gpu}" for gpu, amount in death.held.items())
    return f"{death.name} (pid {death.pid}) died; it held {held or 'nothing'}"


def told_of_probe(probe: Probe) -> str:
    """What was asked, how it was answered, after how long."""
    what = probe.name if probe.count == 1 else f"{probe.name} and {probe.count - 1} calls more"
    how = "no answer" if probe.took_ns is None else f"status {probe.code} after {seconds(probe.took_ns / 1e9)}"
    return f"{what} by pid {probe.pid}: {how}" + (f"; {probe.faults}" if probe.faults else "")


def _stretches(moments: Sequence[int], free: Sequence[int | None]) -> Iterable[list[tuple[int, int]]]:
    """The (moment, free bytes) of each stretch in which the GPU was there, without points in the middle of a line."""
    stretch: list[tuple[int, int]] = []
    for at, amount in zip(moments, free, strict=True):
        if amount is None:
            if stretch:
                yield stretch
            stretch = []
            continue
        if len(stretch) > 1 and stretch[-1][1] == stretch[-2][1] == amount:
            stretch.pop()
        stretch.append((at, amount))
    if stretch:
        yield stretch


def _title(text: str) -> str:
    return f"<title>{in_html(text)}</title>"


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{in_html(text)}</text>'
