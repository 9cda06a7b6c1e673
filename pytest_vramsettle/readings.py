"""What a probe answers: free memory, and who holds what. Bytes throughout; plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GpuKey = str | int
"""A GPU's UUID where the probe knows it, else its index: indices are handed out anew when cards come and go."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU as one probe saw it. At least one of `index` and `uuid` is known.

    `free` and `total` are bytes, None where the card does not tell (`[N/A]`: MIG parents, unified memory).
    `holders` maps each compute process's PID to its bytes (None: the driver does not tell how many, as under WDDM);
    it is None itself where the probe was not asked, or cannot tell.
    """

    index: int | None
    uuid: str | None
    free: int | None
    total: int | None = None
    holders: Mapping[int, int | None] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for amounts that cannot be: a wait must not trust them."""
        for name, amount in (("free", self.free), ("total", self.total)):
            if amount is not None and not (isinstance(amount, int) and amount >= 0):
                raise ValueError(
                    f"{name} memory of GPU {self.key!r} has to be whole bytes, not negative; got {amount!r}"
                )
        if self.free is not None and self.total is not None and self.free > self.total:
            raise ValueError(f"GPU {self.key!r} cannot have {self.free} bytes free out of {self.total}")

    @property
    def key(self) -> GpuKey:
        """The UUID where it is known, else the index."""
        if self.uuid is not None:
            return self.uuid
        return -1 if self.index is None else self.index


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer of one probe: the GPUs, in the order in which they were reported. None at all: no GPU here."""

    gpus: tuple[GpuReading, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError where a GPU is there twice."""
        keys = [gpu.key for gpu in self.gpus]
        if len(set(keys)) != len(keys):
            raise ValueError(f"a GPU is in the reading twice: {keys!r}")
