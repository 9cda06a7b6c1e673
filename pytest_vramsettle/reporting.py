"""From a test's fake machine to its report: the timeline travels on the report, and is drawn where that arrives."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vramsettle.fixtures import DRIVER_KEY, ENDED_KEY, LOCKS_KEY, TIMELINE_KEY, WAITS_KEY
from pytest_vramsettle.options import report_directory
from pytest_vramsettle.report import describe_driver
from pytest_vramsettle.timeline import Timeline, collect, draw
from pytest_vramsettle.timeline.text import ASCII, BLOCKS

if TYPE_CHECKING:
    from pytest_vramsettle.page import Entry

ATTRIBUTE = "vramsettle_timeline"
"""On reports, which have no stash: a timeline as JSON. Workers send attributes along."""

SECTION = "timeline of the fake machine"
MOST_PASSED = 1000
"""Tests that passed and are shown on the page."""


@dataclass(slots=True)
class Entries:
    """What the page will have."""

    shown: dict[tuple[str, int], Entry] = field(default_factory=dict)
    """By a test's name and how often it has run: plugins may repeat it."""
    passed: int = 0
    omitted: int = 0


ENTRIES_KEY: pytest.StashKey[Entries] = pytest.StashKey()
PAGE_KEY: pytest.StashKey[str] = pytest.StashKey()


def timeline_of(item: pytest.Item) -> Timeline | None:
    """What was kept for the report; else the test's fake driver's until now, or until its end; None without one."""
    if TIMELINE_KEY in item.stash:
        return item.stash[TIMELINE_KEY]
    driver, until_ns = item.stash.get(DRIVER_KEY, None), None
    if driver is None:
        driver, until_ns = item.stash.get(ENDED_KEY, (None, None))
    if driver is None:
        return None
    waits = item.stash.get(WAITS_KEY, None)
    locks = item.stash.get(LOCKS_KEY, None)
    return collect(driver, waits.waits if waits is not None else (), locks, until_ns=until_ns)


def tell(item: pytest.Item, report: pytest.TestReport) -> None:
    """Puts what a reader needs on the report of a test that used the fake driver."""
    timeline = timeline_of(item)
    if timeline is None:
        return
    setattr(report, ATTRIBUTE, timeline.to_json())
    driver = item.stash.get(DRIVER_KEY, None)
    if report.failed and driver is not None:
        report.sections.append(("fake NVIDIA driver", describe_driver(driver)))


def receive(config: pytest.Config, report: pytest.TestReport) -> None:
    """Draws the timeline of a failure for this terminal, and keeps it for the page."""
    timeline = Timeline.from_json(getattr(report, ATTRIBUTE))
    if report.failed:
        report.sections.append((SECTION, "\n".join(_drawn(config, timeline))))
    if report_directory(config) is None:
        return
    from pytest_vramsettle.page import Entry

    entries = config.stash.setdefault(ENTRIES_KEY, Entries())
    if not report.failed and entries.passed >= MOST_PASSED:
        entries.omitted += 1
        return
    entries.passed += not report.failed
    key = _key(report, entries)
    before = entries.shown.get(key)
    failures = [before.failure if before is not None else "", report.longreprtext if report.failed else ""]
    name = key[0] if key[1] == 0 else f"{key[0]}, run {key[1] + 1}"
    entries.shown[key] = Entry(name, report.outcome, report.duration, timeline, "\n\n".join(filter(None, failures)))


def _key(report: pytest.TestReport, entries: Entries) -> tuple[str, int]:
    """A teardown's failure takes the place of its test's entry. A subtest tells which it is in its head line."""
    part = (report.head_line or "").removeprefix(report.location[2])
    shown = f"{report.nodeid}{part}"
    runs = sum(name == shown for name, _ in entries.shown)
    return shown, runs - (report.when == "teardown" and runs > 0)


def _drawn(config: pytest.Config, timeline: Timeline) -> list[str]:
    writer = config.get_terminal_writer()
    encoding = getattr(sys.__stdout__, "encoding", None) or "ascii"
    try:
        "".join((BLOCKS.bars, BLOCKS.death, BLOCKS.probe, BLOCKS.decision)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        glyphs = ASCII
    else:
        glyphs = BLOCKS
    return draw(timeline, writer.fullwidth, glyphs=glyphs, colours=writer.hasmarkup)


def write(config: pytest.Config, directory: Path) -> None:
    """Writes the page of this run. What is in the way is told at the run's end, and loses no test's result."""
    from pytest_vramsettle.page import write_page

    entries = config.stash.get(ENTRIES_KEY, Entries())
    try:
        path = write_page(directory, list(entries.shown.values()), entries.omitted)
    except OSError as error:
        config.stash[PAGE_KEY] = f"--vramsettle-report: nothing was written, {error}"
    else:
        config.stash[PAGE_KEY] = f"fake machines of {len(entries.shown)} tests: {path}"
