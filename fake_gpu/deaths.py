"""Who has died: the real processes that are watched, what is noticed of their deaths, and who is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

from fake_gpu.clock import Cancel
from fake_gpu.errors import InvalidValue
from fake_gpu.gpu import Presence
from fake_gpu.process import Death, Process
from fake_gpu.watch import Watch

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.server import Server


class Deaths:
    """The deaths of one driver's processes. Takes the driver's lock itself."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._listeners: list[Callable[[Death], object]] = []
        self.watch = Watch()
        self.server: Server | None = None
        """What listens to clients, while the driver is active: it is told not to look at a dead one any more."""
        self.known: list[Death] = []
        """Every death so far, oldest first."""

    def listen(self, listener: Callable[[Death], object]) -> Cancel:
        """Calls `listener` with every death from now on. Returns what ends that. Raises InvalidValue."""
        if not callable(listener):
            raise InvalidValue(f"on_death({listener!r}): give something to call with a Death")
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def bury(self, process: Process, now_ns: int) -> None:
        """Marks a process dead at a time, and tells those who listen."""
        gpus = [gpu for gpu in self._driver.enumerated if gpu.presence_in_model is Presence.PRESENT]
        free_before = {gpu.uuid: gpu.memory_at(now_ns).free for gpu in gpus}
        others = {
            gpu.uuid: {other.pid: size for other, size in gpu.processes_at(now_ns) if other is not process}
            for gpu in gpus
        }
        with self._driver.lock:
            if not process.remember_death(now_ns):
                return
            held = {gpu.uuid: size for gpu, size in process._held.items() if gpu.uuid in free_before}
        death = Death(process.pid, now_ns, held, free_before, others)
        self.known.append(death)
        for listener in list(self._listeners):
            try:
                listener(death)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._driver.keep(error)

    def notice(self, now_ns: int) -> None:
        """Buries the watched processes that have died."""
        for process in self.watch.dead():
            self.bury(process, now_ns)
            if not self.watch.remove(process):
                continue
            if process.popen is not None:
                # Reap it: other clients take a zombie for a living process. A test may watch the instance's own poll.
                subprocess.Popen.poll(process.popen)
            if self.server is not None and process.watched:  # else another thread is about to have it watched
                self.server.forget(process.pidfd)
                process.close()  # a driver that lives for a whole session sees thousands of deaths

    def await_dying(self) -> None:
        """Waits, in real time, for the processes that the kernel is ending now: signals are sent, then obeyed."""
        for process in self.watch.dying():
            process.await_end()
