"""The best next moves: against each move made and rated by itself, and whatever is passed over on the way."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance import candidates
from swarmkeel.balance.candidates import NOTHING, Candidate, Movers, Pricing, Start, best_candidates, departures
from swarmkeel.balance.coverage import SoftMinimum, sum_coverage
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span
from tests.balance.plan_servers import plan_server

Case = tuple[list[PlanServer], list[Start], SoftMinimum, Pricing, int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    total_blocks = draw(st.integers(1, 10))
    servers = []
    for index in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, total_blocks - 1))
        end = draw(st.integers(start + 1, total_blocks))
        # As a plan's servers have them: shapes are other numbers of blocks than the present one.
        others = st.sampled_from([length for length in range(1, total_blocks + 1) if length != end - start] or [0])
        shapes = st.lists(st.tuples(others, st.floats(0, 5)), max_size=2, unique_by=lambda shape: shape[0])
        servers.append(
            PlanServer(
                f"p{index}",
                Span(start, end),
                draw(st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 5)),
                serving=True,
                movable=True,
                movable_in_emergency=True,
                load_seconds=draw(st.sampled_from([0.0, 60.0, 1200.0])),
                fetch_seconds=draw(st.sampled_from([0.0, 300.0])),
                shapes=() if total_blocks == 1 else tuple(draw(shapes)),
            )
        )
    coverage = sum_coverage([each.final for each in servers], [each.throughput for each in servers], total_blocks)
    starts = [
        Start(
            coverage + draw(st.sampled_from([0.0, 0.25])),
            coverage * draw(st.sampled_from([1.0, 0.5])),
            draw(st.sampled_from([0.0, 0.1])),
            tuple(draw(st.sets(st.integers(0, len(servers) - 1), max_size=2))),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    pricing = Pricing(
        move_cost=draw(st.sampled_from([0.0, 0.04])),
        haste=draw(st.sampled_from([0.0, 0.2])),
        may_uncover=draw(st.booleans()),
        within_seconds=draw(st.sampled_from([math.inf, 400.0])),
    )
    return servers, starts, SoftMinimum(draw(st.sampled_from([8, 32]))), pricing, draw(st.integers(1, 6))


def best_of(case: Case) -> list[Candidate]:
    servers, starts, soft, pricing, enough = case
    return best_candidates(Movers(servers, len(starts[0].coverage), 1.0), starts, soft, pricing, enough=enough)


def by_itself(case: Case) -> dict[tuple[int, int, int, int, float], float]:
    """Rate every move by making it: by state, server, first block, number of blocks and throughput."""
    servers, starts, soft, pricing, _ = case
    rated = {}
    for origin, state in enumerate(starts):
        total_blocks = len(state.coverage)
        for row, server in enumerate(servers):
            here = slice(server.final.start, server.final.end)
            left = state.serving[here] - server.throughput
            uncovers = bool(np.any((left <= NOTHING) & (state.serving[here] > NOTHING)))
            if row in state.moved or (uncovers and not pricing.may_uncover):
                continue
            lost = max(max(float(state.serving.min()), 0.0) - float(left.min()), 0.0)
            cost = state.cost + pricing.move_cost + lost * server.load_seconds / 3600
            for length, throughput in [(len(server.final), server.throughput), *server.shapes]:
                for start in range(total_blocks - length + 1):
                    target = Span(start, start + length)
                    arrival = server.seconds_to(target)
                    if target == server.final or arrival > pricing.within_seconds:
                        continue
                    coverage = state.coverage.copy()
                    coverage[here] = np.maximum(coverage[here] - server.throughput, 0)
                    coverage[start : start + length] += throughput
                    score = soft.of(coverage) - cost - pricing.haste * arrival / 3600
                    rated[origin, row, start, length, throughput] = score
    return rated


@given(cases())
def test_the_best_are_those_that_rate_best_when_each_is_made(case: Case) -> None:
    enough = case[-1]
    rated = by_itself(case)
    found = best_of(case)
    for each in found:
        made = rated[each.origin, each.row, each.start, each.length, each.throughput]
        assert each.score == pytest.approx(made, abs=1e-9)
    best = sorted(rated.values(), reverse=True)[:enough]
    assert [each.score for each in found] == pytest.approx(best, abs=1e-9)


@given(cases())
def test_nothing_is_lost_by_what_is_passed_over(case: Case) -> None:
    with mock.patch.multiple(candidates, _WORTH_BOUNDING=math.inf, _AT_ONCE=10**6):
        all_at_once = best_of(case)
    with mock.patch.multiple(candidates, _WORTH_BOUNDING=0, _FIRST=1, _AT_ONCE=2, _LEVELS=2):
        assert best_of(case) == all_at_once


@pytest.mark.parametrize(
    ("haste", "within_seconds", "enough", "most"),
    [(0.0, math.inf, 1, 64), (0.0, math.inf, 10, 192), (0.5, math.inf, 1, 64), (0.5, 300.0, 1, 64)],
)
def test_most_servers_of_a_large_swarm_are_passed_over(
    haste: float, within_seconds: float, enough: int, most: int
) -> None:
    draws = np.random.RandomState(1)
    servers = []
    for index in range(2000):
        start = int(draws.randint(0, 30))
        span, throughput = (start, start + int(draws.randint(2, 11))), float(draws.lognormal())
        servers.append(plan_server(f"p{index:04}", *span, throughput, load_seconds=float(draws.uniform(60, 1200))))
    throughputs = [each.throughput for each in servers]
    coverage = sum_coverage([each.final for each in servers], throughputs, 40)
    unit = float(coverage.mean())
    before = Start(coverage / unit, coverage / unit, 0.0, ())
    pricing = Pricing(0.01, haste, may_uncover=False, within_seconds=within_seconds)
    rated = 0
    rate = candidates._Rating.rate

    def counted(self: candidates._Rating, states: object, options: np.ndarray, found: object) -> None:
        nonlocal rated
        rated += len(options)
        rate(self, states, options, found)  # type: ignore[arg-type] # as they came

    with mock.patch.object(candidates._Rating, "rate", counted):
        found = best_candidates(Movers(servers, 40, unit), [before], SoftMinimum(32), pricing, enough=enough)
    assert len(found) == enough
    assert rated <= most
    with mock.patch.multiple(candidates, _WORTH_BOUNDING=math.inf):
        assert best_candidates(Movers(servers, 40, unit), [before], SoftMinimum(32), pricing, enough=enough) == found


FREE = Pricing(0.0, 0.0, may_uncover=True, within_seconds=math.inf)
SOFT = SoftMinimum(8)


def one(peer_id: str, start: int, end: int, throughput: float = 1.0, **changes: object) -> PlanServer:
    return plan_server(peer_id, start, end, throughput, **changes)


def state(*serving: float, cost: float = 0.0, moved: tuple[int, ...] = ()) -> Start:
    return Start(np.array(serving, dtype=float), np.array(serving, dtype=float), cost, moved)


def test_where_nobody_can_be_moved_there_are_no_moves() -> None:
    assert best_candidates(Movers([], 6, 1.0), [state(1, 1, 1, 1, 1, 1)], SOFT, FREE, enough=3) == []
    alone = Movers([one("a", 0, 2)], 6, 1.0)
    assert best_candidates(alone, [state(1, 1, 0, 0, 0, 0, moved=(0,))], SOFT, FREE, enough=3) == []
    assert len(best_candidates(alone, [state(1, 1, 0, 0, 0, 0)], SOFT, FREE, enough=9)) == 4


def test_a_server_goes_with_numbers_of_blocks_that_the_model_has() -> None:
    shapes = ((0, 5.0), (1, 5.0), (6, 5.0), (7, 5.0))
    movers = Movers([one("a", 0, 2, 2.0, shapes=shapes)], 6, 2.0)
    found = best_candidates(movers, [state(1, 1, 0, 0, 0, 0)], SOFT, FREE, enough=99)
    assert sorted((each.length, each.start, each.throughput) for each in found) == [
        *((1, start, 2.5) for start in range(6)),
        *((2, start, 1.0) for start in range(1, 5)),
        (6, 0, 2.5),
    ]


def test_moves_that_are_as_good_go_by_server_then_place_then_number_of_blocks_then_state() -> None:
    silent = [one(name, 0, 1, 0.0, shapes=((2, 0.0),)) for name in "ab"]
    even = state(1, 1, 1)
    found = best_candidates(Movers(silent, 3, 1.0), [even, even], SOFT, FREE, enough=99)
    assert [(each.row, each.start, each.length, each.origin) for each in found] == [
        (row, start, length, origin)
        for row in (0, 1)
        for start, length in ((0, 2), (1, 1), (1, 2), (2, 1))
        for origin in (0, 1)
    ]
    assert best_candidates(Movers(silent, 3, 1.0), [even, even], SOFT, FREE, enough=5) == found[:5]


def test_who_may_leave_and_what_that_costs() -> None:
    servers = [
        one("a", 0, 2, 1.0),
        one("b", 1, 4, 2.0, load_seconds=1800.0),
        one("c", 2, 3, NOTHING),
        one("d", 4, 5, NOTHING),
        one("e", 0, 6, 2.0),
    ]
    full = state(3, 5, 4, 4, 5, 2, cost=0.5, moved=(0,))
    thin = state(1, 3, NOTHING, 0, 2 * NOTHING, 2)
    pricing = Pricing(0.25, 0.0, may_uncover=False, within_seconds=math.inf)
    allowed, costs = departures(Movers(servers, 6, 1.0), [full, thin], pricing)
    # `a` has been moved; without `e` the last block would have nothing.
    assert allowed[0].tolist() == [False, True, True, True, False]
    # `a` and `e` would leave blocks with nothing, and so would `d`; where `c` is there is nothing now.
    assert allowed[1].tolist() == [False, True, True, False, False]
    assert costs[0].tolist() == pytest.approx([0.75, 0.75, 0.75, 0.75, 0.75 + 2 / 6])
    # The bottleneck is nothing, and cannot be less.
    assert costs[1].tolist() == pytest.approx([0.25, 0.25 + 2 / 2, 0.25, 0.25, 0.25 + 2 / 6])
    everybody, same = departures(Movers(servers, 6, 1.0), [full, thin], replace(pricing, may_uncover=True))
    assert everybody.tolist() == [[False, True, True, True, True], [True] * 5]
    assert same.tolist() == costs.tolist()
    half = Movers(servers[:2], 6, 2.0)
    assert departures(half, [state(1, 1.5, 1.5, 1.5, 2, 2)], pricing)[1][0].tolist() == pytest.approx(
        [0.25 + 0.5 / 6, 0.25 + 0.5 / 2]
    )


@pytest.mark.parametrize("length", range(1, 12))
def test_leaving_costs_by_the_weakest_of_all_blocks_that_are_left(length: int) -> None:
    serving = np.array([9.0, 4.0, 8.0, 6.0, 7.0, 5.0, 9.0, 3.0, 8.0, 7.0, 6.0])
    servers = [one(f"p{start:02}", start, start + length, 2.0) for start in range(12 - length)]
    _, costs = departures(Movers(servers, 11, 1.0), [Start(serving, serving, 0.0, ())], FREE)
    weakest = [min(serving[start : start + length]) - 2.0 for start in range(12 - length)]
    assert costs[0].tolist() == pytest.approx([max(3.0 - each, 0.0) / 6 for each in weakest])


@pytest.mark.parametrize("worth_bounding", [0, math.inf])
def test_who_arrives_just_in_time_counts(worth_bounding: float) -> None:
    servers = [one("a", 0, 2, load_seconds=60.0), one("b", 0, 2, load_seconds=50.0, fetch_seconds=10.0), one("c", 0, 2)]
    pricing = replace(FREE, within_seconds=60.0)
    with mock.patch.multiple(candidates, _WORTH_BOUNDING=worth_bounding):
        found = best_candidates(Movers(servers, 4, 1.0), [state(3, 3, 0, 0)], SOFT, pricing, enough=99)
    assert [(each.row, each.start) for each in found] == [(0, 2), (1, 2), (0, 1), (1, 1)]


@pytest.mark.parametrize("worth_bounding", [0, math.inf])
def test_who_arrives_just_in_time_is_not_passed_over_for_who_is_early(worth_bounding: float) -> None:
    servers = [one("a", 0, 2, load_seconds=60.0), one("b", 0, 2, load_seconds=50.0)]
    pricing = replace(FREE, within_seconds=60.0)
    with mock.patch.multiple(candidates, _WORTH_BOUNDING=worth_bounding, _FIRST=1, _AT_ONCE=1):
        found = best_candidates(Movers(servers, 4, 1.0), [state(3, 3, 0, 0)], SOFT, pricing, enough=1)
    assert [(each.row, each.start) for each in found] == [(0, 2)]


@pytest.mark.parametrize("worth_bounding", [0, math.inf])
def test_who_is_as_good_as_one_that_was_looked_at_before_is_not_passed_over(worth_bounding: float) -> None:
    # Fewer blocks are looked at first, but of moves that are as good that of the first server is the first.
    silent = [one("a", 0, 2, 0.0), one("b", 0, 1, 0.0)]
    with mock.patch.multiple(candidates, _WORTH_BOUNDING=worth_bounding, _FIRST=1, _AT_ONCE=1):
        found = best_candidates(Movers(silent, 3, 1.0), [state(1, 1, 1)], SOFT, FREE, enough=1)
    assert [(each.row, each.start) for each in found] == [(0, 1)]


@pytest.mark.parametrize("worth_bounding", [0, math.inf])
def test_the_only_server_of_many_blocks_is_not_passed_over(worth_bounding: float) -> None:
    servers = [*(one(f"p{index}", 0, 1) for index in range(8)), one("wide", 0, 4, 0.5)]
    weak = state(20, 12, 12, 12, 0.2, 0.2, 0.2, 0.2)
    with mock.patch.multiple(candidates, _WORTH_BOUNDING=worth_bounding, _FIRST=1, _AT_ONCE=1):
        found = best_candidates(Movers(servers, 8, 1.0), [weak], SOFT, FREE, enough=1)
    assert [(each.row, each.start) for each in found] == [(8, 4)]


def test_of_moves_that_bring_as_much_the_cheapest_is_the_best() -> None:
    before = state(1.5, 1.5, 1.5, 1.5, 1.5, 1.5, cost=0.5)
    servers = [one("a", 0, 2, 0.01, load_seconds=36000.0), one("b", 2, 4, 0.01, load_seconds=0.0)]
    pricing = replace(FREE, move_cost=0.25)
    (found,) = best_candidates(Movers(servers, 6, 1.0), [before], SOFT, pricing, enough=1)
    assert (found.row, found.cost) == (1, 0.75)
    # Ten hours with a hundredth less cost a tenth.
    (alone,) = best_candidates(Movers(servers[:1], 6, 1.0), [before], SOFT, pricing, enough=1)
    assert alone.cost == pytest.approx(0.85)


def test_a_move_that_costs_more_is_the_best_if_it_brings_more() -> None:
    servers = [one("a", 0, 2, 1.0, load_seconds=400.0), one("b", 0, 2, 0.1, load_seconds=0.0)]
    weak = replace(state(1.5, 1.5, 0.2, 0.2), serving=np.array([1.1, 1.1, 1.0, 1.0]))
    (found,) = best_candidates(Movers(servers, 4, 1.0), [weak], SOFT, FREE, enough=1)
    assert (found.row, found.start) == (0, 2)
    assert found.cost == pytest.approx(0.1)


def test_to_stay_where_it_is_is_no_move() -> None:
    movers = Movers([one("a", 2, 4)], 6, 1.0)
    found = best_candidates(movers, [state(0, 0, 1, 1, 0, 0)], SOFT, FREE, enough=99)
    assert sorted(each.start for each in found) == [0, 1, 3, 4]


@pytest.mark.parametrize("total_blocks", [1, 2, 3, 4, 8])
def test_who_serves_all_blocks_leaves_the_weakest_of_all(total_blocks: int) -> None:
    before = state(*(9.0 - block for block in range(total_blocks)))
    servers = [one(f"p{index}", 0, total_blocks, 0.5 + index / 8) for index in range(4)]
    allowed, costs = departures(Movers(servers, total_blocks, 1.0), [before], FREE)
    assert allowed.all()
    assert costs[0].tolist() == pytest.approx([(0.5 + index / 8) / 6 for index in range(4)])


def test_as_many_moves_are_given_as_are_wanted_whoever_has_but_few_places() -> None:
    servers = [one("a", 0, 4), *(one(name, 0, 3, shapes=((1, 0.5),)) for name in "bc")]
    movers, before = Movers(servers, 4, 1.0), [state(3, 3, 3, 1)]
    every = best_candidates(movers, before, SOFT, FREE, enough=99)
    assert len(every) == 10
    assert [best_candidates(movers, before, SOFT, FREE, enough=enough) for enough in range(1, 10)] == [
        every[:enough] for enough in range(1, 10)
    ]
