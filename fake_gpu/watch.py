"""Which real processes hold memory, and which of them have died."""

from __future__ import annotations

import _thread
import select
from typing import TYPE_CHECKING

from fake_gpu.process import is_ending

if TYPE_CHECKING:
    from fake_gpu.process import Process


class Watch:
    """Looks at pidfds by poll(2), which costs a microsecond or two and which no virtual clock patches."""

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        """By pidfd: those that were alive when last looked at."""
        self._poll = select.poll()
        self._lock = _thread.allocate_lock()

    def add(self, process: Process) -> None:
        with self._lock:
            self._poll.register(process.pidfd, select.POLLIN)
            self.processes[process.pidfd] = process

    def dead(self) -> list[Process]:
        """Those that have died and were not removed yet. Two threads may be told of one at the same time."""
        with self._lock:
            return [self.processes[pidfd] for pidfd, event in self._poll.poll(0) if event & select.POLLIN]

    def remove(self, process: Process) -> bool:
        """Once its death is marked. False where another thread has done so."""
        with self._lock:
            pidfd = process.pidfd
            if self.processes.pop(pidfd, None) is None:
                return False
            self._poll.unregister(pidfd)
            return True

    def dying(self) -> list[Process]:
        """Those that the kernel is ending at this moment."""
        with self._lock:
            living = list(self.processes.values())
        return [process for process in living if is_ending(process.pid)]

    def close(self) -> None:
        with self._lock:
            for pidfd in self.processes:
                self._poll.unregister(pidfd)
            self.processes.clear()
