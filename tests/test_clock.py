"""The virtual clock: threads and what they wait with."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import os
import queue
import selectors
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_vramsettle.clock import VirtualClock, virtual_clock


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


@pytest.mark.skipif(
    math.ulp(time.monotonic()) > 5e-11, reason="up for so long that a float has no room for rounding up"
)
@pytest.mark.parametrize("seconds", [0.1, 0.3, 1e-6, 1, 3600, 0.7])
def test_whoever_slept_a_second_finds_that_a_second_has_passed(seconds):
    """Rounded sums would tell 0.09999999999990905, for one start in two."""
    for _ in range(50):
        with VirtualClock():
            started = time.monotonic()
            time.sleep(seconds)
            assert time.monotonic() - started >= seconds


def test_the_float_clock_stays_with_the_integer_one(clock):
    for _ in range(2000):
        time.sleep(0.1)
        assert abs(time.monotonic() - time.monotonic_ns() / 1e9) < 0.5e-9
    assert clock.elapsed == 200.0


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


def test_waits_that_time_out_leave_nothing_in_their_condition(clock):
    condition = threading.Condition()
    with condition:
        for _ in range(3):
            assert not condition.wait(1)
        assert not condition._waiters


def test_awkward_timeouts_are_exact_too(clock):
    """`endtime - time()` leaves rests of some 1e-11 s, which must not add a nanosecond each."""
    total = 0
    for millis in range(1, 300):
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=millis / 1000)
        total += millis
    assert 0 <= clock.elapsed_ns - total * 1_000_000 <= 3  # whether floats lose one depends on the hour


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


def test_a_select_for_room_to_write(clock):
    left, right = socket.socketpair()
    left.setblocking(False)
    sent = 0
    with left, right, selectors.PollSelector() as selector:
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += left.send(bytes(65536))
        selector.register(left, selectors.EVENT_WRITE)
        assert selector.select(1) == []
        threading.Timer(1, right.recv, args=(sent,)).start()
        assert selector.select(30)
        assert clock.elapsed == 2.0


def test_waits_in_selectors_leave_no_descriptors(clock):
    left, right = socket.socketpair()
    with left, right, selectors.PollSelector() as selector:
        selector.register(left, selectors.EVENT_READ)
        counts = []
        for _ in range(5):
            threading.Timer(1, right.send, args=(b"x",)).start()
            assert selector.select(30)
            left.recv(1)
            counts.append(len(os.listdir("/proc/self/fd")))
    assert len(set(counts)) == 1


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
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        raw = threading.Thread(target=left.recv, args=(9,))
        raw.start()
        with clock.real_time():
            threading.Timer(0.05, right.send, args=(b"x",)).start()
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
