"""What the demo is made of: its backend's arithmetic, and its chart, on made-up data."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rich")

from pytest_vramsettle.demo import loader
from pytest_vramsettle.demo.chart import ROWS, Gap, chart
from pytest_vramsettle.demo.loader import FreeMemory, Model
from pytest_vramsettle.demo.race import Timeline


def test_the_loader_knows_nothing_of_the_fake() -> None:
    assert "fake_gpu" not in Path(loader.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize(("free", "layers"), [(0, 0), (100, 0), (149, 0), (150, 1), (249, 2), (600, 10), (90_000, 10)])
def test_as_many_layers_as_fit_beside_the_context(free: int, layers: int) -> None:
    assert Model(layers=10, layer_mib=50, context_mib=100).layers_in(free) == layers


def test_the_gpu_with_the_most_free_memory_gets_the_model() -> None:
    model = Model(layers=10, layer_mib=50, context_mib=100)
    read = [FreeMemory(0, "GPU-a", 300), FreeMemory(1, "GPU-b", 400)]
    placement = loader.place(model, read)
    assert (placement.gpu, placement.on_gpu, placement.on_cpu, placement.layers) == (read[1], 6, 4, 10)


@pytest.mark.parametrize("read", [[], [FreeMemory(0, "GPU-a", 60)]])
def test_without_room_everything_goes_to_the_cpu(read: list[FreeMemory]) -> None:
    placement = loader.place(Model(layers=10, layer_mib=50, context_mib=100), read)
    assert (placement.gpu, placement.on_gpu, placement.on_cpu) == (None, 0, 10)


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
