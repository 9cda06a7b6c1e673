"""What threads on the virtual clock cost, and whether their order is the same in every run."""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
from statistics import median
from time import perf_counter_ns

from bench.measure import Measured, Section, alternate, compare, per_call, plain_call, timed
from pytest_vramsettle.clock import VirtualClock

RUNS = 500


def load_unload_cancel() -> None:
    """7.25 virtual seconds: one polls, one holds a lock and frees memory, one wants that lock."""
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
            try:
                inbox.get(timeout=2)
            except queue.Empty:
                return

        threads = [threading.Thread(target=target) for target in (load, unload, cancel)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if clock.elapsed != 7.25:
            raise RuntimeError(f"it took {clock.elapsed} virtual seconds")


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


def waiting() -> float:
    """One `Event.wait` with a timeout."""
    with VirtualClock():
        return per_call(threading.Event().wait, 1, 200)()


def section() -> Section:
    """Waits of one thread and of many."""
    variants: dict[str, Measured] = {
        "plain": per_call(plain_call, None, 200),
        "Event.wait(1)": waiting,
        **{f"a sleep, {count} threads": sleeping(count) for count in (2, 10, 50)},
        "load + unload + cancel, 7.25 virtual seconds": timed(load_unload_cancel),
    }
    taken = alternate(variants, 30)
    return Section(
        "Threads on the VirtualClock",
        f"a plain Python function's call ({median(taken['plain']) * 1e9:.0f} ns)",
        tuple(compare(name, taken[name], taken["plain"]) for name in taken if name != "plain"),
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
