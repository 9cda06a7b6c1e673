"""The fixtures: thin wrappers over context managers that work without pytest. All imports wait for their use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from fake_gpu import Driver
    from fake_gpu.trace import ReclaimTrace
    from pytest_vramsettle.clock import VirtualClock
    from pytest_vramsettle.contracts.contract import LockContract, Target
    from pytest_vramsettle.contracts.tracing import TracedLocks
    from pytest_vramsettle.deaths import Follower
    from pytest_vramsettle.kills import KillRecord
    from pytest_vramsettle.settle import SettleResult
    from pytest_vramsettle.timeline import Timeline, WaitLog
    from pytest_vramsettle.torch_cuda import TorchCuda

WAITS_KEY: pytest.StashKey[WaitLog] = pytest.StashKey()
LOCKS_KEY: pytest.StashKey[TracedLocks] = pytest.StashKey()
TIMELINE_KEY: pytest.StashKey[Timeline] = pytest.StashKey()
"""What was kept of the fake machine: by a teardown that fails, or by a conformance suite."""

DRIVER_KEY: pytest.StashKey[Driver] = pytest.StashKey()
ENDED_KEY: pytest.StashKey[tuple[Driver, int]] = pytest.StashKey()
"""A driver that was torn down, and when: until the teardown's report, for other fixtures may fail yet."""

FOLLOWER_KEY: pytest.StashKey[Follower] = pytest.StashKey()


class Settle(Protocol):
    """The `settle` fixture: `wait_for_vram_settle` with the kill record filled in; all its other arguments work."""

    def __call__(self, **arguments: Any) -> SettleResult: ...


@pytest.fixture
def _virtual_clock(request: pytest.FixtureRequest) -> Iterator[VirtualClock]:
    """The test's clock, under a name that no suite has for a fixture of its own."""
    from pytest_vramsettle.stretch import stretch

    stretching = contextmanager(stretch)(request.node)
    # A test may ask for the clock after it has traced locks, and the clock goes first then.
    with _locks_changing_clocks(request.node):
        clock = stretching.__enter__()
    try:
        yield clock
    finally:
        with _locks_changing_clocks(request.node):
            stretching.__exit__(None, None, None)


def _locks_changing_clocks(item: pytest.Item) -> AbstractContextManager[None]:
    traced = item.stash.get(LOCKS_KEY, None)
    return traced.changing_clocks() if traced is not None else nullcontext()


@pytest.fixture
def monotonic_clock(_virtual_clock: VirtualClock) -> VirtualClock:
    """A virtual monotonic clock, on which the test's waits take no real time."""
    return _virtual_clock


@pytest.fixture
def fake_driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A fake NVIDIA driver without GPUs, active for the test; on the virtual clock where the test asks for that too."""
    clock = request.getfixturevalue("_virtual_clock") if "_virtual_clock" in request.fixturenames else None
    from fake_gpu import Driver
    from pytest_vramsettle.deaths import UnseenDeaths
    from pytest_vramsettle.timeline.waits import WaitLog

    with Driver(clock=clock) as driver, WaitLog(driver.clock, (unseen := UnseenDeaths(driver)).look) as waits:
        request.node.stash[WAITS_KEY] = waits
        request.node.stash[DRIVER_KEY] = driver
        yield driver
        del request.node.stash[DRIVER_KEY]
        request.node.stash[ENDED_KEY] = (driver, driver.clock.monotonic_ns())
        if FOLLOWER_KEY not in request.node.stash:  # that record is told of deaths
            unseen.warn(request.node)


@pytest.fixture
def torch_cuda(fake_driver: Driver) -> Iterator[TorchCuda]:
    """torch.cuda's mem_get_info, device_count, is_available, get_device_properties and what follows from them are the
    fake driver's. Skips where torch is not installed.
    """
    from importlib import import_module

    from pytest_vramsettle.torch_cuda import torch_on

    try:
        torch = import_module("torch")
    except ImportError as error:
        pytest.skip(f"torch cannot be imported: {error}")

    with torch_on(fake_driver, torch) as served:
        yield served


@pytest.fixture
def kill_record(request: pytest.FixtureRequest) -> KillRecord:
    """A kill record. Where the test has a fake driver, it learns of each death from the driver, without a probe."""
    from pytest_vramsettle.deaths import Follower
    from pytest_vramsettle.kills import KillRecord

    record = KillRecord()
    follower = request.node.stash[FOLLOWER_KEY] = Follower(record)
    if "fake_driver" in request.fixturenames:
        follower.follow(request.getfixturevalue("fake_driver"))
    return record


@pytest.fixture
def settle(request: pytest.FixtureRequest, kill_record: KillRecord) -> Settle:
    """The settle wait over the nvidia-smi on PATH, with `kill_record`'s kills: `settle(max_wait=2.0)`."""
    from pytest_vramsettle.probes import NvidiaSmiProbe
    from pytest_vramsettle.settle import wait_for_vram_settle

    def wait(**arguments: Any) -> SettleResult:
        request.node.stash[FOLLOWER_KEY].catch_up()
        arguments.setdefault("probe", NvidiaSmiProbe())
        record = None if "since_kill" in arguments else kill_record  # a stamp of the caller's own takes its place
        return wait_for_vram_settle(record, **arguments)

    return wait


@pytest.fixture
def reclaim_trace(request: pytest.FixtureRequest) -> ReclaimTrace:
    """The recorded trace that a test marked `reclaim_traces("traces/*.jsonl")` runs with this time."""
    from pytest_vramsettle.traces import read

    return read(request)


@pytest.fixture
def lock_contract(request: pytest.FixtureRequest) -> LockContract:
    """Contracts over source that is read, not imported: `lock_contract("myapp.backend:Backend").must_not_hold(...)`."""
    from pytest_vramsettle.contracts.collecting import target

    def contract(spec: str) -> Target:
        return target(request.config, spec)

    return contract


@pytest.fixture
def traced_locks(request: pytest.FixtureRequest) -> Iterator[TracedLocks]:
    """Wraps locks by name: `trace = traced_locks(backend, "_lock")`. Markers max_hold are judged at the test's end."""
    from pytest_vramsettle.contracts.errors import HoldFailure
    from pytest_vramsettle.contracts.tracing import TracedLocks, limits_of

    limits = limits_of(request.node)
    if "_virtual_clock" in request.fixturenames:
        request.getfixturevalue("_virtual_clock")  # it outlasts this fixture: holds that last until now end on it
    with TracedLocks() as traced:
        request.node.stash[LOCKS_KEY] = traced
        yield traced
        try:
            traced.check_holds(limits)
        except HoldFailure:
            _keep_timeline(request.node)
            raise


def _keep_timeline(item: pytest.Item) -> None:
    """Before the fake driver is torn down too."""
    if item.stash.get(DRIVER_KEY, None) is not None:
        from pytest_vramsettle.reporting import timeline_of

        timeline = timeline_of(item)
        if timeline is not None:
            item.stash[TIMELINE_KEY] = timeline
