"""What a timeline tells of a fake machine, and how it is drawn in text."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_gpu import Driver, Fault, Gpu, Ramp
from fake_gpu.units import GIB, MIB
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.contracts.tracing import TracedLocks
from pytest_vramsettle.deaths import Follower
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.settle import SettleResult, wait_for_vram_settle
from pytest_vramsettle.timeline import Event, Timeline, Wait, WaitLog, collect, draw
from pytest_vramsettle.timeline.model import free_at
from pytest_vramsettle.timeline.svg import picture
from pytest_vramsettle.timeline.text import ASCII

SECOND = 1_000_000_000


class Machine:
    """A fake machine on a virtual clock, with a kill record that follows it."""

    def __init__(self, clock: VirtualClock, driver: Driver, waits: WaitLog) -> None:
        self.clock, self.driver, self.waits = clock, driver, waits
        self.kills = KillRecord()
        Follower(self.kills).follow(driver)

    def settle(self, **arguments: object) -> SettleResult:
        return wait_for_vram_settle(self.kills, **arguments)  # type: ignore[arg-type]  # given as a test gives them

    def timeline(self) -> Timeline:
        return collect(self.driver, self.waits.waits)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with VirtualClock() as clock, Driver(clock=clock) as driver, WaitLog(driver.clock) as waits:
        yield Machine(clock, driver, waits)


def free(timeline: Timeline, card: int, seconds: float) -> int | None:
    return free_at(timeline.moments, timeline.cards[card].free, timeline.zero_ns + round(seconds * SECOND))


def test_calls_under_judgement_and_events_have_words_of_their_own(machine: Machine) -> None:
    gpu = machine.driver.add_gpu("generic", memory="24 GiB", reserved=0)
    machine.driver.process(gpu, "20 GiB", reclaim=Ramp.never()).kill()
    begin = machine.clock.monotonic_ns()
    time.sleep(2)
    calls = [
        Wait(begin, begin + SECOND, "returned None", trusted=True, text="", label="kill", about_memory=False),
        Wait(begin, begin + SECOND, "returned None", trusted=True, text="", label="wait"),
        Wait(
            begin, begin + SECOND, "'loaded'", True, "", label="load", about_memory=False, wrong="8 layers on the CPU"
        ),
    ]
    timeline = collect(machine.driver, calls, events=[Event(begin + SECOND // 2, "cancelled")])
    assert [wait.misled for wait in timeline.waits] == [False, True, True]
    for told in ("\n".join(draw(timeline)), picture(Timeline.from_json(timeline.to_json()))):
        assert "returned None, 1 s: wrong, 20.0 GiB was not back" in told
        assert "'loaded', 1 s: wrong, 8 layers on the CPU" in told.replace("&#x27;", "'")
        assert "cancelled" in told


def test_memory_is_told_as_it_was_at_each_moment(machine: Machine) -> None:
    gpu = machine.driver.add_gpu("generic", memory="24 GiB", reserved=0)
    time.sleep(0.5)
    server = machine.driver.process(gpu, "20 GiB")
    time.sleep(0.5)
    server.hold("16 GiB")
    gpu.hold_unlisted("1 GiB")
    time.sleep(0.5)
    server.kill(reclaim=Ramp.step(after="300ms"))
    time.sleep(1.0)
    timeline = machine.timeline()
    found = {at: free(timeline, 0, at) for at in (-1.2, -0.7, -0.1, 0.0, 0.2, 0.31)}
    assert found == {
        -1.2: 24 * GIB, -0.7: 4 * GIB, -0.1: 7 * GIB, 0.0: 7 * GIB, 0.2: 7 * GIB, 0.31: 23 * GIB,
    }  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(1, 20), st.booleans()), min_size=1, max_size=8))
def test_the_past_is_what_clients_were_told_then(steps: list[tuple[int, int, bool]]) -> None:
    """Each step: milliseconds that pass, GiB that a new process takes, and whether it is killed again."""
    with VirtualClock() as clock, Driver(clock=clock) as driver:
        gpu = driver.add_gpu("generic", memory="400 GiB")
        told: list[tuple[int, int]] = []
        for pause_ms, size, dies in steps:
            process = driver.process(gpu, size * GIB, reclaim=Ramp.linear("400ms", after="50ms"))
            if dies:
                process.kill()
            time.sleep(pause_ms / 1000)
            told.append((driver.sync(), gpu.memory.free))
        # What changes at a moment counts from that moment on, and the last reading before it cannot be told from it.
        moments = [at for (at, _), (later, _) in pairwise([*told, (told[-1][0] + 1, 0)]) if at < later]
        expected = dict(told)
        changed = set(driver.history.changes())
        for at, memory in zip(moments, driver.history.memory(gpu, moments), strict=True):
            if at not in changed:
                assert memory.free == expected[at]


def test_cards_come_and_go(machine: Machine) -> None:
    left, right = machine.driver.add_gpu("l40s"), machine.driver.add_gpu("l40s")
    machine.driver.process(left, "10 GiB").kill()
    machine.driver.at("300ms", right.remove)
    machine.driver.at("500ms", right.restore)
    time.sleep(1)
    assert machine.settle()
    timeline = machine.timeline()
    assert (free(timeline, 1, 0.2), free(timeline, 1, 0.4)) == (right.memory.free, None)
    assert free(timeline, 1, 0.6) == right.memory.free
    assert [event.text for event in timeline.events] == ["GPU 1 removed", "GPU 1 present"]


def test_probes_with_their_durations(machine: Machine) -> None:
    gpu = machine.driver.add_gpu("l40s")
    machine.driver.process(gpu, "10 GiB").kill()
    machine.driver.inject(Fault.slow("200ms"), via="nvidia-smi", after=1, times=1)
    machine.driver.inject(Fault.hang(), via="nvidia-smi", after=2)
    machine.settle(max_wait=2.0)
    took = [probe.took_ns for probe in machine.timeline().probes]
    assert took[:3] == [0, SECOND // 5, None]


def test_nvml_calls_of_one_reading_are_one_probe(machine: Machine) -> None:
    import pynvml

    for _ in range(4):
        machine.driver.add_gpu("h200")
    pynvml.nvmlInit()
    for _ in range(3):
        time.sleep(0.1)
        for index in range(4):
            pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index))
    pynvml.nvmlShutdown()
    assert [probe.count for probe in machine.timeline().probes] == [
        1,
        8,
        8,
        9,
    ]  # nvmlInit, and nvmlShutdown with the last


def test_waits_are_known_from_unmodified_code(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    gpu = machine.driver.add_gpu("l40s")
    machine.driver.process(gpu, "10 GiB").kill()
    result = machine.settle()
    machine.driver.process(gpu, "10 GiB").kill(reclaim=Ramp.never())
    assert not machine.settle(max_wait=1.0)
    first, second = machine.timeline().waits
    assert (first.outcome, first.trusted, first.end_ns - first.begin_ns) == ("settled", True, result.elapsed_ns)
    assert (second.outcome, second.trusted) == ("timed_out", False)
    # The logging that the test sees is what it would have seen.
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert logging.getLogger("pytest_vramsettle.settle").level == 1  # while it listens


@pytest.mark.parametrize("logger", ["pytest_vramsettle.settle", "pytest_vramsettle", None])
def test_a_test_that_asks_for_debug_lines_gets_them(
    machine: Machine, caplog: pytest.LogCaptureFixture, logger: str | None
) -> None:
    with caplog.at_level(logging.DEBUG, logger=logger):
        machine.settle()
    assert [record.levelname for record in caplog.records if record.name == "pytest_vramsettle.settle"] == ["DEBUG"]
    assert len(machine.waits.waits) == 1


def test_the_logger_is_left_as_it_was() -> None:
    logger = logging.getLogger("pytest_vramsettle.settle")
    before = (logger.level, list(logger.filters))
    with VirtualClock() as clock, WaitLog(clock):
        pass
    assert (logger.level, list(logger.filters)) == before


def test_held_locks(machine: Machine) -> None:
    import threading

    class Backend:
        def __init__(self) -> None:
            self._lock = threading.Lock()

    backend = Backend()
    with TracedLocks() as traced:
        traced(backend, "_lock")
        with backend._lock:
            time.sleep(0.25)
        timeline = collect(machine.driver, locks=traced)
    (hold,) = timeline.holds
    assert (hold.lock, hold.end_ns - hold.begin_ns, hold.holder) == ("_lock", SECOND // 4, "MainThread")
    assert "_lock" in "\n".join(draw(timeline))


def scene(machine: Machine) -> Timeline:
    gpu = machine.driver.add_gpu("rtx-4090")
    for _ in range(3):
        machine.driver.add_gpu("h200")
    machine.driver.process(gpu, "20 GiB").kill()
    machine.settle()
    return machine.timeline()


@pytest.mark.parametrize("width", [20, 60, 100, 500])
def test_text_fits_and_says_what_matters(machine: Machine, width: int) -> None:
    lines = draw(scene(machine), width, glyphs=ASCII)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= max(50, width)
    assert text.isascii()
    assert "GPU 0 (NVIDIA" in text
    assert "settled, 0." in text
    assert re.search(r"GPU 1-3 \(NV.*\): 139\.8 GiB free all the time", text)  # not three pictures


def test_what_takes_no_time_begins_at_zero(machine: Machine) -> None:
    machine.driver.add_gpu("t4")
    assert "-" not in draw(machine.timeline())[-1]


def test_colours_change_nothing_but_colours(machine: Machine) -> None:
    timeline = scene(machine)
    coloured = "\n".join(draw(timeline, colours=True))
    assert "\x1b[" in coloured
    plain = [line.rstrip() for line in re.sub(r"\x1b\[\d+m", "", coloured).splitlines()]
    assert plain == draw(timeline)


def test_free_memory_rises_in_the_picture_when_it_comes_back(machine: Machine) -> None:
    gpu = machine.driver.add_gpu("generic", memory="20 GiB", reserved=0)
    machine.driver.process(gpu, "20 GiB").kill(reclaim=Ramp.step(after="1s"))
    time.sleep(2)
    machine.driver.process(gpu, 0)
    top = draw(machine.timeline(), glyphs=ASCII)[1]
    assert re.fullmatch(r" *20\.0 GiB \| {20,}#{20,}", top)


def test_nothing_happened() -> None:
    with VirtualClock() as clock, Driver(clock=clock) as driver:
        assert draw(collect(driver)) == ["  nothing happened on the fake machine"]


def test_it_travels_as_text(machine: Machine) -> None:
    timeline = scene(machine)
    assert Timeline.from_json(timeline.to_json()) == timeline


def test_a_long_story_is_cut_and_says_so(machine: Machine) -> None:
    gpu = machine.driver.add_gpu("h200")
    for _ in range(500):
        machine.driver.process(gpu, 64 * MIB).kill(reclaim=Ramp.immediate())
        time.sleep(0.01)
    timeline = machine.timeline()
    assert (len(timeline.deaths), timeline.omitted) == (400, 100)
    assert len(timeline.to_json()) < 200_000


def test_names_from_outside_are_text_in_the_picture(machine: Machine) -> None:
    gpu: Gpu = machine.driver.add_gpu("generic", name="<b>&'")
    machine.driver.process(gpu, "1 GiB", name="<script>x</script>").kill()
    time.sleep(1)
    svg = picture(machine.timeline())
    assert "<script>" not in svg
    assert "<b>" not in svg
    assert "&lt;script&gt;" in svg


def test_a_wait_that_misled_is_called_wrong(machine: Machine) -> None:
    gpu = machine.driver.add_gpu("l40s")
    machine.driver.process(gpu, "10 GiB").kill(reclaim=Ramp.step(after="1s"))
    assert wait_for_vram_settle(since_kill=time.monotonic(), policy="two-samples")
    (wait,) = machine.timeline().waits
    assert (wait.good, wait.decision) == (False, "settled, 0.25 s: wrong, 10.0 GiB was not back")
    assert wait.decision in "\n".join(draw(machine.timeline(), 70))
