"""Probes that are wrong, each in one thing; [(index, free MiB), ...]."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import Any

import pynvml

Pairs = list[tuple[int, int]]
KEPT: list[subprocess.Popen[Any]] = []
"""Children that a mutant has forgotten, for the test to reap."""


def smi(fields: str = "index,memory.free", timeout: float | None = 10.0) -> list[list[str]]:
    out = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
    ).stdout
    return [[cell.strip() for cell in line.split(",")] for line in out.splitlines()]


def naive() -> Pairs:
    return [(int(index), int(free)) for index, free in smi()]


def total() -> Pairs:
    return [(int(index), int(size)) for index, size in smi("index,memory.total")]


def in_bytes() -> Pairs:
    return [(index, free * 2**20) for index, free in naive()]


def first_line() -> Pairs:
    return naive()[:1]


def sorted_as_text() -> Pairs:
    return sorted(naive(), key=lambda pair: str(pair[0]))


def total_less_used() -> Pairs:
    return [(int(index), int(size) - int(used)) for index, size, used in smi("index,memory.total,memory.used")]


def by_place() -> Pairs:
    """In the order of the serial numbers, which do not follow the indices."""
    rows = sorted(smi("uuid,memory.total,memory.free"), key=lambda row: int(row[1]))
    return [(place, int(free)) for place, (_, _, free) in enumerate(rows)]


def counted() -> Pairs:
    """Every GPU that was ever there has an entry."""
    out = subprocess.run(
        ["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"], capture_output=True, text=True
    ).stdout
    known = dict.fromkeys((0, 1), 0)
    for line in out.splitlines():
        with contextlib.suppress(ValueError):
            index, free = line.split(",")
            known[int(index)] = int(free)
    return list(known.items())


def zero_for_none() -> Pairs:
    try:
        return naive()
    except subprocess.CalledProcessError as error:
        return [(0, 0)] if error.returncode == 6 else []


def zero_for_failure() -> Pairs:
    try:
        return naive()
    except (subprocess.SubprocessError, ValueError):
        return [(0, 0)]


def zero_for_noise() -> Pairs:
    return [(0, int(free) if free.isdigit() else 0) for _, free in smi()]


def in_process() -> Pairs:
    """A right one, but where a call never returns."""
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [(index, pynvml.nvmlDeviceGetMemoryInfo(one).free >> 20) for index, one in enumerate(handles)]
    finally:
        pynvml.nvmlShutdown()


def no_timeout() -> Pairs:
    return [(int(index), int(free)) for index, free in smi(timeout=None)]


def asks_nicely() -> Pairs:
    child = subprocess.Popen(["nvidia-smi"], stdout=subprocess.DEVNULL)
    KEPT.append(child)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.terminate()
        return []
    return naive()


def reads_to_the_end() -> Pairs:
    child: Any = subprocess.Popen(
        ["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"],
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = child.communicate()
    return [(int(index), int(free)) for index, free in (line.split(",") for line in out.splitlines())]


def impatient() -> Pairs:
    return [(int(index), int(free)) for index, free in smi(timeout=1.0)]


def kept() -> Pairs:
    """Asks once in a scenario."""
    now = time.monotonic()
    if not READ or now - READ[0][0] > 5.0 or now < READ[0][0]:
        READ[:] = [(now, naive())]
    return READ[0][1]


READ: list[tuple[float, Pairs]] = []


def leaks() -> Pairs:
    KEPT.append(subprocess.Popen(["true"], stdout=subprocess.PIPE))
    KEPT[-1].wait()
    return naive()
