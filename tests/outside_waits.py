"""The waits of three other projects, written from what is said of them in public, each with a probe of its own.

None is tuned to a scenario, and none is a copy. What they do beside waiting is left out. Where a description is silent,
the plainest code stands, and says so. All return nothing, as theirs do.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pynvml

MIB = 1 << 20
log = logging.getLogger(__name__)


class Ollama:
    """Before an unload: the sum of free memory, and the model's estimate. After it: every 250 ms, for 5 s at most.

    "VRAM has recovered" once the sum has grown by 75 % of the estimate. Its GPU discovery asks NVML; a GPU that does
    not answer keeps the value it had. Nothing unloaded: nothing to wait for.
    """

    def __init__(self) -> None:
        self.before = self.estimate = 0
        self.known: dict[int, int] = {}

    def free(self) -> int:
        try:
            pynvml.nvmlInit()
            try:
                for index in range(pynvml.nvmlDeviceGetCount()):
                    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                    self.known[index] = pynvml.nvmlDeviceGetMemoryInfo(handle).free
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            log.warning("error looking up memory of a GPU: %s", error)
        return sum(self.known.values())

    @contextlib.contextmanager
    def recording(self, pid: int) -> Iterator[None]:
        self.before = self.free()
        yield

    def estimated(self, size: int) -> None:
        """Its own reckoning of the model's size; here right to the byte."""
        self.estimate = size

    def __call__(self, *, since_kill: float, max_wait: float) -> None:
        if not since_kill or not self.estimate:
            return
        until = time.monotonic() + min(5.0, max_wait)
        while time.monotonic() < until:
            time.sleep(min(0.25, until - time.monotonic()))
            if self.free() - self.before > 0.75 * self.estimate:
                log.debug("gpu VRAM free memory converged")
                return
        log.warning("gpu VRAM usage didn't recover within timeout")


class ComfyuiMcp:
    """After it stopped its server: nvidia-smi until free memory has left the reading of before, and two agree.

    Pace and limit are not described: 250 ms, and what it is given. What it does where nvidia-smi fails is not either:
    it has no reading then, and asks again.
    """

    def __init__(self) -> None:
        self.before: list[int] | None = None

    def free(self) -> list[int] | None:
        try:
            out = subprocess.run(
                ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
            ).stdout
            return [int(line) for line in out.splitlines()]
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            log.debug("nvidia-smi failed: %s", error)
            return None

    @contextlib.contextmanager
    def recording(self, pid: int) -> Iterator[None]:
        self.before = self.free()
        yield

    def __call__(self, *, since_kill: float, max_wait: float) -> None:
        if self.before is None:
            return
        until, last = time.monotonic() + max_wait, None
        while time.monotonic() < until:
            now = self.free()
            if now is not None and now == last and now != self.before:
                return
            last = now
            time.sleep(min(0.25, max(0.0, until - time.monotonic())))


class InstructLab:
    """After a training phase or a server: the sum of free memory, every second, until it has not grown for 6 samples.

    It asks the CUDA runtime, here NVML in its place. Without a GPU, or without a kill, there is nothing to wait for.
    """

    def free(self) -> int:
        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            return sum(pynvml.nvmlDeviceGetMemoryInfo(handle).free for handle in handles)
        finally:
            pynvml.nvmlShutdown()

    def has_gpu(self) -> bool:
        pynvml.nvmlInit()
        try:
            return bool(pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()

    def __call__(self, *, since_kill: float, max_wait: float) -> None:
        if not since_kill or not self.has_gpu():
            return
        until, stable, last = time.monotonic() + max_wait, 0, self.free()
        while time.monotonic() < until:
            time.sleep(min(1.0, until - time.monotonic()))
            now = self.free()
            stable = 0 if now > last else stable + 1
            last = now
            if stable >= 6:
                return
        log.debug("free memory did not become stable")


def ollama() -> dict[str, Any]:
    """As `check_settle` takes it."""
    wait = Ollama()

    @contextlib.contextmanager
    def recording(pid: int) -> Iterator[None]:
        with wait.recording(pid):
            wait.estimated(held_by(pid))
            yield

    return {"wait": wait, "recording": recording}


def held_by(pid: int) -> int:
    """What a model's estimate would be: bytes, on all GPUs."""
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        listed = [one for handle in handles for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    finally:
        pynvml.nvmlShutdown()
    return sum(one.usedGpuMemory for one in listed if one.pid == pid)


def comfyui_mcp() -> dict[str, Any]:
    """As `check_settle` takes it."""
    wait = ComfyuiMcp()
    return {"wait": wait, "recording": wait.recording}


def instructlab() -> dict[str, Any]:
    """As `check_settle` takes it."""
    return {"wait": InstructLab()}
