"""Small clients in processes of their own, for tests: what a child reads, as it would be written by a user."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

READ_MEMORY = """
import pynvml
pynvml.nvmlInit()
handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
print(*(pynvml.nvmlDeviceGetMemoryInfo(handle).free for handle in handles))
"""

INIT = """
import pynvml
try:
    pynvml.nvmlInit()
except pynvml.NVMLError as error:
    print(error.value, error)
else:
    print("initialised")
"""


def run_python(
    code: str, *arguments: str, env: Mapping[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a child."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=None if env is None else dict(env),
    )
    if check and done.returncode != 0:
        raise AssertionError(f"the child ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def free_seen_by_child(env: Mapping[str, str] | None = None) -> list[int]:
    """Free bytes of each GPU as a child reads them through pynvml."""
    return [int(size) for size in run_python(READ_MEMORY, env=env).stdout.split()]


def nvidia_smi(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the nvidia-smi that PATH leads to."""
    return subprocess.run(
        ["nvidia-smi", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=None if env is None else dict(env),
    )


def descendants() -> set[int]:
    """PIDs of all children of this process, zombies included."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return {int(pid) for pid in file.read().split()}
