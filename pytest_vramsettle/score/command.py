"""What `vramsettle score` and `vramsettle plot` do, without the options' parsing."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import Progress

from fake_gpu import FakeGpuError
from pytest_vramsettle.clock import patches
from pytest_vramsettle.policies import all_policies
from pytest_vramsettle.score.corpus import KINDS, USUAL, Corpus
from pytest_vramsettle.score.gate import Limits, broken_limits, judged_groups
from pytest_vramsettle.score.reload import Reload, replay
from pytest_vramsettle.score.run import score
from pytest_vramsettle.score.sheet import read, written
from pytest_vramsettle.score.subjects import subject_named
from pytest_vramsettle.score.table import legend, tables
from pytest_vramsettle.score.tally import Scoreboard
from pytest_vramsettle.score.traced import scenario_of

_EVERY = 16


class UsageError(ValueError):
    """What was asked for cannot be done; the text says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The options that both commands have. None and empty: what is usual."""

    traces: Sequence[Path] = ()
    policies: Sequence[str] = ()
    kinds: Sequence[str] = ()
    reloads: int | None = None
    seed: int = 1
    workers: int | None = None

    def corpus(self) -> Corpus:
        """Traces alone, where traces are given and no number of generated scenarios. Raises UsageError."""
        reloads = (0 if self.traces else USUAL) if self.reloads is None else self.reloads
        try:
            given = tuple(scenario_of(path) for path in self.traces)
            return Corpus(reloads, self.seed, tuple(self.kinds) or tuple(kind.name for kind in KINDS), given)
        except (ValueError, FakeGpuError) as error:
            raise UsageError(str(error)) from error

    def names(self) -> tuple[str, ...]:
        """The policies to score, each of which can be. Raises UsageError."""
        names = tuple(dict.fromkeys(self.policies)) or tuple(all_policies())
        fresh = patches.reside()
        try:
            for name in names:
                subject_named(name)
        except ValueError as error:
            raise UsageError(str(error)) from error
        finally:
            if fresh:
                patches.leave_residence()
        return names


def run_score(asked: Asked, limits: Limits, csv_path: Path | None, console: Console) -> int:
    """Score, print, and write the rows. Returns the exit status: 1 beyond a limit, or for a wait that fails.

    Raises UsageError and ScoreError.
    """
    corpus, names = asked.corpus(), asked.names()
    board = Scoreboard(limit_mib=256 if limits.max_misread_mib is None else limits.max_misread_mib)
    with contextlib.ExitStack() as stack:
        reloads: Iterable[Reload] = score(corpus, names, workers=asked.workers)
        if csv_path is not None:
            reloads = written(reloads, stack.enter_context(_opened(csv_path)))
        for reload in _shown(reloads, len(corpus) * len(names), stack):
            board.add(reload)
    for table in tables(board):
        console.print(table)
        console.print()
    console.print(legend(board.limit_mib))
    if limits.asked and not set(board.groups) & set(judged_groups(limits)):
        raise UsageError(
            f"nothing was judged: the limits hold for {' and '.join(judged_groups(limits))}, and the reloads are "
            f"{' and '.join(board.groups)}. --shared has the limits hold beside other tenants too"
        )
    broken = broken_limits(board, limits)
    for line in broken:
        console.print(line, markup=False, emoji=False, soft_wrap=True)
    if limits.asked and not broken:
        console.print("All within the limits.")
    return 1 if broken else 0


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _shown(reloads: Iterable[Reload], total: int, stack: contextlib.ExitStack) -> Iterator[Reload]:
    """With a progress bar, on standard error, so that the table can be redirected."""
    progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
    task = progress.add_task("scoring", total=total)
    for number, reload in enumerate(reloads):
        if number % _EVERY == 0:
            progress.update(task, completed=number)
        yield reload


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of waits that time out: the picture shows them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run_plot(what: str, out: Path, policies: Sequence[str], seed: int) -> None:
    """A picture of a sheet (`score --csv`), of a trace, or of a generated scenario (`linear/3`). Raises UsageError."""
    from pytest_vramsettle.plot import Played, plot_scoreboard, plot_timeline

    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a picture needs matplotlib: run pip install 'pytest-vramsettle[lab]'")
    try:
        if what.endswith(".csv"):
            with Path(what).open(encoding="utf-8", newline="") as file:
                plot_scoreboard(Scoreboard().update(read(file)), out)
            return
        asked = Asked(policies=policies or ("two-samples", "verified"), seed=seed)
        scenario = scenario_of(what) if Path(what).exists() else Corpus(seed=seed).named(what)
        subjects = [subject_named(name) for name in asked.names()]
        with _quiet():
            played = [Played(*replay(subject, scenario)) for subject in subjects]
        plot_timeline(scenario, played, out)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error
    except (ValueError, FakeGpuError) as error:
        raise UsageError(str(error)) from error
