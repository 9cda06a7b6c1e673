"""What a card can be partitioned into. NVIDIA's MIG user guide: seven slices of compute, eight of memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from fake_gpu.errors import InvalidValue
from fake_gpu.toml.table import Refused
from fake_gpu.units import GIB, format_size

if TYPE_CHECKING:
    from fake_gpu.gpu import Gpu
    from fake_gpu.mig import MigInstance
    from fake_gpu.profile import MigDevice

_NAME: Final = re.compile(r"(?:([1-7])c\.)?([12347])g\.([0-9]{1,3})gb(?:[+-][a-z.]+)*")
"""3g.40gb, 1c.3g.40gb, 1g.10gb+me."""
SLICES: Final = 7
_SHARES: Final = {1: (1 / 8, 1 / 4), 2: (1 / 4, 1 / 2), 3: (1 / 2,), 4: (1 / 2, 1), 7: (1,)}
"""Of the card's memory, by slices. The second: an 80 GiB card's 1g.20gb, and those of an A30, which has four slices."""
_ROUNDED_GIB: Final = 1.0
"""Names round up, down, and from figures of the data sheet: an H200 has 140.4 GiB, and 3g.71gb and 1g.35gb."""


class MigName(NamedTuple):
    """What a MIG device's name says: slices of its GPU instance and of its compute instance, GiB of memory."""

    slices: int
    compute_slices: int
    gib: int


def parse_name(name: str) -> MigName:
    """Raises InvalidValue for what no MIG device is called."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise InvalidValue(
            f"{name!r} is no MIG device: give a name such as '3g.40gb', of 1, 2, 3, 4 or 7 slices and its memory"
        )
    compute, slices, gib = found.groups()
    return MigName(int(slices), int(compute or slices), int(gib))


def check_name(name: str, card: str, total: int) -> None:
    """Raises InvalidValue where a card of `total` bytes has no device of that name. `card`: what it is called."""
    slices, _, named = parse_name(name)
    gib = total / GIB
    if not any(abs(gib * share - named) <= _ROUNDED_GIB for share in _SHARES[slices]):
        meant = " or ".join(f"{slices}g.{round(gib * share)}gb" for share in _SHARES[slices])
        raise InvalidValue(f"{card} has {format_size(total)} and no {name!r}: its name would be near {meant}")


def check_memory(name: str, memory_mib: int) -> None:
    """Raises InvalidValue where a device of that name does not have so much memory.

    It has less than it is called after: 9984 MiB in an H100's 1g.10gb, 16384 in an H200's 1g.18gb.
    """
    gib = memory_mib / 1024
    named = parse_name(name).gib
    if not 0.75 * named <= gib <= named + _ROUNDED_GIB:
        raise InvalidValue(f"{memory_mib} MiB are {gib:.1f} GiB, and it is called {name}")


def check_devices(devices: Sequence[MigDevice], total_mib: int) -> None:
    """Raises Refused, by a device's place and key, where they cannot be parts of one card together.

    Compute instances of one GPU instance share its slices and its memory.
    """
    known: set[tuple[int, int]] = set()
    slices: dict[int, int] = {}
    memory: dict[int, int] = {}
    for place, device in enumerate(devices):
        if (device.gpu_instance, device.compute_instance) in known:
            raise Refused(
                (place, "compute_instance"), "another device has the same gpu_instance and compute_instance already"
            )
        known.add((device.gpu_instance, device.compute_instance))
        slices[device.gpu_instance] = max(slices.get(device.gpu_instance, 0), parse_name(device.name).slices)
        if sum(slices.values()) > SLICES:
            raise Refused((place, "name"), f"the devices have {sum(slices.values())} slices, and a card has {SLICES}")
        memory[device.gpu_instance] = max(memory.get(device.gpu_instance, 0), device.memory_mib)
        if sum(memory.values()) > total_mib:
            raise Refused(
                (place, "memory_mib"), f"the devices have {sum(memory.values())} MiB, and the card has {total_mib}"
            )


def room_in(instance: MigInstance, now_ns: int) -> int:
    """Bytes that a process more can have in it; compute instances of one GPU instance share its memory.

    The caller holds the driver's lock.
    """
    gpu = instance.gpu
    shared = [one for one in gpu.instances if one.facts.gpu_instance == instance.facts.gpu_instance]
    return max(0, instance.total - sum(one.idle_bytes for one in shared) - gpu.held_in(shared, now_ns))


def place_for(gpu: Gpu, wanted: int, now_ns: int) -> MigInstance | None:
    """Where a process runs that was put nowhere: the first instance in which it fits. None where it fits in none.

    Outside an instance nothing can hold memory of a partitioned card. The caller holds the driver's lock.
    """
    return next((one for one in gpu.instances if wanted <= room_in(one, now_ns)), None)


def check_room(gpu: Gpu, instance: MigInstance | None, wanted: int, now_ns: int) -> None:
    """Raises InvalidValue where `wanted` bytes more do not fit there. The caller holds the driver's lock."""
    if instance is None:
        if place_for(gpu, wanted, now_ns) is not None:
            return
        free = ", ".join(f"{one.facts.name}: {format_size(room_in(one, now_ns))}" for one in gpu.instances)
        raise InvalidValue(
            f"{format_size(wanted)} fits into no instance of {gpu!r}; free is {free}. On a partitioned card a process "
            f"holds memory in one instance"
        )
    if instance.gpu is not gpu:
        raise InvalidValue(f"it runs in {instance!r}, and a process runs in one instance: not on {gpu!r}, too")
    room = room_in(instance, now_ns)
    if wanted > room:
        raise InvalidValue(
            f"{format_size(wanted)} does not fit into {instance!r} now: {format_size(room)} of its "
            f"{format_size(instance.total)} is free. A real allocation would fail with an out-of-memory error"
        )
