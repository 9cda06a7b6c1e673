"""The virtual clock's comings and goings: what it replaces, interrupts, forks, threads left behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import os
import pickle
import queue
import random
import selectors
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clock_world import REAL, owned
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vramsettle.clock import ClockError, ClockStopped, VirtualClock, virtual_clock


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    yield from virtual_clock()


def test_the_replacements_are_like_the_built_ins(clock):
    class Holder:
        now = time.monotonic
        nap = time.sleep
        kill = os.kill

    assert Holder().now() == time.monotonic()
    Holder().nap(2)
    assert clock.elapsed == 2.0
    Holder().kill(os.getpid(), 0)
    for function in (time.monotonic, time.sleep, time.perf_counter_ns):
        assert copy.deepcopy(function) is function
        assert pickle.loads(pickle.dumps(function)) is function
        assert function.__module__ == "time"
    with pytest.raises(TypeError):
        time.sleep("1")


def test_a_copy_of_a_replacement_goes_on_as_the_real_function():
    with VirtualClock():
        now, nap = time.monotonic, time.sleep
        time.sleep(100_000)
    nap(0)
    assert abs(now() - time.monotonic()) < 5


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_everything_is_put_back(error):
    before = owned()

    def use():
        with VirtualClock():
            assert owned() != before
            thread = threading.Thread(target=time.sleep, args=(50,), daemon=True)
            thread.start()
            time.sleep(1)
            if error is not None:
                raise error

    if error is None:
        use()
    else:
        with pytest.raises(error):
            use()
    after = owned()
    assert all(found is original for found, original in zip(after, before, strict=True))


def test_what_was_overwritten_inside_is_put_back_and_what_was_left_behind_is_healed():
    before = owned()
    with VirtualClock():
        saved = time.sleep
        time.sleep = lambda seconds: None
    assert time.sleep is before[4]
    time.sleep = saved  # as a monkeypatch does that is undone too late
    with VirtualClock() as clock:
        time.sleep(1)
        assert clock.elapsed == 1.0
    assert all(found is original for found, original in zip(owned(), before, strict=True))


@pytest.mark.parametrize(
    "block",
    [
        lambda: time.sleep(10),
        lambda: threading.Event().wait(),
        lambda: queue.SimpleQueue().get(),
        lambda: selectors.DefaultSelector().select(None),
    ],
    ids=["sleep", "Event.wait", "SimpleQueue.get", "select"],
)
def test_an_interrupt_leaves_the_clock_consistent(clock, block: Callable[[], object]):
    """The main thread waits for real, because something holds the clock, and Ctrl-C comes."""
    with clock.real_time():
        threading.Timer(0.05, signal.pthread_kill, args=(threading.get_ident(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), clock.paused():
        block()
    assert clock.blocked() == ()
    assert clock.timers() == ()
    assert clock.elapsed == 0.0
    time.sleep(3)
    thread = threading.Thread(target=time.sleep, args=(2,))
    thread.start()
    thread.join()
    assert clock.elapsed == 5.0


def test_interrupts_at_any_moment_leave_the_clock_consistent():
    """Ctrl-C at hundreds of random places of the clock's own code: nothing stays locked, parked or miscounted."""

    class Interrupt(BaseException):
        pass

    armed, over, main, rng = [False], [False], threading.get_ident(), random.Random(0)

    def handler(number, frame):
        # Once a round, and not in the standard library's code: a weakref callback of its own swallows it, for one.
        if armed[0] and str(Path("pytest_vramsettle", "clock")) in frame.f_code.co_filename:
            armed[0] = False
            raise Interrupt

    def shoot():
        while not over[0]:
            aim = time.perf_counter() + rng.random() * 0.0006
            while time.perf_counter() < aim:
                pass
            if armed[0]:
                signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(0)

    def wait_for_ever(selector):
        event, items = threading.Event(), queue.SimpleQueue()
        while True:
            time.sleep(0.005)
            event.wait(0.003)
            selector.select(0.005)
            with contextlib.suppress(queue.Empty):
                items.get(timeout=0.001)

    previous = signal.signal(signal.SIGUSR1, handler)
    shooter = threading.Thread(target=shoot)
    shooter.start()
    try:
        for _ in range(200):
            with VirtualClock() as clock, selectors.PollSelector() as selector:
                thread = threading.Thread(target=lambda: [time.sleep(0.01) for _ in range(20)])
                thread.start()
                try:
                    armed[0] = True
                    wait_for_ever(selector)
                except Interrupt:
                    pass
                thread.join()
                before = clock.elapsed_ns
                time.sleep(1)
                assert clock.elapsed_ns - before == 1_000_000_000
                assert clock.blocked() == clock.timers() == ()
    finally:
        over[0] = True
        shooter.join()
        signal.signal(signal.SIGUSR1, previous)


def test_a_signal_handler_may_wait_and_set_events(clock):
    released = threading.Event()

    def handler(number, frame):
        threading.Event().wait(0)
        released.set()

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        with clock.real_time():
            threading.Timer(0.05, signal.pthread_kill, args=(threading.get_ident(), signal.SIGUSR1)).start()
        assert released.wait()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    time.sleep(1)
    assert clock.elapsed == 1.0


