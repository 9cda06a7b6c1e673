"""Children of multiprocessing and of os.fork: they hold the clock, and live in real time themselves."""

from __future__ import annotations

import multiprocessing
import os
import queue
import sched
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.clock.left import left_behind


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    # The children that never end are found idle soon.
    with VirtualClock(child_grace=0.2) as clock:
        yield clock


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def processes(request: pytest.FixtureRequest) -> multiprocessing.context.BaseContext:
    context: multiprocessing.context.BaseContext = multiprocessing.get_context(request.param)
    return context


def look_at_the_time(results) -> None:
    started = time.monotonic()
    time.sleep(0.05)
    results.put((type(time.sleep).__name__, time.monotonic() - started >= 0.05))


def do_nothing() -> None:
    time.sleep(600)


def test_a_child_is_done_before_a_timeout(clock, processes):
    results = processes.Queue()
    process = processes.Process(target=look_at_the_time, args=(results,))
    process.start()
    assert results.get(timeout=5) == ("builtin_function_or_method", True)
    process.join(5)
    assert process.exitcode == 0
    assert clock.elapsed == 0.0


def test_a_timeout_on_a_child_that_never_ends_is_exact(clock, processes):
    process = processes.Process(target=do_nothing)
    process.start()
    process.join(5)
    assert clock.elapsed == 5.0
    assert process.exitcode is None
    process.kill()
    process.join()
    assert clock.elapsed == 5.0


def test_the_end_of_a_child_is_heard_of_before_a_timeout(clock):
    """The fork server's child is not ours: that it has ended comes over a pipe, some moments later."""
    processes = multiprocessing.get_context("forkserver")
    for _ in range(10):
        process = processes.Process(target=int)
        process.start()
        process.join(5)
        assert process.exitcode == 0
    assert clock.elapsed == 0.0


def test_an_executor_of_processes(clock):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert executor.submit(pow, 2, 10).result(timeout=5) == 1024
        assert list(executor.map(abs, [-1, -2], timeout=5)) == [1, 2]
    assert clock.elapsed == 0.0


def test_os_fork(clock):
    started = time.clock_gettime(time.CLOCK_MONOTONIC)
    with warnings.catch_warnings():
        # Of other threads than the clock's own: of a test runner's, say.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        time.sleep(0.1)
        os._exit(3)
    with pytest.raises(queue.Empty):
        queue.Queue().get(timeout=5)
    assert time.clock_gettime(time.CLOCK_MONOTONIC) - started >= 0.1
    assert clock.elapsed == 5.0
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_a_child_that_is_left_behind_is_named(clock):
    process = multiprocessing.get_context("fork").Process(target=do_nothing, name="loader")
    process.start()
    assert [line for line in left_behind(clock) if "loader" in line]
    process.kill()
    process.join()


def test_a_scheduler_made_with_its_defaults(clock):
    """They are bound where the module is, long before any clock."""
    ran: list[float] = []
    scheduler = sched.scheduler()
    scheduler.enter(5, 1, lambda: ran.append(clock.elapsed))
    scheduler.run()
    assert ran == [5.0]


def test_all_of_it_is_put_back():
    start, defaults = multiprocessing.Process.start, sched.scheduler.__init__.__defaults__
    with VirtualClock():
        assert multiprocessing.Process.start is not start
        assert sched.scheduler.__init__.__defaults__ != defaults
    assert multiprocessing.Process.start is start
    assert sched.scheduler.__init__.__defaults__ == defaults
