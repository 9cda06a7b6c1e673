"""What the installed plugin costs a pytest run that does not use it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.measure import Figure, Goal, Section, alternate, compare, timed

ROUNDS, MOST_SECONDS = 25, 18.0
NO_TESTS = 5
"""pytest's exit status where it finds none."""


def pytest_run(directory: Path, *arguments: str) -> Callable[[], None]:
    """Runs pytest on the empty directory "tests" of `directory`, which is its own root.

    Bytecode is kept, as it is where packages are installed. Hypothesis's plugin stays out: at the end of a run it
    imports all of hypothesis, which takes longer than the rest.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments]
    dropped = ("PYTEST_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environment["PYTHONPYCACHEPREFIX"] = str(directory / "bytecode")

    def run() -> None:
        done = subprocess.run(
            command, cwd=directory / "tests", env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != NO_TESTS:
            raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    return run


def section() -> Section:
    """The median of differences between neighbouring runs, with the plugin and without."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "tests").mkdir()
        (directory / "tests" / "pytest.ini").write_text("[pytest]\n")
        taken = alternate(
            {
                "with": timed(pytest_run(directory)),
                "without": timed(pytest_run(directory, "-p", "no:vramsettle")),
            },
            ROUNDS,
            MOST_SECONDS,
        )
    with_it, without = taken["with"], taken["without"]
    difference = median(one - other for one, other in zip(with_it, without, strict=True))
    return Section(
        "pytest on an empty directory",
        "a run with -p no:vramsettle",
        (
            compare("the plugin installed, not used", with_it, without),
            Figure("the difference", difference, difference / median(without), Goal("seconds", 15e-3)),
        ),
    )
