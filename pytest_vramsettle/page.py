"""The page that `--vramsettle-report=DIR` writes: every test that used the fake driver, with its picture.

One file that loads nothing: no network, no script; sections fold by themselves.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_vramsettle._visible import in_html
from pytest_vramsettle.timeline.model import Timeline, rows_of
from pytest_vramsettle.timeline.quantities import seconds, size
from pytest_vramsettle.timeline.svg import picture, told_of_death, told_of_probe

FILE = "index.html"
_LONGEST_TEXT = 20_000
"""Characters of a failure."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --dim: #667085; --ground: #f2f4f7; --paper: #ffffff; --line: #d0d5dd;
  --free: #56b4e9; --death: #d55e00; --probe: #b7791f; --good: #00805a; --bad: #c2410c; --hold: #a3539b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #98a2b3; --ground: #1f2633; --paper: #12161f;
  --line: #344054; --free: #2b7fb5; --probe: #e0a93b; --good: #32c793; --bad: #ff8a5c; --hold: #d08bc9; } }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; } .dim { color: var(--dim); }
details { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; padding: .5rem .9rem; }
details details { border: 0; padding: 0; } summary { cursor: pointer; }
summary code { font-size: .95rem; } .failed > summary code { color: var(--bad); }
.passed > summary code { color: var(--good); }
pre { background: var(--ground); border-radius: 4px; overflow-x: auto; padding: .7rem; font-size: .82rem; }
svg { width: 100%; height: auto; } table { border-collapse: collapse; font-size: .85rem; }
td, th { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top; } td.n { text-align: right; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg .label { fill: var(--dim); font-size: 11px; }
svg .ground { fill: var(--ground); } svg .free { fill: var(--free); } svg line.axis { stroke: var(--dim); }
svg line.death { stroke: var(--death); stroke-dasharray: 3 3; } svg .death { fill: var(--death); }
svg .probe { fill: var(--probe); } svg .failed { fill: var(--bad); } svg .wait { fill: var(--line); }
svg .good { fill: var(--good); } svg .bad { fill: var(--bad); } svg .hold { fill: var(--hold); }
svg .event { fill: var(--dim); }
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One test: how it ended ("passed", "failed", "skipped"), in how many real seconds, and what a failure says."""

    name: str
    outcome: str
    seconds: float
    timeline: Timeline
    failure: str = ""


def write_page(directory: Path, entries: Sequence[Entry], omitted: int = 0) -> Path:
    """Writes DIR/index.html, whole or not at all, and returns its path. Raises OSError where that cannot be."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE
    handle, temporary = tempfile.mkstemp(prefix=".index-", suffix=".html", dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(page(entries, omitted))
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes it the user's alone; a report is to be shown
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return path


def page(entries: Sequence[Entry], omitted: int = 0) -> str:
    """The whole document: failures first and open, then the rest folded."""
    ordered = sorted(entries, key=lambda entry: entry.outcome != "failed")
    failed = sum(entry.outcome == "failed" for entry in entries)
    told = f"{len(entries)} tests used the fake driver, {failed} of them failed."
    if omitted:
        told += f" {omitted} more passed and are not shown."
    body = "\n".join(_section(entry) for entry in ordered)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>pytest-vramsettle: {failed} failed of {len(entries)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f'<h1>What the tests did to GPU memory</h1>\n<p class="dim">{in_html(told)} Times are those of each test\'s '
        f"clock, which may be virtual; point at a mark to read what it is.</p>\n{body}\n</body></html>\n"
    )


def _section(entry: Entry) -> str:
    timeline = entry.timeline
    opened = " open" if entry.outcome == "failed" else ""
    outcome = in_html(entry.outcome)
    parts = [
        f'<details class="{outcome}"{opened}><summary><code>{in_html(entry.name)}</code> '
        f'<span class="dim">{outcome} in {seconds(entry.seconds)}{_last_wait(timeline)}</span></summary>',
        picture(timeline),
        _cards(timeline),
    ]
    if entry.failure:
        parts.append(f"<pre>{in_html(_shortened(entry.failure))}</pre>")
    parts += [_events(timeline), "</details>"]
    return "\n".join(parts)


def _last_wait(timeline: Timeline) -> str:
    return in_html(f"; {timeline.waits[-1].decision}") if timeline.waits else ""


def _cards(timeline: Timeline) -> str:
    """Those that are not in the picture."""
    told = []
    for row in rows_of(timeline.cards):
        if not row.card.moves and row.card.free:
            free = row.card.free[0]
            state = "not there" if free is None else f"{size(free)} free all the time"
            told.append(f"{row.label} ({row.card.name}): {state}")
    return f'<p class="dim">{in_html("; ".join(told))}</p>' if told else ""


def _events(timeline: Timeline) -> str:
    """Everything that is in the picture as a table, in the order of time."""
    rows = [(death.at_ns, "death", told_of_death(death)) for death in timeline.deaths]
    rows += [(probe.at_ns, probe.via, told_of_probe(probe)) for probe in timeline.probes]
    rows += [(wait.end_ns, "wait", wait.text) for wait in timeline.waits]
    rows += [
        (hold.begin_ns, "lock", f"{hold.lock} held by {hold.holder}, taken at {hold.where}") for hold in timeline.holds
    ]
    rows += [(event.at_ns, "event", event.text) for event in timeline.events]
    cells = "\n".join(
        f'<tr><td class="n">{timeline.seconds(at_ns):.4f} s</td><td>{in_html(kind)}</td><td>{in_html(told)}</td></tr>'
        for at_ns, kind, told in sorted(rows)
    )
    more = f"; {timeline.omitted} earlier ones are left out" if timeline.omitted else ""
    return f"<details><summary>{len(rows)} entries{more}</summary><table>{cells}</table></details>"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}\n…"
