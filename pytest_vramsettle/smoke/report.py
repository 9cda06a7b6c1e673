"""What a smoke run has found, for people and for scripts."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

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
    """A line for each step, and below it what is wrong."""
    lines = [report.url]
    for step in (*report.steps, report.orphans):
        lines.append(f"  {step.verdict:<11} {step.name:<26} {step.seconds * 1000:8.1f} ms  {step.request}")
        if step.verdict == "failed":
            lines.append(f"{'':14}expected: {step.expected}")
        lines += [f"{'':14}{line}" for line in (*step.problems, *step.notes)]
    lines.append(f"{report.passed} of {len(report.steps)} requests as they have to be; {report.orphans.expected}: ")
    lines[-1] += {"passed": "yes", "failed": "no", "not checked": "not checked"}[report.orphans.verdict]
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """The same, with its verdict."""
    return json.dumps(dataclasses.asdict(report) | {"passed": report.passed, "passes": report.passes}, indent=2)
