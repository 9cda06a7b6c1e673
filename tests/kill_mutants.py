"""A kill routine with a plain stamp, one with a kill record, and wrong ones."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from settle_mutants import QUERY, Common

from pytest_vramsettle.conformance import KillRoutine
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.settle import wait_for_vram_settle


def await_end(pid: int) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


class Stamped:
    """`time.monotonic()` in the finally of the kill, and a load that asks it."""

    stamp = 0.0

    def __init__(self) -> None:
        self.process: Any = None

    def routine(self) -> KillRoutine:
        return KillRoutine(adopt=self.adopt, kill=self.kill, stamp=lambda: self.stamp, reap=self.reap, load=self.load)

    def adopt(self, process: Any) -> None:
        self.process = process

    def kill(self) -> None:
        if self.process is None:
            return
        try:
            self.end()
        finally:
            self.note()
            self.process = None

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def note(self) -> None:
        self.stamp = time.monotonic()

    def reap(self, pids: Sequence[int]) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            await_end(pid)
        if pids:
            self.note()

    def load(self) -> None:
        Common()(since_kill=self.stamp, max_wait=2.0)


class Recorded(Stamped):
    """With a kill record."""

    def __init__(self) -> None:
        super().__init__()
        self.kills = KillRecord()

    def routine(self) -> KillRoutine:
        return KillRoutine(
            adopt=self.adopt,
            kill=self.kill,
            stamp=lambda: self.kills.last_kill_monotonic,
            reap=self.reap,
            load=lambda: wait_for_vram_settle(self.kills),
        )

    def kill(self) -> None:
        if self.process is None:
            return
        with self.kills.recording(self.process.pid):
            self.end()
        self.process = None

    def reap(self, pids: Sequence[int]) -> None:
        for pid in pids:
            with self.kills.recording(pid):
                os.kill(pid, signal.SIGKILL)
                await_end(pid)


class StampsNothing(Stamped):
    def kill(self) -> None:
        super().kill()
        self.note()


class KeepsItsProcess(Stamped):
    def kill(self) -> None:
        kept = self.process
        super().kill()
        self.process = kept


class OnTheWayOut(Stamped):
    def kill(self) -> None:
        if self.process is not None:
            self.end()
            self.note()
            self.process = None


class WallClock(Stamped):
    def note(self) -> None:
        self.stamp = time.time()


class AtOnce(Stamped):
    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class NeverReaps(Stamped):
    def end(self) -> None:
        self.process.terminate()


class StampFirst(Stamped):
    def kill(self) -> None:
        if self.process is not None:
            self.note()
            self.end()
            self.process = None


class NeverForces(Stamped):
    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)


class ForcedUnstamped(Stamped):
    def kill(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
            self.note()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class OnceOnly(Stamped):
    def note(self) -> None:
        self.stamp = self.stamp or time.monotonic()


class OrphansUnstamped(Stamped):
    def reap(self, pids: Sequence[int]) -> None:
        before = self.stamp
        super().reap(pids)
        self.stamp = before


class AlwaysReaps(Stamped):
    def reap(self, pids: Sequence[int]) -> None:
        super().reap(pids)
        self.note()


class LocalFlag(Stamped):
    """The load waits for what it has killed itself."""

    def load(self) -> None:
        had_live_process = self.process is not None
        self.kill()
        if had_live_process:
            super().load()


class AlwaysWaits(Stamped):
    def load(self) -> None:
        Common()(since_kill=time.monotonic(), max_wait=2.0)


class LooksForLong(Stamped):
    def end(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(QUERY, capture_output=True, timeout=10)
        super().end()
