"""The common wait, as it is described, and wrong ones: each differs from it, or from a good wait, in one thing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pynvml

from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.settle import async_wait_for_vram_settle, wait_for_vram_settle

QUERY = ["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"]
log = logging.getLogger("mutants")
Free = dict[int, int]
KEPT: list[subprocess.Popen[Any]] = []
"""Children that a mutant has forgotten, for the test to reap."""


class Common:
    """Two readings that hardly differ; {index: free MiB} by nvidia-smi. Mutants override a part of it."""

    interval, tolerance_mib, share, stale_after = 0.25, 256, 0.02, 15.0

    def probe(self) -> Free:
        out = subprocess.run(QUERY, capture_output=True, text=True, timeout=10)
        if out.returncode == 6:  # no devices
            return {}
        if out.returncode:
            raise RuntimeError(f"nvidia-smi failed with {out.returncode}")
        return {int(index): int(free) for index, free in (line.split(",") for line in out.stdout.splitlines())}

    def first(self) -> Free | None:
        return self.again()

    def again(self) -> Free | None:
        try:
            return self.probe()
        except Exception as error:
            log.debug("probe failed: %s", error)
            return None

    def stable(self, before: Free, now: Free) -> bool:
        return all(self.still(before[gpu], now[gpu]) for gpu in now)

    def still(self, before: int, now: int) -> bool:
        return abs(now - before) < max(self.tolerance_mib, int(self.share * max(now, before)))

    def has_nothing(self, since_kill: float) -> bool:
        return since_kill <= 0.0 or time.monotonic() - since_kill > self.stale_after

    def sleep(self, deadline: float) -> None:
        time.sleep(min(self.interval, deadline - time.monotonic()))

    def over(self, deadline: float) -> bool:
        return time.monotonic() >= deadline

    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        if self.has_nothing(since_kill):
            return self.end("nothing")
        deadline = time.monotonic() + max_wait
        before = self.first()
        if not before:
            return self.end("no reading")
        while True:
            if self.over(deadline):
                return self.end("deadline")
            self.sleep(deadline)
            if self.over(deadline):
                return self.end("deadline")
            now = self.again()
            if not now or now.keys() != before.keys():
                return self.end("lost")
            if self.stable(before, now):
                return self.end("stable")
            before = now

    def end(self, why: str) -> Any:
        return None


class NoDeadline(Common):
    def over(self, deadline: float) -> bool:
        return False

    def sleep(self, deadline: float) -> None:
        time.sleep(self.interval)


class WholeIntervals(Common):
    def sleep(self, deadline: float) -> None:
        time.sleep(self.interval)


class RoundsUp(Common):
    def sleep(self, deadline: float) -> None:
        time.sleep(math.ceil(min(self.interval, deadline - time.monotonic()) * 1000 + 1) / 1000)


class ProbesAtTheDeadline(Common):
    def over(self, deadline: float) -> bool:
        return time.monotonic() > deadline

    def sleep(self, deadline: float) -> None:
        time.sleep(max(1e-9, min(self.interval, deadline - time.monotonic())))


class WideTolerance(Common):
    tolerance_mib = 4096


class NoShare(Common):
    share = 0.0


class FirstGpuOnly(Common):
    def stable(self, before: Free, now: Free) -> bool:
        return self.still(before[0], now[0])


class SumsGpus(Common):
    def stable(self, before: Free, now: Free) -> bool:
        return self.still(sum(before.values()), sum(now.values()))


class MaxWaitFromTheKill(Common):
    since = 0.0

    def has_nothing(self, since_kill: float) -> bool:
        self.since = time.monotonic() - since_kill
        return super().has_nothing(since_kill)

    def over(self, deadline: float) -> bool:
        return super().over(deadline - self.since)


class StaleAfterOne(Common):
    stale_after = 1.0


class StaleAfterFourteen(Common):
    stale_after = 14.0


class OnlyGrowthCounts(Common):
    def still(self, before: int, now: int) -> bool:
        return now - before < max(self.tolerance_mib, int(self.share * max(now, before)))


class ThroughNvml(Common):
    """A right one: initialises, counts, asks each GPU and shuts down in each reading."""

    def probe(self) -> Free:
        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            return {index: pynvml.nvmlDeviceGetMemoryInfo(one).free >> 20 for index, one in enumerate(handles)}
        finally:
            pynvml.nvmlShutdown()


class AsksWhatTheFakeDoesNotKnow(Common):
    def probe(self) -> Free:
        out = subprocess.run([*QUERY, "--unheard-of"], capture_output=True, text=True, timeout=10, check=True).stdout
        return {int(index): int(free) for index, free in (line.split(",") for line in out.splitlines())}


def generates(*, since_kill: float, max_wait: float) -> Iterator[Free]:
    """Nobody iterates it."""
    yield Common().probe()


class GoesOnAndSaysSo(Common):
    """A right one at level `verified`: when a GPU is lost it goes on with the rest, and trusts nothing."""

    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        deadline = time.monotonic() + max_wait
        while not self.over(deadline):
            self.again()
            self.sleep(deadline)
        return False


class OneSample(Common):
    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        return None if self.has_nothing(since_kill) else self.first() and None


class ProbesWhenCold(Common):
    def has_nothing(self, since_kill: float) -> bool:
        self.again()
        return super().has_nothing(since_kill)


class WaitsWhenCold(Common):
    def has_nothing(self, since_kill: float) -> bool:
        return False


class NeverStale(Common):
    stale_after = math.inf


class WallClock(Common):
    def has_nothing(self, since_kill: float) -> bool:
        return since_kill <= 0.0 or time.time() - since_kill > self.stale_after


class SleepsWithoutGpu(Common):
    def first(self) -> Free | None:
        found = self.again()
        if not found:
            time.sleep(self.interval)
        return found


class RaisesAtFirst(Common):
    def first(self) -> Free | None:
        return self.probe()


class RaisesLater(Common):
    def again(self) -> Free | None:
        return self.probe()

    def first(self) -> Free | None:
        return super().again()


class RaisesOnNoise(Common):
    def again(self) -> Free | None:
        try:
            return self.probe()
        except (RuntimeError, subprocess.SubprocessError):
            return None


class SilentFailure(Common):
    def again(self) -> Free | None:
        with contextlib.suppress(Exception):
            return self.probe()
        return None


class IgnoresFailure(Common):
    last: Free | None = None

    def again(self) -> Free | None:
        with contextlib.suppress(Exception):
            self.last = self.probe()
            return self.last
        # Another reading than the last, so that it goes on.
        return {gpu: free + 5000 for gpu, free in (self.last or {}).items()}


class IgnoresIndexChange(Common):
    def again(self) -> Free | None:
        return {0: (super().again() or {0: 0})[0]}


class CountsSleepsAlone(Common):
    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        if self.has_nothing(since_kill) or not (before := self.first()):
            return
        left = max_wait
        while left > 0:
            time.sleep(min(self.interval, left))
            left -= self.interval
            now = self.again()
            if not now or self.stable(before, now):
                return
            before = now


class PollsHard(Common):
    interval = 0.01


class LeavesAProcess(Common):
    def end(self, why: str) -> Any:
        KEPT.append(subprocess.Popen(["sleep", "1000"]))


class NeverReturns(Common):
    def end(self, why: str) -> Any:
        while True:
            time.sleep(1.0)


class DeadlockedWait(Common):
    def end(self, why: str) -> Any:
        threading.Event().wait()


class ExitsTheThread(Common):
    def end(self, why: str) -> Any:
        raise SystemExit(0)


class Locked(Common):
    """With a load lock; `held` says whether the wait holds it."""

    held = True

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        with self.lock if self.held else contextlib.nullcontext():
            return super().__call__(since_kill=since_kill, max_wait=max_wait)


# -- at level verified


class AlwaysTrue(Common):
    def end(self, why: str) -> Any:
        return True


class AlwaysFalse(Common):
    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        wait_for_vram_settle(since_kill=since_kill, max_wait=max_wait)
        return False


class MovesOff(Common):
    """Until a reading has moved off the first one, and then two that agree."""

    moved = False

    def stable(self, before: Free, now: Free) -> bool:
        self.moved = self.moved or not super().stable(before, now)
        return self.moved and super().stable(before, now)


class Recorded:
    """A good wait, with the record it needs; mutants spoil one thing."""

    def __init__(self) -> None:
        self.kills = KillRecord()
        self.recording: Callable[[int], Any] | None = self.kills.recording
        self.cancelled = threading.Event()

    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        return wait_for_vram_settle(self.kills, max_wait=max_wait, cancel=self.cancelled)


class AtMostTwoSeconds(Recorded):
    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        super().__call__(since_kill=since_kill, max_wait=min(2.0, max_wait))


class StaleAfterFifteen(Recorded):
    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        if time.monotonic() - since_kill <= 15.0:
            return super().__call__(since_kill=since_kill, max_wait=max_wait)
        return None


class TrustsTimeouts(Recorded):
    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        super().__call__(since_kill=since_kill, max_wait=max_wait)
        return True


class SaysNothing(Recorded):
    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        super().__call__(since_kill=since_kill, max_wait=max_wait)


class NinetyPercent(Recorded):
    """Nine tenths are enough for it."""

    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        result = wait_for_vram_settle(self.kills, max_wait=max_wait)
        return bool(result) or (result.missing_mib or 0) <= 0.1 * (result.expected_mib or 0) + 1


class IgnoresOthers:
    """Free memory has grown by what the dead held; who else gave or took does not matter to it."""

    def __init__(self) -> None:
        self.want = 0

    @contextlib.contextmanager
    def recording(self, pid: int) -> Iterator[None]:
        out = subprocess.run(
            ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
        ).stdout
        held = sum(int(used) for one, used in (line.split(",") for line in out.splitlines()) if int(one) == pid)
        self.want = held + sum(Common().probe().values())
        yield

    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        deadline = time.monotonic() + max_wait
        while time.monotonic() < deadline:
            if sum(Common().probe().values()) >= self.want - 256:
                return True
            time.sleep(0.1)
        return False


class BoundedByTerm(Common):
    """Bounds its probe, asks it to end, and waits for that."""

    def probe(self) -> Free:
        child = subprocess.Popen(QUERY, stdout=subprocess.PIPE, text=True)
        try:
            out, _ = child.communicate(timeout=1.0)
        except subprocess.TimeoutExpired:
            child.terminate()
            out, _ = child.communicate()
        return {int(index): int(free) for index, free in (line.split(",") for line in out.splitlines())}


class LeavesNvidiaSmi(Common):
    """Bounds its probe, and forgets it."""

    def probe(self) -> Free:
        child = subprocess.Popen(QUERY, stdout=subprocess.PIPE, text=True)
        KEPT.append(child)
        out, _ = child.communicate(timeout=1.0)
        return {int(index): int(free) for index, free in (line.split(",") for line in out.splitlines())}


class SwallowsCancellation:
    """A coroutine that goes on when its task is cancelled."""

    def __init__(self) -> None:
        self.kills = KillRecord()
        self.recording = self.kills.recording

    async def wait(self, *, since_kill: float, max_wait: float) -> Any:
        deadline = time.monotonic() + max_wait
        while time.monotonic() < deadline:
            with contextlib.suppress(asyncio.CancelledError):
                result = await async_wait_for_vram_settle(self.kills, max_wait=deadline - time.monotonic())
                return bool(result)
        return False


class DeafToCancel(Recorded):
    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        return wait_for_vram_settle(self.kills, max_wait=max_wait)
