"""`fake-gpu profile import` and `fake-gpu profile compare`."""

# Annotations are evaluated here, not kept as texts: typer reads them.

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fake_gpu.errors import FakeGpuError, InvalidValue

if TYPE_CHECKING:
    from fake_gpu.capture import Machine
    from fake_gpu.profile import Profile

profile_app = typer.Typer(no_args_is_help=True, add_completion=False, help="Profiles made of real nvidia-smi output.")


_FILE_HELP = "What nvidia-smi -q -x or nvidia-smi -q printed, or a capture file; - for standard input."


@profile_app.command("import")
def import_profile(
    file: Annotated[Path, typer.Argument(help=_FILE_HELP)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The profile. [default: FILE with .toml; the card's name for standard input]"),
    ] = None,
    gpu: Annotated[int | None, typer.Option("--gpu", help="Which of the GPUs in it. [default: 0, the first]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Makes a profile for add_gpu(profile="card.toml") of what a real card's nvidia-smi has printed.

    nvidia-smi -q -x > card.xml; fake-gpu profile import card.xml
    """
    from fake_gpu.capture import read_machine
    from fake_gpu.profile import parse_profile
    from fake_gpu.profile_file import to_toml

    try:
        _check_target(out)
        machine = read_machine(file)
        profile = _chosen(machine, gpu, file)
        target = out or _target(file, profile.name)
        source = f"{profile.name}, from nvidia-smi of a real card (driver {machine.driver_version})."
        text = to_toml(profile, source)
        parse_profile(text, f"the profile made of {file}")
        _write(target, text, force=force)
    except FakeGpuError as error:
        _fail("profile import", error)
    _tell_notes(machine)
    print(f"{target}: {profile.name}, {profile.memory.total_mib} MiB")


def _check_target(target: Path | None) -> None:
    if target is not None and target.suffix != ".toml":
        raise InvalidValue(f"{target}: a profile's name ends in .toml, which is how add_gpu tells it is a file")


def _target(file: Path, name: str) -> Path:
    """Beside the file; in the working directory where it is none that stays, such as standard input or a pipe."""
    if file.is_file() and not str(file).startswith(("/dev/", "/proc/")):
        return file.with_suffix(".toml")
    return Path(f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'card'}.toml")


def _chosen(machine: "Machine", gpu: int | None, file: Path) -> "Profile":
    """The profile of the card that was asked for; where none was, which there are is told."""
    from fake_gpu.capture.findings import counted

    cards = machine.cards
    if gpu is not None and not 0 <= gpu < len(cards):
        raise InvalidValue(f"--gpu {gpu}: {file} tells of {counted(len(cards), 'GPU')}, from 0: {_listed(machine)}")
    if gpu is None and len(cards) > 1:
        told = f"{file} tells of {len(cards)} GPUs: {_listed(machine)}. GPU 0 was taken; --gpu N takes another."
        print(f"note: {told}", file=sys.stderr)
    return cards[gpu or 0].profile


def _listed(machine: "Machine") -> str:
    return ", ".join(f"{index}: {card.profile.name} ({card.bus_id})" for index, card in enumerate(machine.cards))


def _tell_notes(machine: "Machine") -> None:
    for note in machine.notes:
        print(f"note: {note}", file=sys.stderr)


@profile_app.command("compare")
def compare(
    file: Annotated[Path, typer.Argument(help=_FILE_HELP)],
    all_: Annotated[bool, typer.Option("--all", help="Show every line that differs, not the first ten.")] = False,
) -> None:
    """Makes a machine of a real output, and shows which lines the fake nvidia-smi prints otherwise.

    Exit status 0 where all lines are alike, 1 where some are not.
    """
    from fake_gpu.capture import read_machine
    from fake_gpu.capture.compare import compared, is_help

    alike = True
    try:
        machine = read_machine(file)
        _tell_notes(machine)
        for one in compared(machine):
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
    told = str(error)
    print(f"fake-gpu {command}: " + ("\n" * ("\n" in told)) + told, file=sys.stderr)
    raise typer.Exit(1) from None
