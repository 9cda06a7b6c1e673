"""Which GPUs a run reports: all of them, or those that -i names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fake_gpu.gpu import Gpu

_BUS_ID: Final = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})(?:\.0)?", re.IGNORECASE)


def select(gpus: Sequence[Gpu], ids: tuple[str, ...] | None) -> tuple[Gpu, ...]:
    """The GPUs that are meant, in the order of their indices; none at all where an identifier fits no GPU."""
    if ids is None:
        return tuple(gpus)
    meant = []
    for identifier in ids:
        found = _find(gpus, identifier)
        if found is None:
            return ()
        meant.append(found)
    return tuple(gpu for gpu in gpus if gpu in meant)


def _find(gpus: Sequence[Gpu], identifier: str) -> Gpu | None:
    """By index, UUID, serial number or PCI bus id, whose domain may be short or missing, in either case."""
    if identifier.isascii() and identifier.isdigit() and int(identifier) < len(gpus):
        return gpus[int(identifier)]
    place = _BUS_ID.fullmatch(identifier)
    wanted = tuple(int(part or "0", 16) for part in place.groups()) if place else None
    for gpu in gpus:
        if identifier in (gpu.uuid, gpu.serial) or wanted == (gpu.pci_domain, gpu.pci_bus, gpu.pci_device):
            return gpu
    return None
