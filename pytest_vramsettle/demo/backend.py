"""A small backend that serves one model from a llama-server process, written as for production: it knows of no fake.

Each change of settings kills the server and starts another. In between it waits until the GPU memory of the dead one is
back; otherwise the reading that decides where the next one goes would be wrong.

Two locks. `_serial` is held for a whole load, so that loads queue up. `_lock` is held while the process is killed or
replaced: never during the wait, nor while a model loads, so that unload() gets in. status() and cancel() take no lock.
"""

from __future__ import annotations

import subprocess
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pytest_vramsettle.demo.placing import MARGIN_MIB, Placing, place, read_free_memory, read_needs, roomiest
from pytest_vramsettle.demo.server import Server, end_all
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.settle import wait_for_vram_settle
from pytest_vramsettle.whole_backend import BackendError, BackendStatus, LoadOutcome

__all__ = ["Backend", "Settings"]

_STOP_PATIENCE_S = 5.0
"""What a server gets to end by itself after SIGTERM."""

_POLL_S = 0.05
"""From one look at a loading server to the next."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a load asks for. `context` is in tokens, and is reduced where it does not fit."""

    model: str
    context: int
    cache_type: str


class Backend:
    """Serves one model at a time. All methods may be called from any thread.

    `server_command` starts llama-server. `wait` is called between a kill and the reading of free memory, with the kill
    record and `cancel=`: by default the settle wait. `ready_timeout`: seconds that a model may take to load.

    The server ends with the backend: with `close`, when nobody has a reference any more, or when Python exits.
    """

    def __init__(
        self,
        server_command: str | Sequence[str],
        *,
        wait: Callable[..., object] = wait_for_vram_settle,
        ready_timeout: float = 600.0,
    ) -> None:
        self._command = (server_command,) if isinstance(server_command, str) else tuple(server_command)
        self._wait = wait
        self._ready_timeout = ready_timeout
        self._serial = threading.Lock()
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self._kills = KillRecord()
        self._process: subprocess.Popen[bytes] | None = None
        self._settings: Settings | None = None
        self._status = BackendStatus()
        self._servers: list[Server] = []  # the one of `_process`, for the end
        weakref.finalize(self, end_all, self._servers)

    # -- what others call

    def load(self, model: str, *, context: int = 8192, cache_type: str = "f16") -> LoadOutcome:
        """Serves this model with these settings. Loads queue up; one that changes nothing restarts nothing.

        Returns "cancelled" where cancel or unload came in between; there is no server then. Raises BackendError.
        """
        wanted = Settings(model, context, cache_type)
        with self._serial:
            self._cancel.clear()
            if self._serves(wanted):
                return "already_loaded"
            self._status = BackendStatus("stopping", model, context, cache_type)
            self._settings = None  # whatever is raised from here on, what runs then is not what was there
            outcome: LoadOutcome = "cancelled"
            try:
                outcome = self._replace_server(wanted)
            finally:
                if outcome != "loaded":
                    self._status = BackendStatus()
            return outcome

    def unload(self) -> bool:
        """Ends the server, and the load that is under way. Returns whether there was a server."""
        self._cancel.set()
        with self._lock:
            had_one = self._process is not None
            self._kill_process()
            self._status = BackendStatus()
        return had_one

    def cancel(self) -> bool:
        """Ends the load that is under way, at once where it waits. Returns whether there was one."""
        under_way = self._status.loading
        if under_way:
            self._cancel.set()
        return under_way

    def status(self) -> BackendStatus:
        """What there is now. A server that has died since is not there."""
        status = self._status
        return BackendStatus() if status.phase == "serving" and self._server_is_gone() else status

    def close(self) -> None:
        """Ends the server."""
        self.unload()

    @property
    def placement(self) -> str:
        """Where the layers are: "all layers on the GPU", or how many of them."""
        return self.status().placement

    # -- a load

    def _serves(self, wanted: Settings) -> bool:
        return self._settings == wanted and not self._server_is_gone()

    def _server_is_gone(self) -> bool:
        return all(server.has_ended() for server in tuple(self._servers))

    def _replace_server(self, wanted: Settings) -> LoadOutcome:
        with self._lock:
            self._kill_process()
        self._status = replace(self._status, phase="settling")
        # After unload there is nothing to kill here; the record knows what unload has killed.
        self._wait(self._kills, cancel=self._cancel)
        placing = self._place(wanted)
        with self._lock:
            # Somebody may have cancelled, or unloaded, since the wait was over.
            if self._cancel.is_set():
                return "cancelled"
            server = self._start_server(wanted, placing)
        ready = server.wait_until_ready(self._ready_timeout, _POLL_S, self._cancel)
        with self._lock:
            return self._take_over(server, wanted, placing, ready)

    def _place(self, wanted: Settings) -> Placing:
        try:
            gpu = roomiest(read_free_memory())
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise BackendError(f"{wanted} was not loaded: free GPU memory cannot be read: {error}") from error
        needs = None
        if gpu is not None:
            needs = read_needs(self._command[0], gpu, wanted.model, wanted.context, wanted.cache_type)
        return place(gpu, needs, wanted.context)

    def _start_server(self, wanted: Settings, placing: Placing) -> Server:
        server = Server(self._command, _arguments(wanted, placing))
        try:
            server.process = self._process = subprocess.Popen(
                server.command,
                env=placing.environment(),
                stdin=subprocess.DEVNULL,
                stdout=server.log,
                stderr=server.log,
            )
        except OSError as error:
            server.end()
            raise BackendError(f"{server.command[0]} cannot be started: {error.strerror}") from error
        self._servers.append(server)
        self._status = replace(self._status, phase="starting", context=placing.context)
        return server

    def _take_over(self, server: Server, wanted: Settings, placing: Placing, ready: bool) -> LoadOutcome:
        """With the lock held: what has become of a start."""
        cancelled = self._cancel.is_set()  # unload sets it too, and has killed the process
        if cancelled or not ready:
            last_words = "" if cancelled else server.last_words()
            self._kill_process()
            if cancelled:
                return "cancelled"
            raise BackendError(f"{wanted} could not be loaded. The server's last words:\n{last_words}")
        self._kills.watch(server.pid)  # it may crash, or be killed by others
        self._settings = wanted
        layers_on_gpu, layers = server.layers()
        self._status = BackendStatus(
            phase="serving",
            model=wanted.model,
            context=server.context() or placing.context,
            cache_type=wanted.cache_type,
            pid=server.pid,
            gpu=None if placing.gpu is None else placing.gpu.uuid,
            layers=layers,
            layers_on_gpu=layers_on_gpu,
        )
        return "loaded"

    def _kill_process(self) -> None:
        """With the lock held. Whatever is raised, the record knows whether something died, and when."""
        if self._process is None:
            return
        with self._kills.recording(self._process.pid):
            self._process.terminate()
            try:
                self._process.wait(_STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        end_all(self._servers)
        self._servers.clear()


def _arguments(wanted: Settings, placing: Placing) -> list[str]:
    return [
        *("--model", wanted.model, "--ctx-size", str(placing.context), "--n-gpu-layers", placing.gpu_layers),
        *("--cache-type-k", wanted.cache_type, "--cache-type-v", wanted.cache_type, "--fit-target", str(MARGIN_MIB)),
    ]
