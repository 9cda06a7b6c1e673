"""From the fake driver's deaths to the kill record: what the driver's model knows, the record need not probe for."""

from __future__ import annotations

import sys
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


class Follower:
    """Enters the deaths of drivers into a kill record: those there were, and those to come."""

    def __init__(self, kills: KillRecord) -> None:
        self._kills = kills
        self._followed: list[Driver] = []

    def follow(self, driver: Driver) -> None:
        """From now on this driver's deaths are recorded. Once is enough; again does nothing."""
        if driver in self._followed:
            return
        self._followed.append(driver)
        driver.on_death(self._enter)  # first, so that none is missed between; the record knows one from two
        for death in list(driver.deaths):
            self._enter(death)

    def catch_up(self) -> None:
        """Follows whatever driver is active in this process, and has it notice who has just died.

        Takes no virtual time, and in real time what the kernel takes to end a process that it has been told to end.
        """
        activation = sys.modules.get("fake_gpu.activation")  # not imported: nobody has a driver
        for driver in activation.active_drivers() if activation is not None else []:
            driver.await_deaths()
            self.follow(driver)

    def _enter(self, death: Death) -> None:
        self._kills.add(kill_of(death))
