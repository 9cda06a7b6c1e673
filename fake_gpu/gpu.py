"""What a card holds: its facts, its place, and its memory as a function of time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, get_args

from fake_gpu import mig_layout
from fake_gpu.activity import Activity
from fake_gpu.errors import DriverStateError, InvalidValue
from fake_gpu.mig import MigInstance, instances_of
from fake_gpu.process import NO_NAME
from fake_gpu.profile import ClockName, Profile
from fake_gpu.units import MIB, Size, format_size, parse_size
from fake_gpu.view import Listed, View

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.process import Process


class Memory(NamedTuple):
    """Bytes. Always: total == reserved + used + free."""

    total: int
    reserved: int
    """What the driver and firmware keep for themselves."""
    used: int
    """What living processes hold, plus what dead ones have not given back yet."""
    free: int


class Presence(Enum):
    """Whether clients see a GPU."""

    PRESENT = "present"
    REMOVED = "removed"
    """Gone from enumeration, as after a hot unplug."""
    LOST = "lost"
    """Still counted, but every question about it answers GPU_IS_LOST, as after it fell off the bus."""


class Gpu:
    """One card of a driver. Made by `Driver.add_gpu`."""

    __slots__ = (
        "_changed_ns",
        "_holders",
        "_presence",
        "_reserved",
        "_total",
        "_unlisted",
        "activity",
        "added_ns",
        "driver",
        "handle",
        "instances",
        "minor_number",
        "pci_bus",
        "pci_device",
        "pci_domain",
        "profile",
        "serial",
        "uuid",
        "view",
    )

    def __init__(
        self,
        driver: Driver,
        profile: Profile,
        *,
        slot: int,
        handle: int,
        uuid: str | None,
        total: int,
        reserved: int,
        added_ns: int = 0,
    ) -> None:
        digest = hashlib.sha256(f"{profile.name}/{slot}".encode()).hexdigest()
        self.driver = driver
        self.profile = profile
        self.handle = handle
        self.added_ns = added_ns
        """When it was added, on the driver's clock: it has used energy since then."""
        self.uuid = uuid or "GPU-" + "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))
        self.serial = f"{int(digest[32:44], 16) % 10**13:013d}" if profile.has_serial else None
        self.instances: tuple[MigInstance, ...] = instances_of(self)
        """What it is partitioned into; empty where it is not."""
        self.minor_number = slot
        self.pci_domain, self.pci_bus, self.pci_device = 0, 1 + slot, 0
        self.activity = Activity(
            power_limit=profile.power.max_limit,
            fans=profile.fans,
            clock_limits={name: getattr(profile.clocks, name).max for name in get_args(ClockName)},
            temperature=profile.temperature.idle,
            power=profile.power.idle,
            pstate=profile.idle_pstate,
            fan_percent=profile.fan_idle_percent,
        )
        self.view = View(memory=profile.memory.told, process_memory=profile.smi.get("driver_model.current") != "WDDM")
        """What clients are told of it."""
        self._total, self._reserved = total, reserved
        self._unlisted = 0
        self._presence = Presence.PRESENT
        self._changed_ns = added_ns  # when a process last came, went or changed its size
        self._holders: list[Process] = []  # the living, and the dead that have not given everything back

    # -- place

    @property
    def name(self) -> str:
        """The product name, as NVML and nvidia-smi give it."""
        return self.profile.name

    @property
    def index(self) -> int:
        """Its NVML index now. Raises DriverStateError while it is removed."""
        try:
            return self.driver.gpus.index(self)
        except ValueError:
            raise DriverStateError(f"{self!r} has no index: it was removed; restore() brings it back") from None

    @property
    def presence(self) -> Presence:
        """Whether clients see it now."""
        self.driver.sync()
        return self._presence

    @property
    def presence_in_model(self) -> Presence:
        """The same as far as the driver has noticed; for readings that have just been brought up to date."""
        return self._presence

    @property
    def pci_bus_id(self) -> str:
        """Such as "00000000:83:00.0"."""
        return f"{self.pci_domain:08X}:{self.pci_bus:02X}:{self.pci_device:02X}.0"

    def remove(self) -> None:
        """Takes it out of enumeration; the GPUs behind it move up. Old NVML handles answer GPU_IS_LOST.

        Processes live on. What they hold is remembered for `restore`.
        """
        self.driver.set_presence(self, Presence.REMOVED)

    def lose(self) -> None:
        """It falls off the bus: still counted, but it answers GPU_IS_LOST. Raises DriverStateError where it is gone."""
        if self.presence is Presence.REMOVED:
            raise DriverStateError(f"{self!r} is not on the bus any more and cannot fall off it: restore() it first")
        self.driver.set_presence(self, Presence.LOST)

    def restore(self) -> None:
        """Undoes `remove` and `lose`: it is back, in its old place."""
        self.driver.set_presence(self, Presence.PRESENT)

    # -- memory

    @property
    def memory(self) -> Memory:
        """Bytes, now. Runs what is due first, so it is what a client that asks now would read."""
        return self.memory_at(self.driver.sync())

    def memory_at(self, now_ns: int) -> Memory:
        """Bytes at a time on the driver's clock that has already been brought up to date."""
        with self.driver.lock:
            used = self.used_at(now_ns)
        return self.with_used(used)

    def with_used(self, used: int) -> Memory:
        """Bytes where so many are used."""
        return Memory(self._total, self._reserved, used, self._total - self._reserved - used)

    def used_at(self, now_ns: int) -> int:
        """Bytes that processes hold or have not given back. The caller holds the driver's lock.

        A time that another thread's change has overtaken counts as the time of that change: otherwise what has died
        since would count in full beside what was born into its memory.
        """
        now_ns = max(now_ns, self._changed_ns)
        used = self._unlisted
        finished = False
        for process in self._holders:
            held = process.held_at(self, now_ns)
            finished = finished or (held == 0 and not process.alive_in_model)
            used += held
        if finished:
            self._holders = [p for p in self._holders if p.alive_in_model or p.held_at(self, now_ns) > 0]
        return used

    @property
    def unlisted(self) -> int:
        """Bytes in use for which no process is listed; see `hold_unlisted`."""
        return self._unlisted

    def hold_unlisted(self, size: Size) -> None:
        """From now on so much is in use for which no process is listed: another container's, the display's.

        Raises InvalidValue where it does not fit.
        """
        wanted = parse_size(size)
        now = self.driver.sync()
        while True:
            with self.driver.lock:
                more = wanted - self._unlisted
                if more <= 0 or self.has_room(more, now):
                    self._unlisted = wanted
                    self.changed(now)
                    self.driver.history.held(now, self, None, wanted)
                    return
            self.check_room(more, now)  # says what is in the way; another thread may have made room meanwhile

    def has_room(self, wanted: int, now_ns: int) -> bool:
        """Whether `wanted` bytes more fit. The caller holds the driver's lock."""
        return wanted <= self._total - self._reserved - self.used_at(now_ns)

    def takes(self, process: Process, wanted: int, now_ns: int) -> bool:
        """Whether `wanted` bytes more of a process fit; on a partitioned card it is put into an instance then.

        The caller holds the driver's lock.
        """
        if not self.has_room(wanted, now_ns):
            return False
        if not self.instances:
            return True
        instance = process.instance or mig_layout.place_for(self, wanted, now_ns)
        if instance is None or instance.gpu is not self or wanted > mig_layout.room_in(instance, now_ns):
            return False
        process.instance = instance
        return True

    def held_in(self, instances: Sequence[MigInstance], now_ns: int) -> int:
        """Bytes that processes in these instances hold or have not given back. The caller holds the driver's lock."""
        return sum(process.held_at(self, now_ns) for process in self._holders if process.instance in instances)

    def changed(self, now_ns: int) -> None:
        """A process came, went or changed its size. The caller holds the driver's lock."""
        self._changed_ns = max(self._changed_ns, now_ns)

    def enlist(self, process: Process, size: int, now_ns: int) -> None:
        """A process holds so many bytes here from now on. The caller holds the driver's lock."""
        if process not in self._holders:
            self._holders.append(process)
        self.changed(now_ns)
        self.driver.history.held(now_ns, self, process, size)

    def delist(self, process: Process) -> None:
        """A process holds nothing here any more. The caller holds the driver's lock."""
        self._holders = [other for other in self._holders if other is not process]

    def processes_at(self, now_ns: int) -> list[tuple[Process, int]]:
        """The living processes that hold memory here and how many bytes, oldest first. A dead one has left the list."""
        with self.driver.lock:
            return [(p, p.held_at(self, now_ns)) for p in self._holders if p.alive_in_model]

    def holders_at(self, now_ns: int) -> list[tuple[Process, int]]:
        """`processes_at`, and the dead with what they have not given back."""
        with self.driver.lock:
            return [(p, p.held_at(self, now_ns)) for p in self._holders]

    def listed_at(self, now_ns: int) -> list[Listed]:
        """`processes_at` as clients are told of it."""
        view = self.view
        if not view.processes:
            return []
        return [
            Listed(process, process.pid, process.name, size if view.process_memory else None)
            if view.host_pids_from is None
            else Listed(process, process.pid + view.host_pids_from, NO_NAME, size if view.process_memory else None)
            for process, size in self.processes_at(now_ns)
        ]

    @property
    def processes(self) -> list[Process]:
        """The living processes that hold memory here, oldest first."""
        return [process for process, _ in self.processes_at(self.driver.sync())]

    def check_present(self, driver: Driver) -> None:
        """Raises DriverStateError where it is not this driver's, or is not there."""
        if self.driver is not driver:
            raise DriverStateError(f"{self!r} belongs to another Driver")
        driver.sync()
        if self._presence is not Presence.PRESENT:
            raise DriverStateError(
                f"{self!r} is {self._presence.value}: no process can hold memory there; restore() brings it back"
            )

    def check_room(self, wanted: int, now_ns: int, instance: MigInstance | None = None) -> None:
        """Raises InvalidValue where `wanted` bytes more do not fit, with what is in the way.

        `instance`: where on a partitioned card; None: anywhere.
        """
        memory = self.memory_at(now_ns)
        if wanted <= memory.free:
            if self.instances:
                with self.driver.lock:
                    mig_layout.check_room(self, instance, wanted, now_ns)
            return
        check_fits(wanted, repr(self), memory.total, memory.reserved)
        with self.driver.lock:
            parts = [
                f"{p.describe()}: {format_size(p.held_at(self, now_ns))}{'' if p.alive_in_model else ' not back yet'}"
                for p in self._holders
            ]
            if self._unlisted:
                parts.append(f"no process listed: {format_size(self._unlisted)}")
        raise InvalidValue(
            f"{format_size(wanted)} does not fit on {self!r} now: {format_size(memory.free)} is free; "
            f"{'; '.join(parts)}. A real allocation would fail with an out-of-memory error"
        )

    def __repr__(self) -> str:
        place = self._presence.value
        if self._presence is Presence.PRESENT:
            place = f"index {self.driver.enumerated.index(self)}"
        return f"<Gpu {self.name!r} {self.uuid[:12]}… {place}>"


def check_fits(wanted: int, card: str, total: int, reserved: int) -> None:
    """Raises InvalidValue where so many bytes do not fit even on the empty card. `card`: what it is called."""
    if wanted > total - reserved:
        raise InvalidValue(
            f"{format_size(wanted)} is more than {card} has: {format_size(total)} in all, "
            f"{format_size(total - reserved)} without what the driver reserves"
        )


def total_and_reserved(profile: Profile, total: int | None, reserved: int | None) -> tuple[int, int]:
    """Bytes, with the profile's figures where none are given. Raises InvalidValue where nothing would be left."""
    facts = profile.memory
    if reserved is None:
        kept = round(facts.reserved_mib * MIB)
        reserved = kept if total is None else min(kept, total // 50)
    if total is None:
        total = facts.total_mib * MIB
    if reserved >= total:
        raise InvalidValue(f"reserved memory of {format_size(reserved)} leaves nothing of {format_size(total)}")
    return total, reserved
