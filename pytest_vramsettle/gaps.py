"""What the conformance suites did not judge, in the summary of a run: no gap disappears."""

from __future__ import annotations

from typing import Any

import pytest

GAP_PROPERTY = "vramsettle_gap"
"""The user property of a report that names what was not judged."""


def name_gaps(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each gap, and nothing where there is none."""
    reports: list[Any] = [
        one for outcome in ("passed", "failed", "skipped") for one in terminalreporter.stats.get(outcome, [])
    ]
    gaps = [value for one in reports for name, value in getattr(one, "user_properties", ()) if name == GAP_PROPERTY]
    if gaps:
        terminalreporter.section("not judged by the conformance suites")
        for gap in dict.fromkeys(gaps):
            terminalreporter.line(str(gap))
