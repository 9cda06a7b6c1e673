"""The virtual clock's baton and its watchdog: one order in every run, and nothing outside that hangs it."""

from __future__ import annotations

import asyncio
import random
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_vramsettle.clock import ClockError, VirtualClock, virtual_clock

# `bench` makes 500 of them; that order is chance shows in a few already.
RUNS = 8

MADE_BEFORE = threading.Lock()


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    yield from virtual_clock()


@pytest.fixture
def noise() -> Iterator[None]:
    """Three threads that want the interpreter for themselves, and a switch between threads every microsecond."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(200))

    threads = [threading.Thread(target=compute) for _ in range(3)]
    interval = sys.getswitchinterval()
    for thread in threads:
        thread.start()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        over.set()
        for thread in threads:
            thread.join()


def eight_threads(seed: int | None) -> tuple[object, ...]:
    """Ties, an event, and a counter that loses counts where two threads run at once."""
    seen: list[object] = []
    count = 0
    with VirtualClock(seed=seed) as clock:
        event = threading.Event()

        def work(index: int) -> None:
            nonlocal count
            for step in range(4):
                time.sleep((index % 3 + 1) * 0.5)
                before = count
                sum(range(random.Random(index * 7 + step).randrange(40)))
                count = before + 1
                seen.append((index, step, clock.elapsed_ns))
            if index == 3:
                event.set()
            else:
                seen.append((index, event.wait(1)))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        unordered = [line for line in clock.trace if "unordered" in line]
    return (*seen, count, *unordered)


def test_one_order_for_each_seed(noise):
    orders = {seed: {eight_threads(seed) for _ in range(RUNS)} for seed in (None, 1, 2)}
    assert [len(found) for found in orders.values()] == [1, 1, 1]
    assert len(set.union(*orders.values())) == 3
    assert all(32 in order for found in orders.values() for order in found)


def test_threads_run_in_the_order_of_their_starts_and_one_at_a_time(clock):
    steps = []

    def work(name):
        steps.append(f"{name} begins")
        time.sleep(0)
        steps.append(f"{name} goes on")

    for name in "abc":
        threading.Thread(target=work, args=(name,)).start()
    assert steps == []  # `start` returns when the thread is queued
    clock.settle()
    assert steps == [f"{name} {does}" for does in ("begins", "goes on") for name in "abc"]


def test_ties_go_in_the_order_of_registration(clock):
    woken = []
    event = threading.Event()
    for name in range(5):
        threading.Thread(target=lambda name=name: (event.wait(), woken.append(name))).start()
    for name in range(5, 10):
        threading.Thread(target=lambda name=name: (time.sleep(1), woken.append(name))).start()
    clock.settle()
    clock.call_at(clock.monotonic_ns() + 1_000_000_000, event.set)
    time.sleep(2)
    assert woken == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_a_socket_that_another_thread_serves_does_not_hang(clock):
    left, right = socket.socketpair()

    def serve():
        time.sleep(1)
        right.sendall(right.recv(10).upper())

    with left, right:
        server = threading.Thread(target=serve, name="server")
        server.start()
        left.sendall(b"ping")
        assert left.recv(10) == b"PING"
        server.join()
    assert clock.elapsed == 1.0
    (first, *_) = [line for line in clock.trace if "unordered" in line]
    assert "MainThread is blocked outside of the clock" in first
    assert "left.recv" in first or "test_a_socket_that_another_thread_serves" in first


def test_a_selector_is_woken_by_who_blocks_outside_right_after(clock):
    """Its thread notices while the other has the baton, which that one never hands on by itself."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    for _ in range(3):
        time.sleep(0.01)
        MADE_BEFORE.acquire()
        loop.call_soon_threadsafe(MADE_BEFORE.release)
        assert MADE_BEFORE.acquire(timeout=20)
        MADE_BEFORE.release()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_lock_from_before_the_clock_does_not_hang(clock):
    def load():
        with MADE_BEFORE:
            time.sleep(2)

    thread = threading.Thread(target=load)
    thread.start()
    clock.settle()
    with MADE_BEFORE:
        assert clock.elapsed == 2.0
    thread.join()


