from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.measure import Measure, Sample, follow

SAMPLE = Sample(0, "a", 0, 90.0, 60.0, 17, 19, 5, 4.0, 0)
MEMORY = Measure("memory", "MB", lambda sample: sample.rss_mb, growth=0.05, slack=2.0)


def course(*memory: float, sidecar: str = "a") -> list[Sample]:
    return [
        replace(SAMPLE, at=10.0 * number, sidecar=sidecar, checks=100 * number, rss_mb=value)
        for number, value in enumerate(memory)
    ]


def test_what_has_grown_at_first_and_then_no_more_is_bounded() -> None:
    found = follow(course(50, 80, 90, 90, 91, 89, 90, 91), MEMORY)
    assert found.quarters == (65.0, 90.0, 90.0, 90.5)
    assert found.allowed == pytest.approx(96.5)
    assert found.largest == 91
    assert found.bounded


def test_what_goes_on_growing_is_not() -> None:
    found = follow(course(*range(50, 130, 5)), MEMORY)
    assert not found.bounded
    # Five more with every hundred checks.
    assert found.per_thousand_checks == pytest.approx(50)


def test_sidecars_of_unequal_size_do_not_make_a_slope() -> None:
    found = follow(course(*[50] * 8) + course(*[90] * 8, sidecar="b"), MEMORY)
    assert found.per_thousand_checks == pytest.approx(0)
    assert found.bounded


def test_what_was_once_above_its_limit_is_not_bounded() -> None:
    samples = course(90, 90, 99, 90, 90, 90, 90, 90)
    assert follow(samples, replace(MEMORY, limit=99)).bounded
    assert not follow(samples, replace(MEMORY, limit=98)).bounded


def test_too_few_samples_say_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        follow(course(1, 2, 3), MEMORY)
