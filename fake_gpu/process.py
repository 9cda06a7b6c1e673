"""What holds a card's memory: virtual processes, puppets of ours, and processes of the user's."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fake_gpu import mig_layout
from fake_gpu.activity import Checked, checked_engine
from fake_gpu.errors import DriverStateError, InvalidValue
from fake_gpu.ramp import Ramp, checked_ramp
from fake_gpu.units import Size, format_size, parse_size

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.gpu import Gpu
    from fake_gpu.mig import MigInstance

ProcessKind = Literal["virtual", "spawned", "attached"]
ComputeType = Literal["C", "G", "C+G"]

NO_NAME = "[Not Found]"
"""What nvidia-smi prints for a process that the kernel does not know."""

KILL_PATIENCE_S = 5.0
"""Real seconds that `kill` waits for the kernel to reap a process: a hundred times what a loaded machine takes."""


@dataclass(frozen=True, slots=True)
class Death:
    """What the driver tells those who listen (`Driver.on_death`): who died, when, and what it held.

    All mappings are by GPU UUID; sizes in bytes. `held` is of the GPUs that clients see; `free_before` is what was free
    an instant before the death on every such GPU, `others` what each other living process held there then.
    """

    pid: int
    when_ns: int
    held: Mapping[str, int]
    free_before: Mapping[str, int]
    others: Mapping[str, Mapping[int, int]]


class Process:
    """A process that holds memory on one GPU or more. Made by `Driver.process`, `.spawn` and `.attach`."""

    __slots__ = (
        "_died_ns",
        "_held",
        "_name",
        "_ramps",
        "compute_type",
        "driver",
        "instance",
        "kind",
        "percent",
        "pid",
        "pidfd",
        "popen",
        "reclaim",
        "watched",
    )

    def __init__(
        self,
        driver: Driver,
        kind: ProcessKind,
        pid: int,
        name: str | None,
        held: dict[Gpu, int],
        reclaim: Ramp,
        *,
        compute_type: ComputeType = "C",
        popen: subprocess.Popen[bytes] | None = None,
        pidfd: int = -1,
    ) -> None:
        self.driver = driver
        self.kind: ProcessKind = kind
        self.pid = pid
        self._name = name
        self.compute_type: ComputeType = compute_type
        self.reclaim = checked_ramp(reclaim)
        self.popen = popen
        """The puppet, where the driver spawned it."""
        self.pidfd = pidfd
        self.watched = False
        """Whether the server has been told of its pidfd."""
        self.instance: MigInstance | None = None
        """The part of a partitioned card that it runs in."""
        self.percent: MutableMapping[str, int] = Checked(checked_engine, {})
        """What `nvidia-smi pmon` and NVML tell of it: percent by "sm", "mem", "enc", "dec", "jpg", "ofa"."""
        self._held = held
        self._ramps: dict[Gpu, Ramp] = {}  # where one GPU's memory comes back otherwise than `reclaim` says
        self._died_ns: int | None = None

    @property
    def name(self) -> str:
        """What clients are told it is called: what was given, else what the kernel says while it lives."""
        if self._name is None:
            if self._died_ns is not None:
                return NO_NAME
            name, final = process_name(self.pid)
            if final:
                self._name = name
            return name
        return self._name

    # -- what it holds

    @property
    def alive(self) -> bool:
        """Whether it lives, as the kernel would say now (a zombie has died)."""
        self.driver.sync()
        return self._died_ns is None

    @property
    def alive_in_model(self) -> bool:
        """Whether it lives as far as the driver has noticed; for readings that have just been brought up to date."""
        return self._died_ns is None

    @property
    def death_in_model(self) -> int | None:
        """When it died, as far as the driver has noticed."""
        return self._died_ns

    @property
    def back_ns(self) -> int | None:
        """When the last of its memory is back; None while it lives in the model, and where that is never."""
        if self._died_ns is None:
            return None
        after = [self._ramps.get(gpu, self.reclaim).done_after_ns(held) for gpu, held in self._held.items()]
        known = [one for one in after if one is not None]
        return self._died_ns + max(known, default=0) if len(known) == len(after) else None

    @property
    def died_ns(self) -> int | None:
        """When it died, on the driver's clock; None while it lives."""
        self.driver.sync()
        return self._died_ns

    @property
    def used(self) -> dict[Gpu, int]:
        """Bytes on each GPU now: what it holds, or, once dead, what has not come back yet."""
        now = self.driver.sync()
        with self.driver.lock:
            return {gpu: self.held_at(gpu, now) for gpu in self._held}

    def held_at(self, gpu: Gpu, now_ns: int) -> int:
        """Bytes on `gpu` at a time. The caller holds the driver's lock, or is content with either side of a change."""
        held = self._held.get(gpu, 0)
        if self._died_ns is None:
            return held
        return held - self._ramps.get(gpu, self.reclaim).reclaimed(held, now_ns - self._died_ns)

    def hold(self, used: Size, gpu: Gpu | None = None) -> None:
        """Holds this much from now on: it allocates or frees. `gpu` may be left out where it is on one only.

        Raises InvalidValue where that does not fit, DriverStateError where it is dead.
        """
        gpu = self._only_gpu(gpu)
        gpu.check_present(self.driver)
        wanted = parse_size(used)
        now = self.driver.sync()
        while True:
            with self.driver.lock:
                more = wanted - self._held.get(gpu, 0)
                if self._died_ns is not None:
                    break
                if more <= 0 or gpu.takes(self, more, now):
                    self._held[gpu] = wanted
                    gpu.enlist(self, wanted, now)
                    return
            gpu.check_room(
                more, now, self.instance
            )  # says what is in the way; another thread may have made room meanwhile
        raise DriverStateError(f"{self!r} is dead and cannot allocate")

    def run_in(self, instance: MigInstance) -> None:
        """From now on it runs in this instance of a partitioned card, with all that it holds there.

        Where it was not put anywhere it runs in the first instance in which it fitted. Raises InvalidValue for an
        instance of another card, for one that is no more, and where it does not fit; DriverStateError where it is dead.
        """
        gpu = instance.gpu
        if gpu not in self._held:
            raise InvalidValue(f"run_in({instance!r}): {self!r} is not on that GPU")
        if instance not in gpu.instances:
            raise InvalidValue(f"run_in({instance!r}): {gpu!r} is partitioned otherwise now; see gpu.instances")
        now = self.driver.sync()
        if self._died_ns is not None:
            raise DriverStateError(f"run_in({instance!r}): {self!r} is dead")
        with self.driver.lock:
            before, self.instance = self.instance, None
            try:
                mig_layout.check_room(gpu, instance, self._held[gpu], now)
            except InvalidValue:
                self.instance = before
                raise
            self.instance = instance

    def reclaim_on(self, gpu: Gpu, reclaim: Ramp) -> None:
        """On this GPU its memory will come back by this ramp, not by `reclaim`. One given to `kill` replaces both."""
        self._ramps[gpu] = checked_ramp(reclaim)

    def leave(self, gpu: Gpu) -> None:
        """Lets go of a GPU at once: it is no longer listed there. That is no death, even where it was its last.

        For a co-tenant that ends: it is none of those whose memory anybody waits for.
        """
        now = self.driver.sync()
        with self.driver.lock:
            self._held.pop(gpu, None)
            gpu.delist(self)
            self.driver.history.held(now, gpu, self, 0)

    def _only_gpu(self, gpu: Gpu | None) -> Gpu:
        if gpu is not None:
            return gpu
        if len(self._held) != 1:
            raise DriverStateError(f"{self!r} is on {len(self._held)} GPUs: say which one, hold(used, gpu)")
        return next(iter(self._held))

    # -- its end

    def kill(self, reclaim: Ramp | None = None) -> None:
        """Ends it at once, as SIGKILL does; a real process is really killed. Its memory then follows `reclaim`.

        Returns once the process is gone; its memory is not back then. Raises DriverStateError where it is dead already,
        or where the kernel does not end a real one within 5 real seconds.
        """
        self._end(signal.SIGKILL, reclaim, "kill")

    def terminate(self, reclaim: Ramp | None = None) -> None:
        """Ends it as SIGTERM does. A real process is only asked to end: `wait` says when it has."""
        self._end(signal.SIGTERM, reclaim, "terminate")

    def exit(self, reclaim: Ramp | None = None) -> None:
        """Ends a virtual process by itself. Raises DriverStateError for a real one, which only it can end."""
        if self.kind != "virtual":
            raise DriverStateError(f"{self!r} is a real process: end it from inside, or kill() it")
        self._end(signal.SIGTERM, reclaim, "exit")

    def _end(self, number: signal.Signals, reclaim: Ramp | None, asked: str) -> None:
        now = self.driver.sync()
        if self._died_ns is not None:
            raise DriverStateError(f"{asked}(): {self!r} is dead already")
        if reclaim is not None:
            self.reclaim = checked_ramp(reclaim)
            self._ramps.clear()
        if self.kind == "virtual":
            self.driver.mortality.bury(self, now)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        if number is signal.SIGKILL:
            self.wait(KILL_PATIENCE_S)

    def wait(self, timeout: float = KILL_PATIENCE_S) -> None:
        """Waits, in real seconds, until a real process has died. Raises DriverStateError where it has not by then."""
        if self.kind == "virtual":
            if self.alive:
                raise DriverStateError(f"{self!r} is virtual: only kill(), terminate() or exit() end it")
            return
        pidfd = self.pidfd
        if self.alive and pidfd >= 0 and not wait_for_pidfd(pidfd, timeout) and self.alive:
            raise DriverStateError(f"{self!r} still lives after {timeout:g} s")
        self.driver.sync()

    def await_end(self) -> None:
        """Waits, in real time, while the kernel is ending it: a signal is sent before it is obeyed."""
        until = time.clock_gettime(time.CLOCK_MONOTONIC) + KILL_PATIENCE_S
        while is_ending(self.pid) and time.clock_gettime(time.CLOCK_MONOTONIC) < until:
            pidfd = self.pidfd
            if pidfd < 0 or wait_for_pidfd(pidfd, 0.005):
                return

    def remember_death(self, now_ns: int) -> bool:
        """Marks it dead; False where it was already. The caller holds the driver's lock."""
        if self._died_ns is not None:
            return False
        self._died_ns = now_ns
        for gpu in self._held:
            gpu.changed(now_ns)
        return True

    def remember_name(self) -> None:
        """Asks for its name while it lives, for those who ask afterwards."""
        _ = self.name

    def release(self) -> None:
        """Closes what belongs to the operating system; a puppet is killed and reaped."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
        self.close()

    def close(self) -> None:
        """Closes the descriptors of a process that has died."""
        if self.popen is not None and self.popen.stdin is not None:
            self.popen.stdin.close()
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def describe_reclaim(self) -> str:
        """How its memory comes back: a ramp, or one for each GPU."""
        ramps = {gpu: self._ramps.get(gpu, self.reclaim) for gpu in self._held} if self._ramps else {}
        return ", ".join(f"{ramp!r} on GPU {gpu.uuid[:12]}…" for gpu, ramp in ramps.items()) or repr(self.reclaim)

    def describe(self) -> str:
        """'llama-server (pid 4194305)'."""
        return f"{self.name} (pid {self.pid})"

    def __repr__(self) -> str:
        held = ", ".join(f"{format_size(size)} on {gpu.name}" for gpu, size in self._held.items())
        state = "alive" if self._died_ns is None else "dead"
        return f"<Process {self.describe()} {self.kind}, {state}, {held or 'holds nothing'}>"


def wait_for_pidfd(pidfd: int, timeout: float) -> bool:
    """Whether the process died within `timeout` real seconds; by poll(2), which no virtual clock moves."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(round(timeout * 1000)))


