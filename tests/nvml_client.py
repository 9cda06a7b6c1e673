"""NVML as C calls it, for tests of what nvidia-ml-py hides: NULL, counts, wrong versions; and a clock set by hand."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pynvml

from fake_gpu import Driver, Gpu
from fake_gpu.clock import RealClock
from fake_gpu.nvml.codes import NAMES

U32 = ctypes.c_uint


class HandClock(RealClock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 5_000_000_000
        super().__init__(lambda: self.now)

    def go(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


def nvml(name: str, *arguments: object) -> str:
    """Calls a function of libnvidia-ml.so.1, and names what it returned."""
    code: int = getattr(ctypes.CDLL("libnvidia-ml.so.1"), name)(*arguments)
    return NAMES[code]


def handle_of(gpu: Gpu) -> ctypes.c_void_p:
    """The handle that a client has of a GPU, whether or not NVML would give it out now."""
    return ctypes.c_void_p(gpu.handle)


def unsigned(name: str, *arguments: object) -> int | str:
    """What a function writes to its last argument, an unsigned int; or the name of its error."""
    value = U32(0xDEAD)
    answer = nvml(name, *arguments, ctypes.byref(value))
    return value.value if answer == "SUCCESS" else answer


@contextmanager
def initialised(driver: Driver) -> Iterator[Driver]:
    """NVML initialised in this process, with the driver active."""
    with driver:
        pynvml.nvmlInit()
        try:
            yield driver
        finally:
            pynvml.nvmlShutdown()
