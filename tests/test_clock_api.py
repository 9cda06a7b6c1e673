"""The virtual clock as a test and the driver see it: advance, settle, callbacks, waits, pauses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pytest_vramsettle.clock import ClockError, VirtualClock, virtual_clock


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    yield from virtual_clock()


def test_advance_runs_what_is_due_on_the_way_and_at_the_end(clock):
    rung = []
    for seconds in (0.5, 1.0, 1.5):
        threading.Timer(seconds, lambda seconds=seconds: rung.append((seconds, clock.elapsed))).start()
    clock.advance(1.0)
    assert rung == [(0.5, 0.5), (1.0, 1.0)]
    assert clock.elapsed == 1.0
    clock.advance(0)
    assert clock.elapsed == 1.0
    clock.advance(0.5)
    assert rung[-1] == (1.5, 1.5)


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan"), float("inf")])
def test_the_clock_does_not_go_back(clock, seconds):
    with pytest.raises(ValueError, match="a duration from 0"):
        clock.advance(seconds)
    with pytest.raises(ValueError, match="non-negative"):
        time.sleep(-1)
    with pytest.raises(ValueError, match="must not be negative"):
        clock.sleep(-1)
    assert clock.elapsed == 0.0


@pytest.mark.parametrize(
    "use", [lambda clock: clock.advance(1), lambda clock: clock.settle()], ids=["advance", "settle"]
)
def test_a_thread_of_somebody_elses_cannot_move_the_clock(clock, use):
    """The thread that waits for it would be what it waits for."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            use(clock)
        except ClockError as error:
            errors.append(error)

    with clock.real_time():
        outsider = threading.Thread(target=work, name="outsider")
        outsider.start()
        outsider.join()
    assert "by outsider, which does not belong to it" in str(errors[0])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"child_grace": "x"}, TypeError),
        ({"child_grace": None}, TypeError),
        ({"child_grace": float("nan")}, ValueError),
        ({"child_grace": -1}, ValueError),
        ({"seed": "a"}, TypeError),
        ({"seed": 1.5}, TypeError),
    ],
)
def test_what_a_clock_cannot_be_made_with(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        VirtualClock(**arguments)


def test_a_clock_that_was_left_is_of_no_more_use():
    with VirtualClock() as clock:
        pass
    for use in (lambda: clock.advance(1), clock.settle, lambda: clock.detach(1), lambda: clock.paused().__enter__()):
        with pytest.raises(ClockError, match="is not active"):
            use()


def test_settle_lets_everybody_run_and_no_time_pass(clock):
    steps = []

    def worker():
        steps.append("first")
        time.sleep(0.001)
        steps.append("second")

    threading.Thread(target=worker).start()
    clock.settle()
    assert steps == ["first"]
    assert clock.elapsed == 0.0
    (blocked,) = clock.blocked()
    assert (blocked.what, blocked.until) == ("sleep", 0.001)
    assert [(timer.at, timer.what) for timer in clock.timers()] == [(0.001, "sleep")]
    time.sleep(1)
    assert steps == ["first", "second"]
    assert (clock.timers(), clock.blocked()) == ((), ())


def test_callbacks_run_in_order_at_their_instant(clock):
    seen = []
    now = clock.monotonic_ns()

    def record(name):
        seen.append((name, clock.monotonic_ns() - now, time.monotonic_ns() - now))

    for name, after in (("c", 3), ("a", 1), ("b1", 2), ("b2", 2), ("past", -5)):
        clock.call_at(now + after * 1_000_000_000, lambda name=name: record(name))
    clock.call_at(now + 2_000_000_000, lambda: record("cancelled"))()
    time.sleep(2.5)
    second = 1_000_000_000
    assert seen == [
        ("past", 0, 0),
        ("a", second, second),
        ("b1", 2 * second, 2 * second),
        ("b2", 2 * second, 2 * second),
    ]
    time.sleep(2.5)
    assert seen[-1] == ("c", 3 * second, 3 * second)
    assert clock.elapsed == 5.0


def test_a_callback_may_wake_threads_and_set_timers(clock):
    ready, seen = threading.Event(), []
    now = clock.monotonic_ns()

    def first():
        clock.call_at(now + 2_000_000_000, ready.set)
        for extra in range(1000):
            clock.call_at(now + 10_000_000_000 + extra, lambda: None)

    clock.call_at(now + 1_000_000_000, first)
    thread = threading.Thread(target=lambda: (ready.wait(), seen.append(clock.elapsed)))
    thread.start()
    time.sleep(5)
    thread.join()
    assert seen == [2.0]
    assert clock.elapsed == 5.0


def test_a_callback_from_a_foreign_thread_moves_a_clock_that_stands(clock):
    rung = threading.Event()
    with clock.real_time():
        threading.Timer(0.05, lambda: clock.call_at(clock.monotonic_ns() + 4_000_000_000, rung.set)).start()
    assert rung.wait()
    assert clock.elapsed == 4.0


def test_what_a_callback_raises_comes_out_when_the_clock_is_left():
    def use(callback, error=None):
        with VirtualClock() as clock:
            clock.call_at(clock.monotonic_ns() + 1_000_000_000, callback)
            time.sleep(2)
            assert clock.elapsed == 2.0
            if error is not None:
                raise error

    with pytest.raises(ZeroDivisionError):
        use(lambda: 1 / 0)
    with pytest.raises(ClockError, match="must not wait"):
        use(lambda: time.sleep(1))
    with pytest.raises(KeyError) as raised:
        use(lambda: 1 / 0, KeyError("the test's own"))
    assert "ZeroDivisionError" in raised.value.__notes__[0]


def test_wait_ends_at_the_deadline_or_when_released(clock):
    released = threading.Event()
    clock.wait(released, clock.monotonic_ns() + 1_500_000_000)
    assert clock.elapsed == 1.5
    clock.wait(released, clock.monotonic_ns() - 1)
    threading.Timer(1, released.set).start()
    clock.wait(released, None)
    assert clock.elapsed == 2.5
    clock.wait(released, None)
    assert clock.elapsed == 2.5


def test_wait_from_a_foreign_thread_is_a_deadline(clock):
    seen = []

    def foreign():
        clock.wait(threading.Event(), clock.monotonic_ns() + 3_000_000_000)
        seen.append(clock.elapsed)

    with clock.real_time():
        thread = threading.Thread(target=foreign)
        thread.start()
        while not clock.timers():
            time.sleep(0.001)
    time.sleep(3)
    with clock.real_time():
        thread.join(5)
    assert seen == [3.0]


def test_paused_and_real_sleep(clock):
    seen = []
    with clock.paused():
        thread = threading.Thread(target=lambda: (time.sleep(1), seen.append(clock.elapsed)))
        thread.start()
        clock.real_sleep(0.02)
        assert "held by paused()" in repr(clock)
        assert clock.elapsed == 0.0
    thread.join()
    assert seen == [1.0]


def test_a_pause_that_a_foreign_thread_ends_lets_the_clock_go_on(clock):
    entered, leave = threading.Event(), threading.Event()

    def pause():
        with clock.paused():
            entered.set()
            leave.wait(0.05)

    with clock.real_time():
        threading.Thread(target=pause).start()
        entered.wait()
    time.sleep(2)
    assert clock.elapsed == 2.0
