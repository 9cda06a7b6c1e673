"""What the tests of the probes share: a script in nvidia-smi's place, and a check that nothing is left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_vramsettle import _procfs
from pytest_vramsettle._interrupts import Interrupts
from pytest_vramsettle.probes import Probe, ProbeBudget, Reading

MIB = 1024 * 1024
Smi = Callable[[str], Path]

TWO_GPUS = """
case "$1" in
--query-gpu=*) echo "0, GPU-a, 24080, 24564"; echo "1, GPU-b, 100, 24564" ;;
--query-compute-apps=*) echo "GPU-b, 77, 20480"; echo "GPU-b, 78, [N/A]" ;;
*) echo "unexpected: $*"; exit 2 ;;
esac
"""


def budget(seconds: float = 20.0, interrupts: Interrupts | None = None) -> ProbeBudget:
    return ProbeBudget(time.monotonic_ns() + round(seconds * 1e9), interrupts)


def ask(probe: Probe, *, holders: bool = False, seconds: float = 20.0) -> Reading:
    return probe.read(budget(seconds), holders=holders)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    """Installs a shell script as the nvidia-smi on PATH."""
    path = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def install(script: str) -> Path:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return install


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()} if os.access("/proc/self/fd", os.F_OK) else set()


def children() -> set[int]:
    """Zombies included."""
    return set(_procfs._children_by_parent().get(os.getpid(), [])) if os.access("/proc/self/stat", os.F_OK) else set()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = descriptors(), children()
    yield
    assert (descriptors(), children()) == before
