"""What a partitioned card consists of: instances with memory of their own."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

from fake_gpu.units import MIB

if TYPE_CHECKING:
    from fake_gpu.gpu import Gpu
    from fake_gpu.profile import MigDevice

_handles = itertools.count(0x7FB0_0000_1000, 0x100)  # never reused, so that one of an earlier partition is stale


class MigInstance:
    """One compute instance. `Process.run_in` puts a process into it."""

    __slots__ = ("bar1_used", "facts", "gpu", "handle", "idle_bytes", "index", "uuid")

    def __init__(self, gpu: Gpu, index: int, facts: MigDevice) -> None:
        digest = hashlib.sha256(f"{gpu.uuid}/{facts.gpu_instance}/{facts.compute_instance}".encode()).hexdigest()
        self.gpu = gpu
        self.index = index
        self.facts = facts
        self.handle = next(_handles)
        self.uuid = "MIG-" + "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))
        self.idle_bytes = round(facts.idle_mib * MIB)
        """Bytes in use for which no process is listed."""
        self.bar1_used = 0
        """Bytes."""

    @property
    def total(self) -> int:
        """Bytes of memory."""
        return self.facts.memory_mib * MIB

    def used_at(self, now_ns: int) -> int:
        """Bytes in use at a time on the driver's clock: of dead processes, what they have not given back."""
        return self.idle_bytes + sum(size for process, size in self.gpu.holders_at(now_ns) if process.instance is self)

    def __repr__(self) -> str:
        return (
            f"<MigInstance {self.facts.name} {self.facts.gpu_instance}/{self.facts.compute_instance} of {self.gpu!r}>"
        )


def instances_of(gpu: Gpu) -> tuple[MigInstance, ...]:
    """Those that its profile names; none where it is not partitioned."""
    return tuple(MigInstance(gpu, index, facts) for index, facts in enumerate(gpu.profile.mig_devices))
