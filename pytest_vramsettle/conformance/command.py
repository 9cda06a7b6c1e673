"""What `vramsettle conform` does: one scenario after the other, in a worker process that can be replaced."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_vramsettle.conformance.checking import ConformanceError, broken, selected
from pytest_vramsettle.conformance.model import STATUSES, Capabilities, Level, Scenario
from pytest_vramsettle.conformance.named import SCENARIOS
from pytest_vramsettle.conformance.worker import Worker, WorkerLost


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line."""

    spec: str
    kind: str = "auto"
    level: Level = "upstream"
    only: Sequence[str] = ()
    without: Sequence[str] = ()
    limit: float = 10.0
    """Real seconds for a scenario."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """All verdicts, as dictionaries with a `text` that a person can read."""

    kind: str
    level: Level
    verdicts: tuple[dict[str, Any], ...]

    @property
    def passes(self) -> bool:
        """Whether nothing failed."""
        return all(one["status"] != "failed" for one in self.verdicts)

    def text(self) -> str:
        """Failures with their pictures, gaps, a line for each scenario, the count."""
        parts = [one["text"] for one in self.verdicts if one["status"] == "failed"]
        gaps = [f"  {one['scenario']}: {gap}" for one in self.verdicts for gap in one["gaps"]]
        if gaps:
            parts.append("\n".join(["not judged:", *gaps]))
        parts.append("\n".join(f"  {one['status']:7} {one['scenario']}" for one in self.verdicts))
        counts = [f"{sum(one['status'] == status for one in self.verdicts)} {status}" for status in STATUSES]
        return "\n\n".join([*parts, f"{self.kind}, level {self.level}: {', '.join(counts)}"])


def conform(asked: Asked) -> Judged:
    """Judge `module:factory`. Raises ConformanceError for what cannot be asked, with the reason."""
    if asked.limit <= 0:
        raise ConformanceError(f"a limit of {asked.limit:g} s leaves no time")
    try:
        Capabilities.named(*asked.without)
    except ValueError as error:
        raise ConformanceError(str(error)) from None
    with _Pool(asked.limit) as pool:
        kind = asked.kind
        try:
            # Also where the kind is given: whether there is such a thing is told once, not by every scenario.
            found = pool.ask({"spec": asked.spec} if kind == "auto" else {"spec": asked.spec, "only_import": True})
        except WorkerLost as lost:
            raise ConformanceError(f"{asked.spec!r} cannot be had: {lost}") from None
        kind = found.get("kind", kind)
        if kind not in SCENARIOS:
            raise ConformanceError(f"there is no kind {kind!r}: there are {', '.join(SCENARIOS)}")
        chosen = selected(SCENARIOS[kind], asked.level, asked.only or None)
        verdicts = tuple(_verdict(pool, asked, kind, one) for one in chosen)
    return Judged(kind=kind, level=asked.level, verdicts=verdicts)


def _verdict(pool: _Pool, asked: Asked, kind: str, scenario: Scenario) -> dict[str, Any]:
    request = {
        "spec": asked.spec,
        "kind": kind,
        "level": asked.level,
        "scenario": scenario.name,
        "without": list(asked.without),
    }
    try:
        return pool.ask(request)
    except WorkerLost as lost:
        verdict = broken(scenario, str(lost))
        return {**verdict.as_dict(), "text": verdict.describe()}


class _Pool:
    """One worker at a time."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._worker: Worker | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer. Raises WorkerLost, and ConformanceError for what the worker cannot be asked."""
        if self._worker is None:
            self._worker = Worker({"argv": sys.argv})
        try:
            (answer,) = self._worker.ask(request, self._limit)
        except WorkerLost:
            self._worker = None
            raise
        if "error" in answer:
            raise ConformanceError(answer["error"])
        found: dict[str, Any] = answer
        return found

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if self._worker is not None:
            if error is None:
                self._worker.close()
            else:
                self._worker.kill()
