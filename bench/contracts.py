"""What contracts cost on a large file, and a traced lock for each `with`."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from functools import partial
from statistics import median

from bench.measure import Figure, Goal, Measured, Section, alternate, compare, timed
from pytest_vramsettle.contracts import Verdict, lock_contract
from pytest_vramsettle.contracts.tracing import TracedLocks

SIZES = (125, 250, 500)
"""Functions; 52 lines each, so that the largest file has 26,000."""
WITHS = 2_000

_HEAD = """\
import subprocess
import threading
import time


class Backend:
    def __init__(self):
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self._process = None
        self._last_kill = 0.0

    def _wait(self):
        time.sleep(0.1)

    def _kill(self):
        if self._process is None:
            return
        try:
            self._process.terminate()
            self._process.wait(5)
        finally:
            self._last_kill = time.monotonic()

    def load(self, path):
        self._kill()
        self._wait()
        with self._lock:
            if self._cancel.is_set():
                return False
            self._process = subprocess.Popen(["server", path])
        return True
"""

_ROUND = """\
        for name, value in options.items():
            if value is None or total > limit + {step}:
                continue
            if name.startswith("x{step}"):
                total += len(value) * {step}
            else:
                total -= self.size_of(name, scale={step})
"""

_LOCKED = """\
        with self._lock:
            self.state = total
"""


def large_source(functions: int) -> str:
    """A class with so many methods, of which each tenth takes the lock."""
    parts = [_HEAD]
    for number in range(functions):
        parts.append(f'\n    def step_{number}(self, options, limit={number}):\n        """Step {number}."""\n')
        parts.append("        total = 0\n        limit += 1\n")
        parts += [_ROUND.format(step=step) for step in range(1, 7)]
        parts.append(_LOCKED if number % 10 == 0 else "        self.state = total\n        self.ready = True\n")
        parts.append("        self.log(total)\n        self.log(limit)\n        return total\n")
    return "".join(parts)


def check_all(source: str) -> None:
    """Parses it and checks the five rules."""
    backend = lock_contract("large:Backend", sources={"large": source})
    lock, wait = backend.lock("_lock"), backend.call("_wait")
    spawn, kill = backend.call("subprocess.Popen"), backend.call("_process.terminate")
    stamp = backend.write("_last_kill", value="time.monotonic()")
    backend.must_not_hold(lock, at=wait)
    backend.must_precede(wait, before=spawn, within="load", reset_by=kill)
    backend.must_follow(stamp, after=kill, within="_kill", only_if=True)
    backend.must_recheck("_cancel.is_set", after=lock.acquired, before=spawn, within="load")
    backend.must_not_name("had_live_process")
    verdicts = [contract.check_static().verdict for contract in backend.contracts]
    if set(verdicts) != {Verdict.KEPT}:
        raise RuntimeError(f"the generated file keeps its contracts, and was judged {verdicts}")


def source_section() -> Section:
    """Three sizes: the cost is to grow as the file does."""
    sources = {f"{count} functions, {len(text.splitlines()):,} lines": text for count, text in _texts()}
    taken = alternate({name: _collected(partial(check_all, text)) for name, text in sources.items()}, 7)
    names = list(sources)
    goals = {names[-1]: Goal("seconds", 1.0)}
    figures = [compare(name, taken[name], taken[names[0]], goals.get(name)) for name in names]
    return Section("Parse a file and check five contracts", names[0], tuple(figures))


def _collected(action: Callable[[], None]) -> Measured:
    """Without what the run before it has left to the garbage collector."""
    measured = timed(action)

    def after_collecting() -> float:
        gc.collect()
        return measured()

    return after_collecting


def _texts() -> list[tuple[int, str]]:
    return [(count, large_source(count)) for count in SIZES]


class _Owner:
    def __init__(self) -> None:
        self.plain = threading.Lock()
        self.traced = threading.Lock()


def _withs(lock: threading.Lock) -> None:
    for _ in range(WITHS):
        with lock:
            pass


def tracing_section() -> Section:
    """One `with`, with the loop around it."""
    owner = _Owner()
    with TracedLocks() as traced:
        traced(owner, "traced")

        def run_traced() -> None:
            _withs(owner.traced)
            traced.ended.clear()

        taken = alternate({"plain": timed(lambda: _withs(owner.plain)), "traced": timed(run_traced)}, 200)
    each = {name: [seconds / WITHS for seconds in times] for name, times in taken.items()}
    extra = median(each["traced"]) - median(each["plain"])
    return Section(
        "`with lock:`",
        "a plain threading.Lock",
        (
            compare("a plain lock", each["plain"], each["plain"]),
            compare("a traced lock", each["traced"], each["plain"], Goal("seconds", 1.5e-6)),
            Figure("what tracing adds", extra),
        ),
    )
