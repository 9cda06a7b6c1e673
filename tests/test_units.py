"""Sizes and durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_gpu.errors import InvalidValue
from fake_gpu.units import GIB, MIB, format_duration, format_size, parse_duration, parse_size, to_mib


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20 GiB", 20 * GIB),
        ("512MiB", 512 * MIB),
        ("1.5 GB", 1_500_000_000),
        ("0 B", 0),
        (".5 KiB", 512),
        ("2 tib", 2048 * GIB),
        (4096, 4096),
    ],
)
def test_sizes(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("600ms", 600_000_000),
        ("1.2s", 1_200_000_000),
        ("5us", 5_000),
        ("7 µs", 7_000),
        ("2 min", 120 * 10**9),
        (0.1, 100_000_000),
        (3, 3 * 10**9),
        (timedelta(milliseconds=250), 250_000_000),
    ],
)
def test_durations(text: float | str | timedelta, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("bad", ["20", "GiB", "20 gigs", "-1 GiB", "", "1e3 GiB", -1, 2.5, True, None])
def test_what_is_no_size_is_refused_with_an_example(bad: object) -> None:
    with pytest.raises(InvalidValue, match=r"is not a size") as caught:
        parse_size(bad)  # type: ignore[arg-type]
    assert repr(bad).strip("'") in str(caught.value)


@pytest.mark.parametrize("bad", ["20", "fast", "-1s", "1 fortnight", -0.1, float("inf"), float("nan"), True, None])
def test_what_is_no_duration_is_refused_with_an_example(bad: object) -> None:
    with pytest.raises(InvalidValue, match=r"is not a duration"):
        parse_duration(bad)  # type: ignore[arg-type]


def test_mib_round_up_as_nvidia_smi_does() -> None:
    assert [to_mib(size) for size in (0, 1, MIB, MIB + 1)] == [0, 1, 1, 2]


@given(st.integers(min_value=0, max_value=2**43))
def test_a_formatted_size_reads_back_within_its_four_digits(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=1e-3)


@given(st.integers(min_value=0, max_value=10**15))
def test_a_formatted_duration_reads_back_within_its_six_digits(nanoseconds: int) -> None:
    text = format_duration(nanoseconds)
    if "e" not in text:
        assert parse_duration(text) == pytest.approx(nanoseconds, rel=1e-5)
