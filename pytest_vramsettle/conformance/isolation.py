"""Runs the items of suites in a worker process: a pytest session of its own, one per file, reused for all its items.

A scenario that hangs, in C or in Python, or that ends its process, fails alone: the worker is killed with what it has
started, and replaced. Registered by the plugin when a suite was collected.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from pytest_vramsettle.conformance.checking import broken
from pytest_vramsettle.conformance.worker import Worker, WorkerLost, plain
from pytest_vramsettle.options import whole_suite

WORKER_KEY: pytest.StashKey[bool] = pytest.StashKey()
"""Set where this session is a worker's."""
_NAME = "vramsettle-conformance"

# What selects, distributes, measures or reports, which is the parent's to do; and what is given as an argument.
_KEPT_BACK = (
    "file_or_dir",
    "plugins",
    "override_ini",
    "inifilename",
    "rootdir",
    "confcutdir",
    "basetemp",
    "keyword",
    "markexpr",
    "deselect",
    "lf",
    "failedfirst",
    "newfirst",
    "stepwise",
    "stepwise_skip",
    "collectonly",
    "maxfail",
    "xmlpath",
    "log_file",
    "pastebin",
    "numprocesses",
    "maxprocesses",
    "dist",
    "distload",
    "tx",
    "px",
    "looponfail",
    "testrunuid",
    "usepdb",
    "trace",
    "setuponly",
    "setupshow",
    "setupplan",
    "version",
    "help",
    "capture",
    "cov_source",
    "cov_report",
)


def register(config: pytest.Config) -> None:
    """Idempotent; a worker has none of its own."""
    if not config.stash.get(WORKER_KEY, False) and not config.pluginmanager.has_plugin(_NAME):
        isolation = Isolation(config)
        config.pluginmanager.register(isolation, _NAME)
        config.add_cleanup(isolation.close)


class Isolation:
    """The plugin of the parent. At most one worker lives at a time: that of the file whose items are running."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._worker: Worker | None = None
        self._path: Path | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """In place of pytest's own, for items of suites."""
        suite: Any = getattr(item, "cls", None)
        if getattr(suite, "__vramsettle_suite__", None) is None or not self._isolates(suite):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item, nextitem, suite.real_limit):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        if nextitem is None or nextitem.path != item.path:
            self.close()
        return True

    def _isolates(self, suite: Any) -> bool:
        option = self._config.option
        return bool(suite.isolated) and not getattr(option, "usepdb", False) and not getattr(option, "trace", False)

    def _reports(self, item: pytest.Item, nextitem: pytest.Item | None, limit: float) -> Iterator[pytest.TestReport]:
        told: set[str] = set()
        started = time.perf_counter()
        try:
            for report in self._ask(item, nextitem, limit):
                told.add(str(report.when))
                yield report
        except WorkerLost as lost:
            self._worker = None
            yield from _lost_reports(item, str(lost), told, time.perf_counter() - started)
        except pytest.fail.Exception as failure:  # pytest-timeout's, in this process
            self._drop()
            yield from _lost_reports(item, str(failure), told, time.perf_counter() - started)
        except BaseException:
            self._drop()
            raise

    def _ask(self, item: pytest.Item, nextitem: pytest.Item | None, limit: float) -> Iterator[pytest.TestReport]:
        worker = self._worker_for(item.path)
        following = place_of(nextitem) if nextitem is not None and nextitem.path == item.path else None
        for answer in worker.ask({"run": place_of(item), "next": following}, limit):
            if "missing" in answer:
                raise _not_collected(answer["missing"])
            if "warning" in answer:
                self._warn(item, *answer["warning"])
                continue
            yield _restored(item, self._config.hook.pytest_report_from_serializable(config=self._config, data=answer))

    def _warn(self, item: pytest.Item, module: str, name: str, text: str, filename: str, line: int) -> None:
        """Tells of a warning as if it had come up in this process."""
        category = _category(module, name)
        recorded = warnings.WarningMessage(category(text), category, filename, line)
        arguments = {"warning_message": recorded, "when": "runtest", "nodeid": item.nodeid, "location": None}
        self._config.hook.pytest_warning_recorded.call_historic(kwargs=arguments)

    def _worker_for(self, path: Path) -> Worker:
        if self._worker is None or self._path != path:
            self.close()
            self._worker, self._path = Worker(_told(self._config, path), _environment()), path
        return self._worker

    def _drop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """Ends the worker, which tears down what it has set up."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Before anybody counts what is left."""
        self.close()


