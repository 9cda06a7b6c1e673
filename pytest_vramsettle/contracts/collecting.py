"""pytest: the contracts of a pyproject.toml as tests, and what the fixture `lock_contract` gives."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_vramsettle.contracts.config import load
from pytest_vramsettle.contracts.contract import Contract, Target
from pytest_vramsettle.contracts.errors import ContractError, ContractFailure
from pytest_vramsettle.contracts.source import Project

# The modules that tests of one run parse are parsed once.
_PROJECTS: pytest.StashKey[dict[tuple[str, ...], Project]] = pytest.StashKey()


class ContractItem(pytest.Item):
    """One contract."""

    def __init__(self, *, contract: Contract, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.contract = contract

    def runtest(self) -> None:
        self.contract.enforce()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **keywords: Any) -> str:
        if isinstance(excinfo.value, ContractFailure | ContractError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.contract.text


class ContractFile(pytest.File):
    """A pyproject.toml."""

    def collect(self) -> Iterator[ContractItem]:
        try:
            declared = load(self.path, _roots(self.config))
        except ContractError as error:
            raise self.CollectError(str(error)) from None
        for contract in declared.contracts:
            yield ContractItem.from_parent(self, name=contract.id, contract=contract)


def _roots(config: pytest.Config) -> list[Path]:
    try:
        paths = [Path(str(each)) for each in config.getini("pythonpath")]
    except (ValueError, KeyError):
        paths = []
    return [*paths, *(Path(entry or ".") for entry in sys.path)]


def target(config: pytest.Config, spec: str) -> Target:
    """Looked for in the rootdir, its `src`, the ini file's pythonpath, and sys.path; checked as it is declared."""
    roots = [config.rootpath, config.rootpath / "src", *_roots(config)]
    projects = config.stash.setdefault(_PROJECTS, {})
    key = tuple(str(root) for root in roots)
    return Target(spec, projects.setdefault(key, Project(roots)), enforce=True)
