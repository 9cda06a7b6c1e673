"""What the clock raises on purpose."""

from __future__ import annotations


class ClockError(RuntimeError):
    """The clock cannot do what it was asked to. It is raised at the author of a test, never inside a wait."""


class ClockStopped(BaseException):
    """Ends a thread that still waited on the virtual clock when the clock was left.

    No Exception, so that code which handles its own failures does not handle this one. A thread that it ends is ended
    quietly: no `threading.excepthook`, no warning.
    """
