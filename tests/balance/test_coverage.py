"""The soft minimum, against its formula written down plainly."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.coverage import SoftMinimum, combine_windows

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
    with pytest.raises(ValueError, match="power of two"):
        SoftMinimum(12)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=30), st.data())
def test_windows_are_combined_whatever_their_length(values: list[int], data: st.DataObject) -> None:
    length = data.draw(st.integers(1, len(values)))
    windows = [values[start : start + length] for start in range(len(values) - length + 1)]
    array = np.array([values], dtype=float)
    assert combine_windows(array, length, np.add).tolist() == [[sum(window) for window in windows]]
    assert combine_windows(array, length, np.minimum).tolist() == [[reduce(min, window) for window in windows]]
