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
