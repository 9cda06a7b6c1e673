"""A gate for CI: whether a wait keeps its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pytest_vramsettle.score.tally import Scoreboard

_TOLD = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What a wait has to keep in the scenarios of a single tenant, traces among them, and with `shared` in the others.

    What cannot be known is no part of it. None: no limit.

    `max_misread_mib` is of the worst reload that was not flagged, `max_waste_s` of the mean, in seconds.
    `max_given_up` is of the share (of 1) of reloads that were flagged while more than the misread limit was missing:
    without it, a wait that trusts nothing would pass. It holds with `max_misread_mib`.
    """

    max_misread_mib: int | None = None
    max_waste_s: float | None = None
    max_given_up: float = 0.05
    shared: bool = False

    def __post_init__(self) -> None:
        for name, value in (
            ("misread", self.max_misread_mib),
            ("waste", self.max_waste_s),
            ("given-up share", self.max_given_up),
        ):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the limit of the {name} has to be a number that is not negative; got {value!r}")

    @property
    def asked(self) -> bool:
        """Whether there is any."""
        return self.max_misread_mib is not None or self.max_waste_s is not None


def judged_groups(limits: Limits) -> tuple[str, ...]:
    """The groups that the limits hold for."""
    return ("single tenant", "shared") if limits.shared else ("single tenant",)


def broken_limits(board: Scoreboard, limits: Limits) -> list[str]:
    """What each policy exceeds, a line each; none: it passes. A wait that fails exceeds any limit."""
    judged = judged_groups(limits)
    lines: list[str] = []
    for policy in board.policies:
        for group in board.groups:
            if group in judged:
                lines += [f"{policy}, {group}: {line}" for line in _broken(board, policy, group, limits)]
    return lines + _failures(board)


def _broken(board: Scoreboard, policy: str, group: str, limits: Limits) -> list[str]:
    summary = board.of_group(policy, group)
    lines: list[str] = []
    if limits.max_misread_mib is not None:
        if summary.unflagged_worst_mib > limits.max_misread_mib:
            lines.append(
                f"misreads {summary.unflagged_worst_mib} MiB at worst, more than {limits.max_misread_mib} "
                f"({summary.unflagged_share:.2%} of the reloads misread by more than {board.limit_mib} MiB)"
            )
        given_up = summary.misread_share - summary.unflagged_share
        if given_up > limits.max_given_up:
            most = f"{limits.max_given_up:.2%}"
            lines.append(f"gives up on {given_up:.2%} of the reloads while memory is missing, more than {most}")
    if limits.max_waste_s is not None and summary.waste_mean_s > limits.max_waste_s:
        lines.append(f"wastes {summary.waste_mean_s:.2f} s in the mean, more than {limits.max_waste_s:g}")
    return lines


def _failures(board: Scoreboard) -> list[str]:
    """Waits that raised or did not return, wherever that was."""
    lines: list[str] = []
    for policy in board.policies:
        broken = [one for group in board.groups for one in board.of_group(policy, group).broken]
        lines += [f"{policy}, {one.scenario}: {one.outcome}: {one.note}" for one in broken[:_TOLD]]
        if len(broken) > _TOLD:
            lines.append(f"{policy}: and {len(broken) - _TOLD} more scenarios in which it raised or never returned")
    return lines
