"""What the clock puts its own in place of, how it is put back, and with which tools it cannot share a process."""

from __future__ import annotations

import operator
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pytest_vramsettle.clock import forks, locks, processes, real, selecting, threads, times
from pytest_vramsettle.clock.active import slot
from pytest_vramsettle.clock.children import Children
from pytest_vramsettle.clock.errors import ClockError

MONOTONIC = (times.monotonic, times.monotonic_ns, times.perf_counter, times.perf_counter_ns)
_TIME = (*MONOTONIC, times.sleep)

# What the standard library bound at its own import (3.11 to 3.13).
_EARLY: tuple[tuple[Any, str], ...] = ((threading, "_time"), (queue, "time"), (subprocess, "_time"))


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


class _Place:
    """A module or class, and what is put into it."""

    __slots__ = ("_found", "_get", "_namespace", "_real", "owner", "stand_ins")

    def __init__(self, owner: Any, stand_ins: dict[str, Any]) -> None:
        self.owner = owner
        self.stand_ins = stand_ins
        # All names at once, which takes a third of the time: a test enters its clock for some microseconds.
        self._get = operator.itemgetter(*stand_ins, *stand_ins)
        self._namespace = vars(owner)
        self._found = self._get(self._namespace)
        self._real = {name: self._namespace[name] for name in stand_ins}

    def originals(self) -> dict[str, Any]:
        """What stands there now."""
        if self._get(self._namespace) == self._found:
            return self._real
        return {name: _original(self._namespace[name]) for name in self.stand_ins}


def _places() -> tuple[_Place, ...]:
    early: dict[Any, dict[str, Any]] = {threading: {}, queue: {}, subprocess: {}}
    for module, name in _EARLY:
        if vars(module).get(name) is real.monotonic:
            early[module][name] = times.monotonic
    poll, epoll, plain = selectors._PollLikeSelector, selectors.EpollSelector, selectors.SelectSelector
    return (
        _Place(time, {function.__name__: function for function in _TIME}),
        _Place(threading, {**early[threading], "Lock": locks.Lock, "RLock": locks.RLock}),
        _Place(threading.Condition, {"wait": threads.condition_wait}),
        _Place(threading.Thread, {"start": threads.thread_start, "join": threads.thread_join}),
        _Place(queue, {**early[queue], "SimpleQueue": threads.SimpleQueue}),
        _Place(poll, {"select": selecting.poll_select}),
        _Place(epoll, {"select": selecting.epoll_select}),
        _Place(plain, {"select": selecting.select_select}),
        *([_Place(subprocess, early[subprocess])] if early[subprocess] else []),
        _Place(
            subprocess.Popen,
            {
                "__init__": processes.popen_init,
                "_wait": processes.popen_wait,
                "communicate": processes.popen_communicate,
            },
        ),
        _Place(
            os,
            {
                "fork": forks.fork,
                "kill": processes.kill,
                "killpg": processes.killpg,
                "waitpid": processes.waitpid,
            },
        ),
    )


def _original(found: Any) -> Any:
    # A stand-in was left behind by a tool that had saved it as "the original" while an earlier clock was active.
    return found.original if isinstance(found, times.StandIn) else found


_PLACES = _places()


def _put(owner: object, stand_ins: Mapping[str, Any]) -> None:
    if isinstance(owner, ModuleType):
        vars(owner).update(stand_ins)
    else:
        for name, stand_in in stand_ins.items():
            setattr(owner, name, stand_in)


def _replace(owner: object, originals: Mapping[str, Any], stand_ins: Mapping[str, Any]) -> None:
    # Whatever interrupts this, it is put back.
    slot.replaced.append((owner, originals))
    _put(owner, stand_ins)


def _replace_all() -> None:
    for place in _PLACES:
        _replace(place.owner, place.originals(), place.stand_ins)
    _replace_freezegun()


def _replace_late() -> None:
    """What belongs to modules that the clock does not import, where somebody has by now."""
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None and not _is_replaced(process.BaseProcess):
        start = process.BaseProcess.start
        _replace(process.BaseProcess, {"start": start}, {"start": forks.process_start(start)})
    sched: Any = sys.modules.get("sched")
    if sched is not None:
        init = sched.scheduler.__init__
        if init.__defaults__ == (real.monotonic, real.sleep) and not _is_replaced(init):
            ours = {"__defaults__": (times.monotonic, times.sleep)}
            _replace(init, {"__defaults__": init.__defaults__}, ours)


def _is_replaced(owner: object) -> bool:
    return any(owner is known for known, _ in slot.replaced)


def _replace_freezegun() -> None:
    """What freezegun takes for real: it puts that in place when a `freeze_time` of the test's own ends."""
    api: Any = sys.modules.get("freezegun.api")
    if api is None:
        return
    # It looks for these in modules, and replaces them, while it is active.
    api._real_time_object_ids.update(map(id, MONOTONIC))
    ours = {f"real_{function.__name__}": function for function in MONOTONIC}
    _replace(api, {name: _original(vars(api)[name]) for name in ours}, ours)


def install(children: Children) -> None:
    """The caller restores, also where this raises."""
    if not slot.resident:
        _replace_all()
    _replace_late()
    slot.children = children
    slot.engine = children.engine


def reside() -> bool:
    """Have the stand-ins in place between clocks too, acting as what they stand for. False where they were already."""
    if slot.resident or slot.engine is not None:
        return False
    refuse_conflicts()
    _replace_all()
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
        _put(*slot.replaced[-1])
        slot.replaced.pop()
    api: Any = sys.modules.get("freezegun.api")
    if api is not None and not slot.resident:
        # Imported while the stand-ins were in place, it took them for the real functions.
        for function in MONOTONIC:
            if getattr(api, f"real_{function.__name__}", None) is function:
                setattr(api, f"real_{function.__name__}", function.original)


def _forget() -> None:
    """A forked child must not run a private copy of the clock: it lives in real time, and none of its threads exist."""
    if slot.engine is not None:
        slot.engine.forget()
    restore()


os.register_at_fork(after_in_child=_forget)
