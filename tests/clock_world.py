"""What a virtual clock replaces, for tests that look whether all of it is put back."""

from __future__ import annotations

import os
import queue
import selectors
import subprocess
import threading
import time

OWNED = [
    (time, "monotonic"),
    (time, "monotonic_ns"),
    (time, "perf_counter"),
    (time, "perf_counter_ns"),
    (time, "sleep"),
    (threading, "_time"),
    (queue, "time"),
    (subprocess, "_time"),
    (threading.Condition, "wait"),
    (threading.Condition, "notify"),
    (threading.Condition, "notify_all"),
    (threading.Thread, "start"),
    (threading.Thread, "join"),
    (threading, "Lock"),
    (threading, "RLock"),
    (queue, "SimpleQueue"),
    (selectors._PollLikeSelector, "select"),
    (selectors.EpollSelector, "select"),
    (selectors.SelectSelector, "select"),
    (subprocess.Popen, "__init__"),
    (subprocess.Popen, "_wait"),
    (subprocess.Popen, "communicate"),
    (subprocess.Popen, "send_signal"),
    (os, "fork"),
    (os, "kill"),
    (os, "killpg"),
    (os, "waitpid"),
]


def owned() -> list[object]:
    return [vars(owner)[name] for owner, name in OWNED]


REAL = owned()
