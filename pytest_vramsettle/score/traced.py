"""Recorded reclaims as scenarios."""

from __future__ import annotations

import os
from pathlib import Path

from fake_gpu import Ramp
from fake_gpu.errors import InvalidValue
from fake_gpu.trace import ReclaimTrace
from pytest_vramsettle.score.scenarios import Card, Scenario


def scenario_of(path: str | os.PathLike[str]) -> Scenario:
    """What a trace shows, for waits to be tried on: on each card, what comes back was the dead's.

    A reload of one tenant, with a probe of 40 ms. Raises InvalidValue where the file is no trace, nobody dies in it,
    or nothing comes back.
    """
    trace = ReclaimTrace.read(path)
    cards: list[Card] = []
    reason = InvalidValue(f"the trace {path} has no GPU")
    for gpu in trace.header.gpus:
        try:
            cards.append(_card(trace, gpu.uuid, gpu.total))
        except InvalidValue as error:  # on this card nothing came back; on others it may have
            reason = error
    if not cards:
        raise reason
    return Scenario(f"trace/{Path(path).name}", "traces", "single tenant", tuple(cards))


def _card(trace: ReclaimTrace, uuid: str, total: int) -> Card:
    shares = trace.shares(uuid)
    free = [sample.free[uuid] for sample in trace.samples if uuid in sample.free]
    # One point for the death, one for each sample after it.
    after, before = free[1 - len(shares) :], free[: 1 - len(shares)] or free[:1]
    return Card(uuid, total, total - max(after), max(after) - before[-1], Ramp.points(shares))
