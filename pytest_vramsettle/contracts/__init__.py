"""Contracts over source and locks: on the syntax tree, never by substring; the same declarations work at run time.

`lock_contract("myapp.backend:Backend")` gives a `Target` on which contracts are declared. It is also a fixture.
"""

from pytest_vramsettle.contracts.contract import Acquired, Contract, NamedLock, Target, lock_contract
from pytest_vramsettle.contracts.errors import ContractError, ContractFailure, HoldFailure, SourceError
from pytest_vramsettle.contracts.render import render
from pytest_vramsettle.contracts.verdicts import Outcome, Verdict

__all__ = [
    "Acquired",
    "Contract",
    "ContractError",
    "ContractFailure",
    "HoldFailure",
    "NamedLock",
    "Outcome",
    "SourceError",
    "Target",
    "Verdict",
    "lock_contract",
    "render",
]
