"""What ends a wait before its time: the caller's cancel event, or a newer kill."""

from __future__ import annotations

import os
import threading
import time
from typing import Literal

from pytest_vramsettle._quantities import MILLISECOND, to_seconds

Reason = Literal["cancelled", "superseded"]

# Nothing wakes a thread that waits on somebody else's Event, so with a cancel event a newer kill is looked for this
# often. It equals the longest pause between probes by default: one timed wait, no polling.
_SUPERSEDED_EVERY_NS = 250 * MILLISECOND


class Interrupts:
    """One wait's reasons to stop early. `supersede` and `abort` may be called from any thread."""

    def __init__(self, cancel: threading.Event | None = None) -> None:
        self._cancel = cancel
        self._reason: Reason | None = None
        self._woken = threading.Event()
        self._lock = threading.Lock()
        self._pipe: tuple[int, int] | None = None

    @property
    def must_be_polled(self) -> bool:
        """True where only looking tells: the caller's event cannot wake a selector."""
        return self._cancel is not None

    def reason(self) -> Reason | None:
        """Why to stop now, or None. The caller's own wish comes first."""
        if self._cancel is not None and self._cancel.is_set():
            return "cancelled"
        return self._reason

    def supersede(self) -> None:
        """A newer kill was recorded."""
        self._stop("superseded")

    def abort(self) -> None:
        """As if the cancel event had been set; for callers that have none (a cancelled asyncio task)."""
        self._stop("cancelled")

    def _stop(self, reason: Reason) -> None:
        with self._lock:
            self._reason = self._reason or reason
            if self._pipe is not None:
                os.write(self._pipe[1], b"!")
        self._woken.set()

    def sleep_until(self, instant_ns: int) -> None:
        """Return at `instant_ns` of the monotonic clock, or as soon as there is a reason to stop."""
        while self.reason() is None:
            rest = instant_ns - time.monotonic_ns()
            if rest <= 0:
                return
            if self._cancel is None:
                self._woken.wait(to_seconds(rest))
            else:
                self._cancel.wait(to_seconds(min(rest, _SUPERSEDED_EVERY_NS)))

    def fileno(self) -> int:
        """A descriptor that turns readable on `supersede` and `abort`, so that a selector needs no polling for them."""
        with self._lock:
            if self._pipe is None:
                self._pipe = os.pipe()
                if self._reason is not None:
                    os.write(self._pipe[1], b"!")
            return self._pipe[0]

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            pipe, self._pipe = self._pipe, None
        for descriptor in pipe or ():
            os.close(descriptor)
