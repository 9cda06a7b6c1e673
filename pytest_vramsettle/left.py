"""How a run tells of the threads and processes that its tests left behind on the virtual clock."""

from __future__ import annotations

import pytest

TITLE = "left behind at teardown"

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
