"""The proof: docs/scoreboard.md and its pictures, made anew. `python -m bench.scoreboard DIRECTORY`; some minutes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from string import Template

from bench.__main__ import machine
from bench.scoring import growth_table
from bench.variations import NAMES
from pytest_vramsettle.plot import Played, plot_scoreboard, plot_timeline
from pytest_vramsettle.policies import all_policies
from pytest_vramsettle.score.corpus import KINDS, Corpus
from pytest_vramsettle.score.reload import replay
from pytest_vramsettle.score.run import score
from pytest_vramsettle.score.subjects import subject_named
from pytest_vramsettle.score.table import markdown, markdown_by_kind
from pytest_vramsettle.score.tally import MISREAD_MIB, Scoreboard

RELOADS = 600 * len(KINDS)
VARIED = 200
SEED = 1
SHOWN = "plateau/3"
SHOWN_UNDER = ("two-samples", "ollama", "comfyui-mcp", "instructlab", "verified")

TEMPLATE = Path(__file__).with_name("scoreboard.template.md")


def _classes() -> str:
    rows = ["| class | group | how memory comes back |", "| --- | --- | --- |"]
    return "\n".join(rows + [f"| {kind.name} | {kind.group} | {kind.says} |" for kind in KINDS])


def _result(board: Scoreboard) -> str:
    parts: list[str] = []
    for group in board.groups:
        reloads = board.of_group("verified", group).reloads
        parts += [f"### {group.capitalize()} ({reloads} reloads a policy)", markdown(board, group)]
    return "\n\n".join(parts)


def _unknown(board: Scoreboard) -> str:
    rows = ["| class | `stable_unverified` | `timed_out` | flagged, and more than 256 MiB missing | not flagged |"]
    rows.append("| --- | ---: | ---: | ---: | ---: |")
    for kind in board.kinds:
        one = board.of_kind("verified", kind)
        if one.unverified or one.timeouts:
            flagged = one.misread_share - one.unflagged_share
            rows.append(
                f"| {kind} | {one.unverified / one.reloads:.1%} | {one.timeouts / one.reloads:.1%} | {flagged:.1%} "
                f"| {one.unflagged_share:.1%} |"
            )
    return "\n".join(rows)


def _constants() -> tuple[int, str]:
    """How many reloads of a single tenant each variation plays, and the table."""
    kinds = tuple(kind.name for kind in KINDS if kind.group == "single tenant" or kind.name == "part")
    board = Scoreboard().update(score(Corpus(VARIED * len(kinds), SEED, kinds), ("verified", *NAMES)))
    rows = ["| changed | not flagged | flagged | waste s, mean | p50 | p99 | probes | waste, part |"]
    rows.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for policy in board.policies:
        one, part = board.of_group(policy, "single tenant"), board.of_kind(policy, "part")
        flagged = one.misread_share - one.unflagged_share
        rows.append(
            f"| {NAMES.get(policy, 'nothing')} | {one.unflagged_share:.2%} | {flagged:.2%} | {one.waste_mean_s:.3f} "
            f"| {one.waste_p50_s:.3f} | {one.waste_p99_s:.2f} | {one.probes_mean:.1f} | {part.waste_mean_s:.1f} |"
        )
    return board.of_group("verified", "single tenant").reloads, "\n".join(rows)


def make(directory: Path) -> None:
    """Writes scoreboard.md, scoreboard.svg and scoreboard-reload.svg there."""
    board = Scoreboard().update(score(Corpus(RELOADS, SEED), tuple(all_policies())))
    plot_scoreboard(board, directory / "scoreboard.svg")
    scenario = Corpus(seed=SEED).named(SHOWN)
    logging.disable(logging.CRITICAL)  # waits that time out are told by the picture
    played = [Played(*replay(subject_named(name), scenario)) for name in SHOWN_UNDER]
    plot_timeline(scenario, played, directory / "scoreboard-reload.svg")
    varied, constants = _constants()
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        reloads=RELOADS,
        seed=SEED,
        shown=SHOWN,
        limit=MISREAD_MIB,
        kinds=len(KINDS),
        classes=_classes(),
        result=_result(board),
        by_kind=markdown_by_kind(board),
        unknown=_unknown(board),
        varied=varied,
        constants=constants,
        machine=machine(),
        throughput=growth_table(),
    )
    (directory / "scoreboard.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
