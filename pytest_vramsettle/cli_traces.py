"""`fake-gpu record` and `fake-gpu import`."""

# Annotations are evaluated here, not kept as texts: typer reads them.

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, cast

import typer

from fake_gpu.errors import FakeGpuError, InvalidValue
from pytest_vramsettle.cli import INTERRUPTED

if TYPE_CHECKING:
    from fake_gpu.trace.record import Progress

_TERMINATED = 143
"""What a shell reports for a command that SIGTERM ended: 128 + SIGTERM."""


def record(
    command: Annotated[list[str] | None, typer.Argument(metavar="-- CMD", help="What to run and kill.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The trace: .jsonl, or .jsonl.gz.")] = Path("trace.jsonl"),
    pid: Annotated[int | None, typer.Option(help="Kill this process, which runs already, instead of CMD.")] = None,
    signal_: Annotated[str, typer.Option("--signal", help="KILL, TERM or INT.")] = "KILL",
    group: Annotated[bool, typer.Option("--group", help="Signal CMD's whole process group.")] = False,
    period: Annotated[str, typer.Option(help="From one reading to the next.")] = "1ms",
    still: Annotated[str, typer.Option(help="Kill once CMD holds memory and free memory was still so long.")] = "2s",
    after: Annotated[str | None, typer.Option(help="Kill so long after the start, whatever CMD does.")] = None,
    ready_line: Annotated[str | None, typer.Option(help="Kill once CMD writes a line with this text.")] = None,
    ready_timeout: Annotated[str, typer.Option(help="Give up where it is not ready by then.")] = "10min",
    lead: Annotated[str, typer.Option(help="Sample so long before the kill.")] = "500ms",
    rest: Annotated[str, typer.Option(help="End when nothing has moved for so long.")] = "3s",
    limit: Annotated[str, typer.Option("--max", help="End so long after the kill at the latest.")] = "2min",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Runs CMD on real hardware, kills it, and records through NVML how its memory comes back, until all is still.

    Durations are such as 1ms, 2s, 10min. Ctrl-C ends the recording and keeps it.
    """
    from fake_gpu.trace.record import Plan
    from fake_gpu.trace.record import record as run_and_record

    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)  # the terminal is gone
    try:
        plan = Plan(
            period=period,
            signal=cast(Literal["KILL", "TERM", "INT"], signal_.upper().removeprefix("SIG")),  # Plan checks it
            group=group,
            after=after,
            ready_line=ready_line,
            still=still,
            ready_timeout=ready_timeout,
            lead=lead,
            rest=rest,
            limit=limit,
        )
        with _progress() as show:
            recorded = run_and_record(out, command or None, pid=pid, plan=plan, progress=show, overwrite=force)
        print(f"{recorded.path}: {recorded.outcome}, {recorded.readings} readings", file=sys.stderr)
        if recorded.outcome == "interrupted":
            raise typer.Exit(INTERRUPTED)
        _describe(recorded.path)
    except FakeGpuError as error:
        _fail("record", error)
    except KeyboardInterrupt:  # before click takes it for an abort, exit status 1
        raise typer.Exit(INTERRUPTED) from None


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(_TERMINATED)  # on the way out CMD is ended


def import_(
    log: Annotated[Path, typer.Argument(help="What nvidia-smi --query-gpu=... --format=csv -lms N wrote.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The trace. [default: LOG with .jsonl]")] = None,
    killed_at: Annotated[
        str | None, typer.Option(help="When the process was killed: a time stamp of the log, or such as 12.5s.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="The columns of a log without header, as given to --query-gpu.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Makes a trace of a log that nvidia-smi alone has written.

    nvidia-smi --query-gpu=timestamp,index,uuid,memory.used,memory.free --format=csv -lms 100 > nvidia-smi.csv
    """
    from fake_gpu.trace import import_log

    target = out or log.with_suffix(".jsonl")
    try:
        if target.resolve() == log.resolve():
            raise InvalidValue(f"{log} is the log itself: name another file for the trace (--out)")
        imported = import_log(log, killed_at=killed_at, columns=columns)
        imported.trace.write(target, overwrite=force)
        for notice in imported.notices:
            print(f"{log}: {notice}", file=sys.stderr)
        _describe(target)
    except FakeGpuError as error:
        _fail("import", error)


def _describe(path: Path) -> None:
    from fake_gpu.trace import ReclaimTrace

    for line in ReclaimTrace.read(path).describe():
        print(f"{path}: {line}")


def _fail(command: str, error: FakeGpuError) -> NoReturn:
    print(f"fake-gpu {command}: {error}", file=sys.stderr)
    raise typer.Exit(1) from None


@contextmanager
def _progress() -> Iterator[Callable[["Progress"], object]]:
    """One line that changes on a terminal; elsewhere a line for each phase."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda progress: status.update(Text(_line(progress)))
        return
    phases: list[str] = []

    def show(progress: "Progress") -> None:
        if progress.phase not in phases:
            phases.append(progress.phase)
            print(_line(progress), file=sys.stderr, flush=True)

    yield show


def _line(progress: "Progress") -> str:
    from fake_gpu.units import to_mib

    free = ", ".join(
        f"GPU {index}: {'unreadable' if size is None else f'{to_mib(size)} MiB free'}"
        for index, size in progress.free.items()
    )
    return f"process {progress.pid}: {progress.phase}; {progress.seconds:.1f} s, {progress.readings} readings; {free}"