_EXITING = 0x4  # PF_EXITING of include/linux/sched.h, in field 9 of /proc/PID/stat


def is_ending(pid: int) -> bool:
    """Whether a process is on its way out: it exits, or a signal that ends it has been sent and not obeyed yet."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        if fields[0] in b"ZX" or int(fields[6]) & _EXITING:
            return True
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            masks = dict(line.split(":", 1) for line in file if line.startswith(("Sig", "ShdPnd")))
        pending = int(masks["SigPnd"], 16) | int(masks["ShdPnd"], 16)
        kept_off = int(masks["SigBlk"], 16) | int(masks["SigCgt"], 16) | int(masks["SigIgn"], 16)
        return bool(pending & ~kept_off)
    return False


def open_pidfd(pid: int) -> int:
    """A descriptor that becomes readable when `pid` dies. Raises DriverStateError where there can be none."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise DriverStateError(f"there is no process {pid}: attach a process that runs") from None
    except (OSError, AttributeError) as error:
        raise DriverStateError(
            f"process {pid} cannot be watched: {error}. The fake driver needs pidfd_open, Linux 5.3 or newer; "
            f"virtual processes (driver.process) work without it"
        ) from error


def process_name(pid: int) -> tuple[str, bool]:
    """What nvidia-smi calls a process, and whether that will stay so.

    Its first argument; its short name where it shows none, as in the moment in which it is being executed.
    """
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            first = file.read(4096).split(b"\0", 1)[0].decode("utf-8", "replace")
        if first:
            return first, True
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip(), False
    return NO_NAME, False