def test_a_thread_that_stays_blocked_costs_its_grace_once():
    left, right = socket.socketpair()
    with left, right, VirtualClock(child_grace=0.3) as clock:
        raw = threading.Thread(target=left.recv, args=(1,))
        raw.start()
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        for _ in range(20):
            time.sleep(1)
        # 6 real seconds, if each jump waited for so long.
        assert 0.3 <= time.clock_gettime(time.CLOCK_MONOTONIC) - started < 3
        assert clock.elapsed == 20.0
        right.send(b"x")
        raw.join()


def test_a_thread_that_spins_does_not_hang(clock):
    done = []
    threading.Thread(target=lambda: (time.sleep(1), done.append(True))).start()
    while not done:
        pass
    assert clock.elapsed == 1.0
    assert any("the pace of real time" in line for line in clock.trace)


def test_computing_moves_no_time(clock):
    threading.Thread(target=time.sleep, args=(0.01,)).start()
    clock.settle()
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        pass
    assert clock.elapsed == 0.0
    assert clock.trace == ()


def test_what_runs_beside_a_long_computation_is_named(clock):
    ran = []
    threading.Thread(target=lambda: ran.append(True)).start()
    while not ran:
        pass
    assert ["makes no call to the clock" in line for line in clock.trace] == [True]
    time.sleep(1)
    assert clock.elapsed == 1.0


def select_and_event(clock: VirtualClock) -> tuple[str, ...]:
    seen: list[str] = []
    event = threading.Event()
    left, right = socket.socketpair()
    with left, right, selectors.DefaultSelector() as selector:
        selector.register(left, selectors.EVENT_READ)
        threads = [
            threading.Thread(target=lambda: (selector.select(9), seen.append("select"))),
            threading.Thread(target=lambda: (event.wait(9), seen.append("event"))),
        ]
        for thread in threads:
            thread.start()
        clock.settle()
        right.send(b"x")
        sum(range(20_000))
        event.set()
        for thread in threads:
            thread.join()
    return tuple(seen)


def test_a_select_and_an_event_keep_their_order(clock):
    """Who waits in a selector notices by itself; the order must not depend on when."""
    assert len({select_and_event(clock) for _ in range(50)}) == 1


def test_a_detached_thread_does_not_hold_the_clock(clock):
    left, right = socket.socketpair()
    seen = []

    def wait():
        seen.append(left.recv(1))
        time.sleep(5)
        seen.append(clock.elapsed)

    with left, right:
        thread = threading.Thread(target=wait, name="reader")
        thread.start()
        clock.detach(thread)
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        time.sleep(60)
        assert time.clock_gettime(time.CLOCK_MONOTONIC) - started < 0.5
        right.send(b"x")
        thread.join()
    assert seen == [b"x", 65.0]
    assert any("reader was detached" in line for line in clock.trace)
    with pytest.raises(ClockError, match="cannot be detached"):
        clock.detach(threading.current_thread())


def test_a_thread_is_not_taken_for_a_detached_one_that_has_ended(clock):
    """The system gives its identity to the next that is started."""
    for started in range(5):
        go = threading.Event()
        detached = threading.Thread(target=go.wait)
        detached.start()
        clock.detach(detached)
        go.set()
        with clock.real_time():
            detached.join()
        sleeper = threading.Thread(target=time.sleep, args=(1,))
        sleeper.start()
        sleeper.join()
        assert clock.elapsed == started + 1


def test_threads_that_wait_for_one_child_are_no_deadlock(clock):
    """All but one wait for `Popen._waitpid_lock`, or find the child gone: none is blocked for ever."""
    process = subprocess.Popen(["sleep", "0.05"])
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(process.wait())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0, 0, 0]
    assert clock.elapsed == 0.0


def test_a_thread_that_was_started_has_run_before_the_clock_is_left():
    ran = []
    with VirtualClock():
        threads = [threading.Thread(target=lambda: (ran.append(1), time.sleep(1000), ran.append(2))) for _ in range(3)]
        for thread in threads:
            thread.start()
    assert ran == [1, 1, 1]
    assert not any(thread.is_alive() for thread in threads)


def test_a_poll_in_slices_lets_the_others_run(clock):
    """Who asks again and again without waiting gives its turn to those who are ready."""

    async def spin():
        while not done:
            await asyncio.sleep(0)

    done: list[bool] = []
    threading.Thread(target=lambda: done.append(True)).start()
    asyncio.run(spin())
    assert clock.trace == ()
