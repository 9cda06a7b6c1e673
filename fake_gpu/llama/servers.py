"""All fake llama-servers of one driver: the executables in its directory, and the processes that run them."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A fake llama-server that lives now, as it is in truth.

    `context` in tokens; with `layers_on_gpu` it is None until the model is loaded. `is_child`: one that a server has
    left behind; it serves nothing.
    """

    pid: int
    model: str = ""
    context: int | None = None
    layers: int | None = None
    layers_on_gpu: int | None = None
    is_child: bool = False

    @property
    def loaded(self) -> bool:
        """Whether its model is loaded."""
        return self.layers_on_gpu is not None

    @property
    def layers_on_cpu(self) -> int | None:
        """Those that did not go to a GPU; None until the model is loaded."""
        return None if self.layers is None or self.layers_on_gpu is None else self.layers - self.layers_on_gpu

    def __str__(self) -> str:
        if self.is_child:
            return f"a child that llama-server left behind (pid {self.pid})"
        if not self.loaded:
            return f"llama-server (pid {self.pid}), which is loading"
        return (
            f"llama-server (pid {self.pid}), {self.layers_on_gpu} of {self.layers} layers on the GPU, "
            f"context {self.context}"
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """A process, by a descriptor that nobody else's takes the place of."""

    pid: int
    pidfd: int
    holder: Holder | None = None
    is_child: bool = False


class LlamaServers:
    """Answers the executables that `add` has made. All but `add`, `running` and `stop` runs in the server's thread."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._shapes: dict[str, Shape] = {}
        self._shape_of: dict[int, Shape] = {}
        self._kept: list[_Kept] = []
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
        seen = None if visible == _UNSET else visible
        if Path(path).name != NAME:
            self._keep(link.pid)
            link.send(fit_params(self._driver, shape, arguments[1:], seen))
            return None
        self._shape_of[link.pid] = shape
        holder = Holder(self._driver, link, shape, arguments[1:], seen)
        self._keep(link.pid, holder)
        holder.start()
        return holder

    @property
    def running(self) -> tuple[RunningServer, ...]:
        """Those that live now, in the order of their starts; a child that one has left behind is one of them."""
        with self._driver.lock:  # the descriptors are closed in another thread
            alive = [one for one in self._kept if not wait_for_pidfd(one.pidfd, 0)]
        return tuple(_told(one) for one in alive if one.holder is not None or one.is_child)

    def left(self, link: Link, parent: int) -> None:
        """A child that a server leaves behind has come: it holds what it was asked to, on the first GPU."""
        shape = self._shape_of.get(parent)
        self._keep(link.pid, is_child=True)
        gpus = visible_gpus(self._driver, None, Options())
        if shape is None or not shape.leaves_child or not gpus:
            return
        held = {gpus[0]: shape.leaves_child}
        try:
            self._driver.attach(link.pid, held, name=_CHILD_NAME, reclaim=shape.reclaim)
        except InvalidValue as error:
            self._driver.keep(error)  # the test has asked for more than there is

    def _keep(self, pid: int, holder: Holder | None = None, *, is_child: bool = False) -> None:
        with self._driver.lock:
            for one in [one for one in self._kept if wait_for_pidfd(one.pidfd, 0)]:
                self._kept.remove(one)
                os.close(one.pidfd)
        with contextlib.suppress(OSError):  # it is gone already
            # Whoever else speaks to the driver's socket is nobody's to kill: it may be this very process.
            if os.path.samefile(f"/proc/{pid}/exe", self._executable):
                self._kept.append(_Kept(pid, os.pidfd_open(pid), holder, is_child))

    def stop(self) -> None:
        """Kills what still runs, and returns when it is dead."""
        for one in self._kept:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
        for one in self._kept:
            wait_for_pidfd(one.pidfd, KILL_PATIENCE_S)
        self.forked()

    def forked(self) -> None:
        """Lets go of the descriptors, in a forked child too."""
        kept, self._kept = self._kept, []
        for one in kept:
            os.close(one.pidfd)


def _told(one: _Kept) -> RunningServer:
    if one.holder is None:
        return RunningServer(one.pid, is_child=True)
    layout, model = one.holder.loaded, one.holder.model
    if layout is None:
        return RunningServer(one.pid, model)
    return RunningServer(one.pid, model, layout.context, layout.shape.layers, layout.on_gpu)


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
