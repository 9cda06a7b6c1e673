"""What the clock raises on purpose."""

from __future__ import annotations


class ClockError(RuntimeError):
    """The clock cannot do what it was asked to. It is raised at the author of a test, never inside a wait."""


class VirtualDeadlock(BaseException):
    """Every thread of the clock waits, nothing is due, and nobody outside could wake one of them.

    Raised in the thread that entered the clock. No Exception, so that no code under test takes it for a failure of its
    own; nor is `BusyLoop`.
    """


class BusyLoop(BaseException):
    """A loop waits for no time, or looks at it, without end: the clock cannot go on meanwhile."""


class ClockStopped(BaseException):
    """Ends a thread that still waited on the virtual clock when the clock was left.

    No Exception, so that code which handles its own failures does not handle this one. A thread that it ends is ended
    quietly: no `threading.excepthook`, no warning.
    """
