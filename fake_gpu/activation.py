"""What makes a driver the one that this process and its children find: a directory, the environment, the socket.

The directory holds bin/nvidia-smi, lib/libnvidia-ml.so.1, lib/libnvidia-ml.so (links to the installed natives), the
socket, and a lock file that its owner keeps locked for life, so that a later run can tell what a killed one left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fake_gpu.errors import DriverStateError, InvalidValue, NativesMissing
from fake_gpu.interrupts import held_back
from fake_gpu.nvml import inprocess
from fake_gpu.nvml.dispatch import Session
from fake_gpu.server import Server

if TYPE_CHECKING:
    from fake_gpu.driver import Driver

__all__ = ["Activation", "Server", "active_drivers", "native"]

_NATIVES = Path(__file__).parent / "native" / "bin"
_SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path, without the closing zero: sizeof(sockaddr_un.sun_path) - 1."""
_HALF_MADE_S = 60.0
"""Seconds after which a directory without a lock file is taken for abandoned."""

_active: list[Activation] = []  # none or one: the environment and the library exist once in a process


def active_drivers() -> list[Driver]:
    """The driver that is active in this process, if any."""
    return [activation.driver for activation in _active]


def native(name: str) -> str:
    """The path of a compiled file. Raises NativesMissing with what to do where it is not there."""
    path = _NATIVES / name
    if not path.exists():
        raise NativesMissing(
            f"{path} is not there: the fake driver's native clients were not built. They need Linux, glibc and a C "
            f"compiler (cc, gcc or clang) while pytest-vramsettle is installed: install one and reinstall with "
            f"'pip install --force-reinstall --no-cache-dir pytest-vramsettle', or run 'python build_natives.py' in a "
            f"checkout. The settle wait itself works without them"
        )
    return str(path)


class Activation:
    """One driver's presence on this machine, from its making to `close`."""

    def __init__(self, driver: Driver, directory: str | os.PathLike[str] | None) -> None:
        if _active:
            raise DriverStateError(
                f"a fake driver is active in this process already ({_active[0].driver!r}): PATH, LD_LIBRARY_PATH and "
                f"the loaded NVML library can only lead to one. Leave its with statement, or stop() it, or add your "
                f"GPUs to it; under pytest use the fake_driver fixture everywhere"
            )
        links = [(native(name), place) for name, place in _LINKS]
        base = Path(directory if directory is not None else tempfile.gettempdir()).absolute()
        self.driver: Driver = driver
        self._closing = contextlib.ExitStack()
        _active.append(self)
        self._closing.callback(_active.remove, self)
        try:
            sweep(base)
            self.directory = self._make_directory(base)
            for target, place in links:
                os.symlink(target, self.directory / place)
            socket_path = str(self.directory / "socket")
            self.server = Server(driver, socket_path)
            self._closing.callback(self.server.close)
            self._library = inprocess.load(links[1][0])
            self._library.attach(driver, socket_path)
            self._closing.callback(self._library.detach)
            self.environment = self._export(socket_path)
        except BaseException:
            self._closing.close()
            raise

    def _make_directory(self, base: Path) -> Path:
        if not base.is_dir():
            raise InvalidValue(f"{str(base)!r} is not a directory: the fake driver cannot make its own one there")
        if os.pathsep in str(base):
            raise InvalidValue(f"{str(base)!r} contains {os.pathsep!r}, which PATH cannot hold: give another directory")
        prefix = _prefix()
        longest = base / (prefix + "x" * 8) / "socket"
        if len(os.fsencode(longest)) > _SOCKET_PATH_LIMIT:
            raise InvalidValue(
                f"the socket path {str(longest)!r} would have {len(os.fsencode(longest))} bytes, and a Unix socket's "
                f"has {_SOCKET_PATH_LIMIT} at most: set TMPDIR to a shorter directory (TMPDIR=/tmp), or pass one: "
                f"Driver(directory='/tmp')"
            )
        try:
            made = Path(tempfile.mkdtemp(prefix=prefix, dir=base))  # mode 0700
        except OSError as error:
            raise InvalidValue(
                f"no directory can be made in {str(base)!r} ({error.strerror}): set TMPDIR to one that can be "
                f"written, or pass one: Driver(directory='/tmp')"
            ) from error
        self._closing.callback(_remove, made)
        self._lock = os.open(made / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._closing.callback(os.close, self._lock)
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # waits at most for a sweeper that looks at it
        (made / "bin").mkdir()
        (made / "lib").mkdir()
        return made

    def _export(self, socket_path: str) -> dict[str, str]:
        ours = {
            "PATH": (str(self.directory / "bin"), os.environ.get("PATH", os.defpath)),
            "LD_LIBRARY_PATH": (str(self.directory / "lib"), os.environ.get("LD_LIBRARY_PATH", "")),
        }
        exported = {name: f"{first}{os.pathsep}{rest}" if rest else first for name, (first, rest) in ours.items()}
        exported["FAKE_GPU_SOCKET"] = socket_path
        before = {name: os.environ.get(name) for name in exported}
        self._closing.callback(_restore_environment, before, exported, [first for first, _ in ours.values()])
        os.environ.update(exported)
        return exported

    @property
    def own_session(self) -> Session:
        """What NVML keeps for the driver's own process."""
        return self._library.session

    def close(self) -> None:
        """Takes everything back. What a test changed in the environment meanwhile stays as it changed it."""
        self._closing.close()

    def forked(self) -> None:
        """In a forked child: lets go of the parent's descriptors, so that its death is not hidden by ours."""
        self.driver.disown()
        self.server.forked()
        with contextlib.suppress(OSError):
            os.close(self._lock)
        self.driver.llama.forked()
        for process in self.driver.processes:
            process.close()


_LINKS = (
    ("nvidia-smi", "bin/nvidia-smi"),
    ("libnvidia-ml.so.1", "lib/libnvidia-ml.so.1"),
    ("libnvidia-ml.so", "lib/libnvidia-ml.so"),
)


def _remove(directory: Path) -> None:
    with held_back():
        shutil.rmtree(directory, ignore_errors=True)


def _restore_environment(before: dict[str, str | None], exported: dict[str, str], entries: list[str]) -> None:
    for name, value in before.items():
        now = os.environ.get(name)
        if now == exported[name]:
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        elif now is not None and name != "FAKE_GPU_SOCKET":  # somebody added to it: only our entry goes
            os.environ[name] = os.pathsep.join(entry for entry in now.split(os.pathsep) if entry not in entries)


def _prefix() -> str:
    return f"fgpu-{os.getuid()}-"


def sweep(base: Path) -> list[Path]:
    """Removes what owners that were killed left in `base`, and returns it. Only this user's, only unlocked ones."""
    swept = []
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            if entry.name.startswith(_prefix()) and _is_abandoned(entry):
                shutil.rmtree(entry.path, ignore_errors=True)
                swept.append(Path(entry.path))
    return swept


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return False  # another sweeper was faster
    try:
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            return False
        lock = os.open(os.path.join(entry.path, "lock"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return time.time() - facts.st_mtime > _HALF_MADE_S  # its owner may be about to make the lock file
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # its owner lives
    else:
        # An owner that has just opened its lock file and not locked it yet is a moment old.
        return time.time() - facts.st_mtime > 1.0 or os.path.exists(os.path.join(entry.path, "socket"))
    finally:
        os.close(lock)


def _after_fork_in_child() -> None:
    for library in inprocess.loaded():
        library.forked()
    for activation in _active:
        activation.forked()
    _active.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
