"""Prints sections as tables: with rich where it is installed, else in plain columns."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from bench.measure import Figure, Goal, Section

HEADERS = ("", "median", "ratio", "goal", "")
WIDTH = 100
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def show_seconds(seconds: float) -> str:
    """'3.81 µs', '-0.2 ms'."""
    for factor, unit in _UNITS:
        if abs(seconds) >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.2g} ns"


def show_number(number: float) -> str:
    """'1.26', '5,481', '0.004'."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if abs(number) >= 0.1 else f"{number:.3f}"


def show_goal(goal: Goal | None) -> str:
    """'≤ 1.5 x', or nothing where the figure is only told."""
    if goal is None:
        return ""
    return f"≤ {goal.limit:g} x" if goal.of == "ratio" else f"≤ {show_seconds(goal.limit)}"


def row(figure: Figure) -> tuple[str, ...]:
    """The cells of one line."""
    ratio = "" if figure.ratio is None else f"{show_number(figure.ratio)} x"
    verdict = {None: "", True: "ok", False: "MISSED"}[figure.met]
    return figure.what, show_seconds(figure.seconds), ratio, show_goal(figure.goal), verdict


def show(section: Section) -> None:
    """Prints one section."""
    rows = [row(figure) for figure in section.figures]
    caption = f"ratio: to {section.compared_with}" if section.compared_with else ""
    if importlib.util.find_spec("rich"):
        _show_rich(section.title, caption, rows)
    else:
        _show_plain(section.title, caption, rows)


def _show_rich(title: str, caption: str, rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    table = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left", width=width)
    table.add_column(HEADERS[0], ratio=1)
    for header in HEADERS[1:]:
        table.add_column(header, justify="right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells, style="bold red" if cells[-1] == "MISSED" else None)
    Console(width=width).print(table)


def _show_plain(title: str, caption: str, rows: Sequence[tuple[str, ...]]) -> None:
    lines = [HEADERS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADERS))]
    print(f"\n{title}")
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
    if caption:
        print(caption)
