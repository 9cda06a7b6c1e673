"""The hooks of the pytest plugin, and nothing else: a test run that does not use it pays for this file alone."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_vramsettle.fixtures import (
    DRIVER_KEY,
    ENDED_KEY,
    TIMELINE_KEY,
    _virtual_clock,
    fake_driver,
    kill_record,
    lock_contract,
    monotonic_clock,
    reclaim_trace,
    settle,
    torch_cuda,
    traced_locks,
)
from pytest_vramsettle.left import name_gaps, summarise
from pytest_vramsettle.options import (
    MARKERS,
    add_contracts,
    add_options,
    declares_contracts,
    is_worker,
    options_of,
    report_directory,
    wants_clock,
    whole_suite,
)

__all__ = [
    "_virtual_clock",
    "fake_driver",
    "kill_record",
    "lock_contract",
    "monotonic_clock",
    "reclaim_trace",
    "settle",
    "torch_cuda",
    "traced_locks",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--virtual-clock`, and `virtual_clock` in the ini file."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before anything of the suite is imported: what it binds then is on the clock of its tests."""
    _reside(early_config)


def _reside(config: pytest.Config) -> None:
    if whole_suite(config):
        from pytest_vramsettle.clock import patches

        if patches.reside():
            config.add_cleanup(patches.leave_residence)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers; the clock too, where a conftest loaded this plugin."""
    _reside(config)
    for description in MARKERS.values():
        config.addinivalue_line("markers", description)
    config.addinivalue_line(
        "markers", "real_gpu: this test needs a real NVIDIA GPU and its driver; without them it is skipped."
    )
    config.addinivalue_line(
        "markers",
        "reclaim_traces(*patterns): run this test once per recorded trace, which the fixture reclaim_trace gives it. "
        "Patterns such as 'traces/*.jsonl' are relative to the test's file or, where nothing is there, to the rootdir.",
    )
    config.addinivalue_line(
        "markers",
        "max_hold(lock, seconds): with the fixture traced_locks: the test fails where that lock was held for longer.",
    )
    add_contracts(config)
    report_directory(config)
    if not is_worker(config):
        config.pluginmanager.register(_Receiver(config), "vramsettle-receiver")


class _Receiver:
    """Where the reports arrive: in this process, from its own tests or from workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Before the terminal prints it."""
        if hasattr(report, "vramsettle_timeline"):
            from pytest_vramsettle.reporting import receive

            receive(self._config, report)

    def pytest_sessionfinish(self) -> None:
        """Writes the page, after Ctrl-C too."""
        directory = report_directory(self._config)
        if directory is not None:
            from pytest_vramsettle.reporting import write

            write(self._config, directory)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The contracts in pyproject.toml as tests."""
    if file_path.name == "pyproject.toml" and declares_contracts(file_path):
        from pytest_vramsettle.contracts.collecting import ContractFile

        return ContractFile.from_parent(parent, path=file_path)
    return None


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> pytest.Collector | None:
    """A subclass of a suite is collected whatever it is called: none is forgotten."""
    # By the classes' own dictionaries: a test module is full of things whose attributes cost or raise.
    if isinstance(obj, type) and any("__vramsettle_suite__" in vars(base) for base in obj.__mro__):
        from pytest_vramsettle.conformance.suites import is_to_collect

        if is_to_collect(collector, obj):
            return pytest.Class.from_parent(collector, name=name)
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs tests marked reclaim_traces once per trace."""
    if metafunc.definition.get_closest_marker("reclaim_traces"):
        from pytest_vramsettle.traces import parametrize

        parametrize(metafunc)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives tests that run on the clock the fixture for it, before every other."""
    used = suites = False
    for item in items:
        names = getattr(item, "fixturenames", None)
        if names is None:
            continue
        options_of(item)
        if wants_clock(item):
            # A new list: the tests of one parametrized function share theirs.
            item.fixturenames = names = [  # type: ignore[attr-defined]  # only items with fixtures have it
                "_virtual_clock",
                *(name for name in names if name != "_virtual_clock"),
            ]
        used = used or "_virtual_clock" in names
        suites = suites or getattr(getattr(item, "cls", None), "__vramsettle_suite__", False)
    if suites:
        from pytest_vramsettle.conformance import isolation

        isolation.register(config)
    if used:
        from pytest_vramsettle.stretch import register

        register(config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked real_gpu where there is none; a max_hold that nobody could judge is an error."""
    if item.get_closest_marker("max_hold"):
        if "traced_locks" not in getattr(item, "fixturenames", ()):
            pytest.fail("@pytest.mark.max_hold needs the fixture traced_locks, which traces the lock", pytrace=False)
        from pytest_vramsettle.contracts.errors import ContractError
        from pytest_vramsettle.contracts.tracing import limits_of

        try:
            limits_of(item)
        except ContractError as error:
            pytest.fail(str(error), pytrace=False)
    if item.get_closest_marker("real_gpu"):
        from pytest_vramsettle.hardware import why_not_real_gpu

        reason = why_not_real_gpu()
        if reason:
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the state of the fake machine and the last calls to the report of a test that failed."""
    report = yield
    used = DRIVER_KEY in item.stash or ENDED_KEY in item.stash or TIMELINE_KEY in item.stash
    if used and (report.failed or (call.when == "call" and report_directory(item.config) is not None)):
        from pytest_vramsettle.reporting import tell

        tell(item, report)
    if call.when == "teardown" and ENDED_KEY in item.stash:
        del item.stash[ENDED_KEY]  # items live to the end of the session, and so would every test's driver
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names what tests on the virtual clock left behind, what the suites did not judge, and the page written."""
    summarise(terminalreporter, config)
    name_gaps(terminalreporter)
    if report_directory(config) is not None:
        from pytest_vramsettle.reporting import PAGE_KEY

        if PAGE_KEY in config.stash:
            terminalreporter.write_sep("-", config.stash[PAGE_KEY])
