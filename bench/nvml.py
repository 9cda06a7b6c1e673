"""What reading memory through NVML costs, in the driver's process and in a child.

Run as a program, it is that child, and prints what it measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pynvml

from bench.measure import Goal, Section, Taken, alternate, compare, per_call, plain_call
from fake_gpu import Driver

ROOT = Path(__file__).parent.parent
ROUNDS, CALLS = 60, 100


def measure(rounds: int = ROUNDS, calls: int = CALLS) -> Taken:
    """Seconds of a plain call and of a reading of memory, by pynvml, in this process."""
    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return alternate(
            {
                "plain": per_call(plain_call, handle, calls),
                "nvml": per_call(pynvml.nvmlDeviceGetMemoryInfo, handle, calls),
            },
            rounds,
        )
    finally:
        pynvml.nvmlShutdown()


def measure_in_child(rounds: int = ROUNDS, calls: int = CALLS) -> Taken:
    """The same in a child, while this process waits for it."""
    command = [sys.executable, "-m", "bench.nvml", str(rounds), str(calls)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    taken: Taken = json.loads(done.stdout)
    return taken


@contextmanager
def computing() -> Iterator[None]:
    """A thread of this process computes, and gives the interpreter away only when it is asked to."""
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def section() -> Section:
    """By callback, by socket, and by socket while the driver's process has other things to do."""
    with Driver() as driver:
        driver.process(driver.add_gpu("h200"), used="70 GiB")
        here, child = measure(), measure_in_child()
        with computing():
            busy = measure_in_child(rounds=20, calls=10)
    return Section(
        "nvmlDeviceGetMemoryInfo by pynvml",
        f"a plain Python function's call ({median(here['plain']) * 1e9:.0f} ns), measured in the same process",
        (
            compare("in the driver's process", here["nvml"], here["plain"], Goal("seconds", 6e-6)),
            compare("in a child", child["nvml"], child["plain"], Goal("seconds", 120e-6)),
            compare("in a child, the driver's process computing", busy["nvml"], busy["plain"]),
        ),
    )


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:]))))
