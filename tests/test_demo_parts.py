"""What the demo is made of: its backend's arithmetic, and its chart, on made-up data."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rich")

from pytest_vramsettle.demo import backend, placing, server
from pytest_vramsettle.demo.chart import ROWS, Gap, chart
from pytest_vramsettle.demo.placing import FreeMemory, Needs
from pytest_vramsettle.demo.race import Timeline


def test_the_backend_knows_nothing_of_the_fake() -> None:
    for module in (backend, placing, server):
        assert "fake_gpu" not in Path(module.__file__).read_text(encoding="utf-8")


def gpu(free: int, index: int = 0) -> FreeMemory:
    return FreeMemory(index, f"GPU-{index}", free)


@pytest.mark.parametrize(
    ("free", "layers", "context"),
    [
        (12_356, "all", 16_384),  # 8000 + 3000 + 1100 and the margin: all of it
        (12_355, "all", 16_128),
        (10_200, "all", 4_608),
        (9_900, "auto", 4_096),  # it would have to be shorter than what layers are given up for
        (10, "auto", 4_096),
    ],
)
def test_first_the_context_gives_way_then_layers(free: int, layers: str, context: int) -> None:
    placed = placing.place(gpu(free), Needs(model_mib=8000, context_mib=3000, compute_mib=1100), 16_384)
    assert (placed.gpu, placed.gpu_layers, placed.context) == (gpu(free), layers, context)


def test_a_context_that_is_short_already_is_not_lengthened() -> None:
    placed = placing.place(gpu(10), Needs(model_mib=8000, context_mib=3000, compute_mib=1100), 2048)
    assert (placed.gpu_layers, placed.context) == ("auto", 2048)


def test_what_is_not_known_is_left_to_the_server() -> None:
    assert placing.place(gpu(10), None, 8192).gpu_layers == "auto"


def test_the_gpu_with_the_most_free_memory_gets_the_model() -> None:
    assert placing.roomiest([gpu(300), gpu(400, 1), gpu(100, 2)]) == gpu(400, 1)


def test_without_a_gpu_everything_goes_to_the_cpu() -> None:
    placed = placing.place(placing.roomiest([]), None, 8192)
    assert (placed.gpu, placed.gpu_layers, placed.context) == (None, "0", 8192)
    assert placed.environment()["CUDA_VISIBLE_DEVICES"] == ""


def timeline(*free: float, end: float = 1.0) -> Timeline:
    return Timeline(
        start=0.0, step=0.025, end=end, most=6 * 1024, free=(free, (3000.0,) * len(free)), probes=(0.0, 0.5)
    )


def test_a_chart_is_an_area_a_line_and_marks() -> None:
    lines = [line.plain for line in chart(timeline(*[0.0] * 20, *[6144.0] * 21), None, 36)]
    assert lines[0] == "   6 GiB " + " " * 10 + "█" * 10 + " GPU 0"
    assert lines[3] == "   3 GiB " + "┈" * 10 + "█" * 10 + "┈GPU 1"
    assert lines[ROWS] == "      0 ┴" + "▲" + "─" * 9 + "▲" + "─" * 9
    assert lines[ROWS + 1] == "         kill      0.5 s    1 s"


def test_a_chart_shows_the_misread_as_a_gap() -> None:
    gap = Gap(moment=0.1, read=0.0, final=6144.0, misread_mib=6144, is_misread=True)
    lines = [line.plain for line in chart(timeline(*[0.0] * 70, *[6144.0] * 11, end=2.0), gap, 76)]
    assert all(line[12] == "┃" for line in lines[:ROWS])
    assert lines[1].startswith("            ┃ 6144 MiB misread ")
    assert lines[ROWS][12] == "◆"


def test_a_chart_without_a_misread_has_no_gap() -> None:
    gap = Gap(moment=0.9, read=6144.0, final=6144.0, misread_mib=1, is_misread=False)
    text = "\n".join(line.plain for line in chart(timeline(*[0.0] * 20, *[6144.0] * 21), gap, 80))
    assert "┃" not in text
    assert "misread" not in text
    assert "◆" in text


def test_a_chart_of_the_beginning_leaves_the_rest_empty() -> None:
    lines = [line.plain for line in chart(timeline(6144.0, 6144.0), None, 36)]
    assert lines[0] == "   6 GiB " + "█" + " " * 19 + " GPU 0"
