"""All fake llama-servers of one driver: the executables in its directory, and the processes that run them."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fake_gpu.errors import InvalidValue
from fake_gpu.llama.holder import NAME, Holder, Link, fit_params, order, visible_gpus
from fake_gpu.llama.options import Options
from fake_gpu.llama.shape import Shape
from fake_gpu.nvml.dispatch import BadRequest
from fake_gpu.process import KILL_PATIENCE_S, wait_for_pidfd
from fake_gpu.run_request import strings_of

if TYPE_CHECKING:
    from fake_gpu.driver import Driver

_TOLD: Final = struct.Struct("<cI")
_UNSET = "\x01"
"""What the executable sends where CUDA_VISIBLE_DEVICES is not set."""

_CHILD_NAME = "llama-server-child"
_PROGRAMS = (NAME, "llama-fit-params")


class LlamaServers:
    """Answers the executables that `add` has made. All but `add` and `stop` runs in the driver's server thread."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._shapes: dict[str, Shape] = {}
        self._shape_of: dict[int, Shape] = {}
        self._pidfds: list[int] = []
        self._executable = ""

    def add(self, shape: Shape, directory: Path, executable: str) -> str:
        """Makes the executables of one more kind of server, and returns the path of its llama-server."""
        place = directory / f"llama-{len(self._shapes)}"
        place.mkdir()
        self._shapes[place.name] = shape
        self._executable = executable
        for program in _PROGRAMS:
            os.symlink(executable, place / program)
        return str(place / NAME)

    def session(self, link: Link) -> LlamaSession:
        """For one connection that an executable has made."""
        return LlamaSession(self, link)

    def begun(self, link: Link, strings: list[str]) -> Holder | None:
        """An executable was started: argv, its path, and what it may see of the GPUs."""
        *arguments, path, visible = strings
        shape = self._shapes.get(Path(path).parent.name)
        if shape is None:
            link.send(
                order(b"e", data=f"fake llama-server: {path} is none of this driver's\n".encode()) + order(b"x", 1)
            )
            return None
        self._keep(link.pid)
        seen = None if visible == _UNSET else visible
        if Path(path).name != NAME:
            link.send(fit_params(self._driver, shape, arguments[1:], seen))
            return None
        self._shape_of[link.pid] = shape
        holder = Holder(self._driver, link, shape, arguments[1:], seen)
        holder.start()
        return holder

    def left(self, link: Link, parent: int) -> None:
        """A child that a server leaves behind has come: it holds what it was asked to, on the first GPU."""
        shape = self._shape_of.get(parent)
        self._keep(link.pid)
        gpus = visible_gpus(self._driver, None, Options())
        if shape is None or not shape.leaves_child or not gpus:
            return
        held = {gpus[0]: shape.leaves_child}
        try:
            self._driver.attach(link.pid, held, name=_CHILD_NAME, reclaim=shape.reclaim)
        except InvalidValue as error:
            self._driver.keep(error)  # the test has asked for more than there is

    def _keep(self, pid: int) -> None:
        for pidfd in [pidfd for pidfd in self._pidfds if wait_for_pidfd(pidfd, 0)]:
            self._pidfds.remove(pidfd)
            os.close(pidfd)
        with contextlib.suppress(OSError):  # it is gone already
            # Whoever else speaks to the driver's socket is nobody's to kill: it may be this very process.
            if os.path.samefile(f"/proc/{pid}/exe", self._executable):
                self._pidfds.append(os.pidfd_open(pid))

    def stop(self) -> None:
        """Kills what still runs, and returns when it is dead."""
        for pidfd in self._pidfds:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in self._pidfds:
            wait_for_pidfd(pidfd, KILL_PATIENCE_S)
        self.forked()

    def forked(self) -> None:
        """Lets go of the descriptors, in a forked child too."""
        pidfds, self._pidfds = self._pidfds, []
        for pidfd in pidfds:
            os.close(pidfd)


class LlamaSession:
    """One connection: of a server, or of a child that a server has left behind."""

    def __init__(self, servers: LlamaServers, link: Link) -> None:
        self._servers, self._link = servers, link
        self._holder: Holder | None = None
        self._begun = False

    def frame(self, frame: bytes) -> None:
        """What has come. Raises BadRequest for what our executable never sends."""
        is_first, self._begun = not self._begun, True
        letter, number = _TOLD.unpack_from(frame.ljust(_TOLD.size, b"\0"))
        if is_first and len(frame) == _TOLD.size and letter == b"G":
            self._servers.left(self._link, number)
        elif is_first:
            self._holder = self._servers.begun(self._link, strings_of(frame))
        elif self._holder is not None and len(frame) >= _TOLD.size:
            self._holder.heard(letter, number, frame[_TOLD.size :])
        else:
            raise BadRequest("llama-server: nothing was asked for, or without a number")
