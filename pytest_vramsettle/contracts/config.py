"""Contracts as data: `[[tool.vramsettle.contracts]]` in a pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from pytest_vramsettle.contracts.checking import refuse_contradictions
from pytest_vramsettle.contracts.contract import Contract, Target
from pytest_vramsettle.contracts.errors import ContractError
from pytest_vramsettle.contracts.patterns import Pattern
from pytest_vramsettle.contracts.source import Project, closest


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
    still_held: bool = True

    def declare(self, target: Target) -> Contract:
        return target.must_recheck(
            self.call,
            after=target.lock(self.lock).acquired,
            before=target.call(self.before),
            within=self.within,
            proceed_if=self.proceed_if,
            still_held=self.still_held,
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
    """All contracts of one file; they share the modules that they parse."""

    path: Path
    contracts: tuple[Contract, ...]
    project: Project


def load(path: Path, extra_roots: Sequence[str | Path] = ()) -> Declared:
    """Raises `ContractError` with the number and id of the table that is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{path}: is no TOML: {error}") from None
    table = data.get("tool", {}).get("vramsettle", {})
    if not isinstance(table, dict):
        raise ContractError(f"{path}: tool.vramsettle is to be a table")
    unknown = set(table) - {"contracts", "roots"}
    if unknown:
        raise ContractError(f"{path}: [tool.vramsettle] has no key {min(unknown)!r}; there are contracts, roots")
    home = path.parent
    roots = [home / root for root in table.get("roots", ())] or [home, home / "src"]
    project = Project([*roots, *extra_roots])
    targets: dict[str, Target] = {}
    contracts: list[Contract] = []
    for number, entry in enumerate(table.get("contracts", ()), 1):
        contracts.append(_contract(path, number, entry, project, targets, [each.id for each in contracts]))
    refuse_contradictions(contracts)
    return Declared(path, tuple(contracts), project)


def _contract(
    path: Path, number: int, entry: Any, project: Project, targets: dict[str, Target], taken: list[str]
) -> Contract:
    name = entry.get("id", "") if isinstance(entry, dict) else ""
    where = f"{path}: [[tool.vramsettle.contracts]] number {number}" + (f" ({name})" if name else "")
    try:
        read = _convert(entry)
        target = targets.setdefault(read.target, Target(read.target, project))
        contract = read.declare(target)
    except (ContractError, msgspec.ValidationError) as error:
        raise ContractError(f"{where}: {error}") from None
    chosen = read.id or contract.id
    while chosen in taken:
        if read.id:
            raise ContractError(f"{where}: another contract has this id")
        chosen += "+"
    return replace(contract, id=chosen)


def _convert(entry: Any) -> AnyEntry:
    if isinstance(entry, dict):
        rule = entry.get("rule")
        if rule not in _KINDS:
            known = ", ".join(str(each) for each in _KINDS)
            asked = f"rule = {rule!r} is not known" if rule else "there is no rule"
            raise ContractError(f"{asked}; there are {known}")
        fields = set(_KINDS[rule].__struct_fields__) | {"rule"}
        for key in entry:
            if key not in fields:
                raise ContractError(f"{rule} takes no key {key!r}{closest(key, fields)}")
    converted: AnyEntry = msgspec.convert(entry, AnyEntry)
    return converted
