"""From the fake driver's deaths to the kill record: what the driver's model knows, the record need not probe for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pytest_vramsettle.kills import Kill, KillRecord

if TYPE_CHECKING:
    from fake_gpu import Death, Driver
    from pytest_vramsettle.timeline import Wait


def kill_of(death: Death) -> Kill:
    """The death as the kill record keeps it; bytes by GPU UUID."""
    return Kill(
        frozenset({death.pid}),
        death.when_ns,
        held=dict(death.held.items()),
        free_before=dict(death.free_before.items()),
        others=dict(death.others.items()),
    )


class UnseenDeathWarning(pytest.PytestWarning):
    """A settle wait knew of no kill, though a virtual process had died before it."""


class UnseenDeaths:
    """Looks out for waits that knew of no kill, though a process that is only in the driver's model had died."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._unseen = ""
        self._knew = False

    def look(self, wait: Wait) -> None:
        """When a wait has ended: a death may come at the same virtual time, and yet after it."""
        if wait.outcome != "no_recent_kill":
            self._knew = True
        elif not self._unseen:
            dead = {death.pid for death in self._driver.deaths}
            virtual = [one for one in self._driver.processes if one.kind == "virtual" and one.pid in dead]
            self._unseen = virtual[-1].describe() if virtual else ""

    def warn(self, item: pytest.Item) -> None:
        """Names the cure, where no wait of the test knew of a kill; one that did is a sign that the rest is meant."""
        if self._unseen and not self._knew:
            item.warn(
                UnseenDeathWarning(
                    f"a settle wait ended with no_recent_kill, though {self._unseen} had died before. That process is "
                    f"virtual: the kernel does not know its PID, so `KillRecord.recording` sees no death. Kill what "
                    f"fake_driver.spawn(...) returns, or use the fixtures kill_record or settle, which are told of it. "
                    f"If the wait is to know of no kill: @pytest.mark.filterwarnings('ignore:a settle wait ended with')"
                )
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
