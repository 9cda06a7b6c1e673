"""`vramsettle smoke`."""

# Annotations are evaluated here, not kept as texts: typer reads them.

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from pytest_vramsettle._visible import visible
from pytest_vramsettle.cli import INTERRUPTED


class Format(enum.StrEnum):
    """How the outcome is written."""

    TEXT = "text"
    JSON = "json"


def smoke(
    url: Annotated[str, typer.Argument(help="The server, such as http://127.0.0.1:8000.")],
    spec: Annotated[
        Path | None, typer.Option(help="Its paths and fields, in TOML. [default: those of the demo backend]")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="For people or for scripts.")] = Format.TEXT,
    pid: Annotated[int | None, typer.Option(help="The server's process: its children are looked at too.")] = None,
) -> None:
    """Load, load again, reload, unload, load, status and cancel over HTTP; then no process may be left.

    It changes what is loaded there. Exits 1 where a step failed, 2 for a file, a URL or a PID that cannot be used.
    """
    from pytest_vramsettle.smoke import SpecError, Step, as_json, count_as_text, read_spec, run_smoke, step_as_text

    def tell(step: Step) -> None:
        """A load may take minutes: what has been found is shown meanwhile."""
        if format_ is Format.TEXT:
            print(step_as_text(step), flush=True)

    try:
        read = None if spec is None else read_spec(spec)
        if format_ is Format.TEXT:
            print(visible(url), flush=True)
        report = run_smoke(url, read, pid=pid, tell=tell)
    except (SpecError, ValueError) as error:
        print(visible(f"vramsettle smoke: {error}"), file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:  # before click takes it for an abort, exit status 1
        raise typer.Exit(INTERRUPTED) from None
    print(as_json(report) if format_ is Format.JSON else count_as_text(report))
    raise typer.Exit(0 if report.passes else 1)
