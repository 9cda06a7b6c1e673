"""Suites that judge a settle wait, a kill record, a probe or a backend of your own, and functions that do the same.

from pytest_vramsettle.conformance import SettleSuite

class TestOurSettle(SettleSuite):
    @pytest.fixture
    def wait(self, backend):
        return lambda *, since_kill, max_wait: backend.wait_for_vram(since_kill=since_kill, max_wait=max_wait)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_vramsettle.conformance.checking import (
    ConformanceError,
    check_kill_record,
    check_probe,
    check_reload,
    check_settle,
)
from pytest_vramsettle.conformance.kill_scenarios import KillRoutine
from pytest_vramsettle.conformance.model import Capabilities, Report, Verdict
from pytest_vramsettle.conformance.settle_checks import SettleSubject

if TYPE_CHECKING:
    from pytest_vramsettle.conformance.suites import (
        InjectedProbeSuite,
        KillRecordSuite,
        ProbeSuite,
        ReloadSuite,
        SettleSuite,
    )

__all__ = [
    "Capabilities",
    "ConformanceError",
    "InjectedProbeSuite",
    "KillRecordSuite",
    "KillRoutine",
    "ProbeSuite",
    "ReloadSuite",
    "Report",
    "SettleSubject",
    "SettleSuite",
    "Verdict",
    "check_kill_record",
    "check_probe",
    "check_reload",
    "check_settle",
]

_SUITES = ("InjectedProbeSuite", "KillRecordSuite", "ProbeSuite", "ReloadSuite", "SettleSuite")


def __getattr__(name: str) -> Any:
    """The suites, which need pytest, when they are asked for."""
    if name in _SUITES:
        from pytest_vramsettle.conformance import suites

        return getattr(suites, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
