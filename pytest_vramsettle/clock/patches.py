"""What the clock puts its own in place of, how it is put back, and with which tools it cannot share a process."""

from __future__ import annotations

import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from typing import Any

from pytest_vramsettle.clock import locks, processes, real, selecting, threads, times
from pytest_vramsettle.clock.active import slot
from pytest_vramsettle.clock.children import Children
from pytest_vramsettle.clock.errors import ClockError

MONOTONIC = (times.monotonic, times.monotonic_ns, times.perf_counter, times.perf_counter_ns)
_TIME = (*MONOTONIC, times.sleep)

# What the standard library bound at its own import (3.11 to 3.13).
_EARLY: tuple[tuple[Any, str], ...] = ((threading, "_time"), (queue, "time"), (subprocess, "_time"))

_PATCHES: tuple[tuple[Any, str, object], ...] = (
    *((time, function.__name__, function) for function in _TIME),
    *((module, name, times.monotonic) for module, name in _EARLY if vars(module).get(name) is real.monotonic),
    (threading.Condition, "wait", threads.condition_wait),
    (threading.Thread, "start", threads.thread_start),
    (threading.Thread, "join", threads.thread_join),
    (threading, "Lock", locks.Lock),
    (threading, "RLock", locks.RLock),
    (queue, "SimpleQueue", threads.SimpleQueue),
    (selectors._PollLikeSelector, "select", selecting.poll_select),
    (selectors.EpollSelector, "select", selecting.epoll_select),
    (selectors.SelectSelector, "select", selecting.select_select),
    (subprocess.Popen, "__init__", processes.popen_init),
    (subprocess.Popen, "_wait", processes.popen_wait),
    (subprocess.Popen, "communicate", processes.popen_communicate),
    (os, "kill", processes.kill),
    (os, "killpg", processes.killpg),
    (os, "waitpid", processes.waitpid),
)


def refuse_conflicts() -> None:
    """Raises `ClockError` where another tool has the time, or another clock."""
    if slot.engine is not None:
        raise ClockError("a virtual clock is active already: time is the whole process's, so there can be only one")
    for name, module, active in (
        ("freezegun", "freezegun.api", "freeze_factories"),
        ("time-machine", "time_machine", "traveller_stack"),
        ("time-machine", "time_machine", "coordinates_stack"),  # before 3.0
    ):
        if getattr(sys.modules.get(module), active, None):
            raise ClockError(f"{name} is active: leave it before the virtual clock is entered, both rule the time")
    activation = sys.modules.get("fake_gpu.activation")  # not imported: nobody has a driver
    for driver in activation.active_drivers() if activation is not None else []:
        if driver.clock.is_real_time and not driver.clock_was_given:
            raise ClockError(
                f"{driver!r} is active on real time, and would stay there: enter the clock first and pass it on, "
                "Driver(clock=clock); under pytest name monotonic_clock among the test's arguments"
            )
    if slot.resident:
        # Whatever stands there now was put over ours, by who means to have it there.
        return
    for function in _TIME:
        found = getattr(time, function.__name__)
        if found is not function.original and found is not function:
            raise ClockError(
                f"time.{function.__name__} was replaced by {found!r}: the virtual clock must be entered on the real "
                "time, before other tools, or after they have left"
            )
    if not real.are_real():
        raise ClockError("time was patched by another tool when pytest_vramsettle.clock was imported: import it before")


def _replace() -> None:
    for owner, name, replacement in (*_PATCHES, *_freezegun_patches()):
        original = vars(owner)[name]
        if isinstance(original, times.StandIn):
            # Left behind by a tool that had saved it as "the original" while an earlier clock was active.
            original = original.original
        slot.replaced.append((owner, name, original))
        setattr(owner, name, replacement)


def _freezegun_patches() -> tuple[tuple[Any, str, object], ...]:
    """What freezegun takes for real: it puts that in place when a `freeze_time` of the test's own ends."""
    api: Any = sys.modules.get("freezegun.api")
    if api is None:
        return ()
    # It looks for these in modules, and replaces them, while it is active.
    api._real_time_object_ids.update(map(id, MONOTONIC))
    return tuple((api, f"real_{function.__name__}", function) for function in MONOTONIC)


def install(children: Children) -> None:
    """The caller restores, also where this raises."""
    if not slot.resident:
        _replace()
    slot.children = children
    slot.engine = children.engine


def reside() -> bool:
    """Have the stand-ins in place between clocks too, acting as what they stand for. False where they were already."""
    if slot.resident or slot.engine is not None:
        return False
    refuse_conflicts()
    _replace()
    slot.resident = True
    return True


def leave_residence() -> None:
    slot.resident = False
    if slot.engine is None:
        restore()


def restore() -> None:
    """Idempotent. The stand-ins act as the real functions from the first line on."""
    slot.engine = None
    slot.children = None
    while slot.replaced and not slot.resident:
        # Popped only when it is back: whatever interrupts this, the next call finishes it.
        owner, name, original = slot.replaced[-1]
        setattr(owner, name, original)
        slot.replaced.pop()
    api: Any = sys.modules.get("freezegun.api")
    if api is not None and not slot.resident:
        # Imported while the stand-ins were in place, it took them for the real functions.
        for function in MONOTONIC:
            if getattr(api, f"real_{function.__name__}", None) is function:
                setattr(api, f"real_{function.__name__}", function.original)


# A forked child must not run a private copy of the clock: it lives in real time.
os.register_at_fork(after_in_child=restore)
