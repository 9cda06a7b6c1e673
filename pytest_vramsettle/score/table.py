"""The scoreboard as a table: in the terminal, in 80 columns, and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pytest_vramsettle.score.tally import Scoreboard, Summary

if TYPE_CHECKING:
    from rich.table import Table


class _Column(NamedTuple):
    short: str | None
    long: str
    cell: Callable[[Summary], str]


COLUMNS = (
    _Column("MiB\np50", "misread MiB, p50", lambda one: f"{one.misread_p50_mib}"),
    _Column("missing\np99", "p99", lambda one: f"{one.misread_p99_mib}"),
    _Column("\nworst", "worst", lambda one: f"{one.misread_worst_mib}"),
    _Column("\nmisread", "reloads misread", lambda one: f"{one.misread_share:.1%}"),
    _Column("not\nflagged", "not flagged", lambda one: f"{one.unflagged_share:.1%}"),
    _Column("waste\nmean", "waste s, mean", lambda one: f"{one.waste_mean_s:.2f}"),
    _Column(None, "p50", lambda one: f"{one.waste_p50_s:.2f}"),
    _Column("in s\np99", "p99", lambda one: f"{one.waste_p99_s:.1f}"),
    _Column("timed\nout", "timed out", lambda one: f"{one.timeouts}"),
    _Column("un-\nsure", "`stable_unverified`", lambda one: f"{one.unverified}"),
    _Column("\nprobes", "probes", lambda one: f"{one.probes_mean:.1f}"),
)


def legend(limit_mib: int) -> str:
    """What the columns say."""
    return (
        f"Missing: what was not back when the wait returned. Misread: the reloads with more than {limit_mib} MiB "
        f"missing, and those of them that the wait itself did not flag. Waste: what it waited after all was back."
    )


def tables(board: Scoreboard) -> Iterator[Table]:
    """One for each group of scenarios, for rich."""
    from rich.table import Table

    for group in board.groups:
        classes = ", ".join(kind for kind, of in board.kinds.items() if of == group)
        reloads = board.of_group(next(iter(board.policies)), group).reloads
        title = f"{group}, {reloads} reloads a policy ({classes})"
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("\npolicy", overflow="fold")
        narrow = [column for column in COLUMNS if column.short is not None]
        for column in narrow:
            table.add_column(column.short or "", justify="right", no_wrap=True)
        for policy in board.policies:
            summary = board.of_group(policy, group)
            table.add_row(policy, *(column.cell(summary) for column in narrow))
        yield table


def markdown(board: Scoreboard, group: str) -> str:
    """A group's table."""
    rows = [("policy", *(column.long for column in COLUMNS)), ("---", *["---:"] * len(COLUMNS))]
    for policy in board.policies:
        summary = board.of_group(policy, group)
        rows.append((f"`{policy}`", *(column.cell(summary) for column in COLUMNS)))
    return _lines(rows)


def markdown_by_kind(board: Scoreboard) -> str:
    """Every class: each policy's share of misreads, and its mean waste in seconds."""
    rows = [("class", *board.policies), ("---", *["---:"] * len(board.policies))]
    for kind in board.kinds:
        figures = [board.of_kind(policy, kind) for policy in board.policies]
        rows.append((kind, *(_in_short(one) for one in figures)))
    return _lines(rows)


def _in_short(one: Summary) -> str:
    if not one.wasted:
        return f"waits {one.elapsed_mean_s:.1f} s"
    return f"{one.misread_share:.0%}, {one.waste_mean_s:.1f} s"


def _lines(rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
