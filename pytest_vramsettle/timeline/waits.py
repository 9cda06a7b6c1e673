"""Which settle waits ended while a test ran, and how: from what they log, so that unmodified code tells too."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from pytest_vramsettle.timeline.model import Wait

if TYPE_CHECKING:
    from fake_gpu import Clock

LOGGER = "pytest_vramsettle.settle"
LIMIT = 1000
_OURS = 1
"""A level below DEBUG, which nobody else sets: with it every record is made, and the filter sees it."""


class WaitLog(logging.Filter):
    """While it is entered, keeps how each wait of this process ended. What other handlers get to see stays the same."""

    def __init__(self, clock: Clock, ended: Callable[[Wait], object] | None = None) -> None:
        """`ended` is called with each wait as it ends, in its thread."""
        super().__init__()
        self._clock = clock
        self._ended = ended
        self._logger = logging.getLogger(LOGGER)
        self._level = logging.NOTSET
        self._waits: deque[Wait] = deque(maxlen=LIMIT)

    @property
    def waits(self) -> list[Wait]:
        """So far, in the order of their ends."""
        return list(self._waits)

    def __enter__(self) -> WaitLog:
        self._level = self._logger.level
        self._logger.addFilter(self)
        self._logger.setLevel(_OURS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._logger.removeFilter(self)
        if self._logger.level == _OURS:  # else the test has set another, which is its own to undo
            self._logger.setLevel(self._level)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record would have been made without us."""
        self._keep(record)
        level = self._logger.level if self._logger.level != _OURS else self._level
        if level == logging.NOTSET and self._logger.parent is not None:
            level = self._logger.parent.getEffectiveLevel()
        return record.levelno >= level

    def _keep(self, record: logging.LogRecord) -> None:
        result = record.args[0] if isinstance(record.args, tuple) and record.args else None
        outcome, elapsed_ns = getattr(result, "outcome", None), getattr(result, "elapsed_ns", None)
        if isinstance(outcome, str) and isinstance(elapsed_ns, int):
            end_ns = self._clock.monotonic_ns()
            wait = Wait(end_ns - elapsed_ns, end_ns, outcome, bool(result), str(result))
            self._waits.append(wait)
            if self._ended is not None:
                self._ended(wait)
