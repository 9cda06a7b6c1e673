"""The matrix of real clients: what it counts as right. The clients themselves run with `make clients`."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest

from bench.clients.catalogue import CLIENTS, Client
from bench.clients.matrix import Outcome, Row
from bench.clients.page import page
from bench.clients.script import SITUATIONS, Machine, Situation, Truth, differences

GIB = 1 << 30
EXACT = Client("exact", ("exact",))


@pytest.fixture
def truths() -> list[Truth]:
    machine = Machine(EXACT)
    with machine.driver:
        machine.enter("healthy")
        return machine.truth()


def cards(truths: list[Truth], *, reserved: bool = False) -> list[dict[str, object]]:
    return [
        {
            "name": truth.name,
            "uuid": truth.uuid,
            "total": truth.total,
            "used": truth.used + (truth.reserved if reserved else 0),
            "free": truth.total - truth.reserved - truth.used,
            "watts": truth.watts,
            "processes": dict(truth.processes),
        }
        for truth in truths
    ]


def test_what_is_so_is_right(truths: list[Truth]) -> None:
    assert differences(EXACT, cards(truths), truths) == []
    assert [truth.used for truth in truths] == [18 * GIB, 9 * GIB + 300_000, 0]
    counting = dataclasses.replace(EXACT, reserved=True)
    assert differences(counting, cards(truths, reserved=True), truths) == []
    assert len(differences(counting, cards(truths), truths)) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("used", 18 * GIB + 1),
        ("used", "N/A"),
        ("free", None),
        ("total", math.nan),
        ("total", 1),
        ("free", 0),
        ("name", "H100"),
        ("uuid", "GPU-"),
        ("processes", {}),
        ("watts", math.nan),
        ("watts", 500),
    ],
)
def test_one_wrong_figure_is_told(truths: list[Truth], key: str, value: object) -> None:
    said = cards(truths)
    said[0][key] = value
    (told,) = differences(EXACT, said, truths)
    assert key in told


def test_a_card_that_is_there_has_to_be_shown(truths: list[Truth]) -> None:
    failed = [{"error": "Not Supported"}, *cards(truths)[1:]]
    assert differences(EXACT, failed, truths) == ["GPU NVIDIA H200: Not Supported"]
    lost = [dataclasses.replace(truths[0], lost=True), *truths[1:]]
    assert differences(EXACT, failed, lost) == []
    without = [{"name": truth.name} for truth in truths]
    assert len(differences(EXACT, without, truths)) == 3
    assert differences(dataclasses.replace(EXACT, memory=False), without, truths) == []


def test_rounding_is_allowed_as_far_as_the_client_rounds(truths: list[Truth]) -> None:
    said = cards(truths)
    said[1]["used"] = 9 * GIB
    assert differences(EXACT, said, truths)
    assert differences(dataclasses.replace(EXACT, within=1 << 20), said, truths) == []


def test_missing_cards_are_told(truths: list[Truth]) -> None:
    assert differences(EXACT, cards(truths)[:2], truths) == ["2 cards where there are 3"]


def test_the_page_has_every_client_and_is_what_was_run() -> None:
    names = [client.name for client in CLIENTS]
    assert len(set(names)) == len(names)
    assert len(names) >= 25
    written = (Path(__file__).parent.parent / "docs" / "clients.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| \d", written, re.MULTILINE)
    assert rows == names
    assert "**wrong**" not in written


def test_a_wrong_client_stands_out() -> None:
    outcomes: dict[Situation, Outcome] = {situation: Outcome([]) for situation in SITUATIONS}
    outcomes["slow"] = Outcome(None, "died of SIGSEGV", is_right=False)
    row = Row(EXACT, "1.0", outcomes)
    assert not row.works
    assert "**wrong**: `died of SIGSEGV`" in page([row], {EXACT: "no wheel"})
