"""The virtual clock: locks, deadlocks and busy loops."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import queue
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_vramsettle.clock import BusyLoop, VirtualClock, VirtualDeadlock, virtual_clock
from pytest_vramsettle.clock.engine import BUSY, READS


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    yield from virtual_clock()


both = pytest.mark.parametrize("make", ["Lock", "RLock", "Condition", "Semaphore"])


@both
def test_a_lock_whose_holder_sleeps_is_waited_for_on_the_clock(clock, make):
    lock = getattr(threading, make)()

    def hold():
        with lock:
            time.sleep(3)

    thread = threading.Thread(target=hold)
    thread.start()
    clock.settle()
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    with lock:
        assert clock.elapsed == 3.0
    assert time.clock_gettime(time.CLOCK_MONOTONIC) - started < 0.5
    thread.join()
    assert not any("unordered" in line for line in clock.trace)


@pytest.mark.parametrize("make", ["Lock", "RLock"])
def test_a_timeout_on_a_lock_is_exact(clock, make):
    lock = getattr(threading, make)()
    thread = threading.Thread(target=lambda: (lock.acquire(), time.sleep(10), lock.release()))
    thread.start()
    clock.settle()
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(timeout=0)
    assert not lock.acquire(timeout=4)
    assert clock.elapsed == 4.0
    assert lock.acquire(timeout=60)
    assert clock.elapsed == 10.0
    lock.release()
    thread.join()


def test_a_lock_goes_from_hand_to_hand(clock):
    """Who lets go and takes it again at once does not starve the others."""
    lock, order = threading.Lock(), []

    def work(name):
        for _ in range(3):
            with lock:
                order.append(name)
                time.sleep(1)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "".join(order) == "abcabcabc"
    assert clock.elapsed == 9.0


def test_a_thread_locks_itself_out_until_the_timeout(clock):
    lock = threading.Lock()
    with lock:
        assert not lock.acquire(timeout=2)
    assert clock.elapsed == 2.0


def test_a_lock_that_an_outsider_holds_is_waited_for_in_real_time(clock):
    lock, held = threading.Lock(), threading.Event()

    def outsider():
        with lock:
            held.set()
            time.sleep(0.05)

    sleeper = threading.Thread(target=time.sleep, args=(1,))
    sleeper.start()
    with clock.real_time():
        thread = threading.Thread(target=outsider)
        thread.start()
        held.wait()
    with lock:
        assert clock.elapsed == 0.0
    with clock.real_time():
        thread.join()


def test_locks_are_like_the_real_ones(clock):
    lock, again = threading.Lock(), threading.RLock()
    for wrong in (lambda: lock.acquire(False, 1), lambda: lock.acquire(True, -2)):
        with pytest.raises(ValueError, match="timeout"):
            wrong()
    with pytest.raises(OverflowError):
        lock.acquire(timeout=1e12)
    for made in (lock, again):
        with pytest.raises(RuntimeError):
            made.release()
        for use in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="pickle"):
                use(made)
    with again, again:
        assert again._is_owned()
    with lock:
        assert lock.locked()
    assert not lock.locked()
    logging.getLogger("clock").addHandler(logging.NullHandler())


def test_locks_outlive_the_clock():
    with VirtualClock():
        lock, again, event = threading.Lock(), threading.RLock(), threading.Event()
        lock.acquire()
    thread = threading.Thread(target=lambda: (lock.acquire(), event.set()))
    thread.start()
    assert not event.wait(0.01)
    lock.release()
    assert event.wait(5)
    thread.join()
    with again:
        assert not lock.acquire(timeout=0.01)


def report(wait) -> str:
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    with pytest.raises(VirtualDeadlock, match="deadlock") as raised:
        wait()
    assert time.clock_gettime(time.CLOCK_MONOTONIC) - started < 0.5
    return str(raised.value)


def test_two_locks_in_the_wrong_order_are_reported_at_once(clock):
    first, second = threading.Lock(), threading.Lock()

    def left():
        with first:
            time.sleep(1)
            second.acquire()

    def right():
        with second:
            time.sleep(1)
            first.acquire()

    threads = [threading.Thread(target=target, name=target.__name__) for target in (left, right)]
    for thread in threads:
        thread.start()
    text = report(threads[0].join)
    assert "deadlock at +1.000000000 s" in text
    assert "MainThread waits for join left" in text
    assert "left waits for a lock that right holds" in text
    assert "right waits for a lock that left holds" in text
    assert "second.acquire()" in text
    assert "in left" in text


@pytest.mark.parametrize(
    "wait",
    [lambda: threading.Event().wait(), lambda: queue.Queue().get(), lambda: queue.SimpleQueue().get()],
    ids=["Event", "Queue", "SimpleQueue"],
)
def test_waiting_for_what_nobody_does_is_reported_at_once(clock, wait):
    idle = threading.Thread(target=threading.Event().wait, name="idle")
    idle.start()
    text = report(wait)
    assert "idle waits for Condition.wait" in text
    assert "test_clock_locks.py" in text
    # The clock goes on, for what the test still has to do.
    time.sleep(1)
    assert clock.elapsed == 1.0


def test_a_thread_that_can_wake_others_is_no_deadlock():
    """However long it does nothing before."""
    event = threading.Event()
    with VirtualClock(child_grace=0.05) as clock:
        with clock.real_time():
            threading.Timer(0.3, event.set).start()
        assert event.wait()
        assert clock.elapsed == 0.0


def test_a_thread_from_before_the_clock_may_wake_others():
    go, event = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (go.wait(), time.sleep(0.1), event.set()))
    thread.start()
    with VirtualClock() as clock:
        go.set()
        assert event.wait()
        assert clock.elapsed == 0.0
    thread.join()


def test_a_thread_from_before_the_clock_that_does_nothing_puts_a_report_off():
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    with VirtualClock(child_grace=0.05), pytest.raises(VirtualDeadlock, match="deadlock"):
        threading.Event().wait()
    go.set()
    thread.join()


def test_an_alarm_may_wake_others(clock):
    event = threading.Event()
    previous = signal.signal(signal.SIGALRM, lambda *_: event.set())
    left = signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        assert event.wait()
    finally:
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *left)
    assert clock.elapsed == 0.0


def test_a_busy_loop_is_an_error_with_its_place(clock):
    done = []
    threading.Thread(target=lambda: (time.sleep(1), done.append(True))).start()

    def spin():
        while not done:
            time.sleep(0)

    with pytest.raises(BusyLoop, match=rf"busy loop: {BUSY} waits .*test_clock_locks.py:\d+ in spin by MainThread"):
        spin()


def test_a_loop_that_only_looks_at_the_time_is_an_error_with_its_place(clock):
    def spin():
        end = time.monotonic() + 5
        while time.monotonic() < end:
            pass

    with pytest.raises(BusyLoop, match=r"looks at the time .*test_clock_locks.py:\d+ in spin by MainThread"):
        spin()
    time.sleep(1)
    assert clock.elapsed == 1.0


def test_a_timer_makes_no_difference_to_such_a_loop(clock):
    """There is nobody who could move the clock to it."""

    def spin():
        while clock.elapsed < 1:
            time.monotonic()

    clock.call_at(clock.monotonic_ns() + 1_000_000_000, lambda: None)
    with pytest.raises(BusyLoop, match="looks at the time"):
        spin()


def test_looks_between_waits_are_no_busy_loop(clock):
    for _ in range(3):
        for _ in range(READS // 2):
            time.monotonic()
        time.sleep(1)
    assert clock.elapsed == 3.0


def test_a_loop_that_tries_a_lock_without_end_lets_its_holder_run(clock):
    lock, held = threading.Lock(), threading.Event()

    def hold():
        with lock:
            held.set()
            for _ in range(5):
                time.sleep(0)

    threading.Thread(target=hold).start()
    held.wait()
    tries = 0
    while not lock.acquire(blocking=False):
        tries += 1
    assert 0 < tries < 10
    assert clock.elapsed == 0.0


def test_a_loop_that_tries_a_lock_of_its_own_is_an_error(clock):
    lock = threading.Lock()
    lock.acquire()

    def spin():
        while not lock.acquire(blocking=False):
            pass

    with pytest.raises(BusyLoop, match=r"busy loop: .*test_clock_locks.py:\d+ in spin by MainThread"):
        spin()


def test_an_event_loop_that_waits_for_time_in_rounds_is_an_error(clock):
    async def spin():
        end = time.monotonic() + 1
        while time.monotonic() < end:
            await asyncio.sleep(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_vramsettle.clock.engine.READS", 50_000)
        time.sleep(1)  # from here on
        with pytest.raises(BusyLoop, match="looks at the time"):
            asyncio.run(spin())


def test_such_a_loop_goes_on_while_somebody_outside_works(clock):
    done = []
    with clock.real_time():
        # Longer than the loop above is let spin.
        threading.Thread(target=lambda: (time.sleep(1.5), done.append(True))).start()
    while not done:
        time.monotonic()
    assert clock.elapsed == 0.0


def test_zero_waits_between_others_are_no_busy_loop(clock):
    for _ in range(3):
        for _ in range(BUSY // 2):
            time.sleep(0)
        time.sleep(0.001)
    assert clock.elapsed == pytest.approx(0.003, abs=1e-4)


def test_the_rounds_of_an_event_loop_are_no_busy_loop(clock):
    async def work():
        for _ in range(BUSY + 1000):
            await asyncio.sleep(0)

    asyncio.run(work())
    # Its clock creeps by a nanosecond now and then.
    assert clock.elapsed < 1e-4
