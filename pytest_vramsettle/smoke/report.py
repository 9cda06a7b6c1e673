"""What a smoke run has found, for people and for scripts."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from pytest_vramsettle._visible import visible

Verdict = Literal["passed", "failed", "not checked"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was sent, what was to come, how it went. `problems` are empty unless it failed."""

    name: str
    request: str
    expected: str
    verdict: Verdict
    seconds: float
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """All steps, in order. `orphans` is the look for processes afterwards, which is no request."""

    url: str
    steps: tuple[Step, ...]
    orphans: Step

    @property
    def passed(self) -> int:
        """Requests that were answered as they have to be."""
        return sum(step.verdict == "passed" for step in self.steps)

    @property
    def passes(self) -> bool:
        """Whether nothing failed."""
        return all(step.verdict != "failed" for step in (*self.steps, self.orphans))


def as_text(report: Report) -> str:
    """The URL, a line for each step and below it what is wrong, and the count."""
    return "\n".join([report.url, *map(step_as_text, (*report.steps, report.orphans)), count_as_text(report)])


def step_as_text(step: Step) -> str:
    """A line, and below it what is wrong."""
    lines = [f"  {step.verdict:<11} {step.name:<26} {step.seconds * 1000:8.1f} ms  {step.request}"]
    if step.verdict == "failed":
        lines.append(f"{'':14}expected: {step.expected}")
    lines += [f"{'':14}{line}" for line in (*step.problems, *step.notes)]
    return visible("\n".join(lines))


def count_as_text(report: Report) -> str:
    """The last line."""
    left = {"passed": "yes", "failed": "no", "not checked": "not checked"}[report.orphans.verdict]
    return f"{report.passed} of {len(report.steps)} requests as they have to be; {report.orphans.expected}: {left}"


def as_json(report: Report) -> str:
    """The same, with its verdict."""
    return json.dumps(dataclasses.asdict(report) | {"passed": report.passed, "passes": report.passes}, indent=2)
