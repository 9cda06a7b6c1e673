"""What to say of a loop that never lets time pass."""

from __future__ import annotations

import queue
import selectors
import subprocess
import sys
import threading
from pathlib import Path

_HERE = str(Path(__file__).parent)
_BETWEEN = frozenset(module.__file__ for module in (queue, selectors, subprocess, threading))


def text(what: str) -> str:
    """Names the place in the calling thread's code where the loop is."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename in _BETWEEN or frame.f_code.co_filename.startswith(_HERE)
    ):
        frame = frame.f_back
    place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    return (
        f"busy loop: {what} at one instant of the virtual clock, the last at {place} by "
        f"{threading.current_thread().name}. Time cannot pass while a thread runs: sleep for some time, however short"
    )
