"""Replay: free memory is what the trace says at each sample, for whoever asks; waits are judged by its truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from native_client import nvidia_smi
from nvml_client import HandClock
from trace_rows import DEAD, MS, gone, header, killed, sample, simple

from fake_gpu import Driver, DriverStateError, InvalidValue, Presence
from fake_gpu.trace import Event, ReclaimTrace, Sample
from fake_gpu.units import GIB

if TYPE_CHECKING:
    from pytest_vramsettle.clock import VirtualClock
    from pytest_vramsettle.fixtures import Settle

TOTAL = 1000
pids = st.sampled_from([DEAD, 78, 5, 6])


@st.composite
def traces(draw: st.DrawFn) -> ReclaimTrace:
    gpus = draw(st.integers(1, 2))
    reserved = draw(st.integers(0, 100))
    known = draw(st.booleans())
    free = st.none() | st.integers(0, TOTAL - reserved)
    held = st.dictionaries(pids, st.none() | st.integers(0, TOTAL), max_size=4)
    rows: list[Sample | Event] = []
    t_ns = 0
    for number in range(draw(st.integers(1, 12))):
        t_ns += draw(st.integers(0, 3))
        told = range(gpus) if number == 0 else draw(st.sets(st.integers(0, gpus - 1)))
        listed = {index: draw(held) for index in told if known and draw(st.booleans())}
        rows.append(Sample(t_ns=t_ns, free={index: draw(free) for index in told}, held=listed))
    death = draw(st.integers(0, len(rows)))
    at = rows[min(death, len(rows) - 1)].t_ns
    rows.insert(death, Event(t_ns=at, event="pid_gone"))
    if draw(st.booleans()):
        rows.insert(0, Event(t_ns=0, event="kill_sent"))
    return ReclaimTrace(header(gpus, TOTAL, reserved, killed=(DEAD, 78) if known else ()), tuple(rows))


def free_at(trace: ReclaimTrace, index: int) -> Mapping[int, int | None]:
    """By time, what the trace says is free then; None: unreadable."""
    said: dict[int, int | None] = {}
    free: int | None = None
    for row in trace.samples:
        free = said[row.t_ns] = row.free.get(index, free)
    return said


def dies_of_something(trace: ReclaimTrace) -> bool:
    return any(sum(story.held.values()) for story in trace.stories)


def one_that_is_listed_before_and_not_at_the_kill() -> ReclaimTrace:
    rows = [
        Sample(t_ns=0, free={0: 0}, held={0: {78: 1}}),
        Event(t_ns=1, event="pid_gone", pid=DEAD),
        Sample(t_ns=1, free={0: None}, held={0: {78: None, DEAD: 1}}),
        Sample(t_ns=1, free={0: 0}),
    ]
    return ReclaimTrace(header(total=TOTAL, killed=(DEAD, 78)), tuple(rows))


@given(traces(), st.booleans())
@example(one_that_is_listed_before_and_not_at_the_kill(), True)
def test_free_memory_is_what_the_trace_says_at_each_sample(trace: ReclaimTrace, whole: bool) -> None:
    clock = HandClock()
    driver = Driver(clock=clock)
    if not dies_of_something(trace):
        with pytest.raises(InvalidValue, match="the dead held nothing"):
            trace.replay(driver)
        return
    replay = trace.replay(driver, whole=whole)
    begun = min(trace.samples[0].t_ns, trace.death_ns)
    if not whole:
        begun = trace.death_ns
        replay.kill()
    zero = clock.now - begun
    for gpu, traced in zip(replay.gpus, trace.header.gpus, strict=True):
        assert gpu.uuid == traced.uuid
    for t_ns in sorted({row.t_ns for row in trace.samples if row.t_ns >= begun}):
        clock.now = zero + t_ns
        for gpu, traced in zip(replay.gpus, trace.header.gpus, strict=True):
            expected = free_at(trace, traced.index)[t_ns]
            if expected is None:
                assert gpu.presence is Presence.LOST
            else:
                assert gpu.presence is Presence.PRESENT
                assert gpu.memory.free == expected
    driver.stop()  # raises what went wrong in between


@given(traces())
def test_looking_once_at_the_end_gives_what_looking_always_gives(trace: ReclaimTrace) -> None:
    if not dies_of_something(trace):
        return
    clock = HandClock()
    driver = Driver(clock=clock)
    replay = trace.replay(driver, whole=True)
    clock.now += 100
    ends = [list(free_at(trace, one.index).values())[-1] for one in trace.header.gpus]
    for gpu, end in zip(replay.gpus, ends, strict=True):
        assert gpu.memory.free == end or end is None
    assert all(not process.alive for process in replay.dead)
    driver.stop()


def test_programs_read_the_trace(driver: Driver, clock: HandClock) -> None:
    import pynvml

    trace = simple()
    replay = trace.replay(driver)
    handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-0")
    listed = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    assert [(one.pid, one.usedGpuMemory) for one in listed] == [(replay.dead[0].pid, 20 * GIB)]
    replay.kill()
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
    read = []
    for ms in (0, 9, 19, 24, 29, 39, 500):
        clock.now = (replay.died_ns or 0) + ms * MS
        read.append(pynvml.nvmlDeviceGetMemoryInfo(handle).free / GIB)
        shown = nvidia_smi("--query-gpu=memory.free", "--format=csv,noheader,nounits").stdout
        assert int(shown) == read[-1] * 1024
    assert read == [4, 4, 14, 14, 14, 24, 24]


def test_co_tenants_come_grow_and_go(driver: Driver, clock: HandClock) -> None:
    rows = (
        sample(0, 4 * GIB, 22 * GIB, on_0={DEAD: 18 * GIB, 5: 2 * GIB}, on_1={5: 2 * GIB}),
        killed(1),
        gone(1),
        sample(10, 21 * GIB, 20 * GIB, on_0={5: 3 * GIB}, on_1={5: 2 * GIB, 6: 2 * GIB}),
        sample(20, 24 * GIB, 22 * GIB, on_0={}, on_1={6: 2 * GIB}),
    )
    replay = ReclaimTrace(header(2), rows).replay(driver)
    left, right = replay.gpus

    def seen() -> dict[int, tuple[int, int]]:
        return {
            pid: (process.used.get(left, 0) // GIB, process.used.get(right, 0) // GIB)
            for pid, process in replay.others.items()
        }

    assert seen() == {5: (2, 2)}
    replay.kill()
    clock.now += 9 * MS
    assert seen() == {5: (3, 2), 6: (0, 2)}
    clock.now += 10 * MS
    assert seen() == {6: (0, 2)}
    assert left.processes == []
    assert [death.pid for death in driver.deaths] == [replay.dead[0].pid]
    assert replay.died_ns == clock.now - 19 * MS


def test_a_real_process_may_be_killed_by_anyone(driver: Driver, clock: HandClock) -> None:
    replay = simple().replay(driver, spawn=True)
    replay.dead[0].terminate()
    replay.dead[0].wait()
    died = replay.died_ns
    assert died is not None
    clock.now = died + 29 * MS
    assert replay.gpus[0].memory.free == 14 * GIB
    with pytest.raises(DriverStateError, match="dead already"):
        replay.kill()


def test_a_co_tenant_takes_no_more_than_one_of_the_dead_has_left(driver: Driver, clock: HandClock) -> None:
    """In the trace both died; here one goes on holding its 10 GiB."""
    rows = (
        sample(0, 4 * GIB, on_0={DEAD: 10 * GIB, 78: 10 * GIB}),
        killed(1),
        gone(1),
        sample(10, 4 * GIB, on_0={5: 20 * GIB}),
    )
    replay = ReclaimTrace(header(killed=(DEAD, 78)), rows).replay(driver)
    replay.dead[0].kill()
    clock.now += 10 * MS
    (gpu,) = replay.gpus
    assert (replay.others[5].used[gpu], gpu.memory.free) == (14 * GIB, 0)


def test_a_card_that_is_known_by_its_name_has_its_profile() -> None:
    trace = simple()
    named = ReclaimTrace(header(total=24 * GIB), trace.rows)
    for name, architecture in (("NVIDIA GeForce RTX 4090", "ada"), ("Mine", "ampere")):
        driver = Driver()
        gpus = tuple(type(gpu)(index=gpu.index, uuid=gpu.uuid, total=gpu.total, name=name) for gpu in named.header.gpus)
        one = type(named.header)(format="vramsettle-trace", version=1, gpus=gpus, killed=(DEAD,))
        gpu = ReclaimTrace(one, trace.rows).replay(driver).gpus[0]
        assert (gpu.name, gpu.profile.architecture, gpu.memory.total) == (name, architecture, 24 * GIB)


def test_what_cannot_be_is_refused(driver: Driver) -> None:
    trace = simple()
    with pytest.raises(InvalidValue, match="leave one of them out"):
        trace.replay(driver, whole=True, spawn=True)
    with pytest.raises(InvalidValue, match="nobody dies"):
        ReclaimTrace(header(), (sample(0, 0),)).replay(driver)
    replay = trace.replay(driver, whole=True)
    with pytest.raises(DriverStateError, match="the death has its time"):
        replay.kill()


def test_the_wait_is_judged_by_the_trace(fake_driver: Driver, monotonic_clock: VirtualClock, settle: Settle) -> None:
    replay = simple().replay(fake_driver)
    replay.kill()
    result = settle()
    assert result.outcome == "settled"
    assert result.missing_mib == replay.never_back == 0
    assert monotonic_clock.elapsed >= replay.settled_after


def test_a_wait_beside_co_tenants(fake_driver: Driver, monotonic_clock: VirtualClock, settle: Settle) -> None:
    rows = (
        sample(0, 2 * GIB, on_0={DEAD: 20 * GIB, 5: 2 * GIB}),
        killed(1),
        gone(2),
        sample(400, 7 * GIB, on_0={5: 2 * GIB, 6: 5 * GIB}),  # ten back, five taken
        sample(800, 9 * GIB, on_0={6: 5 * GIB}),
        sample(1500, 19 * GIB),
    )
    replay = ReclaimTrace(header(), rows).replay(fake_driver)
    replay.kill()
    result = settle()
    assert (result.outcome, result.missing_mib) == ("settled", 0)
    assert monotonic_clock.elapsed >= replay.settled_after == 1.498


def test_a_whole_trace_on_the_virtual_clock(fake_driver: Driver, monotonic_clock: VirtualClock) -> None:
    replay = simple().replay(fake_driver, whole=True)
    (gpu,), (dead,) = replay.gpus, replay.dead
    assert (dead.alive, gpu.memory.free) == (True, 4 * GIB)
    monotonic_clock.advance(0.011)
    assert (dead.alive, gpu.memory.free) == (False, 4 * GIB)
    monotonic_clock.advance(0.024)
    assert gpu.memory.free == 14 * GIB
    monotonic_clock.advance(1)
    assert gpu.memory.free == 24 * GIB
