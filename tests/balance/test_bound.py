from __future__ import annotations

import itertools
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.bound import measure, throughput_bound
from swarmkeel.balance.decision import SwarmNumbers
from tests.balance import plain
from tests.balance.swarms import spans_from

sizes = st.lists(st.tuples(st.integers(1, 5), st.sampled_from([1.0, 2.0, 3.5, 10.0])), min_size=1, max_size=4)


@given(st.integers(1, 5), sizes)
def test_no_placement_exceeds_the_bound(total_blocks: int, servers: list[tuple[int, float]]) -> None:
    servers = [(min(length, total_blocks), throughput) for length, throughput in servers]
    bound = throughput_bound(spans_from(*((0, length, throughput) for length, throughput in servers)), total_blocks)
    best = 0.0
    for starts in itertools.product(*(range(total_blocks - length + 1) for length, _ in servers)):
        placed = [(start, start + length, rps) for start, (length, rps) in zip(starts, servers, strict=True)]
        best = max(best, min(plain.throughputs_of(spans_from(*placed), total_blocks)))
    assert bound >= best * (1 - 1e-9)


@pytest.mark.parametrize(
    ("servers", "total_blocks", "bound"),
    [
        ([], 4, 0),
        ([(0, 4, 7.0)], 4, 7),
        ([(0, 2, 7.0), (0, 2, 7.0)], 4, 7),
        ([(0, 2, 100.0), (0, 2, 1.0)], 4, 1),
        ([(0, 3, 7.0)], 4, 0),
        ([(0, 2, 7.0), (0, 2, 7.0)], 3, 7),
        ([(0, 3, 1.0), (0, 3, 1.0), (0, 3, 1.0)], 5, 1),
        ([(3, 1, 7.0), (0, 4, 2.0)], 4, 2),
        ([(0, 1, 1e20), (0, 2, 0.25), (0, 2, 0.75), (0, 2, 0.5)], 4, 0.75),
    ],
    ids=[
        "nobody",
        "one-holds-all",
        "two-halves",
        "the-slow-half-decides",
        "not-enough-blocks",
        "overlap-is-lost",
        "a-third-does-not-help",
        "no-blocks",
        "one-claims-a-lot",
    ],
)
def test_the_bound_is_reached_where_the_case_is_plain(
    servers: list[tuple[int, int, float]], total_blocks: int, bound: float
) -> None:
    assert throughput_bound(spans_from(*servers), total_blocks) == pytest.approx(bound)


def test_hostile_throughputs_leave_numbers_that_can_be_written_down() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = measure(spans_from((0, 2, 1.7e308), (0, 2, 1.7e308)), 2)
    assert SwarmNumbers.model_validate_json(numbers.model_dump_json()) == numbers
    assert numbers.balance_ratio == 1


def test_no_blocks_have_no_bottleneck() -> None:
    assert measure(spans_from((0, 2, 5.0)), 0) == SwarmNumbers(bottleneck_rps=0, bound_rps=0, uncovered_blocks=0)


def test_a_swarm_in_numbers() -> None:
    numbers = measure(spans_from((0, 2, 5.0), (1, 3, 3.0)), 4)
    assert (numbers.bottleneck_rps, numbers.uncovered_blocks) == (0, 1)
    assert numbers.bound_rps == pytest.approx(3)
    assert numbers.balance_ratio == 0
