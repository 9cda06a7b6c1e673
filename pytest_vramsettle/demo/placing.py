"""Which GPU a model goes to, how much of it, and with how long a context. What nvidia-smi reads decides."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FreeMemory", "Needs", "Placing", "place", "read_free_memory", "read_needs", "roomiest"]

MARGIN_MIB = 256
"""Left free on the GPU."""

SHORTEST_CONTEXT = 4096
"""Tokens. Rather than a shorter context, layers go to the CPU."""

_CONTEXT_STEP = 256
_QUERY = ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """One GPU, as nvidia-smi told."""

    index: int
    uuid: str
    free_mib: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model takes on one GPU with all its layers there, in MiB; `context_mib` for the context asked for."""

    model_mib: int
    context_mib: int
    compute_mib: int

    @property
    def mib(self) -> int:
        """All of it."""
        return self.model_mib + self.context_mib + self.compute_mib


@dataclass(frozen=True, slots=True)
class Placing:
    """A decision: the GPU (None: there is none), llama-server's `-ngl`, and the context in tokens."""

    gpu: FreeMemory | None
    gpu_layers: str
    context: int

    def environment(self) -> dict[str, str]:
        """In which the server sees that GPU alone. By UUID: CUDA may count GPUs in another order than nvidia-smi."""
        return {**os.environ, "CUDA_VISIBLE_DEVICES": "" if self.gpu is None else self.gpu.uuid}


def read_free_memory() -> tuple[FreeMemory, ...]:
    """What nvidia-smi says now; nothing where there is none. Raises what `subprocess.run` does where it fails."""
    try:
        run = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)
    except FileNotFoundError:
        return ()
    rows = (line.split(",") for line in run.stdout.splitlines() if line.strip())
    return tuple(FreeMemory(int(index), uuid.strip(), int(free)) for index, uuid, free in rows)


def roomiest(read: Sequence[FreeMemory]) -> FreeMemory | None:
    """The GPU with the most free memory."""
    return max(read, key=lambda gpu: gpu.free_mib, default=None)


def read_needs(server: str, gpu: FreeMemory, model: str, context: int, cache_type: str) -> Needs | None:
    """What llama.cpp reckons, by llama-fit-params beside llama-server; None where that is not there, or fails.

    It reads the model's header and allocates nothing. A row has a device, and MiB of weights, KV cache and buffers.
    """
    program = Path(server).with_name("llama-fit-params")
    command = [str(program), "-m", model, "-c", str(context), "-ctk", cache_type, "-ctv", cache_type, "-ngl", "all"]
    try:
        run = subprocess.run(
            [*command, "--fit-print", "on"],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu.uuid},
            capture_output=True,
            text=True,
            check=True,
            timeout=_TIMEOUT_S,
        )
        rows = [line.split() for line in run.stdout.splitlines()]
        return next(Needs(int(row[1]), int(row[2]), int(row[3])) for row in rows if row[:1] not in ([], ["Host"]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, StopIteration):
        return None


def place(gpu: FreeMemory | None, needs: Needs | None, context: int) -> Placing:
    """All layers, if need be with a shorter context; where even that does not fit, llama-server splits the layers."""
    if gpu is None:
        return Placing(None, "0", context)
    if needs is None:
        return Placing(gpu, "auto", context)
    room = gpu.free_mib - MARGIN_MIB - needs.model_mib - needs.compute_mib
    if needs.context_mib <= room:
        return Placing(gpu, "all", context)
    fitting = max(0, context * room // needs.context_mib) // _CONTEXT_STEP * _CONTEXT_STEP
    shortest = min(context, SHORTEST_CONTEXT)
    return Placing(gpu, "all", fitting) if fitting >= shortest else Placing(gpu, "auto", shortest)
