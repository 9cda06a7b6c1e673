"""Platforms that measure differently, as scenarios: NVML and nvidia-smi agree in each.

Each takes the driver, and the GPUs that are meant where not all of those that are there. What is of cards raises
DriverStateError where the driver has none yet: cards that are added later would be ordinary ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from fake_gpu import checks, mig_layout
from fake_gpu.errors import DriverStateError, InvalidValue
from fake_gpu.fault import Fault
from fake_gpu.mig import instances_of
from fake_gpu.profile import MigDevice
from fake_gpu.toml.table import Refused, dotted
from fake_gpu.units import MIB, Duration

if TYPE_CHECKING:
    from fake_gpu.driver import Driver
    from fake_gpu.gpu import Gpu

_USABLE: Final = 0.975
"""Of a MIG device's nominal GiB: an H100's 3g.40gb has 40448 MiB, its 1g.10gb 9984."""
_FIRST_HOST_PID: Final = 100_000


def wddm(driver: Driver, *gpus: Gpu) -> None:
    """Windows: what each process holds is not known; the card's used and free memory is."""
    for gpu in _meant("wddm", driver, gpus):
        _quote(gpu, {"driver_model.current": "WDDM", "driver_model.pending": "WDDM"})
        gpu.view.process_memory = False


def wsl(driver: Driver, *gpus: Gpu) -> None:
    """Linux in Windows: the card's memory is known, its processes are not listed at all."""
    for gpu in _meant("wsl", driver, gpus):
        gpu.view.process_memory = gpu.view.processes = False


def container(driver: Driver, *gpus: Gpu, host_pids_from: int = _FIRST_HOST_PID) -> None:
    """A container without the host's PIDs: processes are listed by those, which mean nothing or another one inside.

    A process with PID 40 is listed as 100040 by default, and its name as [Not Found]. Raises InvalidValue.
    """
    checks.count("host_pids_from", host_pids_from, 1)
    for gpu in _meant("container", driver, gpus):
        gpu.view.host_pids_from = host_pids_from


def unified_memory(driver: Driver, *gpus: Gpu) -> None:
    """A card that shares the host's memory (GB10): its memory is `[N/A]` and NOT_SUPPORTED; each process's is known."""
    for gpu in _meant("unified_memory", driver, gpus):
        gpu.view.memory = False


def partition(gpu: Gpu, *devices: str | MigDevice) -> None:
    """MIG: the card consists of these devices, by their names ("3g.40gb") or with all that is known of them.

    `gpu.instances` are they. A process that comes then runs in the first one in which it fits; `Process.run_in` puts it
    into another. The card has no utilization any more. Raises InvalidValue for a card that cannot be partitioned, a
    name that it does not have, and devices that do not fit together; DriverStateError while processes are on the card.
    """
    if gpu.profile.mig is None:
        raise InvalidValue(
            f"partition: {gpu!r} cannot be partitioned. An h200 can, and so can a card whose profile has `mig = false`"
        )
    facts = tuple(_device(gpu, device, place) for place, device in enumerate(devices))
    if not facts:
        raise InvalidValue("partition: name the devices, such as partition(gpu, '3g.40gb', '2g.20gb')")
    try:
        mig_layout.check_devices(facts, gpu.memory.total // MIB)
    except Refused as error:
        raise InvalidValue(f"partition, device {dotted(error.steps)}: {error.reason}") from error
    if gpu.processes:
        raise DriverStateError(
            f"partition: {gpu.processes} are on {gpu!r}, and a card in use cannot be partitioned: end them before, or "
            f"start them after"
        )
    gpu.profile = msgspec.structs.replace(gpu.profile, mig=True, mig_devices=facts)
    gpu.instances = instances_of(gpu)


def version_mismatch(driver: Driver) -> Callable[[], None]:
    """The kernel's part of the driver is of another version, as after an update. Returns what ends it."""
    return driver.inject(Fault.nvml("LIB_RM_VERSION_MISMATCH"))


def driver_not_loaded(driver: Driver) -> Callable[[], None]:
    """The kernel's part of the driver is not there. Returns what ends it."""
    return driver.inject(Fault.nvml("DRIVER_NOT_LOADED"))


def persistence_off(driver: Driver, delay: Duration = "1.2s") -> Callable[[], None]:
    """The driver lets go of idle cards: each run of nvidia-smi, and each nvmlInit, has to wake them for `delay`.

    Returns what makes them fast again, in the mode that they had. Raises InvalidValue for a delay that is none.
    """
    slow = Fault.slow(delay)
    before = [(gpu, gpu.profile.persistence) for gpu in _meant("persistence_off", driver, ())]
    for gpu, _ in before:
        _set_persistence(gpu, on=False)
    ends = [driver.inject(slow, via=via) for via in ("nvidia-smi", "nvmlInit", "nvmlInit_v2", "nvmlInitWithFlags")]

    def end() -> None:
        for one in ends:
            one()
        for gpu, on in before:
            _set_persistence(gpu, on=on)

    return end


def _meant(platform: str, driver: Driver, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    meant = gpus or driver.gpus
    if not meant:
        raise DriverStateError(f"platforms.{platform}(driver): the driver has no GPU yet: call it after add_gpu")
    return meant


def _set_persistence(gpu: Gpu, *, on: bool) -> None:
    gpu.profile = msgspec.structs.replace(gpu.profile, persistence=on)


def _device(gpu: Gpu, device: str | MigDevice, place: int) -> MigDevice:
    if isinstance(device, MigDevice):
        return device
    if not isinstance(device, str):
        raise InvalidValue(f"{device!r} is no MIG device: give a name such as '3g.40gb', or a MigDevice")
    slices, _, gib = mig_layout.parse_name(device)
    if device != f"{slices}g.{gib}gb":
        raise InvalidValue(f"{device!r} is more than slices and memory, such as '3g.40gb': give it as a MigDevice")
    mig_layout.check_name(device, repr(gpu), gpu.memory.total)
    memory_mib = round(gib * 1024 * _USABLE)
    return MigDevice(
        name=device,
        gpu_instance=place + 1,
        memory_mib=memory_mib,
        bar1_mib=_bar1_share(gpu, memory_mib),
        multiprocessors=16 * slices,
        copy_engines=slices,
        decoders=slices,
        jpeg=slices,
    )


def _bar1_share(gpu: Gpu, memory_mib: int) -> int:
    """MiB of BAR1 of a device with so much memory.

    An H100 with 131072 MiB of BAR1 and 81559 of memory has 49991 free when it is partitioned, of which a 3g.40gb
    shows 24739 and a 1g.10gb 6184: its eighths of the memory, of what the memory does not fill.
    """
    facts = gpu.profile.memory
    spare = facts.bar1_mib - facts.total_mib
    return (spare if spare > 0 else facts.bar1_mib) * round(8 * memory_mib / facts.total_mib) // 8


def _quote(gpu: Gpu, fields: dict[str, str]) -> None:
    gpu.profile = msgspec.structs.replace(gpu.profile, smi={**gpu.profile.smi, **fields})
