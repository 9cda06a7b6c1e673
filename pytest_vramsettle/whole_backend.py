"""What a whole backend offers, whatever it is made of: in this process, or behind HTTP. Standard library alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

__all__ = ["BackendError", "BackendStatus", "LoadOutcome", "WholeBackend"]

LoadOutcome = Literal["loaded", "already_loaded", "cancelled"]
"""How a load ended. `already_loaded`: the same model with the same settings was there, nothing was restarted."""


class BackendError(Exception):
    """A load that failed. The text says what was asked, and the server's own last words where it had any."""


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A backend at one moment. None is what is not known, or not there.

    `phase` is "idle", "serving", or, while a load is under way, "stopping", "settling" or "starting". `pid` is the
    server process. `layers_on_gpu` of `layers` are where the server's own log says that they are.
    """

    phase: str = "idle"
    model: str | None = None
    context: int | None = None
    cache_type: str | None = None
    pid: int | None = None
    gpu: str | None = None
    layers: int | None = None
    layers_on_gpu: int | None = None

    @property
    def loading(self) -> bool:
        """Whether a load is under way."""
        return self.phase not in ("idle", "serving")

    @property
    def layers_on_cpu(self) -> int | None:
        """Layers that did not go to a GPU."""
        return None if self.layers is None or self.layers_on_gpu is None else self.layers - self.layers_on_gpu

    @property
    def placement(self) -> str:
        """In words: 'all layers on the GPU', '31 of 48 layers on the GPU, 17 on the CPU'."""
        if self.layers is None or self.layers_on_gpu is None:
            return "nothing loaded" if self.pid is None else "unknown"
        if self.layers_on_gpu == self.layers:
            return "all layers on the GPU"
        return f"{self.layers_on_gpu} of {self.layers} layers on the GPU, {self.layers_on_cpu} on the CPU"

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        derived = {"loading": self.loading, "layers_on_cpu": self.layers_on_cpu, "placement": self.placement}
        return asdict(self) | derived


class WholeBackend(Protocol):
    """Loads one model at a time into a process of its own. All calls may come from any thread."""

    def load(self, model: str, *, context: int = ..., cache_type: str = ...) -> LoadOutcome:
        """Serves this model with these settings, in place of what was there. Raises BackendError where that fails."""

    def unload(self) -> bool:
        """Ends the server, and the load that is under way. Returns whether there was a server."""

    def cancel(self) -> bool:
        """Ends the load that is under way. Returns whether there was one."""

    def status(self) -> BackendStatus:
        """What there is now. Answers at once, whatever else goes on."""
