"""Ways to read time and to wait, for the control matrix. Names are bound at import on purpose: some tools miss those.

A read returns seconds. A wait waits for WAIT seconds, which no tool but a clock that rules it makes shorter.
"""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextlib
import datetime
import multiprocessing
import queue
import sched
import select
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from time import monotonic as early_monotonic
from time import sleep as early_sleep
from typing import Any

WAIT = 1.0
_CHILD = ["sleep", "30"]
_EARLY_LOCK = threading.Lock()


class _Holder:
    now = staticmethod(time.monotonic)


def _default(now: Callable[[], float] = time.monotonic) -> float:
    return now()


def _in_thread(read: Callable[[], float], depth: int = 0) -> float:
    found: list[float] = []

    def deeper(left: int) -> None:
        if left:
            deeper(left - 1)
        else:
            found.append(read())

    thread = threading.Thread(target=deeper, args=(depth,))
    thread.start()
    thread.join()
    return found[0]


def _in_executor() -> float:
    with cf.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: time.monotonic()).result()


async def _loop_time() -> float:
    return asyncio.get_running_loop().time()


READS: dict[str, Callable[[], float]] = {
    "time.monotonic()": lambda: time.monotonic(),
    "time.monotonic_ns()": lambda: time.monotonic_ns() / 1e9,
    "time.perf_counter()": lambda: time.perf_counter(),
    "time.perf_counter_ns()": lambda: time.perf_counter_ns() / 1e9,
    "from time import monotonic": lambda: early_monotonic(),
    "monotonic as a default argument": _default,
    "monotonic as a class attribute": lambda: _Holder.now(),
    "monotonic in the target of a thread": lambda: _in_thread(lambda: time.monotonic()),
    "monotonic in a thread, 6 frames deep": lambda: _in_thread(lambda: time.monotonic(), 6),
    "monotonic in an executor": _in_executor,
    "asyncio loop.time()": lambda: asyncio.run(_loop_time()),
    "clock_gettime(CLOCK_MONOTONIC)": lambda: time.clock_gettime(time.CLOCK_MONOTONIC),
    "time.time()": lambda: time.time(),
    "time.time_ns()": lambda: time.time_ns() / 1e9,
    "datetime.now()": lambda: datetime.datetime.now().timestamp(),
    "datetime.now() in the target of a thread": lambda: _in_thread(lambda: datetime.datetime.now().timestamp()),
    "time.gmtime()": lambda: float(time.gmtime().tm_sec + 60 * time.gmtime().tm_min + 3600 * time.gmtime().tm_hour),
    "clock_gettime(CLOCK_REALTIME)": lambda: time.clock_gettime(time.CLOCK_REALTIME),
    "time.process_time()": lambda: time.process_time(),
}


def _condition(use: Callable[[threading.Condition], object]) -> None:
    condition = threading.Condition()
    with condition:
        use(condition)


