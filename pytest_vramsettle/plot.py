"""Pictures of a score and of one reload. Needs matplotlib, which comes with pytest-vramsettle[lab].

The suffix of the file says which format it is. The same data give the same SVG, byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vramsettle._quantities import MIB, SECOND
from pytest_vramsettle.score.reload import Reload
from pytest_vramsettle.score.scenarios import Scenario
from pytest_vramsettle.score.tally import MISREAD_MIB, Scoreboard, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which those with the usual colour blindnesses can tell apart; its yellow is too pale here.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#666666"

_STYLE = {
    "svg.hashsalt": "pytest-vramsettle",
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "axes.axisbelow": True,
}

Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Played:
    """What `replay` tells of one policy: the reload, and the (begin, end) of its probes in ns since the death."""

    reload: Reload
    spans: Spans


def plot_scoreboard(board: Scoreboard, path: Path) -> None:
    """Misread against time waited, one point a policy, over the single tenant's scenarios where there are any.

    Raises ValueError for an empty board, and for a suffix that is no format.
    """
    if not board.groups:
        raise ValueError("there is no reload to draw: the score is empty")
    group = "single tenant" if "single tenant" in board.groups else board.groups[0]
    with _styled():
        figure, axes = _axes()
        found = {policy: board.of_group(policy, group) for policy in board.policies}
        for number, (policy, summary) in enumerate(found.items()):
            axes.scatter(
                max(summary.waste_mean_s, 0.01),
                100 * summary.misread_share,
                s=90,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                label=policy,
                zorder=3,
                clip_on=False,
            )
        _label_points(axes, found)
        axes.set_xscale("log")
        axes.set_ylim(-3, 103)
        low, high = axes.get_xlim()
        axes.set_xlim(low * 0.7, high * 1.6)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _leading_digit(value) in (2, 5) else "")
        axes.set_xlabel("seconds waited after the memory was back (mean)")
        axes.set_ylabel(f"reloads misread by more than {board.limit_mib} MiB (%)")
        axes.grid(color="#dddddd")
        reloads = max((summary.reloads for summary in found.values()), default=0)
        axes.set_title(f"{group}, {reloads} reloads a policy: lower left is better", loc="left")
        _save(figure, path)


def _label_points(axes: Axes, found: dict[str, Summary]) -> None:
    """Each name right of its point; below, where another point is close above."""
    placed: list[tuple[float, float]] = []
    for policy, summary in sorted(found.items(), key=lambda item: -item[1].misread_share):
        x, y = math.log10(max(summary.waste_mean_s, 0.01)), 100 * summary.misread_share
        close = any(abs(x - other_x) < 0.35 and abs(y - other_y) < 6 for other_x, other_y in placed)
        placed.append((x, y))
        axes.annotate(
            policy,
            (10**x, y),
            xytext=(8, -13 if close else 4),
            textcoords="offset points",
            zorder=4,
            fontweight="bold" if policy == "verified" else "normal",
        )


def _leading_digit(value: float) -> int:
    return round(value / 10 ** math.floor(math.log10(value) + 1e-9)) if value > 0 else 0


def plot_timeline(scenario: Scenario, played: Sequence[Played], path: Path) -> None:
    """One reload: free memory of each GPU, the kill, and for each policy its probes and when it decided.

    Raises ValueError for a suffix that is no format.
    """
    with _styled():
        figure, (above, below) = _two_axes(lanes=len(played))
        end_ns = _end(scenario, played)
        begin_ns = -max(end_ns // 12, SECOND // 10)
        _draw_memory(above, scenario, begin_ns, end_ns)
        figure.legend(loc="outside right upper", frameon=False)
        for lane, one in enumerate(played):
            _draw_lane(below, scenario, lane, one, right=scenario.load_ns + one.reload.elapsed_ns > end_ns // 2)
        below.set_ylim(len(played) - 0.4, -0.6)
        below.set_yticks(range(len(played)), [one.reload.policy for one in played])
        below.tick_params(axis="y", length=0)
        below.set_xlim(begin_ns / SECOND, end_ns / SECOND)
        below.set_xlabel("seconds since the death")
        above.set_title(scenario.name, loc="left", pad=20)
        _save(figure, path)


def _end(scenario: Scenario, played: Sequence[Played]) -> int:
    last = max(scenario.load_ns + one.reload.elapsed_ns for one in played)
    return round(1.15 * max(last, scenario.back_ns or 0, SECOND // 2))


def _draw_memory(axes: Axes, scenario: Scenario, begin_ns: int, end_ns: int) -> None:
    steps = 1200
    instants = [begin_ns + (end_ns - begin_ns) * step // steps for step in range(steps + 1)]
    drawn: dict[tuple[float, ...], list[int]] = {}
    for index in range(len(scenario.cards)):
        free = tuple(scenario.free(index, instant) / MIB / 1024 for instant in instants)
        drawn.setdefault(free, []).append(index)
    for number, (free, gpus) in enumerate(drawn.items()):
        axes.plot(
            [instant / SECOND for instant in instants],
            free,
            color=COLOURS[number % len(COLOURS)],
            linestyle=("-", "--", "-.", ":")[number % 4],
            linewidth=1.8,
            label=_name_of(gpus),
        )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.text(0, 1.0, " killed", transform=axes.get_xaxis_transform(), va="bottom", color=GREY)
    if scenario.back_ns is not None:
        back = scenario.back_ns / SECOND
        axes.axvline(back, color=GREY, linewidth=1, linestyle=":")
        axes.text(back, 1.0, " back", transform=axes.get_xaxis_transform(), va="bottom", color=GREY)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("free, each GPU (GiB)")
    axes.grid(color="#dddddd")


def _name_of(gpus: list[int]) -> str:
    if len(gpus) > 2 and gpus == list(range(gpus[0], gpus[-1] + 1)):
        return f"GPUs {gpus[0]} to {gpus[-1]}"
    return f"GPU{'s' if len(gpus) > 1 else ''} {', '.join(map(str, gpus))}"


def _draw_lane(axes: Axes, scenario: Scenario, lane: int, one: Played, *, right: bool) -> None:
    """`right`: the decision is in the right half, so its text goes to the left of it."""
    begin = scenario.load_ns / SECOND
    decided = (scenario.load_ns + one.reload.elapsed_ns) / SECOND
    axes.plot([begin, decided], [lane, lane], color="#bbbbbb", linewidth=1.2, zorder=1)
    axes.vlines(
        [start / SECOND for start, _ in one.spans], lane - 0.16, lane + 0.16, color=GREY, linewidth=0.7, zorder=2
    )
    axes.broken_barh(
        [(start / SECOND, (end - start) / SECOND) for start, end in one.spans],
        (lane - 0.16, 0.32),
        color=GREY,
        alpha=0.45,
        linewidth=0,
        zorder=2,
    )
    wrong = one.reload.misread_mib > MISREAD_MIB
    axes.scatter(
        [decided], [lane], s=70, marker="X" if wrong else "o", color="#D55E00" if wrong else "#009E73", zorder=3
    )
    axes.annotate(
        _told(one.reload),
        (decided, lane),
        xytext=(5 if right else -5, -11),
        textcoords="offset points",
        va="top",
        ha="right" if right else "left",
    )


def _told(reload: Reload) -> str:
    missing = f"{reload.misread_mib / 1024:.1f} GiB missing" if reload.misread_mib > 1024 else ""
    missing = missing or (f"{reload.misread_mib} MiB missing" if reload.misread_mib else "nothing missing")
    return f"{reload.outcome} after {reload.elapsed_ns / SECOND:.2f} s, {missing}"


def _styled() -> AbstractContextManager[None]:
    import matplotlib

    matplotlib.use("agg")  # there may be no display
    context: AbstractContextManager[None] = matplotlib.rc_context(_STYLE)  # type: ignore[arg-type]  # its stubs list the known keys as literals
    return context


def _axes() -> tuple[Figure, Axes]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.0, 4.6))
    return figure, axes


def _two_axes(lanes: int) -> tuple[Figure, tuple[Axes, Axes]]:
    from matplotlib import pyplot

    height = 0.35 + 0.62 * lanes
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(9.0, 3.4 + height), sharex=True, height_ratios=[2.8, height]
    )
    return figure, (above, below)


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import pyplot

    if not path.suffix:
        raise ValueError(f"{str(path)!r} does not say which kind of picture it is: give it a suffix, .svg or .png")
    # A date would make every picture another one.
    metadata: dict[str, Any] | None = {"Date": None} if path.suffix == ".svg" else None
    try:
        figure.savefig(path, dpi=150, metadata=metadata)
    finally:
        pyplot.close(figure)
