"""Wrong backends: each differs from the demo backend in one thing. And right ones of other shapes."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from pytest_vramsettle.demo.backend import Backend, Settings
from pytest_vramsettle.demo.placing import Placing, read_free_memory
from pytest_vramsettle.demo.server import Server
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.settle import wait_for_vram_settle
from pytest_vramsettle.whole_backend import BackendError, BackendStatus, LoadOutcome


def with_wait(wait: Callable[..., object]) -> Callable[[list[str]], Backend]:
    return lambda server_command: Backend(server_command, wait=wait)


def two_samples(kills: KillRecord, *, cancel: threading.Event) -> None:
    wait_for_vram_settle(kills, cancel=cancel, policy="two-samples", max_wait=2.0)


def no_wait(kills: KillRecord, *, cancel: threading.Event) -> None:
    pass


def deaf_wait(kills: KillRecord, *, cancel: threading.Event) -> None:
    wait_for_vram_settle(kills)


def always_two_seconds(kills: KillRecord, *, cancel: threading.Event) -> None:
    cancel.wait(2.0)


def first_gpu_only(kills: KillRecord, *, cancel: threading.Event) -> None:
    before = read_free_memory()[0].free_mib
    while not cancel.wait(0.25) and abs((now := read_free_memory()[0].free_mib) - before) > 256:
        before = now


def until_all_is_back(kills: KillRecord, *, cancel: threading.Event) -> None:
    while read_free_memory()[0].free_mib < 24 * 1024 and not cancel.wait(5):
        pass


class WaitsUnderTheLock(Backend):
    def _replace_server(self, wanted: Settings) -> LoadOutcome:
        wait, plain = self._wait, self._kill_process

        def kill_and_wait() -> None:
            plain()
            wait(self._kills, cancel=self._cancel)

        self._kill_process = kill_and_wait  # type: ignore[method-assign]  # for this load
        self._wait = no_wait
        try:
            return super()._replace_server(wanted)
        finally:
            del self._kill_process
            self._wait = wait

    def unload(self) -> bool:
        with self._lock:
            pass
        return super().unload()


class UnstampedUnload(Backend):
    """Its record knows nothing of what unload has killed."""

    def unload(self) -> bool:
        done = super().unload()
        self._kills = KillRecord()
        return done


class WaitsOnlyAfterItsOwnKill(Backend):
    def _replace_server(self, wanted: Settings) -> LoadOutcome:
        wait = self._wait
        if self._process is None:
            self._wait = no_wait
        try:
            return super()._replace_server(wanted)
        finally:
            self._wait = wait


class StatusBlocks(Backend):
    def status(self) -> BackendStatus:
        with self._serial:
            return super().status()


class StatusLies(Backend):
    def status(self) -> BackendStatus:
        status = super().status()
        return replace(status, pid=4711) if status.pid else status


class RemembersTheDead(Backend):
    """Its status goes on telling of the server that it has unloaded."""

    def unload(self) -> bool:
        status = self._status
        done = super().unload()
        self._status = replace(status, phase="idle")
        return done


class KillsNothing(Backend):
    def _kill_process(self) -> None:
        KEPT.extend(self._servers)
        self._process = None
        self._servers.clear()


class RestartsAlways(Backend):
    def _serves(self, wanted: Settings) -> bool:
        return False


class TrustsItsMemory(Backend):
    """It does not look whether its server lives."""

    def _serves(self, wanted: Settings) -> bool:
        return self._settings == wanted


class ForgetsCrashes(Backend):
    """What died by itself is waited for by nobody."""

    def _kill_process(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            self._kills = KillRecord()
        super()._kill_process()


class NoRecheck(Backend):
    """Once the wait is over, it starts a server, whoever has cancelled meanwhile."""

    def _place(self, wanted: Settings) -> Placing:
        placing = super()._place(wanted)
        self._cancel.clear()
        return placing


class ReadsBeforeTheKill(Backend):
    def _replace_server(self, wanted: Settings) -> LoadOutcome:
        placing = super()._place(wanted)
        self._place = lambda wanted: placing  # type: ignore[method-assign]  # for this load
        try:
            return super()._replace_server(wanted)
        finally:
            del self._place


class OnlyAsks(Backend):
    """It waits for ever for a server that ignores SIGTERM."""

    def _kill_process(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        super()._kill_process()


class SwallowsFailures(Backend):
    def load(self, model: str, *, context: int = 8192, cache_type: str = "f16") -> LoadOutcome:
        try:
            return super().load(model, context=context, cache_type=cache_type)
        except BackendError:
            return "loaded"


class BrokenForGood(Backend):
    """After a load that failed, none works."""

    failed = False

    def load(self, model: str, *, context: int = 8192, cache_type: str = "f16") -> LoadOutcome:
        if self.failed:
            raise BackendError("a load is under way")
        self.failed = True
        outcome = super().load(model, context=context, cache_type=cache_type)
        self.failed = False
        return outcome


class Hasty(Backend):
    """Loads do not queue up."""

    def load(self, model: str, *, context: int = 8192, cache_type: str = "f16") -> LoadOutcome:
        self._serial = threading.Lock()
        return super().load(model, context=context, cache_type=cache_type)

    def _start_server(self, wanted: Settings, placing: Placing) -> Server:
        server = super()._start_server(wanted, placing)
        KEPT.append(server)
        return server


class LeavesItsServer(Backend):
    def close(self) -> None:
        KEPT.extend(self._servers)
        self._servers.clear()


class LeavesAThread(Backend):
    def __init__(self, server_command: list[str]) -> None:
        super().__init__(server_command)
        self.done = threading.Event()

    def load(self, model: str, *, context: int = 8192, cache_type: str = "f16") -> LoadOutcome:
        threading.Thread(target=self.done.wait, args=(3600,), name="watchdog", daemon=True).start()
        return super().load(model, context=context, cache_type=cache_type)


class LeavesAHelper(Backend):
    def close(self) -> None:
        super().close()
        helper = Server(["sleep", "3600"], [])
        helper.process = subprocess.Popen(["sleep", "3600"])
        KEPT.append(helper)


KEPT: list[Server] = []
"""For the test to end."""


# -- right ones


class Coroutines:
    """As a backend of asyncio; its status is a mapping."""

    def __init__(self, server_command: list[str]) -> None:
        self._backend = Backend(server_command)
        self._one = asyncio.Lock()

    async def load(self, model: str, *, context: int = 8192, cache_type: str = "f16") -> str:
        async with self._one:
            return await asyncio.to_thread(self._backend.load, model, context=context, cache_type=cache_type)

    async def unload(self) -> None:
        await asyncio.to_thread(self._backend.unload)

    async def cancel(self) -> None:
        self._backend.cancel()

    def status(self) -> dict[str, Any]:
        asyncio.get_running_loop()
        return asdict(self._backend.status())


def static(server_command: list[str]) -> type:
    """A class with static methods; its loads say nothing, its status little."""
    backend = Backend(server_command)

    class Static:
        @staticmethod
        def load(model: str, *, context: int, cache_type: str) -> None:
            if backend.load(model, context=context, cache_type=cache_type) == "cancelled":
                raise RuntimeError("cancelled")

        unload = staticmethod(backend.unload)
        cancel = staticmethod(backend.cancel)

        @staticmethod
        def status() -> object:
            time.sleep(0.1)  # not quite at once
            return "fine"

    return Static
