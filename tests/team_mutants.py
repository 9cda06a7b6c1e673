"""Wrong waits and probes as they are found in real projects: a slip of one line or two, each in the common wait."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from settle_mutants import QUERY, Common, Free


class ReadsOnce(Common):
    """Free memory is read before the loop, and in it no more."""

    kept: Free | None = None

    def again(self) -> Free | None:
        self.kept = self.kept or super().again()
        return self.kept


class WallDeadline(Common):
    """Its deadline is one of time.time(), which an administrator, and NTP, set."""

    started = 0.0

    def first(self) -> Free | None:
        self.started = time.time() - time.monotonic()
        return super().first()

    def over(self, deadline: float) -> bool:
        return time.time() - self.started >= deadline

    def sleep(self, deadline: float) -> None:
        time.sleep(self.interval)


class NeverAwaits(Common):
    """A sleep of asyncio in a function that is none of asyncio's: nobody sleeps."""

    def sleep(self, deadline: float) -> None:
        asyncio.sleep(self.interval).close()  # closed only so that Python does not complain of it


class LargestGpuOnly(Common):
    def stable(self, before: Free, now: Free) -> bool:
        return self.still(max(before.values()), max(now.values()))


class ParsesUnits(Common):
    """Without nounits and noheader, so that a number is '10000 MiB', and the failure ends the wait."""

    def probe(self) -> Free:
        query = [*QUERY[:2], "--format=csv"]
        out = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        return {int(index): int(free) for index, free in (line.split(",") for line in out.splitlines())}


class ZeroForFailure(Common):
    def again(self) -> Free | None:
        try:
            return self.probe()
        except Exception:
            return {0: 0}


class CountsIterations(Common):
    """So many rounds of so many seconds, whatever a probe takes."""

    left = 0

    def first(self) -> Free | None:
        self.left = 8
        return super().first()

    def over(self, deadline: float) -> bool:
        return self.left <= 0

    def sleep(self, deadline: float) -> None:
        self.left -= 1
        time.sleep(self.interval)


class DeadlineAfterTheFirstProbe(Common):
    started = 0.0

    def first(self) -> Free | None:
        called = time.monotonic()
        found = super().first()
        self.started = time.monotonic() - called
        return found

    def over(self, deadline: float) -> bool:
        return super().over(deadline + self.started)

    def sleep(self, deadline: float) -> None:
        super().sleep(deadline + self.started)


class InGibibytes(Common):
    """Differences in whole GiB: what is less than one is none."""

    def still(self, before: int, now: int) -> bool:
        return abs(now - before) // 1024 == 0


class UntilThePidIsOffTheList:
    """nvidia-smi no longer lists the dead process, and that is all that it waits for."""

    pid = 0

    @contextlib.contextmanager
    def recording(self, pid: int) -> Iterator[None]:
        self.pid = pid
        yield

    def __call__(self, *, since_kill: float, max_wait: float) -> Any:
        query = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
        until = time.monotonic() + max_wait
        while time.monotonic() < until:
            if str(self.pid) not in subprocess.run(query, capture_output=True, text=True).stdout.split():
                return True
            time.sleep(0.1)
        return False


class SaysItInATuple(Common):
    """(False, {}) is true."""

    def end(self, why: str) -> Any:
        return (why == "stable", {})


class CachedProbe:
    """As functools.lru_cache, or a cache for a second, has it."""

    def __init__(self) -> None:
        self.kept: Free = {}

    def __call__(self) -> list[tuple[int, int]]:
        self.kept = self.kept or Common().probe()
        return list(self.kept.items())
