"""What a test leaves behind on its clock: threads that still live, child processes that still run."""

from __future__ import annotations

import threading

from pytest_vramsettle.clock import real
from pytest_vramsettle.clock.virtual import VirtualClock

# Real seconds that all threads together are given which were about to end.
_ENDING = 0.02


def left_behind(clock: VirtualClock) -> list[str]:
    """A line for each, before the clock is left: that ends the threads which wait on it."""
    return _threads(clock) + _children(clock)


def _threads(clock: VirtualClock) -> list[str]:
    waits = {blocked.thread: blocked for blocked in clock.blocked()}
    limit = real.monotonic() + _ENDING
    found = []
    with clock._engine.mu:
        threads = [member.thread for member in clock._engine.members]
    for thread in sorted(threads, key=lambda thread: thread.name):
        if thread is threading.current_thread():
            continue
        blocked = waits.get(thread.name)
        if blocked is None:
            real.thread_join(thread, max(0.0, limit - real.monotonic()))
        if thread.is_alive():
            kind = "daemon thread" if thread.daemon else "thread"
            found.append(f"{kind} {thread.name}, {_doing(blocked.what, blocked.until) if blocked else 'running'}")
    return found


def _doing(what: str, until: float | None) -> str:
    return f"in {what}" if until is None else f"in {what} until +{until:.9f} s"


def _children(clock: VirtualClock) -> list[str]:
    # Who was detached, or came to the driver from elsewhere, was not started to end with the test.
    return [
        f"child {child!r}"
        for child in sorted(clock._children.all(), key=lambda child: child.pid)
        if child.alive and not (child.detached or child.guest)
    ]
