"""`vramsettle conform`."""

# Annotations are evaluated here, not kept as texts: typer reads them.

import enum
import json
import sys
from typing import Annotated

import typer

from pytest_vramsettle._visible import visible
from pytest_vramsettle.cli import INTERRUPTED


class Format(enum.StrEnum):
    """How verdicts are written."""

    TEXT = "text"
    JSON = "json"


class KindOption(enum.StrEnum):
    """What is judged."""

    AUTO = "auto"
    SETTLE = "settle"
    KILLS = "kills"
    PROBE = "probe"
    RELOAD = "reload"


class LevelOption(enum.StrEnum):
    """How much is asked."""

    UPSTREAM = "upstream"
    VERIFIED = "verified"


def conform(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FACTORY", help="A wait, a KillRoutine, a probe, or its maker; a backend's maker."
        ),
    ],
    kind: Annotated[KindOption, typer.Option(help="What it is; auto looks.")] = KindOption.AUTO,
    level: Annotated[LevelOption, typer.Option(help="What is asked of it.")] = LevelOption.UPSTREAM,
    only: Annotated[list[str] | None, typer.Option(help="Only this scenario; repeatable.")] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="CAPABILITY", help="What it does not claim; repeatable.")
    ] = None,
    limit: Annotated[float, typer.Option(help="Real seconds after which a scenario is ended by force.")] = 10.0,
    format_: Annotated[Format, typer.Option("--format", help="For people, or for scripts.")] = Format.TEXT,
) -> None:
    """Judges a settle wait, a kill routine, a probe or a backend of yours. Exits 1 where a scenario fails, 2 on errors.

    Each scenario has a fake machine of its own, on a virtual clock, in a worker process: what hangs or ends its process
    fails alone.
    """
    from pytest_vramsettle.conformance.checking import ConformanceError
    from pytest_vramsettle.conformance.command import Asked
    from pytest_vramsettle.conformance.command import conform as judge

    asked = Asked(spec=spec, kind=kind.value, level=level.value, only=only or (), without=without or (), limit=limit)
    try:
        judged = judge(asked)
    except ConformanceError as error:
        print(visible(f"vramsettle conform: {error}"), file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:  # before click takes it for an abort, exit status 1
        raise typer.Exit(INTERRUPTED) from None
    if format_ is Format.JSON:
        print(json.dumps({"kind": judged.kind, "level": judged.level, "verdicts": judged.verdicts}, indent=2))
    else:
        print(visible(judged.text()))
    raise typer.Exit(0 if judged.passes else 1)
