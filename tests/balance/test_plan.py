"""Plans: what they promise is what comes, they never take a block's last server away, and they stay small."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance import plan as plans
from swarmkeel.balance.candidates import DWELL_SECONDS
from swarmkeel.balance.layout import Placement
from swarmkeel.balance.plan import Outlook, Plan, PlannedMove, Standing, make_plan
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.search import SearchRules, State, find_states
from swarmkeel.swarm.span import Span
from tests.balance.plan_servers import plan_server as server
from tests.support.examples import examples

_COST = 0.04


def plan(total_blocks: int, *servers: PlanServer, move_cost: float = _COST) -> Plan:
    return make_plan(servers, total_blocks=total_blocks, move_cost=move_cost)


@st.composite
def swarms(draw: st.DrawFn) -> tuple[int, tuple[PlanServer, ...]]:
    total_blocks = draw(st.integers(1, 12))
    servers = []
    for index in range(draw(st.integers(1, 12))):
        start = draw(st.integers(0, total_blocks - 1))
        serving, movable = draw(st.booleans()) or draw(st.booleans()), draw(st.booleans()) or draw(st.booleans())
        shapes = draw(st.lists(st.tuples(st.integers(1, total_blocks), st.floats(0.1, 20)), max_size=2))
        servers.append(
            server(
                f"p{index:02}",
                start,
                draw(st.integers(start + 1, total_blocks)),
                draw(st.sampled_from([1.0, 2.0, 10.0]) | st.floats(0, 100)),
                serving=serving,
                movable=serving and movable,
                movable_in_emergency=serving and (movable or draw(st.booleans())),
                load_seconds=draw(st.sampled_from([0.0, 60.0, 1200.0, 7200.0])),
                fetch_seconds=draw(st.sampled_from([0.0, 300.0])),
                arrives_in=0.0 if serving else draw(st.sampled_from([30.0, 300.0, 3600.0])),
                shapes=tuple(shapes),
            )
        )
    return total_blocks, tuple(servers)


def coverage(
    total_blocks: int, servers: tuple[PlanServer, ...], *, without: frozenset[str] = frozenset()
) -> np.ndarray:
    blocks = np.zeros(total_blocks)
    for one in servers:
        if one.peer_id not in without:
            blocks[one.final.start : one.final.end] += one.throughput
    return blocks


def after(servers: tuple[PlanServer, ...], made: Plan) -> tuple[PlanServer, ...]:
    def moved(one: PlanServer) -> PlanServer:
        move = made.move_of(one.peer_id)
        return one if move is None else replace(one, final=move.target, throughput=move.throughput, shapes=())

    return tuple(moved(one) for one in servers)


def test_a_pile_beside_a_hole_sends_one_server_into_the_hole() -> None:
    made = plan(6, server("a", 0, 3), server("b", 0, 3), server("c", 0, 3))
    assert made.is_emergency
    assert made.uncovered_before == 3
    assert [(move.peer_id, move.target) for move in made.moves] == [("a", Span(3, 6))]


def test_only_movable_servers_are_moved() -> None:
    made = plan(6, server("a", 0, 3, movable_in_emergency=False), server("b", 0, 3), server("c", 0, 3))
    assert [move.peer_id for move in made.moves] == ["b"]


def test_a_server_that_cools_down_moves_for_a_hole_alone() -> None:
    cooling = [server(name, 0, 3, movable=False) for name in "abc"]
    assert plan(6, *cooling).moves
    assert not plan(6, *cooling, server("d", 3, 6, 0.5, movable=False)).moves
    assert plan(6, server("a", 0, 3), *cooling[1:], server("d", 3, 6, 0.5, movable=False)).moves


def test_no_plan_leaves_the_only_server_of_a_block() -> None:
    # Both could help at the hole, but each is alone where it is.
    made = plan(9, server("a", 0, 3), server("b", 3, 6))
    assert not made.moves
    assert made.movable == 2
    # With a third one the model could be covered, but somebody would have to leave blocks to it alone: not for a gain.
    assert not plan(6, server("a", 0, 3, 1.0), server("b", 3, 6, 1.0), server("c", 0, 2, 50.0, movable=False)).moves


def test_where_nothing_works_anyway_servers_may_leave_blocks_if_all_are_covered_in_the_end() -> None:
    # `a` has to shift by one, and `b` after it: until both have, there is a hole, as there is one now.
    made = plan(6, server("a", 0, 3), server("b", 2, 5))
    assert made.is_emergency
    assert {move.peer_id: move.target for move in made.moves} == {"b": Span(3, 6)}
    row = plan(9, server("a", 0, 3), server("b", 2, 5), server("c", 4, 7))
    assert {move.peer_id: move.target for move in row.moves} == {"b": Span(3, 6), "c": Span(6, 9)}


def test_a_slow_server_on_its_way_to_a_hole_is_overtaken_by_a_quick_one() -> None:
    def plan_beside(arrives_in: float, load_seconds: float) -> Plan:
        coming = server("slow", 3, 6, serving=False, movable=False, movable_in_emergency=False, arrives_in=arrives_in)
        pile = [server(name, 0, 3, movable=False, load_seconds=load_seconds) for name in "abc"]
        return plan(6, coming, *pile)

    quicker = plan_beside(1200.0, 60.0)
    assert quicker.is_emergency
    assert [move.target for move in quicker.moves] == [Span(3, 6)]
    assert quicker.covered_in_seconds_before == 1200.0
    assert quicker.best is not None
    assert quicker.best.covered_in_seconds == 60.0
    assert not plan_beside(1200.0, 1000.0).moves
    assert not plan_beside(90.0, 10.0).moves


def test_weights_that_are_on_disk_make_a_server_quick() -> None:
    near = server("near", 0, 4, load_seconds=60.0, fetch_seconds=1200.0)
    far = server("far", 0, 4, load_seconds=100.0, fetch_seconds=1200.0)
    rest = [server("z", 0, 4), server("y", 0, 1)]
    assert near.seconds_to(Span(1, 5)) == 60.0 + 300.0
    assert [move.peer_id for move in plan(5, far, near, *rest[:1]).moves] == ["near"]


def test_holes_that_cannot_all_be_closed_are_left_alone() -> None:
    made = plan(12, server("a", 0, 3), server("b", 0, 3))
    assert made.is_emergency
    assert not made.moves
    assert made.best is not None
    assert made.best.uncovered_blocks == 6


def test_a_hole_is_closed_by_the_fewest_servers() -> None:
    made = plan(12, *(server(f"small{n}", 0, 3, 1.0) for n in range(4)), server("wide", 0, 6), server("z", 0, 6))
    assert made.is_emergency
    assert len(made.moves) == 1


def test_a_move_that_costs_more_than_it_brings_is_not_made() -> None:
    def piled(weak: float) -> Plan:
        return plan(
            6, server("a", 0, 3, 10.0), server("b", 0, 3, 10.0), server("c", 0, 3, 10.0), server("d", 3, 6, weak)
        )

    assert piled(12.0).moves  # 12 becomes 20
    assert not piled(19.5).moves  # half a request a second is not worth a restart
    assert piled(19.5).best is not None


def test_the_outage_of_a_mover_counts_as_long_as_it_lasts() -> None:
    def overlapping(load_seconds: float) -> Plan:
        others = (server("b", 0, 1, 12.0), server("c", 1, 3, 6.0), server("d", 3, 4, 7.0))
        return plan(4, server("a", 0, 3, 5.0, load_seconds=load_seconds), *others)

    # On 1:4 it raises the bottleneck from 7 to 11; while it loads there is 6.
    assert [move.target for move in overlapping(60.0).moves] == [Span(1, 4)]
    assert not overlapping(5 * DWELL_SECONDS).moves


def test_the_dial_trades_throughput_for_moves() -> None:
    rng = np.random.default_rng(1)
    swarm = []
    for index in range(20):
        length = int(rng.choice([4, 8, 12]))
        start = int(rng.integers(0, 40 - length + 1))
        swarm.append(server(f"p{index:02}", start, start + length, float(rng.uniform(1, 9)), load_seconds=0.0))
    swarm += [server(f"q{index}", index * 4, index * 4 + 4, 1.0) for index in range(10)]
    moves = [len(plan(40, *swarm, move_cost=cost).moves) for cost in (0.0, 0.04, 10.0)]
    assert moves[0] > 0
    assert moves[-1] == 0
    assert moves == sorted(moves, reverse=True)


def test_a_server_takes_fewer_blocks_where_that_helps_more() -> None:
    swarm = (server("a", 0, 4, 1.0, shapes=((2, 3.0),)), server("b", 0, 4, 5.0), server("c", 0, 2, 5.0))
    (move,) = plan(4, *swarm).moves
    assert (move.peer_id, move.target, move.throughput) == ("a", Span(2, 4), 3.0)


@examples(0.8)
@given(swarms())
def test_what_a_plan_promises_is_what_comes(case: tuple[int, tuple[PlanServer, ...]]) -> None:
    total_blocks, servers = case
    made = plan(total_blocks, *servers)
    assert made == plan(total_blocks, *servers)
    before = coverage(total_blocks, servers)
    assert made.bottleneck_before_rps == pytest.approx(before.min(), abs=1e-6)
    if not made.moves:
        return
    assert made.best is not None
    assert made.best.moves == made.moves
    then = coverage(total_blocks, after(servers, made))
    assert made.best.bottleneck_rps == pytest.approx(then.min(), rel=1e-6, abs=1e-6)
    if made.is_emergency:
        assert (then > 0).all()
        assert made.best.covered_in_seconds <= made.covered_in_seconds_before / 2
        return
    assert then.min() > before.min()
    gain = made.best.bottleneck_rps - made.bottleneck_before_rps
    assert gain == pytest.approx(made.best.gain_rps, abs=1e-6)
    assert gain > made.best.cost_rps
    assert made.best.cost_rps >= len(made.moves) * _COST * min(before.min(), before.mean()) * (1 - 1e-6)


@examples(0.8)
@given(swarms())
def test_no_plan_does_harm_on_the_way(case: tuple[int, tuple[PlanServer, ...]]) -> None:
    total_blocks, servers = case
    made = plan(total_blocks, *servers)
    shows_no_harm(total_blocks, servers, made)


@examples(0.8)
@given(swarms(), st.data())
def test_nor_does_one_that_keeps_to_a_claim(case: tuple[int, tuple[PlanServer, ...]], data: st.DataObject) -> None:
    total_blocks, servers = case
    claimant = data.draw(st.sampled_from(servers))
    shapes = ((len(claimant.final), claimant.throughput), *claimant.shapes)
    length, throughput = data.draw(st.sampled_from(shapes))
    start = data.draw(st.integers(0, total_blocks - length))
    claimed = Standing(claimant.peer_id, Span(start, start + length), throughput)
    made = make_plan(servers, total_blocks=total_blocks, move_cost=_COST, standing=claimed)
    shows_no_harm(total_blocks, servers, made)
    free = plan(total_blocks, *servers)
    # What is kept is worth having, and a plan is made with a claim wherever one is made without.
    assert bool(made.moves) >= bool(free.moves)
    if made.moves and not made.is_emergency:
        assert made.best is not None
        assert made.best.gain_rps > made.best.cost_rps


def shows_no_harm(total_blocks: int, servers: tuple[PlanServer, ...], made: Plan) -> None:
    movers = frozenset(move.peer_id for move in made.moves)
    assert len(movers) == len(made.moves)
    assert len(movers) <= 3 or made.covered_in_seconds_before == math.inf
    for move in made.moves:
        mover = next(one for one in servers if one.peer_id == move.peer_id)
        assert mover.movable_in_emergency if made.is_emergency else mover.movable
        assert move.target != move.origin == mover.final
        assert move.target.end <= total_blocks
        assert any(
            len(move.target) == length and move.throughput == pytest.approx(rps, rel=1e-6)
            for length, rps in ((len(mover.final), mover.throughput), *mover.shapes)
        )
    serving = tuple(one for one in servers if one.serving)
    now = coverage(total_blocks, serving)
    unit = math.fsum(one.throughput * len(one.final) for one in servers) / total_blocks
    while_loading = coverage(total_blocks, serving, without=movers)
    if not (while_loading[now > 1e-6 * unit] > 0).all():
        # Only where a block has no server and none is on its way, and only if every block has one in the end.
        assert made.covered_in_seconds_before == math.inf
        assert made.best is not None
        assert made.best.uncovered_blocks == 0


@examples(0.5)
@given(swarms())
def test_following_plans_comes_to_an_end(case: tuple[int, tuple[PlanServer, ...]]) -> None:
    total_blocks, servers = case
    for _ in range(200):
        made = plan(total_blocks, *servers)
        if not made.moves:
            return
        servers = after(servers, made)
    pytest.fail("plans go on for ever")


@examples(0.5)
@given(swarms(), st.floats(0.01, 100))
def test_the_unit_of_throughput_does_not_matter(case: tuple[int, tuple[PlanServer, ...]], factor: float) -> None:
    total_blocks, servers = case
    power = 2.0 ** round(math.log2(factor))  # exact in floats, so that no tie is decided by rounding
    scaled = tuple(
        replace(
            one,
            throughput=one.throughput * power,
            shapes=tuple((length, rps * power) for length, rps in one.shapes),
        )
        for one in servers
    )
    targets = [(move.peer_id, move.target) for move in plan(total_blocks, *servers).moves]
    assert [(move.peer_id, move.target) for move in plan(total_blocks, *scaled).moves] == targets


def test_in_a_swarm_of_a_thousand_a_weak_block_is_helped_though_no_move_is_a_share_of_the_whole() -> None:
    swarm = tuple(server(f"p{n:04}", n // 990, n // 990 + 1, 1.0) for n in range(1000))
    made = plan(2, *swarm)
    assert not made.is_emergency
    assert [move.target for move in made.moves] == [Span(1, 2)] * 10


def test_a_claimed_move_stays_as_long_as_nothing_is_better_by_the_cost_of_a_move() -> None:
    strong = (server("a", 0, 3, 20.0, movable=False), server("c", 5, 9, 9.0, movable=False))
    swarm = (strong[0], server("b", 0, 3), strong[1], server("d", 3, 5, 1.0, movable=False))
    free = plan(9, *swarm)
    assert [(move.peer_id, move.target) for move in free.moves] == [("b", Span(3, 6))]
    # One block off the best serves the two weakest as well.
    kept = make_plan(swarm, total_blocks=9, move_cost=_COST, standing=Standing("b", Span(2, 5), 5.0))
    assert [(move.peer_id, move.target) for move in kept.moves] == [("b", Span(2, 5))]
    # Two blocks off, one of them is left as it is.
    lost = make_plan(swarm, total_blocks=9, move_cost=_COST, standing=Standing("b", Span(1, 4), 5.0))
    assert lost == free
    # With a block beside them that is hardly stronger, one block off helps too, but not by far as much.
    weak = (strong[0], server("b", 0, 3), server("c", 6, 9, 9.0, movable=False), server("d", 3, 5, 1.0, movable=False))
    beside = server("e", 5, 6, 2.0, movable=False)
    better = make_plan((*weak, beside), total_blocks=9, move_cost=_COST, standing=Standing("b", Span(2, 5), 5.0))
    assert [(move.peer_id, move.target) for move in better.moves] == [("b", Span(3, 6))]


def test_a_claimed_move_is_given_up_for_a_better_one_and_where_it_would_uncover_a_block() -> None:
    weak = (server("a", 0, 6, 2.0, movable=False), server("c", 6, 9, 1.0, movable=False))
    there = Standing("b", Span(3, 6), 5.0)
    made = make_plan((weak[0], server("b", 0, 3), weak[1]), total_blocks=9, move_cost=_COST, standing=there)
    assert [(move.peer_id, move.target) for move in made.moves] == [("b", Span(6, 9))]
    alone = (server("a", 3, 9, 2.0, movable=False), server("b", 0, 3))
    assert not make_plan(alone, total_blocks=9, move_cost=_COST, standing=there).moves


def test_a_claimed_move_into_a_hole_stays_where_another_target_would_hardly_be_better() -> None:
    swarm = (server("a", 0, 3), server("b", 0, 4), server("c", 0, 3))
    free = make_plan(swarm, total_blocks=6, move_cost=_COST)
    assert free.is_emergency
    assert [(move.peer_id, move.target) for move in free.moves] == [("a", Span(3, 6))]
    kept = make_plan(swarm, total_blocks=6, move_cost=_COST, standing=Standing("c", Span(3, 6), 5.0))
    assert kept.is_emergency
    assert [(move.peer_id, move.target) for move in kept.moves] == [("c", Span(3, 6))]


def test_nobody_leaves_blocks_to_a_server_that_only_claims_them() -> None:
    leaving = (Span(3, 6), 5.0)
    # If `c` comes to 0:3 as it claims, one of the others can go; if it does not, 0:3 would be down to one of them.
    swarm = (server("a", 0, 3), server("b", 0, 3), server("c", 0, 3, serving=False, movable=False))
    alone = (server("d", 3, 6, 8.0), server("e", 3, 6, 1.0))
    assert plan(6, *swarm, *alone).moves
    doubtful = replace(swarm[2], movable_in_emergency=False, unless_claimed=leaving)
    assert not plan(6, *swarm[:2], doubtful, *alone).moves


def test_nobody_leaves_blocks_to_a_server_that_announces_too_much() -> None:
    def beside(credit: float) -> Plan:
        strong = server("d", 0, 3, 20.0, movable=False, credit=credit)
        return plan(6, server("a", 0, 3), server("b", 0, 3), server("c", 3, 6, 6.0, movable=False), strong)

    assert len(beside(1.0).moves) == 2
    # If `d` serves only a fifth of that, both who stand beside it must not go.
    assert len(beside(0.2).moves) == 1


def test_no_move_is_made_that_helps_only_if_a_server_lives_that_should_have_renewed_its_record() -> None:
    strong = (server("a", 0, 3), server("b", 0, 3, 1.0), server("c", 0, 3, 4.0, movable=False))
    rest = server("d", 3, 6, 5.0, movable=False)
    assert plan(6, *strong, rest).moves
    # Without `c` the bottleneck is 5 with the move and without it.
    assert not plan(6, *strong[:2], replace(strong[2], is_overdue=True), rest).moves


def test_a_hole_is_closed_whoever_is_overdue() -> None:
    swarm = (server("a", 0, 3), server("b", 0, 3), server("c", 0, 3, is_overdue=True))
    assert plan(6, *swarm).moves


def test_what_only_a_claim_would_uncover_is_no_emergency() -> None:
    leaving = server(
        "a", 0, 3, serving=False, movable=False, movable_in_emergency=False, unless_claimed=(Span(3, 6), 5.0)
    )
    made = plan(6, leaving, server("b", 0, 3, movable=False))
    assert not made.is_emergency
    assert not made.moves


def test_of_those_that_can_close_a_hole_the_quickest_does() -> None:
    swarm = [server(name, 0, 3, load_seconds=seconds) for name, seconds in (("a", 900.0), ("b", 60.0), ("c", 300.0))]
    assert [move.peer_id for move in plan(6, *swarm).moves] == ["b"]


def test_a_swarm_of_silent_servers_has_no_plan() -> None:
    made = plan(4, server("a", 0, 2, 0.0), server("b", 0, 4, 0.0))
    assert not made.moves
    assert made.uncovered_before == 4


def searches(
    total_blocks: int, *servers: PlanServer, move_cost: float = _COST, standing: Standing | None = None
) -> list[tuple[SearchRules, list[int]]]:
    """Give the rules of each search that a plan takes, and the servers that may be moved by it."""
    made: list[tuple[SearchRules, list[int]]] = []

    def noted(every: Any, movers: list[int], start: State, *, unit: float, rules: SearchRules) -> Iterator[State]:
        made.append((rules, movers))
        return find_states(every, movers, start, unit=unit, rules=rules)

    with mock.patch.object(plans, "find_states", noted):
        make_plan(servers, total_blocks=total_blocks, move_cost=move_cost, standing=standing)
    return made


@pytest.mark.parametrize(
    ("number", "depth", "beam", "sharpnesses"),
    [
        (1, 3, 4, (8, 32)),
        (60, 3, 4, (8, 32)),
        (61, 3, 1, (32,)),
        (100, 3, 1, (32,)),
        (101, 4, 1, (32,)),
        (300, 9, 1, (32,)),
        (400, 10, 1, (32,)),
    ],
)
def test_the_more_servers_there_are_the_more_moves_a_plan_may_have_and_the_narrower_is_its_search(
    number: int, depth: int, beam: int, sharpnesses: tuple[int, ...]
) -> None:
    swarm = [server(f"p{index:03}", 0, 2, movable=index == 0) for index in range(number)]
    (rules, movers) = searches(2, *swarm)[0]
    assert (rules.depth, rules.beam, rules.sharpnesses, rules.haste) == (depth, beam, sharpnesses, 0.0)
    assert (rules.may_uncover, rules.within_seconds) == (False, math.inf)
    assert movers == [0]
    # The bottleneck is the mean here; all moves of a plan cost no more than fifty times what a server serves of it.
    assert rules.move_cost == pytest.approx(0.04 * min(1.0, 50 / number / depth))


def test_what_a_move_costs_follows_the_bottleneck_between_a_tenth_and_all_of_the_mean() -> None:
    def cost(weak: float, *, dial: float = 0.04) -> float:
        rest = 2.0 - weak
        return searches(2, server("a", 0, 1, weak), server("b", 1, 2, rest), move_cost=dial)[0][0].move_cost

    assert cost(0.5) == pytest.approx(0.04 * 0.5)
    assert cost(0.5, dial=0.5) == pytest.approx(0.5 * 0.5)
    assert cost(0.25) == pytest.approx(0.04 * 0.25)
    assert cost(0.01) == pytest.approx(0.04 * 0.1)
    # Servers that are small beside the whole can bring no share of it: here each serves one of a thousand parts of the mean.
    many = [server(f"p{index:04}", index // 1000, index // 1000 + 1, 1.0, movable=False) for index in range(2000)]
    assert searches(2, *many)[0][0].move_cost == pytest.approx(0.04 * 50 / 1000 / 10)


def test_a_hole_is_looked_at_twice_with_quick_servers_first_and_the_second_time_without_mercy() -> None:
    pile = [server("a", 0, 3, movable=False), server("b", 0, 3, movable_in_emergency=False), server("c", 0, 3)]
    first = SearchRules(3, 4, (8, 32), move_cost=0.0, haste=0.2)
    assert searches(6, *pile) == [(first, [0, 2])]
    # No few moves close this one.
    second = replace(first, depth=10, beam=8, may_uncover=True)
    assert searches(12, *pile) == [(first, [0, 2]), (second, [0, 2])]
    crowd = [server(f"p{index:02}", 0, 1, movable=False, movable_in_emergency=index == 0) for index in range(61)]
    assert searches(9, *crowd)[0] == (replace(first, beam=1, sharpnesses=(32,)), [0])


def test_a_hole_that_will_be_closed_is_closed_in_half_the_time_or_not_at_all() -> None:
    def rules_beside(arrives_in: float) -> list[SearchRules]:
        coming = server("slow", 3, 6, serving=False, movable=False, movable_in_emergency=False, arrives_in=arrives_in)
        pile = [server(name, 0, 3, load_seconds=arrives_in) for name in "abc"]
        return [rules for rules, _ in searches(6, coming, *pile)]

    improvement = rules_beside(120.0)
    assert len(improvement) == 1
    assert improvement[0].haste == 0.0
    quicker = SearchRules(3, 4, (32,), move_cost=0.0, haste=0.2, within_seconds=75.0)
    assert rules_beside(150.0) == [quicker, *improvement]


def test_a_plan_tells_its_moves_and_what_they_lead_to() -> None:
    swarm = (
        server("a", 0, 3, 8.0, movable=False),
        server("b", 0, 3, 4.0, load_seconds=1800.0, fetch_seconds=60.0),
        server("c", 3, 6, 4.0, movable=False),
    )
    made = plan(6, *swarm, move_cost=0.1)
    moves = (PlannedMove("b", Span(0, 3), Span(3, 6), 4.0, 1800.0),)
    outlook = Outlook(moves, 8.0, uncovered_blocks=0, cost_rps=0.4, gain_rps=4.0, covered_in_seconds=0.0)
    assert made == Plan(
        moves,
        bottleneck_before_rps=4.0,
        uncovered_before=0,
        is_emergency=False,
        best=outlook,
        movable=1,
        covered_in_seconds_before=0.0,
    )
    assert made.move_of("b") is made.moves[0]
    assert made.move_of("a") is None


def test_a_plan_that_closes_a_hole_tells_when() -> None:
    pile = [server("a", 0, 3, 6.0, load_seconds=60.0, fetch_seconds=40.0), server("b", 0, 3, 6.0, movable=False)]
    made = plan(6, *pile)
    moves = (PlannedMove("a", Span(0, 3), Span(3, 6), 6.0, 60.0),)
    outlook = Outlook(moves, 6.0, uncovered_blocks=0, cost_rps=0.0, gain_rps=6.0, covered_in_seconds=100.0)
    assert made == Plan(
        moves,
        0.0,
        uncovered_before=3,
        is_emergency=True,
        best=outlook,
        movable=2,
        covered_in_seconds_before=math.inf,
    )


def test_a_plan_has_to_lead_to_more_than_what_the_blocks_that_were_read_have() -> None:
    swarm = (server("a", 0, 3, 9.0), server("b", 0, 3, 6.0), server("c", 3, 6, 2.0))

    def made(*unread: int) -> Plan:
        return make_plan(swarm, total_blocks=6, move_cost=_COST, unread=frozenset(unread))

    free = made()
    assert [move.target for move in free.moves] == [Span(3, 6)]
    # As long as one of the weakest was read, the others are no weaker than that.
    assert made(4, 5) == free
    assert made(0, 1, 2) == free
    assert made(3, 4, 5) == made(*range(6)) == replace(free, moves=())


def test_nobody_leaves_blocks_who_may_serve_as_much_there_as_it_announces() -> None:
    def beside(announced: float) -> Plan:
        loud = {"announced": announced}
        return plan(6, server("a", 0, 3, 4.0, movable=False, **loud), server("b", 3, 6, **loud), server("c", 3, 6))

    assert [move.peer_id for move in beside(1.0).moves] == ["b"]
    # If both serve five times what is counted for them, the blocks that `b` leaves would have been the stronger ones.
    assert "b" not in [move.peer_id for move in beside(5.0).moves]


def test_where_a_server_goes_that_may_be_gone_does_not_count() -> None:
    swarm = (server("a", 0, 3, 9.0), server("b", 0, 3, 9.0), server("c", 3, 6, 5.0))
    assert [move.peer_id for move in plan(6, *swarm).moves] == ["a"]
    made = plan(6, replace(swarm[0], is_overdue=True), *swarm[1:])
    assert [move.peer_id for move in made.moves] == []
    assert [move.peer_id for move in plan(6, *swarm, server("d", 0, 3, 9.0, is_overdue=True)).moves] == ["a"]


def test_a_claim_of_nobody_or_to_where_the_server_is_changes_nothing() -> None:
    swarm = (server("a", 0, 3, 20.0), server("b", 0, 3), server("c", 3, 6, 1.0))
    free = plan(6, *swarm)
    assert free.moves
    for standing in (Standing("x", Span(2, 5), 5.0), Standing("b", Span(0, 3), 5.0)):
        assert make_plan(swarm, total_blocks=6, move_cost=_COST, standing=standing) == free


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_throughputs_count_by_their_mean_be_they_tiny_or_huge(factor: float) -> None:
    def made(unit: float) -> Plan:
        return plan(6, server("a", 0, 3, 9 * unit), server("b", 0, 3, 6 * unit), server("c", 3, 6, 2 * unit))

    usual, scaled = made(1.0), made(factor)
    assert usual.best is not None
    assert scaled.best is not None
    assert [(move.peer_id, move.target) for move in scaled.moves] == [("b", Span(3, 6))]
    assert scaled.best.bottleneck_rps == usual.best.bottleneck_rps * factor == 8.0 * factor
    assert scaled.best.cost_rps == usual.best.cost_rps * factor


def test_where_the_mean_is_beyond_all_numbers_throughputs_count_as_they_are() -> None:
    made = plan(
        6, server("a", 0, 3, 1e308, movable=False), server("b", 0, 3, 20.0), server("c", 3, 6, 5.0, movable=False)
    )
    assert [(move.peer_id, move.target) for move in made.moves] == [("b", Span(3, 6))]
    assert (made.is_emergency, made.bottleneck_before_rps) == (False, 5.0)
    assert made.best is not None
    assert made.best.cost_rps == pytest.approx(0.04)


def test_what_a_mover_leaves_behind_may_be_the_new_bottleneck() -> None:
    made = plan(6, server("a", 0, 3, 6.0, movable=False), server("b", 0, 3), server("c", 3, 6, 4.0, movable=False))
    assert made.best is not None
    assert [move.peer_id for move in made.moves] == ["b"]
    assert made.best.bottleneck_rps == pytest.approx(6.0)
    assert made.best.gain_rps == pytest.approx(2.0)


def claimed(
    total_blocks: int, swarm: tuple[PlanServer, ...], standing: Standing, *, move_cost: float = _COST
) -> list[tuple[str, Span, float]]:
    """Give the moves of a plan with a claim."""
    made = make_plan(swarm, total_blocks=total_blocks, move_cost=move_cost, standing=standing)
    return [(move.peer_id, move.target, round(move.throughput, 9)) for move in made.moves]


def test_a_claim_gives_way_to_what_is_better_by_more_than_the_cost_of_a_move() -> None:
    swarm = (server("a", 0, 3, 20.0, movable=False), server("b", 0, 3), server("c", 3, 6, 1.0, movable=False))
    # Of a mean of 13 a move costs 0.052.
    assert claimed(6, swarm, Standing("b", Span(3, 6), 4.96)) == [("b", Span(3, 6), 4.96)]
    assert claimed(6, swarm, Standing("b", Span(3, 6), 4.93)) == [("b", Span(3, 6), 5.0)]


def test_where_moves_cost_nothing_a_claim_holds_against_what_is_as_good() -> None:
    swarm = (server("a", 0, 3, 6.0, movable=False), server("b", 0, 3), server("c", 0, 3))
    weak = server("d", 3, 6, 1.0, movable=False)
    assert [move.peer_id for move in plan(6, *swarm, weak, move_cost=0.0).moves] == ["b"]
    assert claimed(6, (*swarm, weak), Standing("c", Span(3, 6), 5.0), move_cost=0.0) == [("c", Span(3, 6), 5.0)]


def test_a_claim_that_brings_too_little_gives_way_to_a_move_that_brings_just_enough() -> None:
    swarm = (*(server(name, 0, 3, 10.0) for name in "abc"), server("d", 3, 6, 19.0, movable=False))
    assert claimed(6, swarm, Standing("b", Span(3, 6), 0.5)) == [("a", Span(3, 6), 10.0)]


def test_a_claim_that_counts_on_nobody_in_doubt_holds_where_the_best_does() -> None:
    swarm = (
        server("a", 0, 3, movable=False),
        server("b", 0, 3, 1.0),
        server("c", 0, 3, 4.0, movable=False, is_overdue=True),
        server("d", 3, 6, 5.0, movable=False),
    )
    # With `c` gone, the bottleneck is 5, and more only if `b` serves on both sides.
    assert not plan(6, *swarm).moves
    assert claimed(6, swarm, Standing("b", Span(0, 6), 0.6)) == [("b", Span(0, 6), 0.6)]


def test_what_follows_on_a_claimed_move_is_one_move_less() -> None:
    swarm = (server("a", 0, 3, 20.0), server("b", 0, 3), server("c", 3, 6, 1.0))
    free, following = searches(6, *swarm, standing=Standing("b", Span(3, 6), 5.0))
    assert following == (replace(free[0], depth=2), free[1])


def test_a_claimed_repair_is_kept_if_it_is_worth_nine_tenths_of_the_best() -> None:
    pile = (
        server("a", 0, 3, 10.0, movable=False, load_seconds=0.0),
        server("b", 0, 3, 22.0, movable_in_emergency=False),
    )
    for throughput, kept in ((9.0, 9.0), (8.9, 10.0)):
        standing = Standing("a", Span(3, 6), throughput)
        assert claimed(6, pile, standing, move_cost=0.0) == [("a", Span(3, 6), kept)]


def test_a_claimed_repair_is_given_up_if_it_would_leave_blocks_to_one_who_may_serve_nothing() -> None:
    pile = (server("a", 0, 3), server("b", 0, 3), server("c", 3, 6, load_seconds=700.0))
    standing = Standing("c", Span(6, 7), 5.0)

    def made(credit: float) -> list[tuple[str, Span, float]]:
        doubtful = server("d", 3, 6, movable_in_emergency=False, credit=credit)
        return claimed(7, (*pile, doubtful), standing, move_cost=0.2)

    assert made(1.0) == [("c", Span(6, 7), 5.0)]
    assert made(0.0) == [("a", Span(4, 7), 5.0)]


def test_where_no_few_moves_close_the_holes_the_whole_swarm_is_laid_out_anew() -> None:
    # A row of servers that overlap by one block: nearly all have to shift, more than a search looks at together.
    row = [server(f"p{index:02}", 2 * index, 2 * index + 3) for index in range(13)]
    made = plan(39, *row)
    assert made.is_emergency
    assert [round(move.throughput, 9) for move in made.moves] == [5.0] * 11
    assert made.best is not None
    assert made.best.bottleneck_rps == pytest.approx(5.0)
    assert (made.best.cost_rps, made.best.uncovered_blocks) == (0.0, 0)


def test_of_a_layout_and_what_a_search_finds_that_is_taken_which_leads_to_more() -> None:
    row = (server("a", 0, 3), server("b", 2, 5), server("c", 4, 7))

    def throughputs(of_layout: float) -> list[float]:
        placements = (Placement(1, Span(3, 6), of_layout), Placement(2, Span(6, 9), of_layout))
        with mock.patch.object(plans, "lay_out", return_value=placements):
            return [round(move.throughput, 9) for move in plan(9, *row).moves]

    assert throughputs(4.9) == [5.0, 5.0]
    assert throughputs(4.0) == [5.0, 5.0]


def test_no_layout_leaves_blocks_to_one_who_may_serve_nothing() -> None:
    def moves(credit: float) -> int:
        stay = server("b", 0, 3, movable_in_emergency=False, credit=credit)
        placements = (Placement(0, Span(3, 4), 5.0),)
        with mock.patch.object(plans, "lay_out", return_value=placements):
            return len(plan(4, server("a", 0, 3, movable_in_emergency=False), stay).moves)

    assert moves(1.0) == 1
    assert moves(0.0) == 0


def test_a_hole_is_closed_sooner_only_where_the_time_is_worth_the_moves() -> None:
    def made(dial: float) -> Plan:
        coming = server("slow", 3, 6, serving=False, movable=False, movable_in_emergency=False, arrives_in=1200.0)
        pile = [
            server("a", 0, 3, movable=False, load_seconds=0.0),
            server("b", 0, 3, movable=False, movable_in_emergency=False),
        ]
        weakest = server("weak", 6, 7, 2.0, movable=False, movable_in_emergency=False)
        return plan(7, coming, *pile, weakest, move_cost=dial)

    # An hour after an outage of twenty minutes is worth three quarters of one without.
    assert made(0.24).is_emergency
    assert not made(0.25).is_emergency


@pytest.mark.parametrize("arrives_in", [500.0, 600.0])
def test_who_comes_in_half_the_time_closes_its_hole_by_itself(arrives_in: float) -> None:
    coming = {"serving": False, "movable": False, "movable_in_emergency": False}
    slow = server("slow", 3, 6, 5.0, arrives_in=1200.0, **coming)
    soon = server("soon", 6, 9, 5.0, arrives_in=arrives_in, **coming)
    made = plan(9, *(server(name, 0, 3, movable=False, load_seconds=60.0) for name in "abc"), slow, soon)
    assert made.is_emergency
    assert [move.target for move in made.moves] == [Span(3, 6)]
    assert made.best is not None
    assert made.best.covered_in_seconds == arrives_in


def test_while_a_slow_hole_is_closed_that_nobody_can_close_sooner_weak_blocks_are_helped() -> None:
    coming = server("slow", 4, 7, serving=False, movable=False, movable_in_emergency=False, arrives_in=1200.0)
    pile = [server("a", 0, 2, load_seconds=60.0), server("b", 0, 2, movable=False, movable_in_emergency=False)]
    made = plan(7, *pile, server("d", 2, 4, 1.0, movable=False, movable_in_emergency=False), coming)
    assert [move.target for move in made.moves] == [Span(2, 4)]
    assert not made.is_emergency


def test_without_those_who_are_overdue_a_mover_is_missed_where_it_was_and_adds_to_who_is_there() -> None:
    gone = server("z", 0, 3, 20.0, movable=False, is_overdue=True)
    alone = (server("a", 0, 3), server("b", 0, 3, 1.0, movable=False), server("c", 3, 6, 3.0, movable=False))
    assert plan(6, *alone, replace(gone, is_overdue=False)).moves
    assert not plan(6, *alone, gone).moves
    strong = (server("a", 0, 3, 20.0, movable=False), server("b", 0, 3, 2.0), server("c", 3, 6, 5.0, movable=False))
    assert [move.peer_id for move in plan(6, *strong, gone).moves] == ["b"]


def test_who_may_serve_but_a_part_is_missed_and_counted_by_that_part() -> None:
    beside = (server("b", 0, 3, 9.0, movable=False), server("c", 3, 6, 3.0, movable=False))
    assert [move.peer_id for move in plan(6, server("a", 0, 3, credit=0.1), *beside).moves] == ["a"]

    def exchanged(credit: float) -> list[tuple[str, Span]]:
        # `a` has to take the place of `b`, so that `b` can help at 3:6.
        swarm = (
            server("a", 6, 8, credit=credit),
            server("b", 0, 3),
            server("c", 0, 2, 1.0, movable=False, credit=0.5),
            server("d", 2, 3, 20.0, movable=False),
            server("e", 3, 6, 1.0, movable=False),
            server("f", 6, 8, 20.0, movable=False),
        )
        return sorted((move.peer_id, move.target) for move in plan(8, *swarm).moves)

    assert exchanged(1.0) == [("a", Span(0, 2)), ("b", Span(3, 6))]
    assert exchanged(0.001) == []


def test_who_may_serve_more_than_is_counted_takes_it_along() -> None:
    loud = {"announced": 5.0}
    swarm = (
        server("a", 0, 1, 9.0, movable=False),
        server("b", 0, 3, **loud),
        server("c", 1, 3, 0.5, movable=False),
        server("d", 3, 4, 1.0, movable=False, **loud),
    )
    assert [(move.peer_id, move.target) for move in plan(4, *swarm).moves] == [("b", Span(1, 4))]


@pytest.mark.parametrize("beside", [9.0, 20.0])
def test_the_weakest_block_of_what_is_announced_may_stay_as_it_is(beside: float) -> None:
    # If all is as announced 4:6 is the weakest, be that more than the counted mean or less.
    made = plan(
        6,
        server("a", 0, 2),
        server("b", 0, 2, beside, movable=False),
        server("c", 2, 4, 1.0, movable=False, announced=9.0),
        server("d", 4, 6, 8.0, movable=False),
    )
    assert [(move.peer_id, move.target) for move in made.moves] == [("a", Span(2, 4))]
