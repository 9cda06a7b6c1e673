"""Every labelled shape: a bad one is never silent, a good one is kept."""

from __future__ import annotations

import pytest
import shapes_corners
import shapes_given_back
import shapes_hard
import shapes_hidden
import shapes_inherited
import shapes_later
import shapes_listed_hold
import shapes_listed_rest
import shapes_more
import shapes_more_rest
import shapes_own
import shapes_own_rest
import shapes_reached
import shapes_renamed
from contract_shapes import Shape

from pytest_vramsettle.contracts import Verdict, render

MODULES = (
    shapes_listed_hold,
    shapes_listed_rest,
    shapes_own,
    shapes_own_rest,
    shapes_hard,
    shapes_more,
    shapes_more_rest,
    shapes_corners,
    shapes_reached,
    shapes_renamed,
    shapes_inherited,
    shapes_given_back,
    shapes_later,
)
BAD = [shape for module in MODULES for shape in module.BAD]
GOOD = [shape for module in MODULES for shape in module.GOOD]


def name(shape: Shape) -> str:
    return f"{shape.rule}: {shape.name}"


@pytest.mark.parametrize("shape", BAD, ids=name)
def test_a_bad_shape_is_never_silent(shape: Shape) -> None:
    outcome = shape.check()
    assert outcome.verdict in (Verdict.VIOLATED, Verdict.CANNOT_TELL), render(outcome)
    assert outcome.findings


UNCERTAIN = {
    "hold: released before a raise",
    "hold: a lock of that name of an unknown object",
    "hold: as often let go as taken, five times",
}
"""Good shapes of which the analysis knows that it does not know."""


@pytest.mark.parametrize("shape", GOOD, ids=name)
def test_a_good_shape_is_kept(shape: Shape) -> None:
    outcome = shape.check()
    assert outcome.verdict is (Verdict.CANNOT_TELL if name(shape) in UNCERTAIN else Verdict.KEPT), render(outcome)


@pytest.mark.parametrize("shape", shapes_hidden.UNCLEAR, ids=name)
def test_what_may_be_the_required_call_or_not_cannot_be_told(shape: Shape) -> None:
    outcome = shape.check()
    assert outcome.verdict is Verdict.CANNOT_TELL, render(outcome)
    assert outcome.findings
