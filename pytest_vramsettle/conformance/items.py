"""The plugin of a worker's pytest session: it collects, then runs items as its parent asks, and sends their reports."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from pytest_vramsettle.conformance.child import Connection
from pytest_vramsettle.conformance.isolation import WORKER_KEY, place_of


class Items:
    """`told` is what the parent sent: `options` to set, `workerinput` as plugins know it from pytest-xdist."""

    def __init__(self, told: Mapping[str, Any], connection: Connection) -> None:
        self._told, self._connection = told, connection
        self._errors: list[str] = []
        self._config: pytest.Config | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> None:
        """The parent's options, before plugins are configured; `workerinput` leaves files to the parent."""
        vars(config.option).update(self._told["options"])
        vars(config).update({"workerinput": self._told["workerinput"], "workeroutput": {}})
        config.stash[WORKER_KEY] = True
        self._config = config

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Kept for the parent, which collected the same file without them."""
        if report.failed:
            self._errors.append(report.longreprtext)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """To the parent."""
        if self._config is not None:
            hook = self._config.hook
            self._connection.send(hook.pytest_report_to_serializable(config=self._config, report=report))

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: Literal["config", "collect", "runtest"], nodeid: str
    ) -> None:
        """To the parent, but for those of the collection, which it has had itself."""
        if when == "runtest":
            category = warning_message.category
            told = [category.__module__, category.__qualname__, str(warning_message.message)]
            self._connection.send({"warning": [*told, warning_message.filename, warning_message.lineno]})

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Until the parent closes."""
        items = {place_of(item): item for item in session.items}
        gc.freeze()  # of what was imported and collected nothing becomes garbage: looking takes 0.1 s each time
        self._connection.send({"ready": True})
        for request in self._connection.requests():
            item = items.get(request["run"])
            if item is None:
                self._connection.send({"missing": "\n".join(self._errors)})
            else:
                item.ihook.pytest_runtest_protocol(item=item, nextitem=items.get(request["next"]))
            self._connection.send(None)
        return True
