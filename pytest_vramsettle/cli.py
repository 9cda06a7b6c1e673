"""The commands `vramsettle` and `fake-gpu`. What they need (typer, rich) comes with pytest-vramsettle[lab]."""

# Annotations are evaluated here, not kept as texts: typer reads them, and its names are local to a function.

import importlib.util
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    import typer

_MISSING = 2
INTERRUPTED = 130
"""What a shell reports for a command that Ctrl-C ended: 128 + SIGINT."""


def vramsettle() -> None:
    """The entry point. Exits 2 where an optional package is missing, 130 after Ctrl-C."""
    _run("vramsettle", _vramsettle_app)


def fake_gpu() -> None:
    """The entry point. Exits 2 where an optional package is missing, 130 after Ctrl-C."""
    _run("fake-gpu", _fake_gpu_app)


def _run(command: str, app: Callable[[], "typer.Typer"]) -> None:
    _require(command, "typer", "rich")
    try:
        app()()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _require(command: str, *packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        print(
            f"{command} needs {' and '.join(missing)}: install pytest-vramsettle[lab], "
            f"that is, run: pip install 'pytest-vramsettle[lab]'",
            file=sys.stderr,
        )
        sys.exit(_MISSING)


def _vramsettle_app() -> "typer.Typer":
    import typer

    from pytest_vramsettle.cli_conformance import conform
    from pytest_vramsettle.cli_contracts import check
    from pytest_vramsettle.cli_smoke import smoke
    from pytest_vramsettle.score import cli as scoring

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.callback()
    def common(
        version: Annotated[
            bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
        ] = False,
    ) -> None:
        """GPU memory that is not back yet: see the race, test it, wait for it."""

    app.command()(demo)
    scoring.register(app)
    app.command()(check)
    app.command()(conform)
    app.command()(smoke)
    return app


def _fake_gpu_app() -> "typer.Typer":
    import typer

    from pytest_vramsettle.cli_profiles import profile_app
    from pytest_vramsettle.cli_run import run
    from pytest_vramsettle.cli_traces import import_, record

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.callback()
    def common() -> None:
        """A fake NVIDIA driver: programs on fake machines, traces of how memory comes back, profiles of real cards."""

    # What follows the first word of CMD is CMD's, whatever it looks like.
    app.command(context_settings={"allow_interspersed_args": False})(run)
    app.command(context_settings={"allow_interspersed_args": False})(record)
    app.command("import")(import_)
    app.add_typer(profile_app, name="profile")
    return app


def _print_version(wanted: bool) -> None:
    import typer

    from pytest_vramsettle import __version__

    if wanted:
        print(f"vramsettle {__version__}")
        raise typer.Exit


def demo() -> None:
    """The race, its cost and its cure, drawn in the terminal. Needs no GPU; takes about five seconds."""
    import typer
    from rich.console import Console

    from fake_gpu import FakeGpuError
    from pytest_vramsettle.demo.show import show

    try:
        show(Console(highlight=False))
    except FakeGpuError as error:
        print(f"vramsettle demo: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:  # before click takes it for an abort, exit status 1
        raise typer.Exit(INTERRUPTED) from None