def place_of(item: pytest.Item) -> str:
    """Where it is in its file. A node ID depends on the command line too, and pytest-xdist adds a group to it."""
    nodes = item.listchain()
    file = max(number for number, node in enumerate(nodes) if isinstance(node, pytest.File))
    return "::".join(node.name for node in nodes[file + 1 :])


def _category(module: str, name: str) -> type[Warning]:
    """The class of a warning; UserWarning where this process has no such class, or cannot make one of a text."""
    found = getattr(sys.modules.get(module), name, None)
    if isinstance(found, type) and issubclass(found, Warning):
        with suppress(Exception):
            found("")
            return found
    return UserWarning


def _restored(item: pytest.Item, report: pytest.TestReport) -> pytest.TestReport:
    """As this process knows the item, and with the tuples that JSON has made lists."""
    if isinstance(report.longrepr, list):
        report.longrepr = tuple(report.longrepr)
    report.nodeid, report.location = item.nodeid, item.location
    report.sections = [(title, content) for title, content in report.sections]
    report.user_properties = [(name, value) for name, value in report.user_properties]
    return report


def _not_collected(errors: str) -> WorkerLost:
    return WorkerLost(
        "the worker process, which collected the same file, did not find this test in it: its name has to be the same "
        f"in every run{': ' + errors if errors else ''}"
    )


def _lost_reports(item: pytest.Item, text: str, told: set[str], took: float) -> Iterator[pytest.TestReport]:
    """Those that the worker did not send. `told` names the phases that it did, `took` is in seconds."""
    keywords: dict[str, Literal[1]] = dict.fromkeys(item.keywords, 1)
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "scenario" in callspec.params:
        text = broken(callspec.params["scenario"], text).describe()

    def report(when: str, longrepr: str | None) -> pytest.TestReport:
        outcome = "passed" if longrepr is None else "failed"
        arguments: dict[str, Any] = {"outcome": outcome, "longrepr": longrepr, "when": when, "sections": []}
        arguments["duration"] = 0.0 if longrepr is None else took
        return pytest.TestReport(nodeid=item.nodeid, location=item.location, keywords=keywords, **arguments)

    if "setup" not in told:
        yield report("setup", None)
    if "call" not in told:
        yield report("call", text)
        yield report("teardown", None)
    elif "teardown" not in told:
        yield report("teardown", text)


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop("PYTEST_ADDOPTS", None)  # what was in it is in the options
    return environment


def _told(config: pytest.Config, path: Path) -> dict[str, Any]:
    worker = plain(getattr(config, "workerinput", {}))
    worker.setdefault("workerid", os.environ.get("PYTEST_XDIST_WORKER", "master"))
    return {
        "arguments": _arguments(config, path),
        "options": plain(vars(config.option), without=_KEPT_BACK),
        "workerinput": worker,
        "argv": sys.argv,
    }


def _arguments(config: pytest.Config, path: Path) -> list[str]:
    """What is read before options can be set: where things are, which plugins there are."""
    option = config.option
    arguments = [str(path), "-p", "no:terminal", "--rootdir", str(config.rootpath)]
    arguments += ["-c", str(config.inipath or os.devnull), "-o", "addopts="]
    arguments += ["--capture", "no" if option.capture == "no" else "fd"]
    arguments += ["--import-mode", option.importmode]
    arguments += ["--noconftest"] if option.noconftest else []
    for rule in option.pythonwarnings or ():
        arguments += ["-W", rule]
    if getattr(option, "confcutdir", None):
        arguments += ["--confcutdir", str(option.confcutdir)]
    if getattr(option, "basetemp", None):
        arguments += ["--basetemp", str(Path(option.basetemp) / f"conformance-{os.getpid()}")]
    for plugin in option.plugins or ():
        arguments += ["-p", plugin]
    for override in option.override_ini or ():
        if not override.replace(" ", "").startswith("addopts="):
            arguments += ["-o", override]
    with suppress(ValueError):
        if whole_suite(config):
            arguments.append("--virtual-clock")
    return arguments
