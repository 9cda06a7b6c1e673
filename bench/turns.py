"""What the virtual clock costs, and whether the order of its threads is the same in every run.

The goals are what a prototype reached on two cores, the upper end of each range.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from statistics import median
from time import perf_counter_ns

from bench.measure import Figure, Goal, Measured, Section, alternate, compare, per_call, plain_call, timed
from pytest_vramsettle.clock import VirtualClock, VirtualDeadlock, patches

RUNS = 500

_REAL_MONOTONIC = time.monotonic


def load_unload_cancel() -> float:
    """One polls, one holds a lock and frees memory, one wants that lock. Returns the virtual seconds."""
    with VirtualClock() as clock:
        freed, lock = threading.Event(), threading.Lock()

        def load() -> None:
            while not freed.wait(0.5):
                pass

        def unload() -> None:
            with lock:
                time.sleep(3)
            time.sleep(4.25)
            freed.set()

        def cancel() -> None:
            time.sleep(1)
            with lock:
                inbox: queue.Queue[None] = queue.Queue()
            with contextlib.suppress(queue.Empty):
                inbox.get(timeout=2)

        threads = [threading.Thread(target=target) for target in (load, unload, cancel)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return clock.elapsed


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = await reader.readline()
    await asyncio.sleep(1)
    writer.write(line)
    await writer.drain()
    writer.close()


async def _tasks() -> None:
    await asyncio.sleep(3600)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 5)
    await asyncio.to_thread(time.sleep, 2)
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"one\n")
    await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    await writer.wait_closed()
    server.close()


def mixed() -> float:
    """Threads, an event loop and a loopback connection. Returns the virtual seconds."""
    with VirtualClock() as clock:
        asyncio.run(_tasks())
        threads = [threading.Thread(target=time.sleep, args=(seconds,)) for seconds in (60, 120, 261)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return clock.elapsed


def deadlock() -> None:
    """Two threads and the one that entered the clock, all of them blocked for ever."""
    with VirtualClock():
        for _ in range(2):
            threading.Thread(target=threading.Event().wait).start()
        with contextlib.suppress(VirtualDeadlock):
            threading.Event().wait()


def enter_and_leave() -> None:
    """The life of a clock that nobody uses."""
    with VirtualClock():
        pass


def sleeping(count: int, sleeps: int = 100) -> Measured:
    """One sleep of `count` threads that all sleep."""

    def sleeper() -> None:
        for _ in range(sleeps):
            time.sleep(0.1)

    def measured() -> float:
        with VirtualClock():
            threads = [threading.Thread(target=sleeper) for _ in range(count)]
            start = perf_counter_ns()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return (perf_counter_ns() - start) / 1e9 / (count * sleeps)

    return measured


def on_a_clock(measured: Callable[[], Measured]) -> Measured:
    """What `measured()` measures, made and called on a clock."""

    def inside() -> float:
        with VirtualClock():
            return measured()()

    return inside


def section() -> Section:
    """Waits of one thread and of many."""
    variants: dict[str, Measured] = {
        "plain": per_call(plain_call, None, 200),
        "enter and leave": timed(enter_and_leave),
        "time.sleep(60)": on_a_clock(lambda: per_call(time.sleep, 60, 200)),
        "Event.wait(1)": on_a_clock(lambda: per_call(threading.Event().wait, 1, 200)),
        **{f"a sleep, {count} threads": sleeping(count) for count in (2, 10, 50)},
        "deadlock of three threads, reported": timed(deadlock),
    }
    goals = {
        "enter and leave": 9e-6,
        "time.sleep(60)": 10e-6,
        "Event.wait(1)": 17e-6,
        **{f"a sleep, {count} threads": 77e-6 for count in (2, 10, 50)},
        "deadlock of three threads, reported": 3e-3,
    }
    taken = alternate(variants, 30)
    return Section(
        "VirtualClock",
        f"a plain Python function's call ({median(taken['plain']) * 1e9:.0f} ns)",
        tuple(
            compare(name, taken[name], taken["plain"], Goal("seconds", goals[name])) for name in taken if name in goals
        ),
    )


def scenarios_section() -> Section:
    """Whole scenarios, and how many times faster they are than the real time that they stand for."""
    figures = []
    for what, scenario, goal in (
        ("load + unload + cancel", load_unload_cancel, 2.1e-3),
        ("threads, asyncio, loopback TCP", mixed, 10e-3),
    ):
        virtual = scenario()
        seconds = median(alternate({what: timed(scenario)}, 30)[what])
        name = f"{what}: {virtual:g} virtual seconds, {virtual / seconds:,.0f} times as fast"
        figures.append(Figure(name, seconds, goal=Goal("seconds", goal)))
    return Section("Scenarios on the VirtualClock", "", tuple(figures))


def idle_section() -> Section:
    """What stays in place between the clocks of `pytest --virtual-clock`."""
    patches.reside()
    try:
        stand_in = time.monotonic
        taken = alternate(
            {
                "the built-in": per_call(lambda _: _REAL_MONOTONIC(), None, 20_000),
                "time.monotonic() of --virtual-clock, between clocks": per_call(lambda _: stand_in(), None, 20_000),
            },
            30,
        )
    finally:
        patches.leave_residence()
    base = taken.pop("the built-in")
    return Section(
        "Idle cost",
        f"the built-in time.monotonic(), called alike ({median(base) * 1e9:.0f} ns)",
        tuple(compare(name, taken[name], base, Goal("ratio", 134 / 114)) for name in taken),
    )


def _order(seed: int | None) -> tuple[object, ...]:
    seen: list[object] = []
    with VirtualClock(seed=seed):
        event = threading.Event()

        def work(index: int) -> None:
            for step in range(4):
                time.sleep((index % 3 + 1) * 0.5)
                sum(range(random.Random(index * 7 + step).randrange(40)))
                seen.append((index, step))
            if index == 3:
                event.set()
            else:
                seen.append((index, event.wait(1)))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return tuple(seen)


def orders(runs: int = RUNS) -> dict[int | None, int]:
    """How many orders `runs` runs of eight threads with ties take, for some seeds, beside three threads that compute
    and with a switch of threads every microsecond. Minutes; not part of `python -m bench`."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(200))

    noise = [threading.Thread(target=compute) for _ in range(3)]
    interval = sys.getswitchinterval()
    for thread in noise:
        thread.start()
    sys.setswitchinterval(1e-6)
    try:
        return {seed: len({_order(seed) for _ in range(runs)}) for seed in (None, 1, 2)}
    finally:
        sys.setswitchinterval(interval)
        over.set()
        for thread in noise:
            thread.join()


if __name__ == "__main__":
    for seed, found in orders().items():
        print(f"seed {seed}: {found} order(s) in {RUNS} runs")
