"""Which tests run on the virtual clock, and with what: the command line, the ini file, the markers."""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vramsettle._clock_arguments import check_grace, check_seed

if TYPE_CHECKING:
    from pytest_vramsettle.clock import VirtualClock

# Kept here, where no test that restores sys.modules makes new ones.
CLOCK_KEY: pytest.StashKey[VirtualClock] = pytest.StashKey()
AWAY_KEY: pytest.StashKey[contextlib.ExitStack] = pytest.StashKey()
"""What takes the test's thread back from real time."""

MARKERS = {
    "virtual_clock": "virtual_clock(seed=, wall=, child_grace=): run this test on the virtual monotonic clock, from "
    "setup to teardown. seed chooses an order of its threads, wall freezes wall time in lockstep, child_grace says "
    "after how many real seconds an idle child no longer holds the clock.",
    "real_clock": "real_clock: run this test in real time under --virtual-clock.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockOptions:
    """What `@pytest.mark.virtual_clock` takes. Raises TypeError or ValueError with the reason."""

    seed: int | None = None
    wall: str | datetime.date | None = None
    child_grace: float = 1.0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.wall is not None and not isinstance(self.wall, (str, datetime.date)):
            raise TypeError(f"wall= takes a str, a date or a datetime, not {self.wall!r}")
        if isinstance(self.wall, str):
            _check_time(self.wall)
        check_grace(self.child_grace)


def _check_time(text: str) -> None:
    import freezegun

    try:
        freezegun.freeze_time(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"wall= takes a time such as '2026-01-01 12:00', not {text!r}: {error}") from None


NAMES = tuple(field.name for field in fields(ClockOptions))


def add_options(parser: pytest.Parser) -> None:
    parser.getgroup("vramsettle").addoption(
        "--virtual-clock",
        action="store_true",
        default=None,
        help="run every test on the virtual monotonic clock, but those marked real_clock",
    )
    parser.getgroup("vramsettle").addoption(
        "--vramsettle-report",
        metavar="DIR",
        help="write DIR/index.html: what each test that used the fake driver did to GPU memory, in pictures",
    )
    parser.addini("virtual_clock", "whether every test runs on the virtual monotonic clock", type="bool", default=False)


def report_directory(config: pytest.Config) -> Path | None:
    """Where the page goes; None where none is asked for. Raises `pytest.UsageError` where that is no directory."""
    asked = config.getoption("vramsettle_report", None)
    if asked is None:
        return None
    directory = config.invocation_params.dir / str(asked)
    if not str(asked) or (directory.exists() and not directory.is_dir()):
        raise pytest.UsageError(f"--vramsettle-report={asked}: that is a file; give a directory, which may be new")
    return directory


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for another, which gets the reports."""
    return hasattr(config, "workerinput")


def declares_contracts(path: Path) -> bool:
    """Whether a pyproject.toml may have `[[tool.vramsettle.contracts]]`, without reading it as TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return "[tool.vramsettle" in text and "contracts" in text


def add_contracts(config: pytest.Config) -> None:
    """Where a run takes its tests from `testpaths`, the rootdir's contracts are among them."""
    path = config.rootpath / "pyproject.toml"
    from_testpaths = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if from_testpaths and str(path) not in config.args and declares_contracts(path):
        config.args.append(str(path))


def whole_suite(config: pytest.Config) -> bool:
    """Also before the command line is parsed in full."""
    asked = getattr(config.known_args_namespace, "virtual_clock", None) or getattr(config.option, "virtual_clock", None)
    return bool(asked or config.getini("virtual_clock"))


def wants_clock(item: pytest.Item) -> bool:
    """The marker nearest to the test decides, then the command line and the ini file."""
    _refuse_arguments(item)
    for marker in item.iter_markers():
        if marker.name in MARKERS:
            return marker.name == "virtual_clock"
    return whole_suite(item.config)


def _refuse_arguments(item: pytest.Item) -> None:
    for marker in item.iter_markers("real_clock"):
        if marker.args or marker.kwargs:
            raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.real_clock takes no arguments")


def options_of(item: pytest.Item) -> ClockOptions:
    """Of all its virtual_clock markers, the nearest first. Raises `pytest.UsageError` with the test's name."""
    arguments: dict[str, Any] = {}
    for marker in item.iter_markers("virtual_clock"):
        if marker.args:
            raise pytest.UsageError(f"{_name(item)} takes no positional arguments, only {_possible(NAMES)}")
        arguments = {**marker.kwargs, **arguments}
    unknown = [name for name in arguments if name not in NAMES]
    if unknown:
        raise pytest.UsageError(f"{_name(item)} does not take {_possible(unknown)}: it takes {_possible(NAMES)}")
    try:
        return ClockOptions(**arguments)
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{_name(item)}: {error}") from None


def _name(item: pytest.Item) -> str:
    return f"{item.nodeid}: @pytest.mark.virtual_clock"


def _possible(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"{name}=" for name in names)
