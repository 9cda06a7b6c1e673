"""What stands in for the functions of `time` while a clock is active, and what any such stand-in is.

They are objects, not functions: a function that is stored in a class body (`now = time.monotonic`) becomes a method and
is handed the instance, the interpreter's own built-ins do not. A copy that outlives the clock goes on as the real one.
"""

from __future__ import annotations

import operator
from _thread import get_ident
from collections.abc import Callable
from typing import Any

from pytest_vramsettle.clock import real
from pytest_vramsettle.clock.active import mine, slot
from pytest_vramsettle.clock.waits import HALF_NS, Waiter, nanoseconds


class StandIn:
    """Named, documented, pickled and copied like the built-in that it stands in for."""

    def __init__(self, module: str, original: Callable[..., Any]) -> None:
        self.original = original
        self.__name__ = self.__qualname__ = original.__name__
        self.__module__ = module
        self.__doc__ = original.__doc__

    def __reduce__(self) -> str:
        return self.__name__

    def __repr__(self) -> str:
        return f"<{self.__module__}.{self.__name__}, ruled by a virtual clock while one is active>"


# The two calls are written out alike, without `mine`: code under test looks at the time more often than at anything.


class Seconds(StandIn):
    original: Callable[[], float]

    def __call__(self) -> float:
        engine = slot.engine
        if engine is not None and get_ident() in engine.idents:
            if next(engine.reads, None) is None:
                engine.overread()
            return engine.seconds
        return self.original()


class Nanoseconds(StandIn):
    original: Callable[[], int]

    def __call__(self) -> int:
        engine = slot.engine
        if engine is not None and get_ident() in engine.idents:
            if next(engine.reads, None) is None:
                engine.overread()
            return engine.now
        return self.original()


class Sleep(StandIn):
    original: Callable[[float], None]

    def __call__(self, seconds: float, /) -> None:
        engine = mine()
        if engine is None:
            self.original(seconds)
            return
        if not isinstance(seconds, float):
            seconds = operator.index(seconds)
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        if seconds < HALF_NS:
            engine.instant(seconds)
            return
        engine.block(Waiter(engine, "sleep"), engine.now + nanoseconds(seconds))


monotonic = Seconds("time", real.monotonic)
perf_counter = Seconds("time", real.perf_counter)
monotonic_ns = Nanoseconds("time", real.monotonic_ns)
perf_counter_ns = Nanoseconds("time", real.perf_counter_ns)
sleep = Sleep("time", real.sleep)
