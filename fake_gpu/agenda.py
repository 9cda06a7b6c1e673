"""What a test has scheduled: calls that take effect at their own time, however late anybody looks."""

from __future__ import annotations

import _thread
import heapq
import itertools
from collections.abc import Callable


class Agenda:
    """Calls by the time at which they are due. `keep` is given what one of them raises.

    A call runs in the thread that looks, outside every lock, and for that thread it is then the call's own time.
    """

    def __init__(self, keep: Callable[[BaseException], None]) -> None:
        self._keep = keep
        self._lock = _thread.allocate_lock()
        self._entries: list[tuple[int, int, Callable[[], object]]] = []
        self._sequence = itertools.count()
        self._as_of: dict[int, int] = {}  # threads in which a call runs, and the time it runs at

    def add(self, when_ns: int, call: Callable[[], object]) -> None:
        """Schedules a call. Those of one time run in the order in which they were added."""
        with self._lock:
            heapq.heappush(self._entries, (when_ns, next(self._sequence), call))

    def time_of_running_call(self) -> int | None:
        """The time at which the call that runs in this thread is due; None where none runs."""
        return self._as_of.get(_thread.get_ident()) if self._as_of else None

    def is_due(self, now_ns: int) -> bool:
        """Whether a call is due. Takes no lock: an answer that is a moment old is as good."""
        entries = self._entries
        return bool(entries) and entries[0][0] <= now_ns

    def run_due(self, now_ns: int) -> None:
        """Runs what is due by now, in order, with what it adds meanwhile."""
        ident = _thread.get_ident()
        while True:
            with self._lock:
                if not self._entries or self._entries[0][0] > now_ns:
                    return
                when_ns, _, call = heapq.heappop(self._entries)
            self._as_of[ident] = when_ns
            try:
                call()
            except KeyboardInterrupt:
                raise  # it is the test's, not the call's
            except BaseException as error:
                self._keep(error)
            finally:
                del self._as_of[ident]
