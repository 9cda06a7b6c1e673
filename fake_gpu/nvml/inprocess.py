"""NVML calls of the driver's own process: the library calls back into Python, with no socket between.

The library stays loaded for the life of the process (the loader gives it to everybody who asks for libnvidia-ml.so.1),
so one callback serves successive drivers.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from fake_gpu.errors import DriverStateError
from fake_gpu.nvml.abi import checksum
from fake_gpu.nvml.dispatch import NEVER, Session, failure

if TYPE_CHECKING:
    from fake_gpu.driver import Driver

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32
)

# As ctypes.string_at and memmove, without a layer of Python and without letting go of the GIL for a dozen bytes.
_bytes_at = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
_copy = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)(("memcpy", ctypes.PyDLL(None)))

# Where drivers install the real library: distributions, NVIDIA's installer, WSL, containers, NixOS.
_REAL_DIRECTORIES = (
    f"/usr/lib/{os.uname().machine}-linux-gnu",
    f"/usr/lib/{os.uname().machine}-linux-gnu/nvidia/current",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
)


class RealDriverInUse(UserWarning):
    """This process had loaded the real libnvidia-ml.so.1 before the fake driver began."""


class InProcess:
    """The library as this process has it, and the driver that it is attached to."""

    def __init__(self, library_path: str) -> None:
        self._library = ctypes.CDLL(library_path)
        self._path = library_path
        if self._library.fake_gpu_table_checksum() & 0xFFFF_FFFF != checksum():
            raise DriverStateError(
                f"{library_path} was built from another version of fake_gpu/nvml/functions.txt: build it again "
                f"(python build_natives.py, or reinstall pytest-vramsettle)"
            )
        self._library.fake_gpu_attach.argtypes = [_CALLBACK, ctypes.c_char_p]
        self._library.fake_gpu_detach.argtypes = [ctypes.c_char_p]
        self._callback = _CALLBACK(self._answer)
        self._driver: Driver | None = None
        self._main_thread = threading.main_thread().ident
        self._answering = False
        self._hook_before = sys.unraisablehook
        self.session = Session(os.getpid())

    def attach(self, driver: Driver, socket_path: str) -> None:
        """From now on this process's NVML calls go to `driver`."""
        if self._library.fake_gpu_attach(self._callback, os.fsencode(socket_path)) != 0:
            raise DriverStateError(f"the library refused the socket path {socket_path!r}")
        self._driver = driver
        self._hook_before = sys.unraisablehook
        sys.unraisablehook = self._unraisable

    def detach(self) -> None:
        """From now on they go to the machine's real library, where it has one; else they find no driver."""
        self._driver = None
        if sys.unraisablehook == self._unraisable:
            sys.unraisablehook = self._hook_before
        real = real_library()
        self._library.fake_gpu_detach(None if real is None else os.fsencode(real))

    def _answer(self, index: int, request: int, size: int, reply: int, room: int) -> int:
        # An exception that left this function would become garbage in the caller's hands, and Ctrl-C would be lost.
        driver = self._driver
        if driver is None:
            return -1
        main = threading.get_ident() == self._main_thread  # which alone is interrupted
        try:
            if main:
                self._answering = True
            answer, delay = driver.nvml.call(index, _bytes_at(request, size), self.session)
            if delay:
                driver.clock.wait(driver.closed, None if delay == NEVER else driver.clock.monotonic_ns() + delay)
                if driver.closed.is_set():
                    answer = failure("DRIVER_NOT_LOADED")
            if len(answer) > room:
                return -1
            _copy(reply, answer, len(answer))
            return len(answer)
        except KeyboardInterrupt:
            driver.interrupt_soon(self.is_answering)
            return -1
        except BaseException as error:
            driver.keep(error)
            return -1
        finally:
            if main:
                self._answering = False

    def is_answering(self) -> bool:
        """Whether the main thread answers a call at this moment."""
        return self._answering

    def _unraisable(self, what: sys.UnraisableHookArgs) -> None:
        """A signal handler raised between C and the first line of `_answer`, where nobody can catch it."""
        driver = self._driver
        # From 3.12 on the text alone says where it was.
        ours = what.object == self._answer or "ctypes callback" in (what.err_msg or "")
        if not ours or driver is None:
            self._hook_before(what)
        elif isinstance(what.exc_value, KeyboardInterrupt):
            driver.interrupt_soon(self.is_answering)
        elif what.exc_value is not None:
            driver.keep(what.exc_value)

    def forked(self) -> None:
        """In a forked child: the copy of the driver is not to be asked; the library has seen to that for itself."""
        self._driver = None
        self.session = Session(os.getpid(), self.session.initialised)


_loaded: dict[str, InProcess] = {}


def load(library_path: str) -> InProcess:
    """The library, loaded once. Warns RealDriverInUse where the real one was there first and keeps its callers."""
    if library_path not in _loaded:
        first = _already_mapped()
        if first is not None:
            warnings.warn(
                f"this process has loaded {first} already, and whoever asks for libnvidia-ml.so.1 keeps getting that: "
                f"NVML calls of this process reach the real driver. Child processes and nvidia-smi reach the fake one. "
                f"Start the fake driver before anything loads NVML to have both",
                RealDriverInUse,
                stacklevel=5,
            )
        _loaded[library_path] = InProcess(library_path)
    return _loaded[library_path]


def loaded() -> list[InProcess]:
    """What `load` has loaded in this process."""
    return list(_loaded.values())


def _already_mapped() -> str | None:
    """The path of a libnvidia-ml.so.1 that this process has loaded and that is not ours."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")
            if "/libnvidia-ml.so" in line and "/fake_gpu/native/" not in line:
                return "/" + path[2]
    return None


def real_library() -> str | None:
    """The machine's real libnvidia-ml.so.1, if it has one."""
    named = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for directory in [*filter(None, named), *_REAL_DIRECTORIES]:
        path = Path(directory) / "libnvidia-ml.so.1"
        if path.exists() and "fake_gpu/native" not in str(path.resolve()):
            return str(path)
    return None
