"""Labelled shapes: what a wait under a lock, an order of calls and a stamp look like in code, good and bad.

Each shape is the body of a class Backend, or a whole module where it begins at the margin with `#module`.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from pytest_vramsettle.contracts import Contract, Outcome, lock_contract

HEADER = """\
import asyncio, contextlib, functools, logging, subprocess, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
log = logging.getLogger(__name__)
"""

INIT = """
    def __init__(self):
        self._lock = threading.RLock()
        self._other = threading.Lock()
        self._cancel = threading.Event()
        self._process = None
        self._last = 0.0

    def stop(self):
        self._process.terminate()
"""


@dataclass(frozen=True)
class Shape:
    """`rule` is one of hold, precede, follow, recheck, name."""

    rule: str
    label: str
    name: str
    code: str

    @property
    def source(self) -> str:
        code = textwrap.dedent(self.code)
        if code.lstrip().startswith("#module"):
            return HEADER + code
        return HEADER + "class Backend:" + INIT + textwrap.indent(code, "    ")

    def contract(self) -> Contract:
        backend = lock_contract("m:Backend", sources={"m": self.source})
        lock, wait = backend.lock("_lock"), backend.call("_wait")
        spawn, kill = backend.call("subprocess.Popen"), backend.call("_process.terminate")
        if self.rule == "hold":
            return backend.must_not_hold(lock, at=wait)
        if self.rule == "precede":
            return backend.must_precede(wait, before=spawn, within="load", reset_by=kill)
        if self.rule == "follow":
            stamp = backend.write("_last", value="time.monotonic()")
            return backend.must_follow(stamp, after=kill, within="_kill", every_exit=True, only_if=True)
        if self.rule == "recording":
            return backend.must_follow(backend.recording("_kills"), after=kill, within="_kill", only_if=True)
        if self.rule == "recheck":
            return backend.must_recheck("_cancel.is_set", after=lock.acquired, before=spawn, within="load")
        return backend.must_not_name("had_live_process")

    def check(self) -> Outcome:
        return self.contract().check_static()


def shapes(rule: str, label: str, text: str) -> list[Shape]:
    """Each begins with a line `--- name`."""
    found = []
    for part in text.split("\n--- ")[1:]:
        name, _, code = part.partition("\n")
        found.append(Shape(rule, label, name.strip(), code))
    return found
