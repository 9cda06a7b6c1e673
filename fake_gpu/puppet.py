"""Starting the small process that does nothing but exist."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from fake_gpu.activation import native
from fake_gpu.process import open_pidfd

if TYPE_CHECKING:
    from fake_gpu.clock import Clock


def start_puppet(name: str, clock: Clock, *, ignores_sigterm: bool) -> tuple[subprocess.Popen[bytes], int]:
    """A process of that name, ready for signals, and its pidfd; both are the caller's to end and close.

    Raises NativesMissing or DriverStateError, and leaves no process then.
    """
    popen = subprocess.Popen(
        [name, "ignores-sigterm"] if ignores_sigterm else [name],
        executable=native("puppet"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        process_group=0,  # Ctrl-C is for the test run; the driver ends its puppets
    )
    try:
        clock.detach(popen)  # it never does anything, so nobody should wait for it
        if popen.stdout is not None:
            with popen.stdout:
                os.read(popen.stdout.fileno(), 1)  # it has its signal handlers
        return popen, open_pidfd(popen.pid)
    except BaseException:
        popen.kill()
        popen.wait()
        raise
