"""Many reloads on all cores. The order and the figures do not depend on how many processes there are.

Each process plays a chunk of scenarios at a time and says where it is; one that stands still for too long in real time
is ended, the reload that it was at is written down as one that never returned, and another process goes on from there.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from pytest_vramsettle.score.corpus import Corpus
from pytest_vramsettle.score.reload import NEVER_RETURNED, Reload, play
from pytest_vramsettle.score.scenarios import Scenario
from pytest_vramsettle.score.subjects import subject_named

CHUNK = 20
"""Scenarios that a process is given at a time."""

REAL_SECONDS = 10.0
"""A reload takes milliseconds; one that takes so long waits for something that the virtual clock does not rule."""

MOST_STUCK = 8
"""So many reloads may get stuck in real time before the whole is given up."""

_LOOK_EVERY = 0.25
_STARTING = 60.0

_Place = tuple[int, int]
"""Number of the scenario in the corpus, number of the policy."""


class ScoreError(Exception):
    """The score could not be brought to its end; the text says why."""


def workers_here() -> int:
    """One for each processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def play_all(corpus: Corpus, policies: Sequence[str]) -> Iterator[Reload]:
    """Every scenario under each policy, here, in this process. Raises SubjectError; nothing ends a wait that hangs."""
    subjects = [subject_named(name) for name in policies]
    return (play(subject, scenario) for scenario in corpus for subject in subjects)


def score(
    corpus: Corpus,
    policies: Sequence[str],
    *,
    workers: int | None = None,
    real_seconds: float = REAL_SECONDS,
    most_stuck: int = MOST_STUCK,
) -> Iterator[Reload]:
    """Every scenario under each policy, in that order, played by as many processes as there are processors.

    Policies are named as `subject_named` has it; call that before, for its errors. Raises ScoreError where a process
    dies, and where more than `most_stuck` reloads took more than `real_seconds`, in real time.
    """
    pool = _Pool(corpus, tuple(policies), real_seconds, most_stuck)
    try:
        yield from pool.run(min(workers or workers_here(), -(-len(corpus) // CHUNK)))
    finally:
        pool.close()


@dataclass(eq=False, slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    place: Any  # an array shared with the process: multiprocessing's own types say no more
    chunk: int | None = None
    seen: _Place = (-1, -1)
    since: float = field(default_factory=time.monotonic)

    def stands_still_for(self) -> float:
        """Real seconds since it last went on."""
        place = (self.place[0], self.place[1])
        if place != self.seen:
            self.seen, self.since = place, time.monotonic()
        return time.monotonic() - self.since


class _Pool:
    def __init__(self, corpus: Corpus, policies: tuple[str, ...], real_seconds: float, most_stuck: int) -> None:
        self._corpus = corpus
        self._policies = policies
        self._real_seconds = real_seconds
        self._most_stuck = most_stuck
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._todo = list(range(-(-len(corpus) // CHUNK) - 1, -1, -1))
        self._stuck: set[_Place] = set()
        self._done: dict[int, list[Reload]] = {}

    def run(self, workers: int) -> Iterator[Reload]:
        chunks = len(self._todo)
        for _ in range(workers):
            self._start()
        for chunk in range(chunks):
            while chunk not in self._done:
                self._look()
            yield from self._done.pop(chunk)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        place = self._context.RawArray("q", [-1, -1])
        process = self._context.Process(
            target=_work, args=(theirs, place, self._corpus, self._policies), name="vramsettle score", daemon=True
        )
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, place))

    def _look(self) -> None:
        for ready in wait([worker.pipe for worker in self._workers], _LOOK_EVERY):
            worker = next(worker for worker in self._workers if worker.pipe is ready)
            try:
                answer: list[Reload] | None = worker.pipe.recv()
            except EOFError:
                raise ScoreError(self._died(worker)) from None
            if answer is not None and worker.chunk is not None:
                self._done[worker.chunk] = answer
            self._give(worker)
        for worker in list(self._workers):
            limit = self._real_seconds if worker.seen[0] >= 0 else _STARTING
            if worker.chunk is not None and worker.stands_still_for() > limit:
                self._end(worker)

    def _give(self, worker: _Worker) -> None:
        worker.chunk = self._todo.pop() if self._todo else None
        if worker.chunk is not None:
            worker.since = time.monotonic()
            worker.pipe.send((worker.chunk, frozenset(self._stuck)))

    def _end(self, worker: _Worker) -> None:
        """Its reload is stuck: another process does the chunk again, without that one."""
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        self._stuck.add(worker.seen)
        if worker.chunk is not None:
            self._todo.append(worker.chunk)
        if len(self._stuck) > self._most_stuck:
            raise ScoreError(
                f"{self._policies[worker.seen[1]]} got stuck in {len(self._stuck)} reloads, the last one "
                f"{self._corpus[worker.seen[0]].name}, for {self._real_seconds:g} s of real time each: it computes "
                f"without end, or waits for something that does not follow the virtual clock"
            )
        self._start()

    def _died(self, worker: _Worker) -> str:
        worker.process.join(1)
        at = f" at {self._corpus[worker.place[0]].name}" if worker.place[0] >= 0 else " while it started"
        return f"a process of the score died{at}, with exit status {worker.process.exitcode}"


def _work(pipe: Connection, place: Any, corpus: Corpus, policies: tuple[str, ...]) -> None:
    """A process's life: chunks come, reloads go."""
    from pytest_vramsettle.clock import patches

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the one that asked for all this
    logging.disable(logging.CRITICAL)  # a warning for each of thousands of timeouts
    patches.reside()  # before anybody's module is imported: its `from time import sleep` follows
    subjects = [subject_named(name) for name in policies]
    pipe.send(None)
    while True:
        try:
            chunk, stuck = pipe.recv()
        except EOFError:
            return
        reloads: list[Reload] = []
        for index in range(chunk * CHUNK, min(len(corpus), (chunk + 1) * CHUNK)):
            scenario = corpus[index]
            for number, subject in enumerate(subjects):
                place[0], place[1] = index, number
                if (index, number) in stuck:
                    reloads.append(_never_returned(scenario, subject.name))
                else:
                    reloads.append(play(subject, scenario))
        pipe.send(reloads)


def _never_returned(scenario: Scenario, policy: str) -> Reload:
    return Reload(
        scenario=scenario.name,
        kind=scenario.kind,
        group=scenario.group,
        policy=policy,
        outcome=NEVER_RETURNED,
        flagged=False,
        misread_mib=0,
        waste_ns=None,
        elapsed_ns=0,
        probes=0,
        note="in real time: it got stuck",
    )
