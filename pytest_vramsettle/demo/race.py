"""The rounds of the demo: one reload each, on a fresh fake machine. Everything returned is plain data of that run.

Times are seconds since the kill, sizes MiB.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fake_gpu import Clock, Driver, Gpu, Process, Ramp
from fake_gpu.units import KIB, MIB, to_mib
from pytest_vramsettle.clock import VirtualClock
from pytest_vramsettle.demo.backend import Backend
from pytest_vramsettle.demo.placing import FreeMemory, roomiest
from pytest_vramsettle.kills import KillRecord
from pytest_vramsettle.settle import SettleResult, wait_for_vram_settle
from pytest_vramsettle.whole_backend import BackendStatus

CARD = "rtx-4090"
MODEL = "model.gguf"
LAYERS, WEIGHTS_MIB, OVERHEAD_MIB = 64, 19_200, 512
KV_BYTES_PER_TOKEN = 96 * KIB
CONTEXT, OTHER_CONTEXT = 8192, 16_384
SERVER_MIB = WEIGHTS_MIB + OVERHEAD_MIB + CONTEXT * KV_BYTES_PER_TOKEN // MIB
"""What the server holds before the reload."""

NEXT_MIB = WEIGHTS_MIB + OVERHEAD_MIB + OTHER_CONTEXT * KV_BYTES_PER_TOKEN // MIB
TENANT_MIB = 14 * 1024
LOADS_IN = "10ms"
BEGINS, LASTS = 0.6, 0.7
RAMP = Ramp.linear(LASTS, after=BEGINS)
"""Reclaim that starts late: before the start any two readings look alike."""

ROUNDING_MIB = 2
"""Up to here a misread is none: nvidia-smi rounds to MiB."""

_BEFORE, _AFTER = 0.1, 0.4
_STEP = 0.005
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Way:
    """What a backend does between the kill and the reading."""

    title: str
    short: str
    wait: Callable[[KillRecord], SettleResult | None]


WAYS = (
    Way("No wait: read free memory once the process is gone", "none", lambda kills: None),
    Way(
        "The upstream wait: until two samples in a row are alike",
        "two-samples",
        lambda kills: wait_for_vram_settle(kills, policy="two-samples"),
    ),
    Way(
        "The verified wait: until what the dead process held is back",
        "verified",
        lambda kills: wait_for_vram_settle(kills, policy="verified"),
    ),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """The fake machine before the kill."""

    card: str
    cards: int
    server_mib: int
    tenant_mib: int
    layers: int
    begins: float
    back: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model went: `on_gpu` of its layers to the GPU of that index (None: to none), the rest to the CPU."""

    gpu: int | None
    on_gpu: int
    layers: int
    context: int
    read: tuple[FreeMemory, ...]
    """The reading that it follows from."""

    @property
    def on_cpu(self) -> int:
        """Layers on the CPU."""
        return self.layers - self.on_gpu


@dataclass(frozen=True, slots=True)
class Timeline:
    """True free memory, and when nvidia-smi was run.

    `free` has one row for each GPU, in the order of their indices: its free MiB at `start`, `start + step`, …
    `end` is where the time axis ends, which may be later than what is known yet; `most` is what can be free on a GPU.
    """

    start: float
    step: float
    end: float
    most: float
    free: tuple[tuple[float, ...], ...]
    probes: tuple[float, ...]

    def free_at(self, gpu: int, moment: float) -> float | None:
        """MiB free on a GPU; None where that is not known yet."""
        row = self.free[gpu]
        at = max(0, round((moment - self.start) / self.step))
        return row[at] if at < len(row) else None


@dataclass(frozen=True, slots=True)
class Round:
    """One reload: `placement` is what the backend decided, `right` what it would have with all memory back.

    `said` is the wait's outcome (None: nothing waited), `decided` the moment of the reading that decided, `back` when
    all memory was free. `share_back` is how much of the dead server's memory was at `decided`, 0.0 to 1.0.
    """

    way: Way
    said: str | None
    decided: float
    back: float
    share_back: float
    placement: Placement
    right: Placement
    timeline: Timeline

    @property
    def misread_mib(self) -> int:
        """MiB that were to be free and that the decision did not see, all GPUs together."""
        final = {gpu.uuid: gpu.free_mib for gpu in self.right.read}
        return sum(final.values()) - sum(gpu.free_mib for gpu in self.placement.read if gpu.uuid in final)

    @property
    def is_misread(self) -> bool:
        """Whether it missed more than nvidia-smi's rounding."""
        return self.misread_mib > ROUNDING_MIB


