"""`vramsettle check`."""

# Annotations are evaluated here, not kept as texts: typer reads them.

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from pytest_vramsettle.contracts.config import Declared
    from pytest_vramsettle.contracts.verdicts import Outcome


class Format(enum.StrEnum):
    """How outcomes are written."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


def check(
    path: Annotated[Path, typer.Argument(help="The file with [[tool.vramsettle.contracts]].")] = Path("pyproject.toml"),
    format_: Annotated[Format, typer.Option("--format", help="For people, scripts or code hosts.")] = Format.TEXT,
    prove: Annotated[
        bool, typer.Option("--prove", help="Break the source in memory and show what each contract sees.")
    ] = False,
) -> None:
    """Checks the contracts in pyproject.toml. Exits 1 where one is violated, cannot be told or is vacuous; 2 on errors.

    A waived contract passes as long as it is violated or cannot be told. The source is read, never imported.
    With --prove: 1 where an edit was missed, or none could be made.
    """
    from pytest_vramsettle.contracts.config import load
    from pytest_vramsettle.contracts.errors import ContractError

    try:
        declared = load(path)
        if not declared.contracts:
            raise ContractError(f"{path}: there is no [[tool.vramsettle.contracts]] in it")
        if prove and format_ is not Format.TEXT:
            raise ContractError("--prove writes a table for people: leave --format out")
        if prove:
            _prove(declared)
    except ContractError as error:
        print(f"vramsettle check: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    outcomes, wrong = [], False
    for contract in declared.contracts:
        try:
            outcomes.append(contract.check_static())
        except ContractError as error:
            wrong = True
            print(f"vramsettle check: {declared.where(contract)}: {error}", file=sys.stderr)
    if wrong:
        raise typer.Exit(2)
    print(_written(outcomes, format_, path.resolve().parent))
    raise typer.Exit(0 if all(outcome.passes for outcome in outcomes) else 1)


def _prove(declared: "Declared") -> NoReturn:
    from pytest_vramsettle.contracts.errors import ContractError
    from pytest_vramsettle.contracts.prove import Report, prove

    proofs = []
    for contract in declared.contracts:
        try:
            proofs.append(prove(contract))
        except ContractError as error:
            raise ContractError(f"{declared.where(contract)}: {error}") from None
    report = Report(tuple(proofs))
    print(report.text)
    raise typer.Exit(0 if report.passes else 1)


def _written(outcomes: "list[Outcome]", format_: Format, base: Path) -> str:
    from pytest_vramsettle import __version__
    from pytest_vramsettle.contracts.render import as_json, render
    from pytest_vramsettle.contracts.sarif import sarif

    if format_ is Format.SARIF:
        return sarif(outcomes, __version__, base)
    if format_ is Format.JSON:
        return as_json(outcomes)
    passed = sum(outcome.passes for outcome in outcomes)
    return "\n\n".join([*map(render, outcomes), f"{passed} of {len(outcomes)} contracts pass"])
