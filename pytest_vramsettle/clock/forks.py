"""Children that are no `subprocess.Popen`: of `os.fork`, and of multiprocessing in each of its start methods.

They hold the clock like any other child, and live in real time themselves.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

from pytest_vramsettle.clock import real
from pytest_vramsettle.clock.active import my_children
from pytest_vramsettle.clock.times import StandIn


class Fork(StandIn):
    original: Callable[[], int]

    def __call__(self) -> int:
        children = my_children()
        if children is None:
            return self.original()
        with warnings.catch_warnings():
            if threading.active_count() == 1:
                # The other thread that Python 3.12 warns of is the clock's own, which the child has no use for.
                warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
            pid = self.original()
        if pid:
            children.track(pid, "fork")
        return pid


fork = Fork("os", real.fork)


def process_start(start: Callable[[Any], None]) -> Callable[[Any], None]:
    """What stands in for the `start` of a `multiprocessing.Process`, the fork server's child among them."""

    @functools.wraps(start)
    def start_on_the_clock(self: Any) -> None:
        children = my_children()
        if children is None:
            start(self)
            return
        with children.engine.unseen():
            start(self)
        children.track(self.pid, self.name)

    return start_on_the_clock
