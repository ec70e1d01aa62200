"""When every block has a server: against a count of each block by itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.arrivals import Arrivals
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span
from tests.balance.plan_servers import plan_server as server

TOTAL = 6


def covered_in(*servers: PlanServer, unit: float = 1.0, **moves: Span) -> float:
    """Ask it of some servers, after some of them have moved."""
    index_of = {each.peer_id: index for index, each in enumerate(servers)}
    moving = {index_of[peer_id]: target for peer_id, target in moves.items()}
    return Arrivals(servers, TOTAL, unit).covered_in(moving)


def loading(peer_id: str, start: int, end: int, arrives_in: float, **changes: Any) -> PlanServer:
    return server(peer_id, start, end, serving=False, arrives_in=arrives_in, **changes)


@pytest.mark.parametrize(
    ("target", "seconds"),
    [
        (Span(12, 16), 60 + 400),  # nothing of it is there
        (Span(8, 12), 60 + 400),
        (Span(5, 9), 60 + 100),
        (Span(1, 5), 60 + 300),
        (Span(0, 16), 60 + 300),
        (Span(5, 7), 60),
    ],
    ids=str,
)
def test_a_move_takes_the_loading_and_before_it_the_fetching_of_what_is_missing(target: Span, seconds: float) -> None:
    assert server("a", 4, 8, load_seconds=60.0, fetch_seconds=400.0).seconds_to(target) == seconds


def test_a_model_is_covered_when_the_last_of_its_blocks_is() -> None:
    here, soon = server("a", 0, 3), loading("b", 3, 6, 30.0)
    assert covered_in(here, server("b", 3, 6)) == 0
    assert covered_in(here, soon) == 30
    assert covered_in(here, loading("b", 3, 5, 30.0), loading("c", 5, 6, 600.0)) == 600
    assert covered_in(here, soon, loading("c", 2, 6, 600.0)) == 30  # whoever comes first
    assert covered_in(here, server("b", 3, 5)) == math.inf
    assert covered_in(here, server("b", 4, 6)) == math.inf
    assert covered_in() == math.inf


def test_who_moves_leaves_its_blocks_at_once_and_serves_the_others_when_it_has_loaded() -> None:
    pile = server("a", 0, 3), server("b", 0, 3, load_seconds=60.0)
    assert covered_in(*pile, b=Span(3, 6)) == 60
    assert covered_in(server("a", 0, 3), server("b", 3, 6, load_seconds=60.0), b=Span(2, 5)) == math.inf
    # The blocks of one that loads are left as well, and those that it goes to are there when it or another serves them.
    away = loading("c", 3, 6, 30.0, load_seconds=600.0)
    assert covered_in(server("a", 0, 6), away, c=Span(0, 3)) == 0
    assert covered_in(*pile, away, b=Span(3, 6)) == 30
    assert covered_in(*pile, away, b=Span(3, 6), c=Span(0, 3)) == 60


def test_what_was_asked_before_does_not_matter() -> None:
    servers = server("a", 0, 3), server("b", 0, 3, load_seconds=60.0)
    arrivals = Arrivals(servers, TOTAL, 1.0)
    assert [arrivals.covered_in(moves) for moves in ({}, {1: Span(3, 6)}, {0: Span(3, 6)}, {1: Span(3, 6)}, {})] == [
        math.inf,
        60,
        600,
        60,
        math.inf,
    ]


def test_one_that_serves_nothing_that_counts_covers_nothing() -> None:
    assert covered_in(server("a", 0, 6, 0.0)) == math.inf
    assert covered_in(server("a", 0, 6, 1e-6), unit=1e4) == math.inf
    assert covered_in(server("a", 0, 6, 1e-9)) == math.inf
    assert covered_in(server("a", 0, 6, 1e-4), unit=1e4) == 0


def test_one_with_a_claim_serves_where_it_is_until_its_move_is_made() -> None:
    leaving = loading("b", 0, 3, 300.0, unless_claimed=(Span(3, 6), 5.0))
    assert covered_in(server("a", 0, 3), leaving) == 0
    assert covered_in(leaving) == 300
    assert covered_in(server("a", 0, 3), leaving, b=Span(0, 3)) == math.inf


@st.composite
def swarms_with_moves(draw: st.DrawFn) -> tuple[list[PlanServer], dict[int, Span]]:
    """Give some servers, and where some of them go."""
    spans = st.sampled_from([Span(start, end) for end in range(1, TOTAL + 1) for start in range(end)])
    servers = []
    for number in range(draw(st.integers(1, 6))):
        final, leaves = draw(spans), draw(st.none() | spans)
        each = loading(
            f"p{number}",
            final.start,
            final.end,
            draw(st.sampled_from([0.0, 30.0, 90.0, 3600.0])),
            load_seconds=draw(st.sampled_from([10.0, 60.0])),
            fetch_seconds=draw(st.sampled_from([0.0, 120.0])),
            unless_claimed=None if leaves is None else (leaves, 1.0),
            throughput=draw(st.sampled_from([0.0, 5.0])),
        )
        servers.append(each)
    return servers, draw(st.dictionaries(st.integers(0, len(servers) - 1), spans, max_size=3))


@given(swarms_with_moves())
def test_it_is_the_last_of_the_first_to_serve_each_block(case: tuple[list[PlanServer], dict[int, Span]]) -> None:
    servers, moves = case
    served = [(target, servers[index].seconds_to(target)) for index, target in moves.items()]
    for index, each in enumerate(servers):
        if index not in moves and each.throughput > 0:
            served.append((each.final, each.arrives_in))
            if each.unless_claimed is not None:
                served.append((each.unless_claimed[0], 0.0))
    first = [
        min((since for span, since in served if span.start <= block < span.end), default=math.inf)
        for block in range(TOTAL)
    ]
    assert Arrivals(servers, TOTAL, 1.0).covered_in(moves) == max(first)
