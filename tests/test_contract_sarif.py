"""SARIF 2.1.0: what its schema requires and allows of the objects that are written, and what code scanning asks for.

The tables are of the OASIS standard's sections 3.13 to 3.52, and of "SARIF support for code scanning" of GitHub's
documentation; of each object only what `vramsettle check` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from contract_backend import BACKEND, TOML, UNDER_LOCK

from pytest_vramsettle.contracts.config import load
from pytest_vramsettle.contracts.sarif import sarif

KINDS: dict[str, tuple[set[str], dict[str, Any]]] = {
    # object: (required, {property: what its value is})
    "log": ({"$schema", "version", "runs"}, {"$schema": "url", "version": ["2.1.0"], "runs": ("run",)}),
    "run": (
        {"tool", "results"},
        {"tool": "tool", "results": ("result",), "columnKind": ["utf16CodeUnits", "unicodeCodePoints"]},
    ),
    "tool": ({"driver"}, {"driver": "component"}),
    "component": ({"name", "rules"}, {"name": "text", "version": "text", "rules": ("rule",)}),
    "rule": (
        {"id", "shortDescription", "fullDescription", "help"},
        {"id": "text", "shortDescription": "message", "fullDescription": "message", "help": "message"},
    ),
    "result": (
        {"ruleId", "message", "locations", "partialFingerprints"},
        {
            "ruleId": "text",
            "level": ["none", "note", "warning", "error"],
            "message": "message",
            "locations": ("location",),
            "relatedLocations": ("location",),
            "partialFingerprints": "fingerprints",
            "suppressions": ("suppression",),
        },
    ),
    "message": ({"text"}, {"text": "text"}),
    "location": ({"physicalLocation"}, {"id": "count", "message": "message", "physicalLocation": "physical"}),
    "physical": ({"artifactLocation", "region"}, {"artifactLocation": "artifact", "region": "region"}),
    "artifact": ({"uri"}, {"uri": "url"}),
    "region": (
        {"startLine", "startColumn", "endLine", "endColumn"},
        {"startLine": "count", "startColumn": "count", "endLine": "count", "endColumn": "count"},
    ),
    "suppression": ({"kind"}, {"kind": ["inSource", "external"], "justification": "text"}),
}


def faults(kind: Any, value: Any, where: str) -> Iterator[str]:
    """What is wrong with a value of this kind, by its path."""
    if isinstance(kind, tuple):
        if not isinstance(value, list):
            yield f"{where}: no list"
            return
        for number, each in enumerate(value):
            yield from faults(kind[0], each, f"{where}[{number}]")
    elif isinstance(kind, list):
        if value not in kind:
            yield f"{where}: {value!r} is none of {kind}"
    elif kind in KINDS:
        required, known = KINDS[kind]
        yield from (f"{where}: no {name}" for name in required - set(value))
        yield from (f"{where}: {name} is no property of it" for name in set(value) - set(known))
        for name in set(value) & set(known):
            yield from faults(known[name], value[name], f"{where}.{name}")
    elif not _is(kind, value):
        yield f"{where}: {value!r} is no {kind}"


def _is(kind: str, value: object) -> bool:
    if kind == "count":
        return type(value) is int and value >= 1
    if kind == "fingerprints":
        return isinstance(value, dict) and bool(value) and all(_is("text", each) for each in value.values())
    if not isinstance(value, str) or not value:
        return False
    return kind == "text" or re.fullmatch(r"[A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]+", value) is not None


def checked(folder: Path, toml: str, source: str, name: str = "backend") -> dict[str, Any]:
    """The log of one project, of which all that can be said of any is true."""
    (folder / "src" / "myapp").mkdir(parents=True)
    file = folder / "src" / "myapp" / f"{name}.py"
    file.write_text(source, encoding="utf-8")
    (folder / "pyproject.toml").write_text(toml.replace("myapp.backend", f"myapp.{name}"), encoding="utf-8")
    outcomes = [contract.check_static() for contract in load(folder / "pyproject.toml").contracts]
    log: dict[str, Any] = json.loads(sarif(outcomes, "1.0", folder))
    assert list(faults("log", log, "log")) == []
    (run,) = log["runs"]
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(ids) == len(set(ids))
    lines = source.splitlines()
    for result in run["results"]:
        assert result["ruleId"] in ids
        assert len(result["locations"]) == 1
        related = result.get("relatedLocations", [])
        assert [each["id"] for each in related] == list(range(1, len(related) + 1))
        for location in (*result["locations"], *related):
            region = location["physicalLocation"]["region"]
            assert region["startLine"] == region["endLine"] <= len(lines)
            line = lines[region["startLine"] - 1]
            assert 1 <= region["startColumn"] <= region["endColumn"] <= len(line) + 1
            uri = location["physicalLocation"]["artifactLocation"]["uri"]
            assert not urlsplit(uri).scheme
            assert (folder / unquote(uri)) == file
    return log


UNKNOWN = BACKEND + "\n    def more(self, bus):\n        bus.subscribe(self._wait_for_vram_settle)\n"
WAIVED = TOML.replace('at = "_wait_for_vram_settle"', 'at = "_wait_for_vram_settle"\nwaive = "moves in May"')
VACUOUS = TOML.replace('at = "_wait_for_vram_settle"', 'at = "_wiat_for_vram_settle"')
LONG = UNDER_LOCK.replace(
    "        self._wait_for_vram_settle()\n", '        "ä€😀"; self._wait_for_vram_settle(\n        )\n'
)


@pytest.mark.parametrize(
    ("toml", "source", "levels"),
    [
        (TOML, BACKEND, []),
        (TOML, UNDER_LOCK, ["error"]),
        (TOML, LONG, ["error"]),
        (TOML, UNKNOWN, ["warning"]),
        (WAIVED, UNDER_LOCK, ["error"]),
        (WAIVED, BACKEND, ["error"]),
        (VACUOUS, BACKEND, ["warning"]),
    ],
    ids=["kept", "violated", "characters", "cannot tell", "waived", "spare waiver", "vacuous"],
)
def test_each_object_is_as_the_schema_and_code_scanning_have_it(
    toml: str, source: str, levels: list[str], tmp_path: Path
) -> None:
    (run,) = checked(tmp_path, toml, source)["runs"]
    assert [each["level"] for each in run["results"]] == levels


def test_paths_are_quoted_and_relative_to_the_base(tmp_path: Path) -> None:
    folder = tmp_path / "a folder ü"
    log = checked(folder, TOML, UNDER_LOCK, "größe")
    uri = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "src/myapp/gr%C3%B6%C3%9Fe.py"


def test_what_is_missing_or_too_much_is_a_fault() -> None:
    region = {"startLine": 0, "startColumn": 1, "endColumn": 1, "lines": 3}
    assert sorted(faults("region", region, "region")) == [
        "region.startLine: 0 is no count",
        "region: lines is no property of it",
        "region: no endLine",
    ]
