"""`vramsettle check`."""

# Annotations are evaluated here, not kept as texts: typer reads them.

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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

    A waived contract passes as long as it is not kept. The source is read, never imported.
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
            from pytest_vramsettle.contracts.prove import prove_all

            report = prove_all(declared.contracts)
            print(report.text)
            raise typer.Exit(0 if report.passes else 1)
        outcomes = [contract.check_static() for contract in declared.contracts]
    except ContractError as error:
        print(f"vramsettle check: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(_written(outcomes, format_, path.resolve().parent))
    raise typer.Exit(0 if all(outcome.passes for outcome in outcomes) else 1)


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
