"""The best possible bottleneck, against trying every placement."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.demo.optimum import ask_best_possible, find_best_possible, main
from tests.support.examples import examples

throughputs = st.one_of(st.sampled_from([1.0, 8.0, 10.0, 18.0]), st.floats(1.0, 100.0))


@st.composite
def swarms(draw: st.DrawFn) -> tuple[int, list[tuple[int, float]]]:
    total_blocks = draw(st.integers(1, 7))
    sizes = st.tuples(st.integers(1, total_blocks), throughputs)
    return total_blocks, draw(st.lists(sizes, min_size=1, max_size=4))


def try_every_placement(servers: list[tuple[int, float]], total_blocks: int) -> float:
    best = 0.0
    for starts in product(*(range(total_blocks - blocks + 1) for blocks, _ in servers)):
        served = [0.0] * total_blocks
        for start, (blocks, throughput) in zip(starts, servers, strict=True):
            for block in range(start, start + blocks):
                served[block] += throughput
        best = max(best, min(served))
    return best


@given(swarms())
@examples(0.6)
def test_it_is_what_trying_everything_finds(swarm: tuple[int, list[tuple[int, float]]]) -> None:
    total_blocks, servers = swarm
    found = find_best_possible(servers, total_blocks)
    fastest = max(throughput for _, throughput in servers)
    assert found.bound_rps == pytest.approx(try_every_placement(servers, total_blocks), abs=3e-6 * fastest)
    assert found.is_exact


def test_without_time_it_is_still_a_bound() -> None:
    servers = [(3, 8.0), (4, 10.0), (5, 12.0), (6, 15.0), (7, 8.0), (3, 10.0), (8, 12.0), (5, 18.0)]
    hurried = find_best_possible(servers, 24, seconds=0.0)
    assert not hurried.is_exact
    mean = sum(blocks * throughput for blocks, throughput in servers) / 24
    assert 15.0 <= hurried.bound_rps <= mean + 1e-3  # 15 is a placement's, found with time


def test_no_servers_serve_nothing() -> None:
    assert find_best_possible([], 4).bound_rps == 0
    assert find_best_possible([(2, 0.0)], 4).bound_rps == 0


async def test_another_process_finds_the_same() -> None:
    servers = [(2, 1.5), (3, 10.0), (3, 1.0)]
    assert await ask_best_possible(servers, 4) == find_best_possible(servers, 4)


async def test_a_process_that_fails_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        await ask_best_possible([(5, 1.0)], 4)  # larger than the model


def test_as_a_command_the_last_line_is_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    main(["4", "2:10", "2:8", "--seconds=3"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"bound_rps": 8.0, "is_exact": True}
