"""Durations: read as people write them, and written so that they read back exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from swarmkeel.durations import Duration, PositiveDuration, format_duration, parse_duration

_duration = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("15m", 900.0),
        ("1h30m", 5400.0),
        ("1d 12h", 129600.0),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        ("12", 12.0),
        (0.5, 0.5),
        (7, 7.0),
    ],
)
def test_durations_are_read_as_people_write_them(text: object, seconds: float) -> None:
    assert _duration.validate_python(text) == seconds


@pytest.mark.parametrize(
    "text", ["soon", "", "5 parsecs", "1h2", "h", "-5s", "-1", True, None, [], "inf", "nan", "1e999"]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        _duration.validate_python(text)


def test_a_positive_duration_is_more_than_nothing() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(PositiveDuration).validate_python("0s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.25, "0.25s"), (90.0, "90s"), (5400.0, "90m"), (86400.0, "1d"), (1e-5, "0.00001s")],
)
def test_durations_are_written_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=1e12) | st.integers(min_value=0, max_value=10**9).map(float))
def test_what_is_written_reads_back_exactly(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
