"""The front door: a fake NVIDIA driver with GPUs, processes, faults, a schedule and a log of calls.

While it is active, programs that load libnvidia-ml.so.1 or run nvidia-smi, in this process and in its children, talk to
it. State is a function of its clock: nothing ticks.
"""

from __future__ import annotations

import _thread
import itertools
import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from fake_gpu import activation, checks, values
from fake_gpu.activation import native
from fake_gpu.agenda import Agenda
from fake_gpu.calls import Call, CallLog
from fake_gpu.clock import Cancel, Clock, WallTime
from fake_gpu.deaths import Deaths
from fake_gpu.errors import DriverStateError, InvalidValue
from fake_gpu.fault import Fault, Injection, Injections
from fake_gpu.gpu import Gpu, Presence
from fake_gpu.history import History
from fake_gpu.interrupts import held_back
from fake_gpu.llama import NAME, LlamaServers, make_shape
from fake_gpu.nvml.dispatch import Nvml, Session
from fake_gpu.process import ComputeType, Death, Process, open_pidfd
from fake_gpu.profile import Profile
from fake_gpu.puppet import start_puppet
from fake_gpu.ramp import DEFAULT_RECLAIM, Ramp, checked_ramp
from fake_gpu.toml.table import refusing
from fake_gpu.units import Duration, Size, parse_duration

FIRST_VIRTUAL_PID = 4_194_305
"""Above any pid_max (4194304): scripts pipe PIDs from nvidia-smi into `kill -9`, and these hit nobody."""

Holdings = Mapping[Gpu, Size]

_handles = itertools.count(0x7FA0_0000_1000, 0x100)  # never reused, so that a handle of an earlier driver is stale


