"""Three waits that nobody here has tuned: what the suites say of them is the table in docs/conformance.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from outside_waits import comfyui_mcp, instructlab, ollama

from pytest_vramsettle.conformance import Capabilities, check_settle
from pytest_vramsettle.conformance.checking import selected
from pytest_vramsettle.conformance.settle_verified import SETTLE

PAGE = Path(__file__).parent.parent / "docs" / "conformance.md"
COLUMNS: dict[str, Callable[[], dict[str, Any]]] = {
    "Ollama": ollama,
    "comfyui-mcp": comfyui_mcp,
    "InstructLab": instructlab,
}
# None claims a probe every 0.25 s, nor says how it ended: they return nothing.
CLAIMS = Capabilities.named("cadence", "tells_outcome")


FAULTS = {
    "it had not returned": "never returns",
    "it raised": "raises",
    "which is more than": "takes too long",
    "which is less than": "gives up early",
    "missing when it returned": "misreads",
    "a probe began": "probes too late",
    "it made": "probes in vain",
    "nothing was logged": "is silent",
}


def judged(make: Callable[[], dict[str, Any]]) -> dict[str, str]:
    """What is said of each scenario, upstream's own ones first."""
    said: dict[str, str] = {}
    verified = {one.name for one in selected(SETTLE, "verified")}
    for scenario in SETTLE:
        level: Any = "verified" if scenario.name in verified else "upstream"
        (verdict,) = check_settle(**make(), level=level, capabilities=CLAIMS, only=scenario.name).verdicts
        faults = [word for text, word in FAULTS.items() if any(text in problem for problem in verdict.problems)]
        said[scenario.name] = ", ".join(faults) or {"passed": "passes", "gap": "not judged"}[verdict.status]
    return said


def table() -> dict[str, dict[str, str]]:
    """The page's, by column and scenario."""
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|\n").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    head = next(row for row in rows if row[1:] == list(COLUMNS))
    names = {one.name for one in SETTLE}
    body = [row for row in rows if len(row) == len(head) and row[0] in names]
    return {column: {row[0]: row[place] for row in body} for place, column in enumerate(head) if place}


@pytest.mark.parametrize("column", COLUMNS)
def test_the_table_of_the_page_is_what_the_suites_say(column: str) -> None:
    assert judged(COLUMNS[column]) == table()[column]