class Machine:
    """Two cards: on the first the backend's server, a real process, on the second somebody else's memory."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.gpus: tuple[Gpu, Gpu] = (driver.add_gpu(CARD), driver.add_gpu(CARD))
        tenant = driver.process(self.gpus[1], TENANT_MIB * MIB, name="co-tenant")
        self._room = [gpu.memory.total - gpu.memory.reserved for gpu in self.gpus]
        command = driver.llama_server(
            weights=WEIGHTS_MIB * MIB,
            layers=LAYERS,
            kv_bytes_per_token=KV_BYTES_PER_TOKEN,
            overhead=OVERHEAD_MIB * MIB,
            load_time=LOADS_IN,
            reclaim=RAMP,
        )
        self._way: Way | None = None
        self._first_call = 0
        self._said: SettleResult | None = None
        self.backend = Backend(command, wait=self._wait)
        self.backend.load(MODEL, context=CONTEXT)
        pid = self.backend.status().pid
        self.server: Process = next(process for process in driver.processes if process.pid == pid)
        self._holders = (tenant, self.server)  # the next server's memory is not what the race is about

    def setting(self) -> Setting:
        """What there is."""
        return Setting(
            card=self.gpus[0].name,
            cards=len(self.gpus),
            server_mib=SERVER_MIB,
            tenant_mib=TENANT_MIB,
            layers=LAYERS,
            begins=BEGINS,
            back=BEGINS + LASTS,
        )

    def _wait(self, kills: KillRecord, *, cancel: Any) -> None:
        if self._way is not None:
            self._said = self._way.wait(kills)

    def race(self, way: Way) -> Round:
        """Reloads for real, waiting in this way."""
        self._way, self._first_call = way, len(self._driver.calls)
        self.backend.load(MODEL, context=OTHER_CONTEXT)
        decided = self._probes()[-1]
        return Round(
            way=way,
            said=None if self._said is None else self._said.outcome,
            decided=decided,
            back=BEGINS + LASTS,
            share_back=RAMP.share(round(decided * _SECOND)),
            placement=self._placement(self.backend.status(), self._read_at(decided)),
            right=self._right(self._read_at(BEGINS + LASTS)),
            timeline=self.timeline(decided + _BEFORE),
        )

    def _placement(self, status: BackendStatus, read: Sequence[FreeMemory]) -> Placement:
        indices = {gpu.uuid: gpu.index for gpu in read}
        on_gpu = status.layers_on_gpu or 0
        gpu = indices.get(status.gpu or "") if on_gpu else None
        return Placement(gpu, on_gpu, status.layers or LAYERS, status.context or 0, tuple(read))

    def _right(self, read: Sequence[FreeMemory]) -> Placement:
        """Where it goes when all memory is back: the demo's model fits its card."""
        best = roomiest(read)
        if best is None or best.free_mib < NEXT_MIB:
            raise ValueError(f"the demo's model needs {NEXT_MIB} MiB, and there is {best}")
        return Placement(best.index, LAYERS, LAYERS, OTHER_CONTEXT, tuple(read))

    def _read_at(self, moment: float) -> list[FreeMemory]:
        """What nvidia-smi says then."""
        at_ns = self._zero_ns + round(moment * _SECOND)
        return [
            FreeMemory(gpu.index, gpu.uuid, to_mib(self._free(number, at_ns))) for number, gpu in enumerate(self.gpus)
        ]

    @property
    def _zero_ns(self) -> int:
        """The kill on the driver's clock; while the server lives, now."""
        died_ns = self.server.died_ns
        return self._driver.clock.monotonic_ns() if died_ns is None else died_ns

    @property
    def now(self) -> float:
        """Seconds since the kill; 0 while the server lives."""
        zero_ns = self._zero_ns
        return max(0.0, (self._driver.clock.monotonic_ns() - zero_ns) / _SECOND)

    def timeline(self, end: float = 0.0, *, known: float | None = None) -> Timeline:
        """Memory and probes up to `known` (None: the whole axis), on an axis that ends at `end`, or after the ramp."""
        zero_ns = self._zero_ns
        end = max(end, BEGINS + LASTS + _AFTER)
        samples = int(((end if known is None else min(known, end)) + _BEFORE) / _STEP) + 1
        moments = [zero_ns + round((number * _STEP - _BEFORE) * _SECOND) for number in range(samples)]
        return Timeline(
            start=-_BEFORE,
            step=_STEP,
            end=end,
            most=max(self._room) / MIB,
            free=tuple(tuple(self._free(gpu, at) / MIB for at in moments) for gpu in range(len(self.gpus))),
            probes=self._probes(),
        )

    def _probes(self) -> tuple[float, ...]:
        zero_ns = self._zero_ns
        calls = self._driver.calls[self._first_call :]
        return tuple((call.at_ns - zero_ns) / _SECOND for call in calls if call.via == "nvidia-smi")

    def _free(self, gpu: int, at_ns: int) -> int:
        held = sum(process.held_at(self.gpus[gpu], at_ns) for process in self._holders)
        return self._room[gpu] - held


@contextmanager
def machine(clock: Clock | None = None) -> Iterator[Machine]:
    """A fresh fake machine, in real time or on a clock."""
    with Driver(clock=clock) as driver:
        fresh = Machine(driver)
        try:
            yield fresh
        finally:
            fresh.backend.close()


@dataclass(frozen=True, slots=True)
class VirtualRace:
    """All rounds on the virtual clock: what came out, and what it took on either clock, in seconds."""

    rounds: tuple[Round, ...]
    virtual_seconds: float
    real_seconds: float


def race_virtually(ways: Sequence[Way] = WAYS) -> VirtualRace:
    """The same reloads, with the same processes and probes, on a clock that jumps where everybody waits."""
    rounds: list[Round] = []
    virtual = 0.0
    started = time.perf_counter()
    for way in ways:
        with VirtualClock() as clock, machine(clock) as fresh:
            rounds.append(fresh.race(way))
        virtual += clock.elapsed
    return VirtualRace(tuple(rounds), virtual, time.perf_counter() - started)


def same_result(one: Round, other: Round) -> bool:
    """Whether two rounds ended alike: what the wait said, where the model went, and what was misread."""
    return (
        one.said == other.said
        and _where(one.placement) == _where(other.placement)
        and abs(one.misread_mib - other.misread_mib) <= ROUNDING_MIB
    )


def _where(placement: Placement) -> tuple[int | None, int]:
    return (placement.gpu, placement.on_gpu)
