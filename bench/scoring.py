"""How many reloads are scored in a second, and how that grows with their number.

`python -m bench.scoring` goes on to 100,000 reloads, on all cores.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from bench.measure import Figure, Section, alternate, compare, timed
from pytest_vramsettle.score.corpus import Corpus
from pytest_vramsettle.score.run import play_all, score, workers_here
from pytest_vramsettle.score.tally import Scoreboard

RELOADS = 170
GROWTH = (1_000, 10_000, 100_000)


def _play(reloads: int, policy: str) -> None:
    Scoreboard().update(play_all(Corpus(reloads), [policy]))


def section() -> Section:
    """One core, in this process; the figures are of one reload."""
    logging.getLogger("pytest_vramsettle.settle").setLevel(logging.ERROR)  # a warning for each timeout
    taken = alternate(
        {
            "two-samples": timed(lambda: _play(RELOADS, "two-samples")),
            "verified": timed(lambda: _play(RELOADS, "verified")),
            "five times as many": timed(lambda: _play(5 * RELOADS, "verified")),
        },
        rounds=5,
    )
    each = {name: [seconds / RELOADS for seconds in of] for name, of in taken.items()}
    each["five times as many"] = [seconds / 5 for seconds in each["five times as many"]]
    base = each["two-samples"]
    figures: list[Figure] = [
        compare(f"a reload under two-samples, out of {RELOADS}", base, base),
        compare(f"a reload under verified, out of {RELOADS}", each["verified"], base),
        compare(f"a reload under verified, out of {5 * RELOADS}", each["five times as many"], base),
    ]
    return Section("vramsettle score, on one core", "a reload under two-samples", tuple(figures))


def growth() -> Iterator[tuple[int, float]]:
    """(reloads under `verified`, seconds with all cores), the start of the processes included."""
    for reloads in GROWTH:
        start = time.perf_counter()
        Scoreboard().update(score(Corpus(reloads), ["verified"]))
        yield reloads, time.perf_counter() - start


def growth_table() -> str:
    """In Markdown."""
    lines = ["| reloads | seconds | a second and core |", "| ---: | ---: | ---: |"]
    cores = workers_here()
    lines += [f"| {reloads:,} | {taken:.1f} | {reloads / taken / cores:.0f} |" for reloads, taken in growth()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(growth_table())
