"""Recorded reclaims as scenarios."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from fake_gpu import Ramp
from fake_gpu.errors import InvalidValue
from fake_gpu.trace import ReclaimTrace, Story
from fake_gpu.trace.story import shares
from pytest_vramsettle._quantities import MIB, SECOND
from pytest_vramsettle.score.scenarios import Card, Group, Scenario, Tenant

_DESKTOP_PID = 4_400_000
"""Stands for what is used and listed for nobody; above the kernel's largest PID."""

_STEADY = 32 * MIB
"""Who moves by no more than this is no tenant that a wait could be disturbed by."""

_BASELINE_NS = -SECOND // 2


def scenario_of(path: str | os.PathLike[str]) -> Scenario:
    """What a trace shows, for waits to be tried on: what the dead give back, and what the others take and give.

    The load comes at the death, with a probe of 40 ms. Raises InvalidValue where the file is no trace, nobody dies in
    it, or the dead held nothing.
    """
    trace = ReclaimTrace.read(path)
    if trace.torn:
        warnings.warn(f"{path}: its last line was cut off and left out", stacklevel=2)
    death = trace.death_ns
    cards = tuple(_card(story, death) for story in trace.stories)
    if not any(card.held for card in cards):
        raise InvalidValue(f"{path}: nobody holds memory before the kill, or nothing comes back: there is no reclaim")
    tenants = tuple(tenant for index, story in enumerate(trace.stories) for tenant in _tenants(index, story, death))
    moves = any(max(tenant.amounts) - min(tenant.amounts) > _STEADY for tenant in tenants)
    group: Group = "shared" if moves else "single tenant"
    unlisted = [event.t_ns for event in trace.events if event.event == "pid_gone_nvml"]
    return Scenario(
        f"trace/{Path(path).name}",
        "traces",
        group,
        cards,
        tenants,
        baseline_ns=min(_BASELINE_NS, trace.kill_ns - death),
        listed_ns=max([0, *(t_ns - death for t_ns in unlisted)]),
    )


def _card(story: Story, death_ns: int) -> Card:
    held = sum(story.held.values())
    ramp = Ramp.points(shares(held, story.missing_after(death_ns))) if held else Ramp.immediate()
    return Card(story.gpu.uuid, story.gpu.total, story.reserved, held, ramp)


def _tenants(card: int, story: Story, death_ns: int) -> list[Tenant]:
    """Who else is on a card, and what is used there and listed for nobody."""
    instants = tuple(frame.t_ns - death_ns for frame in story.frames)
    found = [
        Tenant(pid, card, instants, tuple(frame.others.get(pid, 0) for frame in story.frames))
        for pid in sorted({pid for frame in story.frames for pid in frame.others})
    ]
    unlisted = tuple(frame.unlisted for frame in story.frames)
    if any(unlisted):
        found.append(Tenant(_DESKTOP_PID + card, card, instants, unlisted, listed=False))
    return found
