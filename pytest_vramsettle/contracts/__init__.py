"""Contracts over source and locks: on the syntax tree, never by substring; the same declarations work at run time.

`lock_contract("myapp.backend:Backend")` gives a `Target` on which contracts are declared. It is also a fixture.

Here is what users declare, read and are told, and the locks that are traced at run time; `analysis` walks through the
code along its paths, `names` looks at what names alone tell, and `checking` has the one and the other make a verdict.
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
