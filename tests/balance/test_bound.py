from __future__ import annotations

import itertools
import math
import random
import sys
import warnings
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.bound import measure, measure_placed, throughput_bound
from swarmkeel.balance.decision import SwarmNumbers
from swarmkeel.swarm.span import Span
from tests.balance import plain
from tests.balance.swarms import spans_from

sizes = st.lists(st.tuples(st.integers(1, 5), st.sampled_from([1.0, 2.0, 3.5, 10.0])), min_size=1, max_size=4)


def from_the_end(values: list[float]) -> list[float]:
    """Sum up what is left when the first none, one, two, ... are taken away; the last ones are added first."""
    return [*reversed([*accumulate(reversed(values))]), 0]


def plainly(servers: list[tuple[int, float]], total_blocks: int) -> float:
    """Give the least of what the proof says, for every distance and every number of servers taken away.

    Of equally fast servers the first is taken away first.
    """
    fastest_first = sorted(servers, key=lambda server: -server[1])
    others = from_the_end([throughput for _, throughput in fastest_first])
    bound = math.inf
    for distance in range(1, total_blocks + 1):
        looked_at = math.ceil(total_blocks / distance)
        shares = [min(looked_at, math.ceil(length / distance)) for length, _ in fastest_first]
        brought = from_the_end([rps * share for (_, rps), share in zip(fastest_first, shares, strict=True)])
        for taken in range(len(servers) + 1):
            left = looked_at - sum(shares[:taken])
            if left > 0:
                most_on_one = taken + sum(shares[taken:]) // left
                bound = min(bound, brought[taken] / left, others[taken] - others[min(most_on_one, len(servers))])
    return bound


@given(
    st.integers(1, 12).flatmap(
        lambda total: st.tuples(
            st.lists(st.tuples(st.integers(0, total), st.sampled_from([1.0, 2.0, 3.5, 10.0])), max_size=8),
            st.just(total),
        )
    )
)
def test_the_bound_is_the_least_of_all_that_its_proof_gives(case: tuple[list[tuple[int, float]], int]) -> None:
    # Those without blocks count for nothing.
    servers, total_blocks = [server for server in case[0] if server[0]], case[1]
    expected = pytest.approx(plainly(servers, total_blocks))
    assert throughput_bound(spans_from(*((0, *server) for server in case[0])), total_blocks) == expected
    placed = [(Span(0, length), throughput) for length, throughput in servers]
    assert measure_placed(placed, total_blocks).bound_rps == expected


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_of_many_servers_is_the_same_to_the_bit_everywhere(seed: int) -> None:
    draws = random.Random(seed)  # noqa: S311 - a swarm, not a secret
    total_blocks, throughputs = draws.randint(8, 40), [draws.uniform(0.1, 10) for _ in range(3)]
    servers = [(draws.randint(1, total_blocks // 4), draws.choice(throughputs)) for _ in range(40)]
    placed = [(Span(0, length), throughput) for length, throughput in servers]
    assert measure_placed(placed, total_blocks).bound_rps == plainly(servers, total_blocks)


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


def test_differences_of_throughputs_without_a_number_leave_the_other_bounds() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert throughput_bound(spans_from(*([(0, 1, 1.7e308)] * 6)), 3) == sys.float_info.max


def test_no_blocks_have_no_bottleneck() -> None:
    assert measure(spans_from((0, 2, 5.0)), 0) == SwarmNumbers(bottleneck_rps=0, bound_rps=0, uncovered_blocks=0)


def test_a_swarm_in_numbers() -> None:
    numbers = measure(spans_from((0, 2, 5.0), (1, 3, 3.0)), 4)
    assert (numbers.bottleneck_rps, numbers.uncovered_blocks) == (0, 1)
    assert numbers.bound_rps == pytest.approx(3)
    assert numbers.balance_ratio == 0


def test_a_swarm_as_it_would_be_elsewhere_is_measured_as_if_it_were_there() -> None:
    placed = [(Span(0, 2), 5.0), (Span(1, 3), 3.0), (Span(2, 4), 4.0)]
    there = spans_from(*((span.start, span.end, throughput) for span, throughput in placed))
    assert measure_placed(placed, 4) == measure(there, 4)
    assert measure_placed(placed, 4).bottleneck_rps == 4.0
    assert measure_placed(placed, 5).uncovered_blocks == 1


def test_a_throughput_of_nothing_covers_nothing() -> None:
    assert measure(spans_from((0, 2, 0.0), (1, 3, 0.5)), 4).uncovered_blocks == 2
