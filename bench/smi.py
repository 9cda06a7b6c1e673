"""What a run of the fake nvidia-smi costs beside a run of the shortest program there is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from statistics import median

from bench.measure import Goal, Section, alternate, compare, timed
from fake_gpu import Driver

QUERY = ("--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits")
TRUE = "/bin/true"
ROUNDS = 300


def spawned(path: str, *arguments: str) -> Callable[[], None]:
    """Runs a program by posix_spawn, reads all that it prints, and reaps it."""

    def run() -> None:
        reading, writing = os.pipe()
        pid = os.posix_spawn(path, [path, *arguments], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
        os.close(writing)
        while os.read(reading, 1 << 16):
            pass
        os.close(reading)
        os.waitpid(pid, 0)

    return run


def through_subprocess(*command: str) -> Callable[[], None]:
    """Runs a program as most Python callers do."""

    def run() -> None:
        subprocess.run(command, capture_output=True, check=True)

    return run


def section() -> Section:
    """One GPU with a process, and eight of them."""
    with Driver() as driver:
        driver.process(driver.add_gpu("h200"), used="70 GiB")
        program = os.path.join(driver.environment["PATH"].split(os.pathsep)[0], "nvidia-smi")
        variants = {
            TRUE: spawned(TRUE),
            "query of memory": spawned(program, *QUERY),
            "-L": spawned(program, "-L"),
            "table, without arguments": spawned(program),
            "-q -x": spawned(program, "-q", "-x"),
        }
        one = alternate({name: timed(run) for name, run in variants.items()}, ROUNDS)
        called = alternate(
            {"true": timed(through_subprocess(TRUE)), "smi": timed(through_subprocess("nvidia-smi", *QUERY))}, ROUNDS
        )
        for _ in range(7):
            driver.process(driver.add_gpu("h200"), used="70 GiB")
        del variants["-L"]
        eight = alternate({name: timed(run) for name, run in variants.items()}, ROUNDS)
    goals = {"query of memory": Goal("ratio", 1.4)}
    goal = Goal("ratio", 3.0)
    return Section(
        "nvidia-smi",
        f"{TRUE}, started in the same way ({median(one[TRUE]) * 1e3:.2f} ms by posix_spawn)",
        (
            *(compare(name, one[name], one[TRUE], goals.get(name, goal)) for name in one if name != TRUE),
            compare("query of memory, by subprocess.run", called["smi"], called["true"], goals["query of memory"]),
            *(compare(f"{name}, 8 GPUs", eight[name], eight[TRUE]) for name in eight if name != TRUE),
        ),
    )
