"""The shapes of a server: Petals' formula, and a few lengths that are worth trying."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.shapes import MAX_SHAPES, possible_shapes, throughput_of

rates = st.floats(0.1, 1e4)


def test_fewer_blocks_are_served_faster_as_long_as_the_network_lets_them() -> None:
    served = {blocks: throughput_of(blocks, compute_rps=100, network_rps=40) for blocks in (1, 3, 4, 9, 19)}
    assert served == {1: 40, 3: 40, 4: 40, 9: 20, 19: 10}


def test_lengths_go_from_the_fewest_to_the_most() -> None:
    assert [blocks for blocks, _ in possible_shapes(1, 32, compute_rps=10, network_rps=100, present=9)] == [
        1,
        2,
        4,
        8,
        16,
        32,
    ]


def test_the_present_length_and_those_too_short_to_help_are_left_out() -> None:
    shapes = possible_shapes(1, 10, compute_rps=100, network_rps=40, present=10)
    assert shapes[0] == (4, 40)
    assert 10 not in dict(shapes)


@pytest.mark.parametrize(("least", "most"), [(0, 3), (4, 3), (-1, -1)])
def test_a_server_that_contradicts_itself_has_no_shapes(least: int, most: int) -> None:
    assert possible_shapes(least, most, compute_rps=1, network_rps=1, present=2) == ()


@given(st.integers(1, 200), st.integers(0, 200), rates, rates, st.integers(1, 400))
def test_every_shape_can_be_had(least: int, more: int, compute: float, network: float, present: int) -> None:
    shapes = possible_shapes(least, least + more, compute_rps=compute, network_rps=network, present=present)
    assert len(shapes) <= MAX_SHAPES
    assert list(shapes) == sorted(set(shapes))
    for blocks, throughput in shapes:
        assert least <= blocks <= least + more
        assert blocks != present
        assert throughput == throughput_of(blocks, compute_rps=compute, network_rps=network)
    assert [throughput for _, throughput in shapes] == sorted((rps for _, rps in shapes), reverse=True)


@pytest.mark.parametrize(
    ("least", "most", "compute", "network", "present", "lengths"),
    [
        # With 7 blocks computing is as fast as the network: 100 / ((7 + 1) / 2) is 25.
        (1, 80, 100.0, 25.0, 0, [7, 11, 19, 30, 49, 80]),
        (9, 80, 100.0, 25.0, 0, [9, 14, 22, 33, 52, 80]),
        (1, 5, 100.0, 25.0, 0, [5]),
        (1, 3, 1.0, 25.0, 0, [1, 2, 3]),
        (1, 3, 1.0, 1.0, 0, [1, 2, 3]),
        (2, 2, 1.0, 25.0, 0, [2]),
        (1, 4, 100.0, 25.0, 4, []),
        (1, 9, 100.0, 0.5, 3, [9]),
    ],
)
def test_lengths_are_in_about_equal_ratios_from_what_the_network_can_use_to_the_most(
    least: int, most: int, *, compute: float, network: float, present: int, lengths: list[int]
) -> None:
    shapes = possible_shapes(least, most, compute_rps=compute, network_rps=network, present=present)
    assert [blocks for blocks, _ in shapes] == lengths


@pytest.mark.parametrize("network", [0.0, -1.0])
def test_a_server_whose_network_carries_nothing_is_tried_with_its_most_blocks(network: float) -> None:
    assert possible_shapes(1, 4, compute_rps=10.0, network_rps=network, present=1) == ((4, network),)
