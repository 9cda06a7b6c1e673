"""How clients see a card: on some platforms the driver does not tell them everything that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fake_gpu.process import Process


@dataclass(slots=True)
class View:
    """What is told of a card. `fake_gpu.platforms` sets these; so may a test."""

    memory: bool = True
    """The card's total, used and free memory. Where it shares the host's (GB10) the driver has no such figures."""
    process_memory: bool = True
    """What each process holds. Windows in WDDM mode manages that itself."""
    processes: bool = True
    """Which processes there are."""
    host_pids_from: int | None = None
    """In a container: processes are told by the host's PIDs, which are their own plus this; their names are not."""


class Listed(NamedTuple):
    """A process as clients are told of it. `size`: bytes; None: not told."""

    process: Process
    pid: int
    name: str
    size: int | None
