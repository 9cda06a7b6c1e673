"""Time as C's ctime has it, whatever the locale: the day is padded with a space."""

from __future__ import annotations

import time

from fake_gpu.smi.run import Run

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def ctime(run: Run) -> str:
    """Local time, such as "Fri Jul  3 22:10:46 2026"."""
    now = time.localtime(run.wall_time)
    clock = f"{now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d}"
    return f"{_DAYS[now.tm_wday]} {_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {clock} {now.tm_year}"
