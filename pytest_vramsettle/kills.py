"""The kill record: who was killed, when, and what free memory has to become again.

with kills.recording(process.pid):      # a reading before, a time stamp after, on every way out
    process.terminate()
    process.wait()
wait_for_vram_settle(kills)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pytest_vramsettle import _procfs
from pytest_vramsettle._interrupts import Interrupts
from pytest_vramsettle._procfs import ProcessIdentity
from pytest_vramsettle._quantities import MILLISECOND, SECOND
from pytest_vramsettle.expectations import Expectation, Kill, expectation_of, recent
from pytest_vramsettle.probes import ProbeBudget, ProbeLike, Reading, as_probe, baseline_probe
from pytest_vramsettle.readings import GpuKey

__all__ = ["BASELINE_NS", "Expectation", "Kill", "KillRecord", "ProcessIdentity", "expectation_of"]

_log = logging.getLogger(__name__)

BASELINE_NS = 250 * MILLISECOND
"""The reading before a kill may take this long: a kill that is put off for long is worse than one without a reading."""


@dataclass(frozen=True, slots=True)
class _Baseline:
    """What is known of a living process tree before it dies; `reading` is None where no probe answered."""

    tree: tuple[ProcessIdentity, ...]
    reading: Reading | None
    read_ns: int = 0

    @property
    def leader(self) -> ProcessIdentity:
        return self.tree[0]

    def kill_of(self, dead: Collection[ProcessIdentity], when_ns: int) -> Kill:
        pids = frozenset(process.pid for process in dead)
        processes = tuple(dead)
        if self.reading is None:
            return Kill(pids, when_ns, processes=processes, read_ns=self.read_ns)
        free = {gpu.key: gpu.free for gpu in self.reading.gpus if gpu.free is not None}
        gpus = frozenset(gpu.key for gpu in self.reading.gpus)
        unknown = Kill(pids, when_ns, free_before=free, processes=processes, gpus=gpus, read_ns=self.read_ns)
        held: dict[GpuKey, int] = {}
        others: dict[GpuKey, dict[int, int | None]] = {}
        holders: set[int] = set()
        for gpu in self.reading.gpus:
            if gpu.holders is None:
                return unknown
            for pid, amount in gpu.holders.items():
                if pid not in pids:
                    others.setdefault(gpu.key, {})[pid] = amount
                elif amount is None or gpu.free is None:
                    return unknown
                else:
                    holders.add(pid)
                    held[gpu.key] = held.get(gpu.key, 0) + amount
        # A tree of which no PID is listed may hold memory all the same: inside a container NVML shows the host's PIDs.
        if not holders:
            return unknown
        return Kill(frozenset(holders), when_ns, held, free, others, processes, gpus, self.read_ns)

    def losses(self) -> tuple[list[ProcessIdentity], _Baseline]:
        """Who of the tree has died and was listed as holding memory, and the baseline of the rest.

        Others of the tree come and go: a compiler that was run is no kill.
        """
        listed = {pid for gpu in (self.reading.gpus if self.reading else ()) for pid in gpu.holders or ()}
        dead = [one for one in self.tree if one.pid in listed and not _procfs.is_alive(one)]
        return dead, replace(self, tree=tuple(one for one in self.tree if one not in dead))


class KillRecord:
    """What was killed and not yet seen to be back. Safe to use from several threads; holds no lock while it probes.

    `probe` is what the readings before a kill are taken with: by default NVML, else nvidia-smi. A wait compares them
    with its own readings, so both have to name GPUs alike, by UUID or by index.
    """

    def __init__(self, *, probe: ProbeLike | None = None) -> None:
        self._probe = baseline_probe() if probe is None else as_probe(probe)
        self._lock = threading.Lock()
        self._kills: tuple[Kill, ...] = ()
        self._last_kill_ns: int | None = None
        self._watched: dict[int, _Baseline] = {}
        self._waits: list[Interrupts] = []

    @property
    def last_kill_ns(self) -> int | None:
        """`time.monotonic_ns()` at the last kill, whether or not its memory is back; None when there was none."""
        self._notice_deaths()
        with self._lock:
            return self._last_kill_ns

    @property
    def last_kill_monotonic(self) -> float:
        """`time.monotonic()` at the last kill; 0.0 when there was none, for callers that keep it as a plain stamp."""
        return (self.last_kill_ns or 0) / SECOND

    @contextmanager
    def recording(self, pid: int, *, probe: ProbeLike | None = None) -> Iterator[None]:
        """Around the code that kills process `pid`: a reading before it, a time stamp after it, whatever is raised.

        The reading takes 250 ms at most; one that fails is logged, and the kill then says when, but not how much.

        Only a death is stamped. Where nobody of the process tree has died by the end, the record keeps watching it, and
        the next wait finds out. Where only others than `pid` have died, they are the kill. A process that had died
        before is a kill when it was watched or not reaped yet; a PID that nobody has leaves the record alone.
        """
        self._notice_deaths()
        tree = _procfs.tree(pid)
        zombie = not tree and _procfs.is_zombie(pid)
        baseline = self._read_baseline(tree, probe) if tree else None
        if baseline is not None:
            with self._lock:
                # A wait of another thread may begin after the death and before the end of the block.
                self._watched[pid] = baseline
        try:
            yield
        finally:
            self._record(pid, baseline, zombie)

    def watch(self, pid: int, *, probe: ProbeLike | None = None) -> bool:
        """Take the reading now, after a load, for a process that may crash or be killed by others.

        The next wait notices its death. Calling it again replaces what is known, unless no reading can be had within
        250 ms. Returns whether there is a reading of it; False also when it does not live.
        """
        tree = _procfs.tree(pid)
        if not tree:
            return False
        baseline = self._read_baseline(tree, probe)
        with self._lock:
            self._watched[pid] = baseline
        return baseline.reading is not None

    def stamp(self) -> None:
        """Something was killed just now, of which nothing else is known; say, orphans of an earlier run."""
        self.add(Kill(frozenset(), time.monotonic_ns()))

    def add(self, kill: Kill) -> None:
        """Record a death that was observed elsewhere, with what is known of it; takes no reading.

        A newer kill supersedes the waits that are under way. A death that is on record already is not counted twice.
        """
        with self._lock:
            superseded = self._add(kill)
        for wait in superseded:
            wait.supersede()

    def _add(self, kill: Kill) -> tuple[Interrupts, ...]:
        """With the lock held. Returns the waits that it supersedes."""
        self._last_kill_ns = max(kill.when_ns, self._last_kill_ns or kill.when_ns)
        for pid in kill.every_pid:
            watched = self._watched.get(pid)
            if watched is not None and _may_be(watched.leader, kill):
                del self._watched[pid]
        if any(_same_death(kill, known) for known in self._kills):
            return ()
        self._kills = recent((*self._kills, kill))
        return tuple(self._waits)

    def pending(self) -> tuple[Kill, ...]:
        """The kills whose memory was not yet seen to be back."""
        self._notice_deaths()
        with self._lock:
            return self._kills

    def forget(self, kills: Collection[Kill]) -> None:
        """Take these off `pending`: their memory is back. A wait does so when it has seen it."""
        with self._lock:
            self._kills = tuple(kill for kill in self._kills if not any(kill is gone for gone in kills))

    def begin_wait(self, interrupts: Interrupts) -> tuple[Kill, ...]:
        """For a wait: `pending`, and from now on to be told of newer kills."""
        self._notice_deaths()
        with self._lock:
            self._waits.append(interrupts)
            return self._kills

    def end_wait(self, interrupts: Interrupts) -> None:
        """For a wait: the end of what `begin_wait` began."""
        with self._lock:
            self._waits.remove(interrupts)

    def _read_baseline(self, tree: tuple[ProcessIdentity, ...], probe: ProbeLike | None) -> _Baseline:
        source = self._probe if probe is None else as_probe(probe)
        read_ns = time.monotonic_ns()
        try:
            reading = source.read(ProbeBudget.lasting(BASELINE_NS), holders=True)
        except Exception:
            _log.debug("no reading of GPU memory before the kill of PID %d", tree[0].pid, exc_info=True)
            with self._lock:
                known = self._watched.get(tree[0].pid)
            return known if known is not None and known.leader == tree[0] else _Baseline(tree, None)
        return _Baseline(tree, reading, read_ns)

    def _record(self, pid: int, baseline: _Baseline | None, zombie: bool) -> None:
        now = time.monotonic_ns()
        if baseline is not None:
            dead = [process for process in baseline.tree if not _procfs.is_alive(process)]
            if not dead:
                with self._lock:
                    self._watched[pid] = baseline
            else:
                # When the leader is dead, what is left of its tree is an orphan, expected to go as well.
                self.add(baseline.kill_of(baseline.tree if baseline.leader in dead else dead, now))
        elif zombie or pid in self._watched:
            known = self._watched.get(pid)
            self.add(Kill(frozenset({pid}), now) if known is None else known.kill_of(known.tree, now))

    def _notice_deaths(self) -> None:
        """Record the watched processes that have died meanwhile; the time of death is unknown, and not after now."""
        with self._lock:
            watched = dict(self._watched)
        for pid, baseline in watched.items():
            dead, rest = baseline.losses()
            if not _procfs.is_alive(baseline.leader):
                dead = list(baseline.tree)
            if not dead:
                continue
            kill = baseline.kill_of(dead, time.monotonic_ns())
            superseded: tuple[Interrupts, ...] = ()
            with self._lock:
                # In one step: a wait that begins in between would find neither the watch nor the kill.
                if self._watched.get(pid) is baseline:
                    superseded = self._add(kill)
                    if baseline.leader not in dead:
                        self._watched[pid] = rest
            for wait in superseded:
                wait.supersede()

    def __repr__(self) -> str:
        with self._lock:
            kills, watched = len(self._kills), sorted(self._watched)
        return f"KillRecord({kills} pending, watching {watched})"


def _may_be(leader: ProcessIdentity, kill: Kill) -> bool:
    """Whether this process is one of the dead: of a number that was given out twice, it may be the other."""
    starts = {process.pid: process.start for process in kill.processes}
    return starts.get(leader.pid, leader.start) == leader.start


def _same_death(kill: Kill, known: Kill) -> bool:
    pids, known_pids = kill.every_pid, known.every_pid
    if not pids or not pids <= known_pids:
        return False
    if not kill.processes and not known.processes and (kill.held, kill.free_before) != (known.held, known.free_before):
        return False  # two deaths of one number, which was given out twice
    starts = {process.pid: process.start for process in known.processes}
    return all(starts.get(process.pid, process.start) == process.start for process in kill.processes)