class Driver:
    """A fake NVIDIA driver. Nothing is active until `start` (or `with`); GPUs may be added before or after.

    `clock`: what it asks for the time (real by default). `directory`: where its private directory is made; by default
    the system's directory for temporary files. `driver_version` and `cuda_version` are what clients are told.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        directory: str | os.PathLike[str] | None = None,
        driver_version: str = "590.48.01",
        cuda_version: tuple[int, int] = (13, 1),
    ) -> None:
        self.clock: Clock = checks.clock(clock)
        self.clock_was_given = clock is not None
        with refusing("driver_version"):
            self.driver_version: str = values.driver_version(driver_version)
        self.cuda_version: tuple[int, int] = checks.version("cuda_version", cuda_version)
        self.label_column: int | None = None
        """Where the colon stands in `nvidia-smi -q`, from 0, as in an output that was read; None: the version's."""
        self.lock = _thread.allocate_lock()
        """Guards the model. Raw and short: never held while anything waits or a callable of the user's runs."""
        self.handles: dict[int, Gpu] = {}
        """Every GPU by its NVML handle, removed ones included."""
        self.enumerated: tuple[Gpu, ...] = ()
        """The GPUs that clients count, in the order of their indices."""
        self.processes: list[Process] = []
        """Every process that ever held memory, dead ones included."""
        self.history = History()
        """What the cards were like until now."""
        self.closed = threading.Event()
        self._order: list[Gpu] = []
        self._log = CallLog()
        self._injections = Injections()
        self._errors: deque[BaseException] = deque()
        self._agenda = Agenda(self.keep)
        self._pids = itertools.count(FIRST_VIRTUAL_PID)
        self.mortality = Deaths(self)
        self.llama = LlamaServers(self)
        """The fake llama-servers: what `llama_server` has made, and the processes that run it."""
        self._activation: activation.Activation | None = None
        self._forget_clock: Cancel = lambda: None
        self._directory = directory
        self._owner = os.getpid()
        self._wall = WallTime(self.clock)

    # -- life

    def start(self) -> Driver:
        """Makes it the driver that this process and its children find. Raises DriverStateError where one is already."""
        if self.closed.is_set():
            raise DriverStateError("this Driver was stopped; make a new one")
        checks.same_time(self.clock_was_given)
        self.nvml = Nvml(self)
        self._forget_clock = self.clock.before_jump(self._reach)
        try:
            with held_back():  # until then nobody would stop what is there
                self._activation = activation.Activation(self, self._directory)
                self.mortality.server = self._activation.server
        except BaseException:
            self._forget_clock()
            if self._activation is not None:
                self._activation.close()
                self._activation = None
            raise
        return self

    def stop(self) -> None:
        """Undoes `start`: clients find no driver, puppets are gone, nothing is left. Safe to call twice.

        Raises what a scheduled callable or an NVML call raised where nobody could be told.
        """
        if os.getpid() != self._owner:
            return  # a forked child has a copy of the object; the parent's driver is not its to stop
        self.closed.set()
        self._forget_clock()
        try:
            if self._activation is not None:
                self._activation.close()  # its server may serve somebody until then
                self._activation = self.mortality.server = None
        finally:
            self.llama.stop()
            self.mortality.watch.close()
            for process in self.processes:
                process.release()
        self.raise_kept()

    def __enter__(self) -> Driver:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except BaseException as kept:
            if error is None:
                raise
            error.add_note(f"Meanwhile the fake driver kept {kept!r}.")  # the body's own error matters more

    def disown(self) -> None:
        """In a forked child: this copy of the driver must not be asked, its clock and processes are the parent's."""

        def refuse() -> int:
            raise DriverStateError(
                f"this Driver belongs to process {self._owner}, and this is a process forked from it: its NVML calls "
                f"and nvidia-smi runs reach the driver, its Python objects do not"
            )

        self.sync = refuse  # type: ignore[method-assign]  # every way to the state leads through sync

    @property
    def environment(self) -> dict[str, str]:
        """PATH, LD_LIBRARY_PATH and FAKE_GPU_SOCKET as a child needs them. They are in os.environ while active."""
        return dict(self._active().environment)

    @property
    def server(self) -> activation.Server:
        """What listens to clients. Raises DriverStateError where the driver is not active."""
        return self._active().server

    @property
    def own_session(self) -> Session:
        """What NVML keeps for this process."""
        return self._active().own_session

    def _active(self) -> activation.Activation:
        if self._activation is None:
            raise DriverStateError("this Driver is not active: use it in a with statement, or call start()")
        return self._activation

    # -- GPUs

    def add_gpu(
        self,
        profile: str | os.PathLike[str] | Profile | None = None,
        *,
        name: str | None = None,
        memory: Size | None = None,
        reserved: Size | None = None,
        uuid: str | None = None,
    ) -> Gpu:
        """Adds a card behind those that are there: a profile's ("h200", "my/card.toml"), or explicit values.

        `memory` is the total, `reserved` what the driver keeps for itself of it. Raises InvalidValue for an unknown
        profile, a size that is none, a UUID that is taken, a text that does not fit nvidia-smi's output.
        """
        facts, total, kept = checks.card(profile, name, memory, reserved, uuid)
        now = self.sync()
        with self.lock:
            if uuid is not None and any(gpu.uuid == uuid for gpu in self._order):
                raise InvalidValue(f"add_gpu(uuid={uuid!r}): a GPU of this driver has that UUID already")
            slot, handle = len(self._order), next(_handles)
            gpu = Gpu(self, facts, slot=slot, handle=handle, uuid=uuid, total=total, reserved=kept, added_ns=now)
            self._order.append(gpu)
            self.handles[gpu.handle] = gpu
            self._enumerate()
        return gpu

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that clients count now, in the order of their indices; removed ones are not among them."""
        self.sync()
        return self.enumerated

    def renumber(self, order: Sequence[int]) -> None:
        """Gives the GPUs new indices: index i goes to the GPU that had index order[i].

        Raises InvalidValue where `order` is not a permutation of the indices.
        """
        self.sync()
        with self.lock:
            wanted = set(range(len(self.enumerated)))
            if not isinstance(order, Sequence) or len(order) != len(wanted) or wanted != set(order):
                raise InvalidValue(
                    f"renumber({order!r}): give each of the {len(self.enumerated)} indices once, such as "
                    f"{list(reversed(range(len(self.enumerated))))}"
                )
            counted = iter([self.enumerated[index] for index in order])
            self._order = [gpu if gpu.presence_in_model is Presence.REMOVED else next(counted) for gpu in self._order]
            self._enumerate()

    def set_presence(self, gpu: Gpu, presence: Presence) -> None:
        """What `Gpu.remove`, `.lose` and `.restore` do."""
        now = self.sync()
        with self.lock:
            gpu._presence = presence
            self._enumerate()
            self.history.presence(now, gpu, presence)

    def _enumerate(self) -> None:
        self.enumerated = tuple(gpu for gpu in self._order if gpu.presence_in_model is not Presence.REMOVED)

    # -- processes

    def process(
        self,
        gpu: Gpu | Holdings,
        used: Size | None = None,
        *,
        name: str = "llama-server",
        pid: int | None = None,
        reclaim: Ramp = DEFAULT_RECLAIM,
        compute_type: ComputeType = "C",
    ) -> Process:
        """A virtual process: it lives until the test ends it, and the kernel does not know its PID.

        `gpu` is one GPU with `used`, or a mapping of GPUs to sizes. Raises InvalidValue where it does not fit,
        DriverStateError where a GPU is not there.
        """
        held = self._holdings(gpu, used)
        checks.process(name, compute_type)
        number = next(self._pids) if pid is None else checks.pid(pid)
        return self._admit(Process(self, "virtual", number, name, held, reclaim, compute_type=compute_type))

    def spawn(
        self,
        gpu: Gpu | Holdings,
        used: Size | None = None,
        *,
        name: str = "llama-server",
        reclaim: Ramp = DEFAULT_RECLAIM,
        compute_type: ComputeType = "C",
        ignores_sigterm: bool = False,
    ) -> Process:
        """A real process, which does nothing but exist: anyone may signal it, and its death starts the reclaim.

        It ends with the driver. Arguments and errors as in `process`.
        """
        held = self._holdings(gpu, used)
        self._active()
        checked_ramp(reclaim)
        checks.process(name, compute_type)
        popen, pidfd = start_puppet(name, self.clock, ignores_sigterm=ignores_sigterm)
        return self._admit(
            Process(
                self, "spawned", popen.pid, name, held, reclaim, compute_type=compute_type, popen=popen, pidfd=pidfd
            )
        )

    def attach(
        self,
        process: subprocess.Popen[bytes] | subprocess.Popen[str] | int,
        holdings: Holdings,
        *,
        name: str | None = None,
        reclaim: Ramp = DEFAULT_RECLAIM,
        compute_type: ComputeType = "C",
    ) -> Process:
        """A real process of the user's (a Popen or a PID): it holds memory from now on, until it dies of whatever.

        Raises DriverStateError where there is no such process, else as `process`.
        """
        pid = checks.pid(getattr(process, "pid", process))
        held = self._holdings(holdings, None)
        checks.process(name, compute_type)
        pidfd = open_pidfd(pid)
        return self._admit(Process(self, "attached", pid, name, held, reclaim, compute_type=compute_type, pidfd=pidfd))

    def llama_server(
        self,
        *,
        weights: Size = "8 GiB",
        layers: int = 48,
        kv_bytes_per_token: Size = "128 KiB",
        overhead: Size = "512 MiB",
        train_context: int = 131_072,
        load_time: Duration = "300ms",
        crash: Duration | None = None,
        ignores_sigterm: bool = False,
        leaves_child: bool | Size = False,
        reclaim: Ramp = DEFAULT_RECLAIM,
    ) -> list[str]:
        """A command that runs a fake llama-server: a real process with llama-server's options, logs and HTTP interface.

        It holds what its options make of a model of that size (`-m` may name any file, none is read): `weights` over
        `layers`, as `-ngl` counts them; `kv_bytes_per_token` for all layers at f16; `overhead` on each GPU in use. It
        takes `load_time`, on the driver's clock, and fails as the real one does where it does not fit. Dead, it gives
        all back by `reclaim`.

        `crash`: it dies by SIGSEGV so long after its start. `ignores_sigterm`: only SIGKILL ends it. `leaves_child`: a
        child process outlives it, until the driver stops; a size: it holds that on the first GPU.

        Raises InvalidValue for what cannot be, DriverStateError where the driver is not active.
        """
        shape = make_shape(
            weights=weights,
            layers=layers,
            kv_bytes_per_token=kv_bytes_per_token,
            overhead=overhead,
            train_context=train_context,
            load_time=load_time,
            crash=crash,
            ignores_sigterm=ignores_sigterm,
            leaves_child=leaves_child,
            reclaim=reclaim,
        )
        return [self.llama.add(shape, self._active().directory, native(NAME))]

    def _holdings(self, gpu: Gpu | Holdings, used: Size | None) -> dict[Gpu, int]:
        now = self.sync()
        held = checks.holdings(self, gpu, used)
        for card, size in held.items():
            card.check_room(size, now)
        return held

    def _admit(self, process: Process) -> Process:
        if any(other.pid == process.pid and other.alive_in_model for other in self.processes):
            process.release()
            raise InvalidValue(f"process {process.pid} holds memory here already: hold() changes how much")
        while True:
            now = self.sync()
            process.instance = None
            with self.lock:  # checked and taken under one lock: of two threads that want the last memory one gets it
                if all(gpu.takes(process, size, now) for gpu, size in process._held.items()):
                    self.processes.append(process)
                    for gpu, size in process._held.items():
                        gpu.enlist(process, size, now)
                    break
            try:
                for gpu, size in process._held.items():
                    gpu.check_room(size, now, process.instance if gpu.instances else None)
            except InvalidValue:
                process.release()
                raise
        if process.pidfd >= 0:
            self.mortality.watch.add(process)
            self.server.watch(process.pidfd)
            process.watched = True
            process.remember_name()
        return process

    def on_death(self, listener: Callable[[Death], object]) -> Cancel:
        """Calls `listener` with a Death for every process that dies from now on. Returns what ends that."""
        return self.mortality.listen(listener)

    @property
    def deaths(self) -> list[Death]:
        """Every death so far, oldest first, as listeners are told it."""
        return self.mortality.known

    # -- time

    def at(self, time: Duration, call: Callable[[], object]) -> None:
        """Has `call` called once the clock is `time` past this line: before the next reading, or a clock's jump.

        While it runs, it is exactly that time, however late the reading comes. What it raises is raised when the driver
        stops. Raises InvalidValue for a time that is no duration or a `call` that cannot be called.
        """
        if not callable(call):
            raise InvalidValue(f"at({time!r}, {call!r}): give something to call, such as gpu.remove, without brackets")
        deadline = self.sync() + parse_duration(time)
        self._agenda.add(deadline, call)
        self.clock.call_at(deadline, self._reach)

    def sync(self) -> int:
        """Brings the state up to date, and returns the time it is now of, in nanoseconds on the driver's clock."""
        as_of = self._agenda.time_of_running_call()
        if as_of is not None:
            return as_of
        now = self.clock.monotonic_ns()
        if self._agenda.is_due(now):
            self._agenda.run_due(now)
        if self.mortality.watch.processes:
            self.mortality.notice(now)
        return now

    def _reach(self) -> None:
        try:
            self.sync()
        except Exception as error:
            self.keep(error)

    def await_deaths(self) -> None:
        """Waits, in real time, for the processes that the kernel is ending now: signals are sent, then obeyed."""
        self.mortality.await_dying()
        self.sync()

    def notice(self) -> None:
        """Called by the server when a watched process has died, so that its death is stamped at once."""
        if not self.closed.is_set():
            self.sync()

    # -- faults and calls

    def inject(
        self,
        fault: Fault,
        *,
        via: str | None = None,
        gpu: Gpu | None = None,
        after: int = 0,
        times: int | None = None,
    ) -> Callable[[], None]:
        """Makes calls go wrong from now on. Returns what takes the fault back.

        `via`: "nvidia-smi", "nvml", or one NVML function's name; None: both. `gpu`: only calls that would report that
        GPU. `after`: so many matching calls pass first. `times`: so many go wrong, then all is well; None: for ever.
        Raises InvalidValue for a `via` that is none of these or that the fault cannot meet.
        """
        checks.injection(fault, via, gpu, after, times)
        return self._injections.add(Injection(fault, via, None if gpu is None else gpu.uuid, after, times))

    @property
    def has_faults(self) -> bool:
        """Whether any fault is injected."""
        return bool(self._injections)

    def faults(self, via: str, name: str, gpu_uuids: frozenset[str] | None) -> tuple[Fault, ...]:
        """Counts one call against every injected fault, and returns those that meet it."""
        return tuple(one.fault for one in self.injections_met(via, name, gpu_uuids))

    def injections_met(self, via: str, name: str, gpu_uuids: frozenset[str] | None) -> tuple[Injection, ...]:
        """As `faults`, for front ends that report many GPUs in one call and have to know which one is meant."""
        return self._injections.met_by(via, name, gpu_uuids)

    @property
    def calls(self) -> list[Call]:
        """Every NVML call and nvidia-smi run since the start, oldest first (the newest 100,000)."""
        return self._log.calls()

    @property
    def log(self) -> CallLog:
        """Where front ends write what they were asked."""
        return self._log

    # -- errors that could not be raised where they arose

    def keep(self, error: BaseException) -> None:
        """Keeps an error that must not go through a client's code; it is raised when the driver stops."""
        self._errors.append(error)

    def interrupt_soon(self, is_answering: Callable[[], bool]) -> None:
        """Ctrl-C came while C code called us, which must not see it: the main thread is interrupted when it is back."""
        self.server.interrupt_soon(is_answering)

    def raise_kept(self) -> None:
        """Raises the oldest error that was kept, if any."""
        checks.none_kept(self._errors)

    def wall_time(self) -> float:
        """Seconds since the epoch, for time stamps in outputs; see `WallTime`."""
        return self._wall.at(self.clock)

    def __repr__(self) -> str:
        state = "active" if self._activation is not None else ("stopped" if self.closed.is_set() else "not active")
        return f"<Driver {self.driver_version} {state}, {len(self.enumerated)} GPUs, {self.clock!r}>"
