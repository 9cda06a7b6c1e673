"""The virtual clock: threads and what they wait with."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import os
import pickle
import queue
import random
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vramsettle.clock import ClockError, ClockStopped, VirtualClock, virtual_clock

OWNED = [
    (time, "monotonic"),
    (time, "monotonic_ns"),
    (time, "perf_counter"),
    (time, "perf_counter_ns"),
    (time, "sleep"),
    (threading, "_time"),
    (queue, "time"),
    (subprocess, "_time"),
    (threading.Condition, "wait"),
    (threading.Condition, "notify"),
    (threading.Condition, "notify_all"),
    (threading.Thread, "start"),
    (threading.Thread, "join"),
    (queue, "SimpleQueue"),
    (selectors._PollLikeSelector, "select"),
    (selectors.EpollSelector, "select"),
    (selectors.SelectSelector, "select"),
    (subprocess.Popen, "__init__"),
    (subprocess.Popen, "_wait"),
    (subprocess.Popen, "communicate"),
    (subprocess.Popen, "send_signal"),
    (os, "kill"),
    (os, "killpg"),
    (os, "waitpid"),
]


def owned() -> list[object]:
    return [vars(owner)[name] for owner, name in OWNED]


REAL = owned()


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    yield from virtual_clock()


def test_a_sleep_moves_the_clock_by_exactly_that(clock):
    before, started = time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.monotonic_ns()
    assert abs(started - before) < 1_000_000_000  # it starts at the real value
    time.sleep(3600)
    assert clock.elapsed == 3600.0
    assert time.monotonic_ns() - started == clock.elapsed_ns == 3_600_000_000_000
    assert time.perf_counter_ns() == time.monotonic_ns() == clock.monotonic_ns()
    assert time.clock_gettime_ns(time.CLOCK_MONOTONIC) - before < 5_000_000_000


def test_everything_built_on_conditions_times_out_on_the_instant(clock):
    assert not threading.Event().wait(5)
    assert clock.elapsed == 5.0
    condition = threading.Condition()
    with condition:
        assert not condition.wait_for(lambda: False, 7)
    assert clock.elapsed == 12.0
    assert not threading.Semaphore(0).acquire(timeout=3)
    assert clock.elapsed == 15.0
    with pytest.raises(queue.Empty):
        queue.Queue().get(timeout=2)
    assert clock.elapsed == 17.0
    with pytest.raises(queue.Empty):
        queue.SimpleQueue().get(timeout=2)
    assert clock.elapsed == 19.0
    with pytest.raises(threading.BrokenBarrierError):
        threading.Barrier(2).wait(9)
    assert clock.elapsed == 28.0
    rung = threading.Event()
    threading.Timer(60, rung.set).start()
    assert rung.wait()
    assert clock.elapsed == 88.0


def test_awkward_timeouts_are_exact_too(clock):
    """`endtime - time()` leaves rests of some 1e-11 s, which must not add a nanosecond each."""
    total = 0
    for millis in range(1, 300):
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=millis / 1000)
        total += millis
    assert clock.elapsed_ns == total * 1_000_000


def test_a_loop_that_sleeps_what_is_left_ends_on_its_deadline(clock):
    for millis in range(1, 100):
        started = clock.elapsed_ns
        deadline = time.monotonic() + millis / 1000
        while (rest := deadline - time.monotonic()) > 0:
            time.sleep(rest)
        assert clock.elapsed_ns - started == millis * 1_000_000


def test_threads_sleep_and_are_joined(clock):
    wakes = []

    def sleeper(seconds):
        time.sleep(seconds)
        wakes.append((seconds, clock.elapsed))

    threads = [threading.Thread(target=sleeper, args=(seconds,)) for seconds in (3, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wakes == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert clock.elapsed == 3.0
    late = threading.Thread(target=time.sleep, args=(100,))
    late.start()
    late.join(30)
    assert late.is_alive()
    assert clock.elapsed == 33.0
    late.join()
    assert not late.is_alive()
    assert clock.elapsed == 103.0


def test_executors_futures_and_as_completed(clock):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        future = pool.submit(lambda: (time.sleep(10), 7)[1])
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(timeout=1)
        assert clock.elapsed == 1.0
        assert future.result() == 7
        assert clock.elapsed == 10.0
        both = [pool.submit(time.sleep, seconds) for seconds in (5, 50)]
        assert len(concurrent.futures.wait(both, timeout=20).not_done) == 1
        assert clock.elapsed == 30.0
        with pytest.raises(concurrent.futures.TimeoutError):
            list(concurrent.futures.as_completed(both, timeout=3))
        assert clock.elapsed == 33.0
    assert clock.elapsed == 60.0


def test_asyncio(clock):
    async def main():
        await asyncio.sleep(3600)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 5)
        assert await asyncio.to_thread(lambda: (time.sleep(2), "thread")[1]) == "thread"

        async def echo(reader, writer):
            line = await reader.readline()
            await asyncio.sleep(1)
            writer.write(line)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        assert await asyncio.wait_for(reader.readline(), 20) == b"hello\n"
        writer.close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
    # asyncio rounds to its clock's resolution, a nanosecond.
    assert clock.elapsed == pytest.approx(3608.0, abs=1e-6)


@pytest.mark.parametrize(
    "make", [selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector], ids=lambda make: make.__name__
)
def test_selectors(clock, make):
    left, right = socket.socketpair()
    with left, right, make() as selector:
        selector.register(left, selectors.EVENT_READ)
        assert selector.select(0) == []
        assert clock.elapsed_ns == 0
        assert selector.select(0.005) == []
        assert clock.elapsed_ns == 5_000_000
        threading.Timer(2, right.send, args=(b"x",)).start()
        ((key, events),) = selector.select(30)
        assert (key.fileobj, events) == (left, selectors.EVENT_READ)
        assert clock.elapsed_ns == 2_005_000_000
        threading.Timer(3, right.send, args=(b"x",)).start()
        assert left.recv(9) == b"x"
        assert selector.select(None)
        assert clock.elapsed_ns == 5_005_000_000


def test_a_descriptor_made_ready_from_real_time_ends_a_select(clock):
    left, right = socket.socketpair()
    with left, right, selectors.DefaultSelector() as selector:
        selector.register(left, selectors.EVENT_READ)
        with clock.real_time():
            threading.Timer(0.05, right.send, args=(b"x",)).start()
        assert selector.select(None)
        assert clock.elapsed_ns == 0


def test_a_thread_that_is_notified_runs_before_the_clock_goes_on(clock):
    """Nothing may jump between the notification and the moment at which the thread really runs."""
    for _ in range(300):
        started, seen = clock.elapsed_ns, []
        ready = threading.Event()

        def waiter(ready=ready, seen=seen):
            ready.wait()
            seen.append(clock.elapsed_ns)

        thread = threading.Thread(target=waiter)
        thread.start()
        clock.settle()
        ready.set()
        time.sleep(1)
        thread.join()
        assert seen == [started]


def test_a_producer_and_a_consumer_keep_their_times(clock):
    work, seen = queue.Queue(maxsize=1), []

    def produce():
        for item in range(200):
            time.sleep(0.25)
            work.put(item)
        work.put(None)

    threading.Thread(target=produce).start()
    while (item := work.get(timeout=10)) is not None:
        seen.append((item, clock.elapsed))
    assert seen == [(item, (item + 1) * 0.25) for item in range(200)]


def test_a_simple_queue_serves_every_waiter_once(clock):
    items: queue.SimpleQueue = queue.SimpleQueue()
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(items.get())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for item in range(20):
        items.put(item)
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(20))
    assert items.empty()


def test_a_thread_blocked_outside_holds_the_clock(clock):
    left, right = socket.socketpair()
    with left, right:
        raw = threading.Thread(target=left.recv, args=(9,))
        raw.start()
        with clock.real_time():
            threading.Timer(0.05, right.send, args=(b"x",)).start()
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        time.sleep(1)
        assert time.clock_gettime(time.CLOCK_MONOTONIC) - started >= 0.04
        raw.join()
    assert clock.elapsed == 1.0


def test_other_threads_live_in_real_time():
    go, times = threading.Event(), []

    def outsider():
        go.wait()
        started = time.monotonic()
        time.sleep(0.01)
        times.extend((started, time.monotonic()))

    thread = threading.Thread(target=outsider)
    thread.start()
    with VirtualClock() as clock:
        time.sleep(1000)
        go.set()
        thread.join()
        assert clock.elapsed == 1000.0
    assert 0.01 <= times[1] - times[0] < 5
    assert abs(times[1] - time.monotonic()) < 5


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
    with pytest.raises(ValueError, match="not negative"):
        clock.advance(seconds)
    with pytest.raises(ValueError, match="non-negative"):
        time.sleep(-1)
    with pytest.raises(ValueError, match="must not be negative"):
        clock.sleep(-1)
    assert clock.elapsed == 0.0


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


def test_spinning_on_no_time_at_all_creeps_on(clock):
    end = time.monotonic() + 5
    time.sleep(5)
    spins = 0
    while end - time.monotonic() >= 0:
        threading.Event().wait(0)
        spins += 1
    assert spins < 100
    assert clock.elapsed == 5.0
    ends = time.monotonic_ns() + 3
    while time.monotonic_ns() < ends:
        time.sleep(0)
    assert clock.elapsed_ns == 5_000_000_003


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
        waits = [lambda: time.sleep(1e6), threading.Event().wait, threading.current_thread().join]
        threads = [threading.Thread(target=park, args=(wait,)) for wait in waits[:2]]
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
