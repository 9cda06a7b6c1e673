"""The suites to subclass. One test per scenario, each on a machine of its own, each in a worker process.

A suite of another kind is a subclass of `Suite` with `kind`, `fixture`, `scenarios` and a test that calls `_judge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from pytest_vramsettle.conformance.checking import (
    ConformanceError,
    broken,
    gap_of,
    gap_verdict,
    judge,
    selected,
    unclaimed,
)
from pytest_vramsettle.conformance.kill_scenarios import KILLS
from pytest_vramsettle.conformance.model import Capabilities, Kind, Level, Scenario, Verdict
from pytest_vramsettle.conformance.probe_scenarios import PROBE
from pytest_vramsettle.conformance.reload_scenarios import RELOAD
from pytest_vramsettle.conformance.settle_verified import SETTLE
from pytest_vramsettle.conformance.stage import CHILD_GRACE, Stage
from pytest_vramsettle.conformance.subjects import (
    KILL_LINES,
    PROBE_LINES,
    RELOAD_LINES,
    WAIT_LINES,
    kill_subject,
    probe_subject,
    reload_subject,
    settle_subject,
)
from pytest_vramsettle.fixtures import TIMELINE_KEY
from pytest_vramsettle.left import GAP_PROPERTY
from pytest_vramsettle.options import options_of

if TYPE_CHECKING:
    from fake_gpu import Driver
    from pytest_vramsettle.clock import VirtualClock


class Suite:
    """What all suites share."""

    kind: ClassVar[Kind]
    fixture: ClassVar[str]
    """The one that has to be written."""
    scenarios: ClassVar[Sequence[Scenario]] = ()
    level: ClassVar[Level] = "upstream"
    """`upstream`: the answers that are known of the common wait. `verified`: also the ways in which that is fooled."""
    capabilities: ClassVar[Capabilities] = Capabilities()
    """What the implementation claims; what it does not is reported as a gap."""
    isolated: ClassVar[bool] = True
    """Whether scenarios run in a worker process, which can be killed. With --pdb they never do."""
    real_limit: ClassVar[float] = 10.0
    """Real seconds after which a scenario's worker is killed and replaced; one takes some 0.02 s."""
    pytestmark = pytest.mark.virtual_clock(child_grace=CHILD_GRACE)
    __vramsettle_suite__ = True
    """For the plugin, which need not import this module to know a suite."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test per scenario of the level."""
        if "scenario" in metafunc.fixturenames:
            found = selected(self.scenarios, self.level)
            metafunc.parametrize("scenario", found, ids=[one.name for one in found])

    @pytest.fixture(autouse=True)
    def conformance_stage(
        self, request: pytest.FixtureRequest, scenario: Scenario, monotonic_clock: VirtualClock, fake_driver: Driver
    ) -> Stage:
        """The machine, before the implementation is made."""
        gap = unclaimed(scenario, self.capabilities)
        if gap is not None:
            _told(request, gap_verdict(scenario, gap))
        stage = Stage(fake_driver, monotonic_clock, seed=options_of(request.node).seed)
        scenario.machine(stage)
        return stage

    def _judge(self, request: pytest.FixtureRequest, scenario: Scenario, stage: Stage, subject: Any) -> None:
        gap = gap_of(scenario, subject, self.capabilities)
        if gap is not None:
            _told(request, gap_verdict(scenario, gap))
        try:
            seen = scenario.play(stage, subject)
        except Exception as error:
            _told(request, broken(scenario, f"it could not be played: {type(error).__name__}: {error}"))
            return
        _told(request, judge(scenario, stage, seen, self.level, self.capabilities))


def _told(request: pytest.FixtureRequest, verdict: Verdict) -> None:
    """Fails, skips or passes the test; gaps travel on its report."""
    for gap in verdict.gaps:
        request.node.user_properties.append((GAP_PROPERTY, f"{request.node.nodeid}: {gap}"))
    if verdict.timeline is not None:  # the report draws it, and the page
        request.node.stash[TIMELINE_KEY] = verdict.timeline
    if verdict.status == "failed":
        pytest.fail(verdict.describe(drawn=verdict.timeline is None), pytrace=False)
    if verdict.status == "gap":
        pytest.skip(f"not judged: {verdict.gaps[0]}")


def _forgotten(suite: str, fixture: str, lines: str) -> None:
    pytest.fail(f"{suite} needs the fixture {fixture!r}. A few lines are enough:\n\n{lines}", pytrace=False)


