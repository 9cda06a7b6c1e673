"""The control matrix of the documentation agrees with a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.matrix import OURS, TOOLS, all_ways, column, parse, table

DOCUMENT = Path(__file__).parent.parent / "docs" / "clock-matrix.md"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tool", OURS)
def test_our_columns_agree_with_a_run(tool: str) -> None:
    assert parse(DOCUMENT.read_text())[tool] == column(tool)


def test_it_has_every_way_and_every_tool() -> None:
    columns = parse(DOCUMENT.read_text())
    assert list(columns) == list(TOOLS)
    assert all(list(of_tool) == all_ways() for of_tool in columns.values())
    assert len(all_ways()) >= 31
    assert table(columns) in DOCUMENT.read_text()
