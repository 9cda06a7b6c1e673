"""Errors that a test author sees. Nothing here is raised inside a client's own call into the driver."""

from __future__ import annotations


class FakeGpuError(Exception):
    """Base of every error that this package raises on purpose. The text says what was asked, what is possible."""


class InvalidValue(FakeGpuError, ValueError):
    """A size, duration, ramp, profile or memory figure that cannot be."""


class DriverStateError(FakeGpuError, RuntimeError):
    """The driver, a GPU or a process is not in a state in which this can be done."""


class WriteFailed(FakeGpuError, OSError):
    """A file could not be written to its end: a full disk, say."""


class NativesMissing(FakeGpuError, RuntimeError):
    """The compiled library, executable or puppet is not there."""
