"""The coverage and its soft minimum, each against its rule written down plainly."""

from __future__ import annotations

import math
import random
import warnings
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.coverage import SoftMinimum, combine_windows, sum_coverage
from swarmkeel.swarm.span import Span

coverages = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5]) | st.floats(0, 10), min_size=1, max_size=20)


def plainly(coverage: list[float], sharpness: int) -> float:
    terms = [(value + 0.02) ** -sharpness for value in coverage]
    return float((sum(terms) / len(terms)) ** (-1 / sharpness) - 0.02)


@given(coverages, st.sampled_from([1, 2, 8, 32]))
def test_it_is_the_formula(coverage: list[float], sharpness: int) -> None:
    assert SoftMinimum(sharpness).of(np.array(coverage)) == pytest.approx(plainly(coverage, sharpness), abs=1e-9)


@given(coverages)
def test_it_lies_between_the_minimum_and_the_mean(coverage: list[float]) -> None:
    soft = SoftMinimum(32).of(np.array(coverage))
    assert min(coverage) - 1e-9 <= soft <= sum(coverage) / len(coverage) + 1e-9


def test_other_exponents_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^the sharpness is a power of two, not 12$"):
        SoftMinimum(12)


def test_it_can_be_taken_of_many_sums_of_terms_at_once() -> None:
    soft = SoftMinimum(8)
    several = np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    assert soft.of_sums(soft.terms(several).sum(axis=1), 3).tolist() == [soft.of(coverage) for coverage in several]


def test_blocks_that_are_all_far_above_the_mean_give_infinity_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SoftMinimum(32).of(np.full(4, 1e12)) == math.inf


@pytest.mark.parametrize("servers", [0, 1, 3, 256, 257, 700])
def test_coverage_is_the_sum_of_what_is_served_server_after_server(servers: int) -> None:
    draws = random.Random(servers)  # noqa: S311 - a swarm, not a secret
    starts = [draws.randint(0, 11) for _ in range(servers)]
    spans = [Span(start, draws.randint(start + 1, 12)) for start in starts]
    throughputs = [draws.uniform(0.1, 10) for _ in spans]
    expected = [0.0] * 12
    for span, throughput in zip(spans, throughputs, strict=True):
        for block in range(span.start, span.end):
            expected[block] += throughput
    assert sum_coverage(spans, throughputs, 12).tolist() == expected


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=30), st.data())
def test_windows_are_combined_whatever_their_length(values: list[int], data: st.DataObject) -> None:
    length = data.draw(st.integers(1, len(values)))
    windows = [values[start : start + length] for start in range(len(values) - length + 1)]
    array = np.array([values], dtype=float)
    assert combine_windows(array, length, np.add).tolist() == [[sum(window) for window in windows]]
    assert combine_windows(array, length, np.minimum).tolist() == [[reduce(min, window) for window in windows]]
