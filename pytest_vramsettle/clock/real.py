"""The real functions, taken at import: what the clock itself uses, and what it gives back when it leaves."""

from __future__ import annotations

import os
import queue
import selectors
import subprocess
import threading
import time
from types import BuiltinFunctionType

monotonic = time.monotonic
monotonic_ns = time.monotonic_ns
perf_counter = time.perf_counter
perf_counter_ns = time.perf_counter_ns
sleep = time.sleep
clock_gettime_ns = time.clock_gettime_ns

condition_wait = threading.Condition.wait
thread_start = threading.Thread.start
thread_join = threading.Thread.join
SimpleQueue = queue.SimpleQueue

poll_select = selectors._PollLikeSelector.select
epoll_select = selectors.EpollSelector.select
select_select = selectors.SelectSelector.select

popen_init = subprocess.Popen.__init__
popen_wait = subprocess.Popen._wait  # type: ignore[attr-defined]  # the stub leaves out what is private
popen_communicate = subprocess.Popen.communicate
fork = os.fork
kill = os.kill
killpg = os.killpg
waitpid = os.waitpid


def are_real() -> bool:
    """Whether the time functions above are the interpreter's own: another tool may have been there first."""
    return all(
        isinstance(function, BuiltinFunctionType)
        for function in (monotonic, monotonic_ns, perf_counter, perf_counter_ns, sleep)
    )
