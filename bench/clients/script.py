"""The scripted machine of the matrix, its five situations, and what a client's cards have to be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.clients.catalogue import Client
from fake_gpu import Driver, Fault, Gpu, Process, Ramp
from fake_gpu.activation import native
from fake_gpu.units import GIB, MIB

Situation = Literal["healthy", "killed", "lost", "slow", "no driver"]
SITUATIONS: tuple[Situation, ...] = ("healthy", "killed", "lost", "slow", "no driver")

HALF = Ramp.points([("0s", 0.5)])
"""Half is back at once, the rest never: a reading that needs no timing."""

LOST = 1
"""The card that falls off the bus."""


@dataclass(frozen=True)
class Truth:
    """What one card has, in bytes."""

    name: str
    uuid: str
    total: int
    reserved: int
    used: int
    watts: float
    processes: dict[str, int]
    lost: bool = False


class Machine:
    """Three cards; a real process on two of them."""

    def __init__(self, client: Client) -> None:
        self.driver = Driver()
        profiles = ("h200", "rtx-4090", "l40s") if client.brands else ("rtx-4090",) * 3
        self.cards: list[Gpu] = [self.driver.add_gpu(profile) for profile in profiles]
        self.processes: list[Process] = []

    def enter(self, situation: Situation) -> None:
        """Brings a started machine into a situation."""
        sizes = (18 * GIB, 9 * GIB + 300_000)
        names = ("llama-server", "/opt/vllm/python")
        for card, size, name in zip(self.cards, sizes, names, strict=False):
            self.processes.append(self.driver.spawn(card, used=size, name=name, reclaim=HALF))
        if situation == "killed":
            self.processes[0].kill()
        elif situation == "lost":
            self.cards[LOST].lose()
        elif situation == "slow":
            self.driver.inject(Fault.slow("5ms"))

    def truth(self) -> list[Truth]:
        """What is so now."""
        return [
            Truth(
                card.name,
                card.uuid,
                card.memory.total,
                card.memory.reserved,
                card.memory.used,
                card.activity.power,
                {str(process.pid): process.used[card] for process in card.processes},
                lost=card.presence.value == "lost",
            )
            for card in self.cards
        ]


@contextmanager
def without_driver() -> Iterator[dict[str, str]]:
    """An environment in which the library and nvidia-smi are installed, and no driver is loaded."""
    with tempfile.TemporaryDirectory(prefix="no-driver-") as name:
        place = Path(name)
        for folder, files in {"bin": ["nvidia-smi"], "lib": ["libnvidia-ml.so.1", "libnvidia-ml.so"]}.items():
            (place / folder).mkdir()
            for file in files:
                os.symlink(native(file), place / folder / file)
        yield {"PATH": f"{place}/bin:{os.environ['PATH']}", "LD_LIBRARY_PATH": f"{place}/lib"}


def differences(client: Client, cards: list[dict[str, Any]], truths: list[Truth]) -> list[str]:
    """What a client says that is not so. Cards that it says nothing of are passed over where one is lost."""
    together = [card for card in cards if any(key.endswith("_together") for key in card)]
    if together:
        return _compare_sums(client, together[0], truths)
    if client.needs_pid:
        wanted = {pid: size for truth in truths for pid, size in truth.processes.items()}
        return [] if cards[0]["processes"] == wanted else [f"processes: {cards[0]['processes']} for {wanted}"]
    told = [card for card in cards if "error" not in card]
    healthy = [truth for truth in truths if not truth.lost]
    if len(cards) == len(truths):
        pairs = [(card, truth) for card, truth in zip(cards, truths, strict=True) if not truth.lost]
    elif len(told) == len(healthy):
        pairs = list(zip(told, healthy, strict=True))
    else:
        return [f"{len(cards)} cards where there are {len(truths)}"]
    return [f"GPU {truth.name}: {one}" for card, truth in pairs for one in _compare(client, card, truth)]


_OF_MEMORY = frozenset({"used", "free", "percent", "processes"})


def _compare(client: Client, card: dict[str, Any], truth: Truth) -> list[str]:
    if "error" in card:
        return [str(card["error"])]
    if client.memory and not _OF_MEMORY.intersection(card):
        return [f"it shows no memory, only {sorted(card)}"]
    used = truth.used + (truth.reserved if client.reserved else 0)
    wanted: dict[str, float] = {
        "total": truth.total,
        "used": used,
        "free": truth.total - truth.reserved - truth.used,
        "percent": used / truth.total * 100,
    }
    margins = {"percent": 0.1 if client.within < 1 else 1.0}
    wrong = [
        f"{key} {card[key]} for {value}"
        for key, value in wanted.items()
        if key in card and not _is_about(card[key], value, margins.get(key, client.within))
    ]
    if "watts" in card and not _is_about(card["watts"], truth.watts, max(2.0, truth.watts * 0.05)):
        wrong.append(f"watts {card['watts']} for {truth.watts}")
    wrong += [
        f"{key} {card[key]!r} for {getattr(truth, key)!r}"
        for key in ("name", "uuid")
        if card.get(key, getattr(truth, key)) != getattr(truth, key)
    ]
    processes = card.get("processes")
    if processes is not None:
        margin = MIB if client.within else 0
        same = processes.keys() == truth.processes.keys()
        if not same or not all(_is_about(processes[pid], size, margin) for pid, size in truth.processes.items()):
            wrong.append(f"processes {processes} for {truth.processes}")
    return wrong


def _is_about(shown: Any, value: float, margin: float) -> bool:
    """False for what is no number, too: clients write "N/A" and NaN."""
    return isinstance(shown, int | float) and abs(shown - value) <= margin


def _compare_sums(client: Client, card: dict[str, Any], truths: list[Truth]) -> list[str]:
    healthy = [truth for truth in truths if not truth.lost]
    sums: dict[str, float] = {
        "used_together": sum(truth.used for truth in healthy),
        "total_together": sum(truth.total for truth in healthy),
        "watts_together": sum(truth.watts for truth in healthy),
    }
    margins = {"watts_together": 0.05 * sums["watts_together"]}
    return [
        f"{key} {card[key]} for {value}"
        for key, value in sums.items()
        if key in card and not _is_about(card[key], value, margins.get(key, client.within))
    ]
