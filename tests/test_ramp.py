"""Ramps: pure functions of the time since death, exact at their ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_gpu import InvalidValue, Ramp
from fake_gpu.units import GIB

MS = 1_000_000


def times(ramp: Ramp, *milliseconds: float) -> list[int]:
    return [ramp.reclaimed(1000, round(t * MS)) for t in milliseconds]


def test_each_shape() -> None:
    assert times(Ramp.immediate(), 0, 1) == [1000, 1000]
    assert times(Ramp.step(after="400ms"), 0, 399.999, 400) == [0, 0, 1000]
    assert times(Ramp.linear("600ms", after="150ms"), 0, 150, 450, 749.999, 750) == [0, 0, 500, 999, 1000]
    assert times(Ramp.exponential(half_life="120ms"), 0, 120, 240, 2000) == [0, 500, 750, 1000]
    assert times(Ramp.never(), 0, 10**9) == [0, 0]


def test_a_plateau() -> None:
    ramp = Ramp.points([(0.0, 0.0), (0.2, 0.3), (1.4, 0.3), (1.6, 1.0)])
    assert times(ramp, 0, 100, 200, 1000, 1400, 1500, 1600, 9999) == [0, 150, 300, 300, 300, 650, 1000, 1000]


def test_points_may_jump_start_late_and_end_below_one() -> None:
    ramp = Ramp.points([("50ms", 0.0), (0.1, 0.0), (0.1, 0.5), (0.3, 0.9)])
    assert times(ramp, 0, 99.9, 100, 300, 5000) == [0, 0, 500, 900, 900]


@pytest.mark.parametrize(
    ("points", "complaint"),
    [
        ([(0, 0.5), (1, 0.4)], "share falls at point 1"),
        ([(1, 0.0), (0.5, 1.0)], "time runs back at point 1"),
        ([(0, 1.5)], "point 0 reclaims a share of 1.5"),
        ([(0, -0.1)], "point 0 reclaims a share"),
        ([(0, float("nan"))], "point 0 reclaims a share"),
        ([], "at least one"),
        ([0.5], "point 0 is 0.5"),
        ([("soon", 1.0)], "'soon' is not a duration"),
    ],
)
def test_wrong_points_are_refused_by_name(points: list[tuple[float, float]], complaint: str) -> None:
    with pytest.raises(InvalidValue, match=complaint):
        Ramp.points(points)


def test_wrong_durations_are_refused() -> None:
    with pytest.raises(InvalidValue, match="half_life has to be positive"):
        Ramp.exponential(half_life=0)
    with pytest.raises(InvalidValue, match="is not a duration"):
        Ramp.linear("-600ms")


def test_a_ramp_is_a_value() -> None:
    assert Ramp.linear("600ms", after=0.15) == Ramp.linear(0.6, after="150ms")
    assert len({Ramp.immediate(), Ramp.linear(0), Ramp.step(0)}) == 1
    with pytest.raises(AttributeError):
        Ramp.immediate()._span_ns = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    "ramp",
    [
        Ramp.immediate(),
        Ramp.step(after="400ms"),
        Ramp.linear("600ms", after="150ms"),
        Ramp.exponential(half_life="120ms"),
        Ramp.points([(0.0, 0.0), (0.2, 0.3), (1.6, 1.0)]),
        Ramp.never(),
    ],
)
def test_its_repr_makes_it_again(ramp: Ramp) -> None:
    assert eval(repr(ramp), {"Ramp": Ramp}) == ramp


shares = st.lists(st.floats(0, 1), min_size=1, max_size=6).map(sorted)
durations = st.floats(0, 30)


@st.composite
def ramps(draw: st.DrawFn) -> Ramp:
    kind = draw(st.sampled_from(["linear", "step", "exponential", "points", "never", "immediate"]))
    after = draw(durations)
    if kind == "linear":
        return Ramp.linear(draw(durations), after=after)
    if kind == "step":
        return Ramp.step(after)
    if kind == "exponential":
        return Ramp.exponential(draw(st.floats(0.001, 5)), after=after)
    if kind == "points":
        given_shares = draw(shares)
        at = sorted(draw(st.lists(durations, min_size=len(given_shares), max_size=len(given_shares))))
        return Ramp.points(list(zip(at, given_shares, strict=True)))
    return Ramp.never() if kind == "never" else Ramp.immediate()


@given(
    ramps(),
    st.integers(0, 180 * GIB),
    st.lists(st.integers(0, 120 * 10**9), min_size=2, max_size=20).map(sorted),
)
def test_what_is_back_never_falls_and_never_exceeds_what_was_held(ramp: Ramp, held: int, at: list[int]) -> None:
    back = [ramp.reclaimed(held, t) for t in at]
    assert back == sorted(back)
    assert all(0 <= size <= held for size in back)


@given(ramps(), st.integers(1, 180 * GIB))
def test_a_ramp_is_over_when_it_says_so(ramp: Ramp, held: int) -> None:
    done = ramp.done_after_ns(held)
    if done is None:
        assert ramp == Ramp.never()
    else:
        assert ramp.reclaimed(held, done) == ramp.reclaimed(held, done + 10**15)
