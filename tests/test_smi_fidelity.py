"""The fake beside real captures, where they lie beside the repository: which lines must be identical."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fake_gpu.capture import read_machine
from fake_gpu.capture.compare import Comparison, compared, is_help
from fake_gpu.smi import query_apps, query_gpu, query_lists

DIRECTORY = Path(__file__).resolve().parents[2] / "shared" / "captures"
CAPTURES = sorted((DIRECTORY / "nvidia-smi").glob("*.txt"))
LOGS = sorted((DIRECTORY / "xml").glob("*.xml"))
pytestmark = pytest.mark.skipif(not CAPTURES, reason=f"there are no captures of real cards in {DIRECTORY}")

every_capture = pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name.split("__")[1])


def differences(comparisons: list[Comparison]) -> dict[str, object]:
    return {f"{one.shot.state} {one.shot.command}": one.different for one in comparisons if one.different}


@every_capture
def test_every_command_of_a_capture(path: Path) -> None:
    comparisons = [one for one in compared(read_machine(path)) if not is_help(one.shot)]
    assert len(comparisons) > 15
    assert differences(comparisons) == {}


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_every_line_of_xml(path: Path) -> None:
    (comparison,) = compared(read_machine(path))
    assert comparison.share >= 0.98  # two of them went through another program, which wrote <processes /> and such


@every_capture
@pytest.mark.parametrize("switch", ["query-gpu", "query-compute-apps", "query-accounted-apps", "query-retired-pages"])
def test_every_field_of_the_help_is_there_under_all_its_names(path: Path, switch: str) -> None:
    text = next(one.text for one in read_machine(path).shots if one.option == f"--help-{switch}")
    lines = [line for line in text.split("\n") if re.fullmatch(r'"[\w.]+"( or "[\w.]+")?', line)]
    named = [re.findall(r'"([\w.]+)"', line) for line in lines]
    assert len(named) > 5
    lists = query_lists.COLUMNS.get(switch, ())
    columns = {"query-gpu": query_gpu.COLUMNS, "query-compute-apps": query_apps.COLUMNS}.get(switch, lists)
    aliases = {"query-gpu": query_gpu.ALIASES, "query-compute-apps": query_apps.ALIASES}
    ours = {column.name: column.name for column in columns} | aliases.get(switch, query_lists.ALIASES.get(switch, {}))
    for first, *others in named:
        assert ours[first] == first
        assert all(ours[other] == first for other in others)