def _held(lock: Any) -> None:
    """Held by another thread, which lives until the lock is wanted no longer."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    taken.wait()
    lock.acquire(timeout=WAIT)
    done.set()
    thread.join()


def _join() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, daemon=True)
    thread.start()
    thread.join(WAIT)
    done.set()


def _timer() -> None:
    done = threading.Event()
    threading.Timer(WAIT, done.set).start()
    done.wait()


def _full_queue() -> None:
    full: queue.Queue[int] = queue.Queue(1)
    full.put(1)
    full.put(2, timeout=WAIT)


def _scheduler() -> None:
    scheduler = sched.scheduler()
    scheduler.enter(WAIT, 1, lambda: None)
    scheduler.run()


def _executor(use: Callable[[cf.ThreadPoolExecutor, Any], object]) -> None:
    done = threading.Event()
    with cf.ThreadPoolExecutor(1) as pool:
        try:
            use(pool, lambda _=None: done.wait())
        finally:
            done.set()


def _child(use: Callable[[subprocess.Popen[bytes]], object], **pipes: Any) -> None:
    with subprocess.Popen(_CHILD, **pipes) as child:
        try:
            use(child)
        finally:
            child.kill()


async def _timeout() -> None:
    async with asyncio.timeout(WAIT):
        await asyncio.Event().wait()


async def _call_later() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(WAIT, done.set)
    await done.wait()


async def _child_of_asyncio() -> None:
    child = await asyncio.create_subprocess_exec(*_CHILD)
    try:
        await asyncio.wait_for(child.wait(), WAIT)
    finally:
        child.kill()
        await child.wait()


def _select(selector: selectors.BaseSelector) -> None:
    with _pair() as (one, _), selector:
        selector.register(one, selectors.EVENT_READ)
        selector.select(WAIT)


@contextlib.contextmanager
def _pair() -> Any:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def _on_socket(use: Callable[[socket.socket], object]) -> None:
    with _pair() as (one, _):
        use(one)


def _poll(one: socket.socket) -> None:
    poll = select.poll()
    poll.register(one, select.POLLIN)
    poll.poll(WAIT * 1000)


def _receive(one: socket.socket) -> None:
    one.settimeout(WAIT)
    one.recv(1)


def _connection() -> None:
    one, other = multiprocessing.Pipe()
    with one, other:
        one.poll(WAIT)


def _run(coroutine: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], object]:
    return lambda: asyncio.run(coroutine())


WAITS: dict[str, Callable[[], object]] = {
    "time.sleep": lambda: time.sleep(WAIT),
    "from time import sleep": lambda: early_sleep(WAIT),
    "Event.wait": lambda: threading.Event().wait(WAIT),
    "Condition.wait": lambda: _condition(lambda condition: condition.wait(WAIT)),
    "Condition.wait_for": lambda: _condition(lambda condition: condition.wait_for(lambda: False, WAIT)),
    "Semaphore.acquire": lambda: threading.Semaphore(0).acquire(timeout=WAIT),
    "Barrier.wait": lambda: threading.Barrier(2).wait(WAIT),
    "Lock.acquire": lambda: _held(threading.Lock()),
    "Lock.acquire, lock made at import": lambda: _held(_EARLY_LOCK),
    "RLock.acquire": lambda: _held(threading.RLock()),
    "Thread.join": _join,
    "Timer": _timer,
    "Queue.get": lambda: queue.Queue[int]().get(timeout=WAIT),
    "Queue.put": _full_queue,
    "SimpleQueue.get": lambda: queue.SimpleQueue[int]().get(timeout=WAIT),
    "sched.scheduler": _scheduler,
    "Future.result": lambda: cf.Future[int]().result(WAIT),
    "futures.wait": lambda: cf.wait([cf.Future[int]()], WAIT),
    "futures.as_completed": lambda: list(cf.as_completed([cf.Future[int]()], WAIT)),
    "Executor.submit(...).result": lambda: _executor(lambda pool, hold: pool.submit(hold).result(WAIT)),
    "Executor.map": lambda: _executor(lambda pool, hold: list(pool.map(hold, [1], timeout=WAIT))),
    "subprocess.run": lambda: subprocess.run(_CHILD, timeout=WAIT),
    "subprocess.run, output captured": lambda: subprocess.run(_CHILD, timeout=WAIT, capture_output=True),
    "Popen.wait": lambda: _child(lambda child: child.wait(WAIT)),
    "Popen.communicate": lambda: _child(lambda child: child.communicate(timeout=WAIT), stdout=subprocess.PIPE),
    "asyncio.sleep": _run(lambda: asyncio.sleep(WAIT)),
    "asyncio.wait_for": _run(lambda: asyncio.wait_for(asyncio.Event().wait(), WAIT)),
    "asyncio.timeout": _run(_timeout),
    "asyncio call_later": _run(_call_later),
    "asyncio.to_thread(time.sleep)": _run(lambda: asyncio.to_thread(time.sleep, WAIT)),
    "asyncio subprocess, wait_for": _run(_child_of_asyncio),
    "DefaultSelector.select": lambda: _select(selectors.DefaultSelector()),
    "PollSelector.select": lambda: _select(selectors.PollSelector()),
    "SelectSelector.select": lambda: _select(selectors.SelectSelector()),
    "select.select": lambda: _on_socket(lambda one: select.select([one], [], [], WAIT)),
    "select.poll": lambda: _on_socket(_poll),
    "socket.settimeout": lambda: _on_socket(_receive),
    "multiprocessing Connection.poll": _connection,
    "signal.sigtimedwait": lambda: signal.sigtimedwait([signal.SIGUSR1], WAIT),
}
