from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swarmkeel.balance.selection import TooManyBlocksError, choose_best_blocks, find_best_start
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo
from tests.balance import plain
from tests.balance.swarms import honest_modules, modules_from

few_values = st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=40)
any_values = st.lists(st.floats(0, allow_infinity=True), min_size=1, max_size=40)
runs = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, 3.0]), st.integers(1, 6)), min_size=1, max_size=8).map(
    lambda pieces: [value for value, length in pieces for _ in range(length)]
)


@pytest.mark.parametrize(
    ("throughputs", "num_blocks", "start"),
    [
        ([5, 1, 5, 0, 5], 1, 3),
        ([5, 1, 5, 0, 5], 2, 2),
        ([0, 9, 9, 9, 0, 1], 2, 4),
        ([3, 3, 3, 3], 2, 0),
        ([1, 0, 1, 0, 1, 0], 3, 1),
        ([2, 0, 9, 9, 0, 2], 2, 0),
        ([7], 1, 0),
        ([4, 3, 2, 1], 4, 0),
        ([0, 5, 0, 4, 0], 2, 2),
    ],
)
def test_takes_the_weakest_window_and_the_first_of_equals(throughputs: list[int], num_blocks: int, start: int) -> None:
    assert find_best_start(np.array(throughputs, dtype=float), num_blocks) == start


@given(values=few_values | any_values | runs, data=st.data())
@example(values=[0.0, 1.0] * 20, data=None)
def test_agrees_with_sorting_every_window(values: list[float], data: st.DataObject | None) -> None:
    lengths = [data.draw(st.integers(1, len(values)))] if data else range(1, len(values) + 1)
    for num_blocks in lengths:
        assert find_best_start(np.array(values), num_blocks) == plain.best_start(values, num_blocks)


@given(values=few_values, num_blocks=st.integers(-50, 0))
def test_hostile_lengths_are_slices_as_in_python(values: list[float], num_blocks: int) -> None:
    assert find_best_start(np.array(values), num_blocks) == plain.best_start(values, num_blocks)


@pytest.mark.parametrize(("num_blocks", "start"), [(0, 0), (-1, 1), (-4, 4), (-5, 0), (-6, 0)])
def test_first_empty_slice_is_the_best_where_the_length_is_none(num_blocks: int, start: int) -> None:
    assert find_best_start(np.array([3.0, 1.0, 2.0, 5.0, 4.0]), num_blocks) == start


def test_hugely_negative_length_costs_nothing() -> None:
    assert find_best_start(np.zeros(5), -(10**30)) == 0


@given(
    values=st.lists(st.sampled_from([0.0, 1.0, math.nan, math.inf]), min_size=1, max_size=20),
    num_blocks=st.integers(1, 20),
)
def test_nan_gives_some_window(values: list[float], num_blocks: int) -> None:
    if num_blocks <= len(values):
        assert 0 <= find_best_start(np.array(values), num_blocks) <= len(values) - num_blocks


def test_leaves_its_argument_alone() -> None:
    throughputs = np.array([3.0, 1.0, 2.0])
    find_best_start(throughputs, 2)
    assert throughputs.tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("total_blocks", [0, 3])
def test_window_longer_than_the_model_is_a_clear_error(total_blocks: int) -> None:
    with pytest.raises(TooManyBlocksError) as caught:
        find_best_start(np.zeros(total_blocks), total_blocks + 1)
    assert caught.value.problem == f"no window of {total_blocks + 1} blocks fits into {total_blocks} blocks"
    assert caught.value.remedy == "let the server hold at most as many blocks as the model has"


def test_chooses_blocks_by_joining_and_online_servers() -> None:
    modules = modules_from(6, (0, 3, 5.0))
    modules[3].servers["QmOff"] = ServerInfo(ServerState.OFFLINE, 9.0)
    assert choose_best_blocks(2, modules) == [3, 4]
    modules[3].servers["QmOff"] = ServerInfo(ServerState.JOINING, 9.0)
    assert choose_best_blocks(2, modules) == [4, 5]


def test_indices_are_counted_from_the_first_block_read() -> None:
    assert choose_best_blocks(2, modules_from(6, (0, 3, 5.0), first_block=10)) == [3, 4]


def test_no_blocks_wanted_no_blocks_chosen() -> None:
    assert choose_best_blocks(0, modules_from(3)) == []
    assert choose_best_blocks(0, []) == []


@given(modules=honest_modules(), data=st.data())
def test_chosen_blocks_are_contiguous_and_there(modules: list[RemoteModuleInfo[str]], data: st.DataObject) -> None:
    num_blocks = data.draw(st.integers(1, len(modules)))
    blocks = choose_best_blocks(num_blocks, modules)
    assert blocks == list(range(blocks[0], blocks[0] + num_blocks))
    assert blocks[0] >= 0
    assert blocks[-1] < len(modules)
