"""A small backend that serves one model from a GPU process, written as for production: it knows nothing of a fake.

It finds free memory by running nvidia-smi, and puts the model on the GPU with the most of it. What it does between the
kill and that reading is up to whoever makes it: that is what the demo compares.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_vramsettle.kills import KillRecord

_QUERY = ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
_PROBE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Model:
    """What a model needs. `context_mib` is the KV cache and the buffers, on the GPU whatever the number of layers."""

    layers: int
    layer_mib: int
    context_mib: int

    @property
    def mib(self) -> int:
        """All of it, in MiB."""
        return self.layers * self.layer_mib + self.context_mib

    def layers_in(self, free_mib: int) -> int:
        """How many layers fit into so many MiB."""
        return max(0, min(self.layers, (free_mib - self.context_mib) // self.layer_mib))


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """One GPU, as nvidia-smi told."""

    index: int
    uuid: str
    free_mib: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model goes: `on_gpu` of its layers to `gpu` (None: there is none), `on_cpu` to the CPU."""

    gpu: FreeMemory | None
    on_gpu: int
    on_cpu: int
    read: tuple[FreeMemory, ...]
    """The reading that it follows from."""

    @property
    def layers(self) -> int:
        """All layers."""
        return self.on_gpu + self.on_cpu


def read_free_memory() -> tuple[FreeMemory, ...]:
    """What nvidia-smi says now. Raises what `subprocess.run` does where it cannot be run, or fails."""
    run = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=_PROBE_TIMEOUT_S)
    rows = (line.split(",") for line in run.stdout.splitlines() if line.strip())
    return tuple(FreeMemory(int(index), uuid.strip(), int(free)) for index, uuid, free in rows)


def place(model: Model, read: Sequence[FreeMemory]) -> Placement:
    """The GPU with the most free memory takes as many layers as fit there."""
    best = max(read, key=lambda gpu: gpu.free_mib, default=None)
    on_gpu = 0 if best is None else model.layers_in(best.free_mib)
    return Placement(best if on_gpu else None, on_gpu, model.layers - on_gpu, tuple(read))


class Backend:
    """Serves `model` from the process `server`. `wait` is called between a kill and the reading, holding no lock."""

    def __init__(self, server: subprocess.Popen[bytes], model: Model, wait: Callable[[KillRecord], object]) -> None:
        self._server: subprocess.Popen[bytes] | None = server
        self._model = model
        self._wait = wait
        self._kills = KillRecord()
        self._lock = threading.Lock()

    def reload(self) -> Placement:
        """Ends the server and says where the model goes next."""
        with self._lock:
            self._kill_server()
        self._wait(self._kills)
        with self._lock:
            return place(self._model, read_free_memory())

    def _kill_server(self) -> None:
        if self._server is None:
            return
        with self._kills.recording(self._server.pid):
            self._server.kill()
            self._server.wait()
        self._server = None
