"""The control matrix: which way to read time or to wait follows which tool. Each cell is a process of its own.

`python -m bench.matrix > docs/clock-matrix.md` runs it all; `python -m bench.matrix WAY TOOL` runs a cell.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

# Real seconds: after which a wait that ought to take one is called endless; and what is no virtual second for sure.
_ENDLESS = 6.0
_NOT_REAL = 0.8
_JUMP = 100.0

Tool = Iterator[Callable[[], object]]


def _real() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@contextlib.contextmanager
def _fixture() -> Tool:
    import bench.ways
    from pytest_vramsettle.clock import VirtualClock

    # A child that does nothing is waited for in real time: the least that may be, here.
    with VirtualClock(child_grace=0.05) as clock:
        yield lambda: clock.sleep(_JUMP)
    del bench


@contextlib.contextmanager
def _whole_suite() -> Tool:
    from pytest_vramsettle.clock import VirtualClock, patches
    from pytest_vramsettle.clock.wall import frozen_wall

    patches.reside()
    import bench.ways

    with VirtualClock(child_grace=0.05) as clock, frozen_wall(clock, "2026-01-01"):
        yield lambda: clock.sleep(_JUMP)
    del bench


@contextlib.contextmanager
def _freezegun() -> Tool:
    import freezegun

    import bench.ways

    with freezegun.freeze_time("2026-01-01") as frozen:
        yield lambda: frozen.tick(_JUMP)
    del bench


@contextlib.contextmanager
def _time_machine() -> Tool:
    import time_machine

    import bench.ways

    with time_machine.travel("2026-01-01", tick=False) as traveller:
        yield lambda: traveller.shift(_JUMP)
    del bench


TOOLS = {
    "virtual clock": _fixture,
    "--virtual-clock, wall=": _whole_suite,
    "freezegun": _freezegun,
    "time-machine": _time_machine,
}
OURS = tuple(TOOLS)[:2]


def cell(way: str, tool: str) -> str:
    """In this process."""
    with TOOLS[tool]() as jump:
        from bench.ways import READS, WAITS

        return _read(READS[way], jump) if way in READS else _wait(WAITS[way])


def _read(read: Callable[[], float], jump: Callable[[], object]) -> str:
    before = read()
    jump()
    moved = read() - before
    return "follows" if abs(moved - _JUMP) < 0.5 else "real" if 0 <= moved < 5 else f"moved by {moved:g} s"


def _wait(wait: Callable[[], object]) -> str:
    before = _real()
    with contextlib.suppress(Exception):
        # Most ways tell by an exception that the time is over.
        wait()
    return "at once" if _real() - before < _NOT_REAL else "real"


def run_cell(way: str, tool: str) -> str:
    """In a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.matrix", way, tool]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ENDLESS)
    except subprocess.TimeoutExpired:
        return "never ends"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{way} under {tool}: {done.stderr}")
    return lines[-1]


def column(tool: str) -> dict[str, str]:
    ways = all_ways()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(ways, pool.map(lambda way: run_cell(way, tool), ways), strict=True))


def all_ways() -> list[str]:
    from bench.ways import READS, WAITS

    return [*READS, *WAITS]


def table(columns: dict[str, dict[str, str]]) -> str:
    from bench.ways import READS

    def line(*cells: str) -> str:
        return f"| {' | '.join(cells)} |"

    lines = [line("", *columns), line(*["---"] * (len(columns) + 1))]
    lines += [
        line(f"{'read' if way in READS else 'wait'}: {way}", *(of_tool[way] for of_tool in columns.values()))
        for way in all_ways()
    ]
    return "\n".join(lines)


def parse(text: str) -> dict[str, dict[str, str]]:
    """The columns of a table that `table` wrote."""
    rows = [[part.strip() for part in line.strip("| \n").split(" | ")] for line in text.splitlines() if "|" in line]
    # The first cell of the head is empty, and so stripped.
    head, body = rows[0], rows[2:]
    return {tool: {row[0].split(": ", 1)[1]: row[number] for row in body} for number, tool in enumerate(head, 1)}


VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
HEAD = f"""# What follows which tool

Made by `make clock-matrix` (Python {VERSION}), each cell in a process of its own. A read *follows* when the tool lets
100 seconds pass and it moves by them; a wait for a second is over *at once*, takes a *real* second, or *never ends*.
The first column is the `monotonic_clock` fixture: names bound at import stay real there.
"""


def main() -> None:
    if len(sys.argv) == 3:
        print(cell(*sys.argv[1:]))
        sys.stdout.flush()
        # What a wait left behind is not waited for.
        os._exit(0)
    print(f"{HEAD}\n{table({tool: column(tool) for tool in TOOLS})}")


if __name__ == "__main__":
    main()
