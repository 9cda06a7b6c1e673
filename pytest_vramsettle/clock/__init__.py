"""The virtual monotonic clock: waits of seconds take microseconds, in order, across threads and child processes."""

from pytest_vramsettle.clock.errors import BusyLoop, ClockError, ClockStopped, VirtualDeadlock
from pytest_vramsettle.clock.virtual import Blocked, Timer, VirtualClock, virtual_clock

__all__ = [
    "Blocked",
    "BusyLoop",
    "ClockError",
    "ClockStopped",
    "Timer",
    "VirtualClock",
    "VirtualDeadlock",
    "virtual_clock",
]
