"""Outcomes as SARIF 2.1.0, which code hosts and editors show at the place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import quote

from pytest_vramsettle.contracts.analysis.rules import Finding
from pytest_vramsettle.contracts.analysis.state import Place
from pytest_vramsettle.contracts.render import columns, source_line, unmatched
from pytest_vramsettle.contracts.verdicts import Outcome, Verdict

_LEVELS = {Verdict.VIOLATED: "error", Verdict.CANNOT_TELL: "warning", Verdict.VACUOUS: "warning"}
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(outcomes: Iterable[Outcome], version: str, base: FilePath) -> str:
    """One result for each finding; fingerprints hold while lines move. Paths are relative to `base`."""
    every = list(outcomes)
    rules = [_rule(each) for each in every]
    results = [result for each in every for result in _results(each, base)]
    driver = {"name": "vramsettle check", "version": version, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(outcome: Outcome) -> dict[str, Any]:
    """With the descriptions that GitHub's code scanning requires of a rule."""
    return {
        "id": outcome.contract,
        "shortDescription": {"text": outcome.text},
        "fullDescription": {"text": f"{outcome.text}, on every path through the code."},
        "help": {"text": "Mend the code at the place shown, or waive the contract with a reason."},
    }


def _results(outcome: Outcome, base: FilePath) -> Iterable[dict[str, Any]]:
    if outcome.waived is not None and not outcome.is_waived:
        yield _bare(outcome, unmatched(outcome), base, level="error")
    if outcome.verdict is not Verdict.KEPT and not outcome.findings:
        yield _bare(outcome, f"{outcome.verdict.value}: {outcome.note}", base)
    for finding in outcome.findings:
        yield _of_finding(outcome, finding, base)


def _bare(outcome: Outcome, text: str, base: FilePath, level: str = "") -> dict[str, Any]:
    # Code scanning shows nothing without a region; of the whole file it is its beginning.
    region = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}
    location = {"physicalLocation": {"artifactLocation": {"uri": _uri(outcome.path, base)}, "region": region}}
    result = {
        "ruleId": outcome.contract,
        "level": level or _LEVELS[outcome.verdict],
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {"vramsettle/v1": _digest(outcome.contract, text)},
    }
    return _waived(outcome, result)


def _of_finding(outcome: Outcome, finding: Finding, base: FilePath) -> dict[str, Any]:
    _, last = finding.places[-1]
    text = f"{outcome.verdict.value}: {finding.message}"
    if finding.doubt is not None and finding.doubt.reason != finding.message:
        text += f" (not certain: {finding.doubt.reason})"
    if outcome.note:
        text += f"; {outcome.note}"
    related = [*finding.places[:-1], *(("called here", place) for place in finding.chain)]
    result = {
        "ruleId": outcome.contract,
        "level": _LEVELS[outcome.verdict],
        "message": {"text": text},
        "locations": [_location(last, base)],
        "relatedLocations": [
            {"id": number, "message": {"text": what}, **_location(place, base)}
            for number, (what, place) in enumerate(related, 1)
        ],
        "partialFingerprints": {"vramsettle/v1": _fingerprint(outcome, finding)},
    }
    return _waived(outcome, result)


def _waived(outcome: Outcome, result: dict[str, Any]) -> dict[str, Any]:
    if outcome.is_waived:
        result["suppressions"] = [{"kind": "external", "justification": outcome.waived}]
    return result


def _location(place: Place, base: FilePath) -> dict[str, Any]:
    start, end = columns(place)
    region = {"startLine": place.line, "startColumn": start + 1, "endLine": place.line, "endColumn": end + 1}
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(place.path, base)}, "region": region}}


def _uri(path: str, base: FilePath) -> str:
    whole = FilePath(path).resolve()
    if whole.is_relative_to(base.resolve()):
        return quote(whole.relative_to(base.resolve()).as_posix())
    return whole.as_uri()


def _fingerprint(outcome: Outcome, finding: Finding) -> str:
    """Of functions and the text of lines, not of their numbers."""
    places = [f"{place.unit.qualified}|{source_line(place).strip()}" for _, place in finding.places]
    return _digest(outcome.contract, finding.message, *places)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
