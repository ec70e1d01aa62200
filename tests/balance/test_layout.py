"""Layouts: where servers can cover every block, one is found, and nobody is moved who need not be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.layout import lay_out
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span


def server(start: int, length: int, *, stays: bool = False, load_seconds: float = 60.0) -> PlanServer:
    return PlanServer(
        f"p{start:02}+{length}",
        Span(start, start + length),
        5.0,
        serving=True,
        movable=not stays,
        movable_in_emergency=not stays,
        load_seconds=load_seconds,
    )


def spans(servers: list[PlanServer], total_blocks: int) -> list[Span] | None:
    placements = lay_out(servers, total_blocks)
    if placements is None:
        return None
    targets = {each.server: each.target for each in placements}
    assert all(servers[index].movable_in_emergency for index in targets)
    assert all(targets[index] != servers[index].final for index in targets)
    return [targets.get(index, each.final) for index, each in enumerate(servers)]


def covered(placed: list[Span], total_blocks: int) -> bool:
    blocks = np.zeros(total_blocks, dtype=bool)
    for span in placed:
        blocks[span.start : span.end] = True
    return bool(blocks.all())


@given(st.integers(1, 16).flatmap(lambda total: st.tuples(st.just(total), st.lists(_server_of(total), max_size=7))))
def test_whoever_can_cover_the_model_does(case: tuple[int, list[PlanServer]]) -> None:
    total_blocks, servers = case
    placed = spans(servers, total_blocks)
    if sum(len(each.final) for each in servers) >= total_blocks:
        assert placed is not None
    if placed is not None:
        assert all(span.end <= total_blocks for span in placed)
        assert covered(placed, total_blocks)


def _server_of(total_blocks: int) -> st.SearchStrategy[PlanServer]:
    return st.integers(1, total_blocks).flatmap(
        lambda length: st.integers(0, total_blocks - length).map(lambda start: server(start, length))
    )


def test_a_row_shifts_where_no_single_server_can_help() -> None:
    row = [server(0, 3), server(2, 3), server(4, 3)]
    assert spans(row, 9) == [Span(0, 3), Span(3, 6), Span(6, 9)]


def test_whoever_is_in_place_stays() -> None:
    assert lay_out([server(0, 3), server(3, 3)], 6) == ()
    assert spans([server(0, 3), server(0, 3), server(3, 3)], 9) is not None
    placements = lay_out([server(0, 3), server(0, 3), server(3, 3)], 9)
    assert placements is not None
    assert len(placements) == 1


def test_one_server_may_be_taken_out_of_the_row() -> None:
    # The last one is not needed where it is, and the hole is at the beginning.
    placements = lay_out([server(2, 2), server(4, 2), server(4, 4)], 8)
    assert placements is not None
    assert [(each.server, each.target) for each in placements] == [(1, Span(0, 2))]


def test_servers_that_stay_are_built_around() -> None:
    placed = spans([server(3, 3, stays=True), server(0, 3), server(0, 3)], 9)
    assert placed is not None
    assert sorted(placed) == [Span(0, 3), Span(3, 6), Span(6, 9)]
    assert spans([server(3, 3, stays=True), server(0, 3)], 9) is None


def test_of_two_that_would_do_the_quicker_goes() -> None:
    placements = lay_out([server(0, 3, load_seconds=900.0), server(0, 3), server(0, 3, load_seconds=900.0)], 6)
    assert placements is not None
    assert [each.server for each in placements] == [1]


def test_more_than_there_is_cannot_be_covered() -> None:
    assert lay_out([server(0, 3)], 6) is None
    assert lay_out([], 1) is None
