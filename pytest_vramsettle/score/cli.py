"""The commands `vramsettle score` and `vramsettle plot`: their options. What they do is imported when they are run."""

# Annotations are evaluated here, not kept as texts: typer reads them.

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pytest_vramsettle.cli import INTERRUPTED

_USAGE = 2
_BEYOND = 1

_Policies = Annotated[
    list[str] | None,
    typer.Option("--policy", "-p", help="A policy's name, or module:function, module:Policy of yours; repeatable."),
]
_Seed = Annotated[int, typer.Option(help="Of the generated scenarios.")]


def register(app: typer.Typer) -> None:
    """Add both to an app."""
    app.command()(score)
    app.command()(plot)


def score(
    traces: Annotated[
        list[Path] | None, typer.Argument(help="Recorded reclaims, to score in place of the rest.")
    ] = None,
    policy: _Policies = None,
    reloads: Annotated[
        int | None, typer.Option("--reloads", "-n", help="Generated scenarios; 100 of each class by default.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option("--class", help="Only this class of them; repeatable.")] = None,
    seed: _Seed = 1,
    csv: Annotated[Path | None, typer.Option(help="Write a row for each reload.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as processors by default.")] = None,
    max_misread_mib: Annotated[
        int | None, typer.Option(min=0, help="Exit 1 where a reload is misread by more, and not flagged.")
    ] = None,
    max_waste: Annotated[
        float | None, typer.Option(min=0, help="Exit 1 where more seconds are waited in vain, in the mean.")
    ] = None,
    max_given_up: Annotated[
        float,
        typer.Option(min=0, max=1, help="With --max-misread-mib: share that may be flagged while memory is missing."),
    ] = 0.05,
    shared: Annotated[bool, typer.Option("--shared", help="The limits hold beside other tenants, too.")] = False,
) -> None:
    """Policies over scenarios: memory misread, seconds wasted. Exits 1 beyond a limit, 2 for what cannot be asked."""
    from rich.console import Console

    from pytest_vramsettle.score.command import Asked, UsageError, run_score
    from pytest_vramsettle.score.gate import Limits

    def run() -> int:
        asked = Asked(traces or (), policy or (), kind or (), reloads, seed, workers)
        try:
            limits = Limits(max_misread_mib, max_waste, max_given_up, shared)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return run_score(asked, limits, csv, Console(highlight=False))

    raise typer.Exit(_told("score", run))


def plot(
    what: Annotated[str, typer.Argument(help="A sheet of score --csv, a trace, or a scenario such as linear/3.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture: .svg, .png, .pdf.")],
    policy: _Policies = None,
    seed: _Seed = 1,
) -> None:
    """A picture: misread against time waited, or one reload's timeline under some policies."""
    from pytest_vramsettle.score.command import run_plot

    def run() -> int:
        run_plot(what, out, policy or (), seed)
        return 0

    raise typer.Exit(_told("plot", run))


def _told(name: str, run: Callable[[], int]) -> int:
    """The exit status; what went wrong is told on standard error."""
    from pytest_vramsettle.score.command import UsageError
    from pytest_vramsettle.score.run import ScoreError

    try:
        return run()
    except UsageError as error:
        status, text = _USAGE, str(error)
    except ScoreError as error:
        status, text = _BEYOND, str(error)
    except KeyboardInterrupt:  # before click takes it for an abort, exit status 1
        return INTERRUPTED
    print(f"vramsettle {name}: {text}", file=sys.stderr)
    return status
