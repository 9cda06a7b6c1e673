"""From the fake driver's deaths to the kill record: what the driver's model knows, the record need not probe for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_vramsettle.kills import Kill, KillRecord

if TYPE_CHECKING:
    from fake_gpu import Death, Driver


def kill_of(death: Death) -> Kill:
    """The death as the kill record keeps it; bytes by GPU UUID."""
    return Kill(
        frozenset({death.pid}),
        death.when_ns,
        held=dict(death.held.items()),
        free_before=dict(death.free_before.items()),
        others=dict(death.others.items()),
    )


def record_deaths(driver: Driver, kills: KillRecord) -> Callable[[], None]:
    """Enters every death from now on into the record. Returns what ends that."""
    return driver.on_death(lambda death: kills.add(kill_of(death)))
