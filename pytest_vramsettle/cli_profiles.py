"""`fake-gpu profile import` and `fake-gpu profile compare`."""

# Annotations are evaluated here, not kept as texts: typer reads them.

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fake_gpu.errors import FakeGpuError, InvalidValue

profile_app = typer.Typer(no_args_is_help=True, add_completion=False, help="Profiles made of real nvidia-smi output.")


@profile_app.command("import")
def import_profile(
    file: Annotated[Path, typer.Argument(help="What nvidia-smi -q -x or nvidia-smi -q printed, or a capture file.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The profile. [default: FILE with .toml]")] = None,
    gpu: Annotated[int, typer.Option("--gpu", help="Which of the GPUs in it, from 0.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Makes a profile for add_gpu(profile="card.toml") of what a real card's nvidia-smi has printed.

    nvidia-smi -q -x > card.xml; fake-gpu profile import card.xml
    """
    from fake_gpu.capture import read_machine
    from fake_gpu.profile import parse_profile
    from fake_gpu.profile_file import to_toml

    target = out or file.with_suffix(".toml")
    try:
        if target.suffix != ".toml":
            raise InvalidValue(f"{target}: a profile's name ends in .toml, which is how add_gpu tells it is a file")
        machine = read_machine(file)
        if not 0 <= gpu < len(machine.cards):
            raise InvalidValue(f"--gpu {gpu}: {file} tells of {len(machine.cards)} GPUs, from 0")
        profile = machine.cards[gpu].profile
        source = f"{profile.name}, from nvidia-smi of a real card (driver {machine.driver_version})."
        text = to_toml(profile, source)
        parse_profile(text, f"the profile made of {file}")
        _write(target, text, force=force)
    except FakeGpuError as error:
        _fail("profile import", error)
    print(f"{target}: {profile.name}, {profile.memory.total_mib} MiB")


@profile_app.command("compare")
def compare(
    file: Annotated[Path, typer.Argument(help="What nvidia-smi -q -x or nvidia-smi -q printed, or a capture file.")],
    all_: Annotated[bool, typer.Option("--all", help="Show every line that differs, not the first ten.")] = False,
) -> None:
    """Makes a machine of a real output, and shows which lines the fake nvidia-smi prints otherwise.

    Exit status 0 where all lines are alike, 1 where some are not.
    """
    from fake_gpu.capture import read_machine
    from fake_gpu.capture.compare import compared, is_help

    alike = True
    try:
        for one in compared(read_machine(file)):
            if is_help(one.shot):
                continue
            alike = alike and not one.different
            state = f"{one.shot.state}: " if one.shot.state else ""
            print(f"{state}{one.shot.command}: {one.same} of {one.lines} lines")
            for real, ours in one.different if all_ else one.different[:10]:
                print(f"    real: {real}\n    fake: {ours}")
    except FakeGpuError as error:
        _fail("profile compare", error)
    raise typer.Exit(0 if alike else 1)


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InvalidValue(f"{path} is there already: name another file (--out), or replace it (--force)") from None
    except OSError as error:
        raise InvalidValue(f"{path} cannot be written: {error.strerror}") from error


def _fail(command: str, error: FakeGpuError) -> NoReturn:
    print(f"fake-gpu {command}: {error}", file=sys.stderr)
    raise typer.Exit(1) from None
