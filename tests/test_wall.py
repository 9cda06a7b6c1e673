"""Wall time in lockstep with the virtual clock, and tools that rule the time too."""

from __future__ import annotations

import datetime
import random
import sys
import threading
import time
import types
from collections.abc import Iterator

import freezegun
import pytest
from clock_world import owned

from pytest_vramsettle.clock import ClockError, VirtualClock
from pytest_vramsettle.clock.wall import frozen_wall

START_NS = 1_767_225_600 * 10**9  # 2026-01-01
SOURCE = """
import datetime, time
from datetime import datetime as early_datetime
from time import monotonic as early_monotonic, time as early_time
def read():
    return time.time(), early_time(), datetime.datetime.now().year, early_datetime.now().year
def run():
    return time.monotonic()
"""


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock() as clock, frozen_wall(clock, "2026-01-01"):
        yield clock


def test_one_jump_moves_both_by_the_same_amount(clock):
    for seconds in (0.5, 86_400, 1e-6, 3e-9):
        monotonic, wall, now = time.monotonic_ns(), time.time_ns(), datetime.datetime.now(datetime.UTC)
        time.sleep(seconds)
        moved = time.monotonic_ns() - monotonic
        assert time.time_ns() - wall == moved == round(seconds * 1e9)
        passed = datetime.datetime.now(datetime.UTC) - now
        assert abs(passed / datetime.timedelta(microseconds=1) - moved / 1000) <= 1


def test_what_is_below_a_microsecond_is_carried(clock):
    for _ in range(1000):
        time.sleep(4e-7)
    assert time.time_ns() == START_NS + 400_000
    assert datetime.datetime.now() == datetime.datetime(2026, 1, 1, microsecond=400)


def test_no_loop_over_the_rest_of_a_wait_is_stuck(clock):
    chance = random.Random(0)
    for _ in range(500):
        end = time.monotonic() + chance.choice([0.1, 0.3, chance.uniform(0.001, 10)])
        for _ in range(50):
            rest = end - time.monotonic()
            if rest <= 0:
                break
            time.sleep(rest)
        else:
            pytest.fail("stuck")
    assert time.time_ns() - START_NS == clock.elapsed_ns


def test_all_ways_to_read_it_agree(clock):
    time.sleep(3600.25)
    assert time.time() == START_NS / 1e9 + 3600.25
    assert time.gmtime()[:5] == (2026, 1, 1, 1, 0)
    assert time.strftime("%Y-%m-%d %H", time.gmtime()) == "2026-01-01 01"
    assert datetime.date.today() == datetime.date(2026, 1, 1)
    assert datetime.datetime.now(datetime.UTC).timestamp() == time.time()


def test_the_target_of_a_thread_reads_the_same(clock):
    """freezegun's own list ignores `threading`: time.time() was real there and datetime.now() frozen."""
    read = []

    def target() -> None:
        time.sleep(10)
        read.append((time.time(), datetime.datetime.now(), time.monotonic_ns()))

    before = time.monotonic_ns()
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    assert read == [(START_NS / 1e9 + 10, datetime.datetime(2026, 1, 1, 0, 0, 10), before + 10 * 10**9)]


@pytest.mark.parametrize(
    "name", ["gist", "git_tools", "queue_worker", "threading_utils", "multiprocessing_pool", "prompt_toolkit_x"]
)
def test_no_module_is_left_out_for_the_beginning_of_its_name(name, monkeypatch):
    module = types.ModuleType(name)
    exec(SOURCE, module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)
    with VirtualClock() as clock, frozen_wall(clock, "2026-01-01"):
        time.sleep(1)
        assert module.read() == (START_NS / 1e9 + 1, START_NS / 1e9 + 1, 2026, 2026)
        before = module.run()
        time.sleep(100)
        assert module.run() - before == pytest.approx(100)
    assert abs(module.read()[1] - time.time()) < 5


def test_the_times_of_pytest_stay_real(clock):
    import _pytest.timing

    assert _pytest.timing.time() - START_NS / 1e9 > 1e6 or _pytest.timing.time() < START_NS / 1e9
    assert abs(_pytest.timing.perf_counter() - time.clock_gettime(time.CLOCK_MONOTONIC)) < 5


def test_a_freeze_inside_rules_for_its_lifetime(clock):
    place = time.monotonic, time.perf_counter_ns
    with freezegun.freeze_time("2001-02-03") as frozen:
        before = time.monotonic()
        time.sleep(10)
        assert time.monotonic() - before == pytest.approx(10)
        assert (time.time_ns() // 10**9, datetime.datetime.now().year) == (981158400, 2001)
        frozen.tick(5)
        assert datetime.datetime.now().second == 5
    assert (time.monotonic, time.perf_counter_ns) == place
    assert time.time_ns() == START_NS + 10 * 10**9


def test_everything_is_put_back():
    import freezegun.api

    names = [name for name in vars(freezegun.api) if name.startswith(("real_", "fake_"))]
    wall = ["time", "time_ns", "gmtime", "localtime", "strftime"]

    def state() -> list[object]:
        return [*owned(), *(getattr(freezegun.api, name) for name in names), *(getattr(time, name) for name in wall)]

    before = state()

    def interrupted() -> None:
        with VirtualClock() as clock, frozen_wall(clock, "2026-01-01"):
            assert state() != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(found is original for found, original in zip(state(), before, strict=True))
    assert datetime.datetime.now().year == time.localtime().tm_year


def test_a_start_can_have_a_zone_or_be_a_date():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    for start in (
        datetime.date(2026, 1, 1),
        datetime.datetime(2026, 1, 1, 2, tzinfo=zone),
        "2026-01-01T00:00:00Z",
        "1 Jan 2026",
    ):
        with VirtualClock() as clock, frozen_wall(clock, start):
            assert time.time_ns() == START_NS


def test_a_freeze_before_the_clock_is_refused():
    with (
        freezegun.freeze_time("2026-01-01"),
        pytest.raises(ClockError, match="freezegun is active: leave it before"),
        VirtualClock(),
    ):
        pass


def test_time_machine_before_the_clock_is_refused():
    time_machine = pytest.importorskip("time_machine")
    with (
        time_machine.travel(0),
        pytest.raises(ClockError, match="time-machine is active: leave it before"),
        VirtualClock(),
    ):
        pass


def test_time_machine_inside_the_clock_has_wall_time_alone():
    """From 3.0 on it leaves monotonic time alone, so that both can be had."""
    time_machine = pytest.importorskip("time_machine")
    with VirtualClock() as clock:
        with time_machine.travel(0, tick=False):
            before = time.monotonic()
            time.sleep(100)
            assert time.monotonic() - before == pytest.approx(100)
            assert time.time() == 0
        assert clock.elapsed == 100
        assert time.time() > 1e9