def test_only_one_clock_at_a_time(clock):
    before = owned()
    with pytest.raises(ClockError, match="active already"), VirtualClock():
        pass
    assert owned() == before
    time.sleep(1)
    assert clock.elapsed == 1.0


def test_a_clock_is_entered_once():
    clock = VirtualClock()
    assert repr(clock) == "<VirtualClock, not entered>"
    assert clock.elapsed == 0.0
    assert abs(clock.monotonic_ns() - time.monotonic_ns()) < 1_000_000_000
    with clock:
        time.sleep(1.25)
        assert repr(clock) == "<VirtualClock at +1.250000000 s, 1 threads, 0 of them blocked, no timer>"
    assert repr(clock) == "<VirtualClock, left at +1.250000000 s>"
    assert clock.elapsed == 1.25
    with pytest.raises(ClockError, match="make another"), clock:
        pass
    with pytest.raises(ClockError, match="not active"):
        clock.advance(1)


def test_freezegun_and_time_machine_are_refused(monkeypatch):
    import freezegun

    with freezegun.freeze_time("2026-01-01"), pytest.raises(ClockError, match="freezegun"), VirtualClock():
        pass
    monkeypatch.setitem(sys.modules, "time_machine", types.SimpleNamespace(coordinates_stack=[object()]))
    with pytest.raises(ClockError, match="time-machine"), VirtualClock():
        pass
    monkeypatch.undo()
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    with pytest.raises(ClockError, match=r"time\.monotonic was replaced"), VirtualClock():
        pass
    monkeypatch.undo()
    with VirtualClock():
        pass


def test_parked_threads_are_ended_quietly(monkeypatch):
    """With `filterwarnings = error` a thread's exception would fail this test as well."""
    complaints, ends = [], []
    monkeypatch.setattr(threading, "excepthook", complaints.append)

    def park(wait):
        try:
            wait()
        except ClockStopped:
            ends.append("stopped")
            raise
        finally:
            ends.append("cleaned up")

    with VirtualClock() as clock:
        waits = [lambda: time.sleep(1e6), threading.Event().wait]
        threads = [threading.Thread(target=park, args=(wait,)) for wait in waits]
        for thread in threads:
            thread.start()
        clock.settle()
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(ends) == ["cleaned up", "cleaned up", "stopped", "stopped"]
    assert complaints == []


def test_an_executor_outlives_the_clock():
    pool = concurrent.futures.ThreadPoolExecutor(1)
    with VirtualClock() as clock:
        pool.submit(time.sleep, 3).result()
        assert clock.elapsed == 3.0
    assert pool.submit(lambda: "still here").result(timeout=5) == "still here"
    pool.shutdown()


def test_leaving_a_clock_does_not_wait_for_the_idle_threads_of_executors():
    started = time.monotonic()
    for _ in range(10):
        with VirtualClock():
            pool = concurrent.futures.ThreadPoolExecutor(1)
            pool.submit(int).result()
        assert pool.submit(int).result(timeout=5) == 0
        pool.shutdown()
    # 5 real seconds, if each were given its time to end.
    assert time.monotonic() - started < 2.5


# From 3.12 on, fork warns where other threads live: the test runner's, for one.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_lives_in_real_time(clock):
    time.sleep(100_000)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            thread = threading.Thread(target=time.sleep, args=(0.01,))
            thread.start()
            thread.join()
            near = abs(time.monotonic() - time.clock_gettime(time.CLOCK_MONOTONIC)) < 5
            os.write(writer, b"real" if near and owned() == REAL else b"virtual")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 99) == b"real"
    os.close(reader)
    os.close(writer)
    assert clock.elapsed == 100_000.0


def test_a_thread_that_cannot_start_does_not_count(clock):
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="once"):
        thread.start()
    with pytest.raises(RuntimeError, match="before it is started"):
        threading.Thread().join()
    with pytest.raises(RuntimeError, match="current thread"):
        threading.current_thread().join()
    with pytest.raises(RuntimeError, match="un-acquired"):
        threading.Condition().wait(1)
    time.sleep(1)
    assert clock.elapsed == 1.0


def test_a_subclass_with_its_own_run_keeps_it(clock):
    class Worker(threading.Thread):
        seen = None

        def run(self):
            time.sleep(2)
            self.seen = clock.elapsed, "run" in self.__dict__

    worker = Worker()
    worker.start()
    worker.join()
    assert worker.seen == (2.0, False)


@settings(deadline=None, max_examples=60)
@given(
    sleeps=st.lists(
        st.lists(st.integers(min_value=1, max_value=5_000_000_000), min_size=1, max_size=5), min_size=1, max_size=8
    )
)
def test_sleeping_threads_wake_in_the_order_of_their_deadlines(sleeps):
    wakes: list[tuple[int, int]] = []
    with VirtualClock() as clock:

        def sleeper(durations: list[int]) -> None:
            due = 0
            for duration in durations:
                due += duration
                time.sleep(duration / 1e9)
                wakes.append((due, clock.elapsed_ns))

        # All begin at +0: nothing moves while this thread starts them.
        threads = [threading.Thread(target=sleeper, args=(durations,)) for durations in sleeps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert clock.elapsed_ns == max(sum(durations) for durations in sleeps)
    assert all(due == woken for due, woken in wakes)
    assert [woken for _, woken in wakes] == sorted(woken for _, woken in wakes)
    assert len(wakes) == sum(map(len, sleeps))
