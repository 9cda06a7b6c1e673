"""Who waits for ever: whether anybody could still wake the threads of a clock, and what to say where nobody could."""

from __future__ import annotations

import io
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pytest_vramsettle.clock import proc
from pytest_vramsettle.clock.waits import ANSWER, PollWaiter, Waiter

if TYPE_CHECKING:
    from pytest_vramsettle.clock.engine import Engine

# What calls a test.
_AROUND = ("/_pytest/", "/pluggy/")
_HERE = str(Path(__file__).parent)
# Where a thread that was started in real time, while a clock was active, keeps which one.
STARTED_UNDER = "_vramsettle_started_under"


def may_be_woken(engine: Engine) -> bool:
    """Whether somebody is known who could wake a thread of the clock: a child, a descriptor, a thread, a signal.

    The mutex is held.
    """
    return bool(
        engine.strays
        or engine.outsiders
        or engine.has_children()
        or any(_may_come(engine, waiter) for waiter in engine.parked.values())
        or any(thread.__dict__.get(STARTED_UNDER) == engine.start for thread in foreigners(engine))
        or _alarm_is_set()
    )


def _may_come(engine: Engine, waiter: Waiter) -> bool:
    if isinstance(waiter, PollWaiter):
        return engine.traffic.may_come(tuple(waiter.registered), proc.has_children)
    return waiter.what is ANSWER


def foreigners(engine: Engine) -> list[threading.Thread]:
    """Living threads that do not belong to the clock. Raw ones, which only foreign code starts, are left out."""
    belonging = {member.ident for member in engine.members}
    known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # `enumerate` takes a lock
    return [
        thread
        for ident, thread in list(known.items())
        if ident not in belonging and not isinstance(thread, threading._DummyThread)
    ]


def _alarm_is_set() -> bool:
    """Whether a handler of the test's own will be called. pytest-timeout's ends the test: it wakes nobody."""
    handler = signal.getsignal(signal.SIGALRM)
    ours = callable(handler) and getattr(handler, "__module__", None) != "pytest_timeout"
    return ours and signal.getitimer(signal.ITIMER_REAL)[0] > 0


def report(engine: Engine, own: Waiter) -> str:
    """Called by the thread that raises it, whose wait is over."""
    with engine.mu:
        waiting = [own, *(waiter for waiter in engine.parked.values() if waiter.ident != own.ident)]
        names = {member.ident: member.thread.name for member in engine.members}
        elapsed = (engine.now - engine.start) / 1e9
    frames = sys._current_frames()
    told = [
        f"--- {names.get(waiter.ident, waiter.ident)} waits for {waiter.what}:\n"
        f"{stack(frames.get(waiter.ident))}{_tasks(frames.get(waiter.ident))}"
        for waiter in waiting
    ]
    return "\n".join(
        [
            f"deadlock at +{elapsed:.9f} s: each thread of the virtual clock waits, none with a deadline, and nobody "
            "outside of it could wake one",
            *told,
        ]
    )


def _tasks(frame: FrameType | None) -> str:
    """Where each task of the event loop is that a thread runs, if it runs one."""
    asyncio = sys.modules.get("asyncio")
    while frame is not None and frame.f_code.co_name != "run_forever":
        frame = frame.f_back
    loop = None if frame is None else frame.f_locals.get("self")
    if asyncio is None or not isinstance(loop, asyncio.AbstractEventLoop):
        return ""
    told = io.StringIO()
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
        told.write("\n")
        task.print_stack(file=told)
    return told.getvalue().rstrip()


def stack(frame: FrameType | None) -> str:
    """From the test on, without what pytest and the clock do around it."""
    if frame is None:
        return "an unknown place"
    frames = traceback.extract_stack(frame)
    first = max((n + 1 for n, one in enumerate(frames) if any(part in one.filename for part in _AROUND)), default=0)
    told = [one for one in frames[first:] if not one.filename.startswith(_HERE)]
    return "".join(traceback.format_list(told or list(frames))).rstrip()
