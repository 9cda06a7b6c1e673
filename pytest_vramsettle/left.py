"""What a run tells at its end: what its tests left behind on the virtual clock, what the suites did not judge."""

from __future__ import annotations

import pytest

TITLE = "left behind at teardown"

GAP_PROPERTY = "vramsettle_gap"
"""The user property of a report that names what a conformance suite did not judge."""

# Not reported yet.
LEFT_KEY = pytest.StashKey[list[str]]()


def summarise(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Of tests that passed too. Reports from workers carry it."""
    lines = [
        line
        for reports in terminalreporter.stats.values()
        for report in reports
        for title, text in getattr(report, "sections", ())
        if title == TITLE
        for line in text.splitlines()
    ]
    if LEFT_KEY in config.stash:
        # An interrupted test is torn down without a report.
        unreported: list[str] = config.stash[LEFT_KEY]
        lines += unreported
    if lines:
        terminalreporter.section(TITLE)
        for line in lines:
            terminalreporter.line(line)


def name_gaps(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each gap, of tests that passed too; nothing where there is none."""
    gaps = [
        str(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == GAP_PROPERTY
    ]
    if gaps:
        terminalreporter.section("not judged by the conformance suites")
        for gap in dict.fromkeys(gaps):
            terminalreporter.line(gap)
