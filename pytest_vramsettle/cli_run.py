"""`fake-gpu run`: any program on a fake machine."""

# Annotations are evaluated here, not kept as texts: typer reads them.

import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
import typer

from fake_gpu.errors import FakeGpuError, InvalidValue

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.machine.spec import GpuSpec, MachineSpec, ProcessSpec

_CANNOT_RUN, _NOT_FOUND, _KILLED_BY = 126, 127, 128
"""What a shell reports for a command that cannot be executed, is not there, or (and its number) a signal has ended."""

_GPU = re.compile(r"(?:(\d{1,4})x)?([^\s,]+)")


def run(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- CMD", help="What to run. [default: a shell]")
    ] = None,
    gpu: Annotated[
        list[str] | None, typer.Option("--gpu", help="A card's profile, or several: 2xh200. May be repeated.")
    ] = None,
    process: Annotated[
        list[str] | None,
        typer.Option("--process", help="A real process that holds memory: 0:20GiB, or 0:20GiB:name. May be repeated."),
    ] = None,
    machine: Annotated[Path | None, typer.Option("--machine", help="A TOML file that describes the machine.")] = None,
    reclaim: Annotated[
        str | None, typer.Option(help="How a killed process's memory comes back: 'linear 2s', 'step 2s', never.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Say on stderr afterwards what the driver was asked.")
    ] = False,
) -> None:
    """Runs CMD where NVML and nvidia-smi show a fake machine: unmodified monitors, servers, scripts.

    CMD is in the foreground; its exit status is this command's (128 + n after signal n). GPUs are h200, l40s, rtx-4090,
    t4 or generic; with neither --gpu nor --machine there is one generic card of 40 GiB.
    """
    from fake_gpu.foreground import CannotRun, signals_held

    words = command or [os.environ.get("SHELL") or "/bin/sh"]
    try:
        described = _machine(machine, gpu or [], process or [], reclaim)
        with signals_held():
            status = _run(words, described, machine, report=report)
    except CannotRun as error:
        _fail(str(error), _CANNOT_RUN if error.found else _NOT_FOUND)
    except FakeGpuError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:  # while a file was read that is slow to come: a pipe, say
        status = -signal.SIGINT
    _end_as(status)


def _run(words: list[str], machine: "MachineSpec", source: Path | None, *, report: bool) -> int:
    """CMD's exit status, -n where signal n ended it or came before it could start. Raises FakeGpuError."""
    from fake_gpu import foreground
    from fake_gpu.machine.furnish import furnish, new_driver

    with new_driver(machine, source) as driver:
        due = furnish(driver, machine, source)
        asked_to_end = foreground.ending_signal()
        if asked_to_end is not None:
            return -asked_to_end
        status = foreground.run(words, os.environ, due=due, on_due=driver.sync)
        if report:
            _report(driver)
    return status


def _end_as(status: int) -> NoReturn:
    """Ends this command as CMD has ended; -n is signal n."""
    if status == -signal.SIGINT:
        # By the signal itself: a script goes on with its next line where Ctrl-C seems to have been dealt with.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    raise typer.Exit(status if status >= 0 else _KILLED_BY - status)


def _machine(path: Path | None, gpus: list[str], processes: list[str], reclaim: str | None) -> "MachineSpec":
    """The file's machine, with the options' cards and processes behind its own."""
    from fake_gpu.machine.spec import GpuSpec, MachineSpec, parse_ramp, read_machine_spec

    if reclaim is not None:
        parse_ramp(reclaim)  # refused as an option's, not as the file's
    machine = MachineSpec() if path is None else read_machine_spec(path)
    cards = (*machine.gpu, *map(_gpu, gpus))
    return msgspec.structs.replace(
        machine,
        gpu=cards if cards or path is not None else (GpuSpec(),),
        process=(*machine.process, *map(_process, processes)),
        reclaim=machine.reclaim if reclaim is None else reclaim,
    )


def _gpu(text: str) -> "GpuSpec":
    from fake_gpu.machine.spec import GpuSpec
    from fake_gpu.toml.table import Refused

    match = _GPU.fullmatch(text)
    if match is None or int(match[1] or 1) == 0:
        raise InvalidValue(f"--gpu {text}: give a profile, such as rtx-4090, or a number of them, such as 2xh200")
    try:
        return GpuSpec(profile=match[2], count=int(match[1] or 1))
    except Refused as error:
        raise InvalidValue(f"--gpu {text}: {error.reason}") from error


def _process(text: str) -> "ProcessSpec":
    from fake_gpu.machine.spec import ProcessSpec
    from fake_gpu.toml.table import Refused

    index, _, rest = text.partition(":")
    size, named, name = rest.partition(":")
    if not index.isdecimal() or not size:
        raise InvalidValue(f"--process {text}: give a GPU's index and a size, such as 0:20GiB, or 0:20GiB:llama-server")
    try:
        return ProcessSpec(gpu=int(index), memory=size, name=name if named else "llama-server")
    except Refused as error:
        raise InvalidValue(f"--process {text}: {error.reason}") from error


def _report(driver: "Driver") -> None:
    counts = Counter((call.name if call.via == "nvml" else "nvidia-smi", call.covered) for call in driver.calls)
    for (name, covered), times in sorted(counts.items()):
        remark = "" if covered else ", which this fake does not cover"
        print(f"fake-gpu run: {name}: {times} {'time' if times == 1 else 'times'}{remark}", file=sys.stderr)


def _fail(message: str, code: int) -> NoReturn:
    print(f"fake-gpu run: {message}", file=sys.stderr)
    raise typer.Exit(code) from None
