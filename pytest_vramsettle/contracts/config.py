"""Contracts as data: `[[tool.vramsettle.contracts]]` in a pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from pytest_vramsettle.contracts.contract import Contract, Target
from pytest_vramsettle.contracts.contradictions import refuse_contradictions, refuse_repetitions
from pytest_vramsettle.contracts.errors import ContractError
from pytest_vramsettle.contracts.patterns import Pattern
from pytest_vramsettle.contracts.source import Project, closest

_HEADER = re.compile(r"\s*\[\[\s*tool\s*\.\s*vramsettle\s*\.\s*contracts\s*\]\]")


class Entry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="rule"):
    """What every table has: `target` is 'package.module:Class'; `id` names the test; `waive` is a reason."""

    target: str
    id: str = ""
    waive: str | None = None


class MustNotHold(Entry, tag="must_not_hold"):
    """`lock` is not held where `at` is called."""

    lock: str
    at: str

    def declare(self, target: Target) -> Contract:
        return target.must_not_hold(target.lock(self.lock), at=target.call(self.at), waive=self.waive)


class MustPrecede(Entry, tag="must_precede"):
    """`first` comes before `before` in `within`."""

    first: str
    before: str
    within: str
    reset_by: str | None = None

    def declare(self, target: Target) -> Contract:
        reset = target.call(self.reset_by) if self.reset_by else None
        before = target.call(self.before)
        return target.must_precede(
            target.call(self.first), before=before, within=self.within, reset_by=reset, waive=self.waive
        )


class MustFollow(Entry, tag="must_follow"):
    """One of `write` (with `value`), `recording` and `call` follows `after`."""

    after: str
    within: str
    write: str | None = None
    value: str | None = None
    recording: str | None = None
    call: str | None = None
    every_exit: bool = True
    only_if: bool = False

    def declare(self, target: Target) -> Contract:
        return target.must_follow(
            self._first(target),
            after=target.call(self.after),
            within=self.within,
            every_exit=self.every_exit,
            only_if=self.only_if,
            waive=self.waive,
        )

    def _first(self, target: Target) -> Pattern:
        given = [name for name in ("write", "recording", "call") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ContractError(f"must_follow takes one of write, recording and call; there is {given or 'none'}")
        if self.write is not None:
            return target.write(self.write, value=self.value)
        return target.recording(self.recording) if self.recording is not None else target.call(self.call or "")


class MustRecheck(Entry, tag="must_recheck"):
    """`call` is asked after `lock` was taken, before `before`."""

    call: str
    lock: str
    before: str
    within: str
    proceed_if: bool = False

    def declare(self, target: Target) -> Contract:
        return target.must_recheck(
            self.call,
            after=target.lock(self.lock).acquired,
            before=target.call(self.before),
            within=self.within,
            proceed_if=self.proceed_if,
            waive=self.waive,
        )


class MustNotName(Entry, tag="must_not_name"):
    """`name` is not in code."""

    name: str
    within: str | None = None

    def declare(self, target: Target) -> Contract:
        return target.must_not_name(self.name, within=self.within, waive=self.waive)


AnyEntry = MustNotHold | MustPrecede | MustFollow | MustRecheck | MustNotName
_KINDS = {kind.__struct_config__.tag: kind for kind in (MustNotHold, MustPrecede, MustFollow, MustRecheck, MustNotName)}


@dataclass(frozen=True, slots=True)
class Declared:
    """All contracts of one file; they share the modules that they parse. `lines` are those of their headers."""

    path: Path
    contracts: tuple[Contract, ...]
    project: Project
    lines: tuple[int, ...] = ()

    def where(self, contract: Contract) -> str:
        """'pyproject.toml, line 12 (wait-outside-the-lock)'."""
        number = self.contracts.index(contract)
        line = f", line {self.lines[number]}" if self.lines else ""
        return f"{self.path}{line} ({contract.id})"


@dataclass(slots=True)
class _Reading:
    """What is known of the file, table after table."""

    path: Path
    lines: list[int]
    project: Project
    targets: dict[str, Target] = field(default_factory=dict)
    contracts: list[Contract] = field(default_factory=list)

    def where(self, number: int, name: str = "") -> str:
        line = f", line {self.lines[number - 1]}" if self.lines else ""
        return f"{self.path}{line}: [[tool.vramsettle.contracts]] number {number}" + (f" ({name})" if name else "")

    def named(self, contract: Contract) -> str:
        number = next(number for number, each in enumerate(self.contracts, 1) if each is contract)
        line = f", line {self.lines[number - 1]}" if self.lines else ""
        return f"number {number} ({contract.id}{line})"


def load(path: Path, extra_roots: Sequence[str | Path] = ()) -> Declared:
    """Raises `ContractError` with the line, number and id of the table that is wrong."""
    text, table = _read(path)
    entries = table.get("contracts", [])
    if not isinstance(entries, list):
        raise ContractError(f"{path}: contracts is to be an array of tables: [[tool.vramsettle.contracts]]")
    headers = [number for number, line in enumerate(text.split("\n"), 1) if _HEADER.match(line)]
    # Tables may be written in other ways, and a header may stand in a longer text.
    lines = headers if len(headers) == len(entries) else []
    reading = _Reading(path, lines, Project([*_roots(path, table), *extra_roots]))
    for number, entry in enumerate(entries, 1):
        reading.contracts.append(_contract(reading, number, entry))
    try:
        refuse_repetitions(reading.contracts, reading.named)
        refuse_contradictions(reading.contracts, reading.named)
    except ContractError as error:
        raise ContractError(f"{path}: [[tool.vramsettle.contracts]]: {error}") from None
    return Declared(path, tuple(reading.contracts), reading.project, tuple(lines))


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """The file's text, and its table `tool.vramsettle`."""
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{path}: is no TOML: {error}") from None
    tool = data.get("tool", {})
    table = tool.get("vramsettle", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise ContractError(f"{path}: tool.vramsettle is to be a table")
    for key in table:
        if key not in ("contracts", "roots"):
            raise ContractError(f"{path}: [tool.vramsettle] has no key {key!r}; there are contracts, roots")
    return text, table


def _roots(path: Path, table: dict[str, Any]) -> list[Path]:
    home = path.parent
    given = table.get("roots", [])
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ContractError(f"{path}: [tool.vramsettle] roots is to be a list of directories, such as ['src']")
    for each in given:
        if not (home / each).is_dir():
            raise ContractError(f"{path}: [tool.vramsettle] roots: there is no directory {each!r} beside this file")
    return [home / each for each in given] or [home, home / "src"]


def _contract(reading: _Reading, number: int, entry: Any) -> Contract:
    name = entry.get("id", "") if isinstance(entry, dict) else ""
    where = reading.where(number, name)
    try:
        read = _convert(entry)
        # On a target of its own: what contradicts what is said once all are known, with their lines.
        contract = read.declare(Target(read.target, reading.project))
        shared = reading.targets.setdefault(read.target, contract.target)
        contract = replace(contract, target=shared)
    except msgspec.ValidationError as error:
        raise ContractError(f"{where}: {_said(error)}") from None
    except ContractError as error:
        raise ContractError(f"{where}: {error}") from None
    taken = [each.id for each in reading.contracts]
    chosen = read.id or contract.id
    while chosen in taken:
        if read.id:
            raise ContractError(f"{where}: another contract has this id: {reading.where(taken.index(chosen) + 1)}")
        chosen += "+"
    return replace(contract, id=chosen)


def _said(error: msgspec.ValidationError) -> str:
    return str(error).replace("Object missing", "missing").replace(" - at `$.", ", at `")


def _convert(entry: Any) -> AnyEntry:
    if isinstance(entry, dict):
        rule = entry.get("rule")
        if rule not in _KINDS:
            known = ", ".join(str(each) for each in _KINDS)
            asked = f"rule = {rule!r} is not known" if rule else "there is no rule"
            near = closest(rule, [str(each) for each in _KINDS], known=False) if isinstance(rule, str) else ""
            raise ContractError(f"{asked}{near or f'; there are {known}'}")
        fields = set(_KINDS[rule].__struct_fields__) | {"rule"}
        for key in entry:
            if key not in fields:
                raise ContractError(f"{rule} takes no key {key!r}{closest(key, fields)}")
        for key, value in entry.items():
            if isinstance(value, str) and not value.strip():
                raise ContractError(f"{key} is empty: leave it out, or fill it in")
    converted: AnyEntry = msgspec.convert(entry, AnyEntry)
    return converted