def is_to_collect(collector: pytest.Collector, suite: type) -> bool:
    """Whether pytest should collect this subclass whatever its name: it was written here, and has its fixture.

    One without is a base for others, where its name does not say that it is a test.
    """
    module = getattr(getattr(collector, "obj", None), "__name__", None)
    if suite.__module__ != module or not issubclass(suite, Suite):
        return False
    own = [base for base in suite.__mro__ if issubclass(base, Suite) and base.__module__ != __name__]
    return any(suite.fixture in vars(base) for base in own)


class SettleSuite(Suite):
    """Judges a settle wait. Write `wait`; the other fixtures have defaults."""

    kind = "settle"
    fixture = "wait"
    scenarios = SETTLE
    injects_probe: ClassVar[bool] = False

    @pytest.fixture
    def wait(self) -> Any:
        """Called as `wait(since_kill=time.monotonic() at the kill or 0.0, max_wait=seconds)`; a coroutine is awaited.

        It returns nothing, a bool, or an object with `outcome` that is true where the next reading may be trusted.
        """
        _forgotten(type(self).__name__, "wait", WAIT_LINES)

    @pytest.fixture
    def recording(self) -> Any:
        """`recording(pid)`: a context manager that is entered around each kill, for waits that look before."""
        return None

    @pytest.fixture
    def cancel(self) -> Any:
        """A callable that ends the wait under way. Coroutines need none: their task is cancelled."""
        return None

    @pytest.fixture
    def lock(self) -> Any:
        """The load lock, which the wait must not hold."""
        return None

    def test_settle(
        self,
        request: pytest.FixtureRequest,
        scenario: Scenario,
        conformance_stage: Stage,
        wait: Any,
        recording: Any,
        cancel: Any,
        lock: Any,
    ) -> None:
        """One scenario."""
        with _refusals():
            subject = settle_subject(
                wait, recording=recording, cancel=cancel, lock=lock, injects_probe=self.injects_probe
            )
        self._judge(request, scenario, conformance_stage, subject)


class InjectedProbeSuite(SettleSuite):
    """Judges a wait that is given its probe: `wait(probe=..., since_kill=..., max_wait=...)`.

    The probe returns `[(index, free_mib), ...]` from the nvidia-smi of the scenario's machine, which it gives 10 s.
    """

    injects_probe = True


class KillRecordSuite(Suite):
    """Judges a kill routine and its stamp. Write `kills`, which returns a KillRoutine."""

    kind = "kills"
    fixture = "kills"
    scenarios = KILLS

    @pytest.fixture
    def kills(self) -> Any:
        """A KillRoutine around a new backend."""
        _forgotten(type(self).__name__, "kills", KILL_LINES)

    def test_kills(
        self, request: pytest.FixtureRequest, scenario: Scenario, conformance_stage: Stage, kills: Any
    ) -> None:
        """One scenario."""
        with _refusals():
            subject = kill_subject(kills)
        self._judge(request, scenario, conformance_stage, subject)


class ProbeSuite(Suite):
    """Judges a probe. Write `probe`, which returns a callable: `probe()` is `[(index or UUID, free MiB), ...]`."""

    kind = "probe"
    fixture = "probe"
    scenarios = PROBE

    @pytest.fixture
    def probe(self) -> Any:
        """The probe."""
        _forgotten(type(self).__name__, "probe", PROBE_LINES)

    def test_probe(
        self, request: pytest.FixtureRequest, scenario: Scenario, conformance_stage: Stage, probe: Any
    ) -> None:
        """One scenario."""
        with _refusals():
            subject = probe_subject(probe)
        self._judge(request, scenario, conformance_stage, subject)


class ReloadSuite(Suite):
    """Judges a whole backend, with real llama-server processes. Write `backend`."""

    kind = "reload"
    fixture = "backend"
    scenarios = RELOAD

    @pytest.fixture
    def server_command(self, conformance_stage: Stage) -> list[str]:
        """What starts the scenario's llama-server: a list for `subprocess`, of one path."""
        return list(conformance_stage.server_command)

    @pytest.fixture
    def backend(self) -> Any:
        """Has load(model, *, context=, cache_type=), unload(), cancel(), status(); close(), where there is one.

        A class, or another callable without these, is called with the server command.
        """
        _forgotten(type(self).__name__, "backend", RELOAD_LINES)

    def test_reload(
        self,
        request: pytest.FixtureRequest,
        scenario: Scenario,
        conformance_stage: Stage,
        backend: Any,
        server_command: list[str],
    ) -> None:
        """One scenario."""
        with _refusals():
            subject = reload_subject(backend, server_command)
        self._judge(request, scenario, conformance_stage, subject)


class _refusals:  # noqa: N801  # used as a with statement alone
    """What cannot be judged fails its test with the text alone."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, ConformanceError):
            pytest.fail(str(error), pytrace=False)
