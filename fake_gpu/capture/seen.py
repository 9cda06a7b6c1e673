"""What one command's output says, whatever the command: cards, their fields, their processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, get_args

from fake_gpu.process import ComputeType
from fake_gpu.smi.layout import Node

KINDS: Final[dict[str, ComputeType]] = {kind: kind for kind in get_args(ComputeType)}
"""The types of process, as nvidia-smi prints them."""
_ABSENT: Final = ("N/A", "Not Supported")
_FAILED: Final = (
    "Unknown Error",
    "Insufficient Permissions",
    "Not Found",
    "Function Not Found",
    "GPU is lost",
    "GPU requires reset",
    "ERR!",
)


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """One process. `mib` None: its memory is not told. `place`: its GPU and compute instance, where it has them."""

    pid: int
    name: str
    kind: ComputeType = "C"
    mib: int | None = None
    place: tuple[int, int] | None = None
    percent: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeenInstance:
    """One MIG device, as -q shows it. Memory in MiB."""

    gpu_instance: int
    compute_instance: int
    counts: dict[str, int]
    total: int
    used: int
    free: int
    bar1_total: int
    bar1_used: int


class Place(NamedTuple):
    """Of a field: the line of the file, from 1, and what it is called there."""

    line: int
    label: str


@dataclass(frozen=True, slots=True)
class SeenCard:
    """One GPU. `fields`: by the names of --query-gpu and of smi/fields_log.py, as --query-gpu prints them."""

    fields: dict[str, str]
    processes: tuple[SeenProcess, ...] = ()
    instances: tuple[SeenInstance, ...] = ()
    nodes: tuple[Node, ...] = ()
    supported_clocks: tuple[tuple[int, tuple[int, ...]], ...] = ()
    more: dict[str, str] = field(default_factory=dict)
    """Fields of --query-gpu that are not known here, by what stands above them."""
    places: dict[str, Place] = field(default_factory=dict)
    """Where each of `fields` stands."""

    def over(self, other: SeenCard) -> SeenCard:
        """This, and what only the other says."""
        return replace(
            self,
            fields={**other.fields, **self.fields},
            instances=self.instances or other.instances,
            nodes=self.nodes or other.nodes,
            supported_clocks=self.supported_clocks or other.supported_clocks,
            more=self.more or other.more,
            places={**other.places, **self.places},
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """One output. `when`: the local time that it shows, in seconds since the epoch; None: it shows none."""

    cards: tuple[SeenCard, ...]
    when: float | None = None


def number(text: str) -> int:
    """The number that "345 MHz" begins with; 0 where there is none."""
    digits = text.split(" ")[0].split(".")[0].lstrip("-")
    return int(digits) * (-1 if text.startswith("-") else 1) if digits.isdigit() else 0


def watts(fields: Mapping[str, str], name: str) -> float | None:
    """The watts in a field; None where the card does not say."""
    try:
        return float(fields.get(name, "").removesuffix(" W"))
    except ValueError:
        return None


def is_absent(text: str) -> bool:
    """Whether a card says that it does not say."""
    return text.strip("[]") in (*_ABSENT, "")


def tells_nothing(text: str) -> bool:
    """Whether nvidia-smi prints this where there is no number: the card has none, or it could not be asked."""
    said = text.strip("[]")
    return said in _ABSENT or said in _FAILED or said.startswith("Requested functionality")
