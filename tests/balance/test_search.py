"""The search over moves: what a step leads to, and that no better states are passed over than the beam is wide."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from swarmkeel.balance.candidates import NOTHING, Pricing, Start
from swarmkeel.balance.coverage import SoftMinimum
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.search import (
    SearchRules,
    State,
    Step,
    count_uncovered,
    find_states,
    initial_state,
    take_step,
)
from swarmkeel.swarm.span import Span
from tests.balance.plan_servers import plan_server as server
from tests.balance.test_candidates import by_itself

RULES = SearchRules(depth=3, beam=3, sharpnesses=(8,), move_cost=0.04)


def rounded(state: State) -> tuple[list[float], list[float]]:
    return [round(each, 9) for each in state.coverage.tolist()], [round(each, 9) for each in state.serving.tolist()]


def test_before_any_move_servers_cover_what_they_are_going_to_serve() -> None:
    swarm = [server("a", 0, 3, 5.0), server("b", 2, 5, 3.0, serving=False), server("c", 2, 3, 1.0)]
    state = initial_state(swarm, 6, 2.0)
    assert state.coverage.tolist() == [2.5, 2.5, 4.5, 1.5, 1.5, 0.0]
    assert state.serving.tolist() == [2.5, 2.5, 3.0, 0.0, 0.0, 0.0]
    assert (state.steps, state.cost, state.score, state.bottleneck, state.uncovered) == ((), 0.0, 0.0, 0.0, 1)


def test_what_rounding_left_of_nothing_covers_nothing() -> None:
    assert count_uncovered(np.array([0.0, NOTHING / 2, NOTHING, 2 * NOTHING, 1.0])) == 3


def test_a_step_takes_its_server_out_of_service_and_has_it_serve_elsewhere() -> None:
    swarm = [server("z", 4, 6, 8.0), server("a", 0, 3, 5.0, load_seconds=1800.0), server("b", 0, 6, 2.0)]
    first = initial_state(swarm, 6, 2.0)
    begun = replace(first, steps=(Step(0, Span(4, 6), 4.0),), cost=0.5, score=0.25)
    state = take_step(swarm, begun, Step(1, Span(2, 5), 1.5), unit=2.0, rules=RULES)
    assert state is not None
    assert state.steps == (Step(0, Span(4, 6), 4.0), Step(1, Span(2, 5), 1.5))
    assert state.coverage.tolist() == [1.0, 1.0, 2.5, 2.5, 6.5, 5.0]
    assert state.serving.tolist() == [1.0, 1.0, 1.0, 1.0, 5.0, 5.0]
    assert (state.bottleneck, state.uncovered, state.score) == (1.0, 0, 0.25)
    # Block 3 is the weakest with it and without it, so that nothing is lost while it loads.
    assert state.cost == pytest.approx(0.5 + 0.04)
    assert first.coverage.tolist() == [3.5, 3.5, 3.5, 1.0, 5.0, 5.0]  # as it was
    # With less beside it, half an hour of half a request is lost.
    weak = [*swarm[:2], server("b", 0, 3, 1.0), server("c", 3, 6, 2.0)]
    state = take_step(weak, initial_state(weak, 6, 2.0), Step(1, Span(2, 5), 1.5), unit=2.0, rules=RULES)
    assert state is not None
    assert state.cost == pytest.approx(0.04 + 0.5 * 0.5)


def test_a_step_uncovers_a_block_only_where_the_rules_let_it() -> None:
    swarm = [server("a", 0, 3, 0.3), server("b", 0, 2, 0.1), server("c", 5, 6, NOTHING)]
    before = initial_state(swarm, 6, 1.0)
    step = Step(0, Span(2, 5), 0.3)
    assert take_step(swarm, before, step, unit=1.0, rules=RULES) is None
    uncovering = replace(RULES, may_uncover=True)
    state = take_step(swarm, before, Step(0, Span(3, 5), 0.3), unit=1.0, rules=uncovering)
    assert state is not None
    assert rounded(state) == ([0.1, 0.1, 0, 0.3, 0.3, NOTHING], [0.1, 0.1, 0, 0, 0, NOTHING])
    assert state.uncovered == 2
    # What rounding leaves of a block whose only servers are gone is nothing.
    both = take_step(swarm, state, Step(1, Span(4, 6), 0.1), unit=1.0, rules=uncovering)
    assert both is not None
    assert both.coverage.tolist()[:3] == both.serving.tolist()[:3] == [0.0, 0.0, 0.0]


def test_a_server_that_does_not_serve_yet_takes_nothing_away_when_it_leaves() -> None:
    swarm = [server("a", 0, 3, 5.0, serving=False), server("b", 0, 6, 2.0)]
    rules = replace(RULES, may_uncover=True)
    state = take_step(swarm, initial_state(swarm, 6, 1.0), Step(0, Span(3, 6), 5.0), unit=1.0, rules=rules)
    assert state is not None
    assert rounded(state) == ([2, 2, 2, 7, 7, 7], [2] * 6)


def beam_search(swarm: list[PlanServer], movers: list[int], rules: SearchRules, unit: float) -> list[set[Step]]:
    """Search by rating every move by itself; gives the states by their steps, level by level."""
    scaled = [
        replace(one, throughput=one.throughput / unit, shapes=tuple((length, rps / unit) for length, rps in one.shapes))
        for one in (swarm[mover] for mover in movers)
    ]
    pricing = Pricing(rules.move_cost, rules.haste, rules.may_uncover, rules.within_seconds)
    found: list[set[Step]] = []
    for sharpness in rules.sharpnesses:
        frontier = [initial_state(swarm, 6, unit)]
        for _ in range(rules.depth):
            starts = [
                Start(one.coverage, one.serving, one.cost, tuple(movers.index(step.mover) for step in one.steps))
                for one in frontier
            ]
            rated = by_itself((scaled, starts, SoftMinimum(sharpness), pricing, 0))
            level: list[State] = []
            for (origin, row, start, length, throughput), _ in sorted(rated.items(), key=lambda item: -item[1]):
                step = Step(movers[row], Span(start, start + length), throughput)
                if {*frontier[origin].steps, step} in [set(one.steps) for one in level]:
                    continue
                state = take_step(swarm, frontier[origin], step, unit=unit, rules=rules)
                assert state is not None
                level.append(state)
                if len(level) == rules.beam:
                    break
            found += [set(one.steps) for one in level]
            frontier = level
            if not frontier:
                break
    return found


UNEQUAL = [
    server("a", 0, 3, 5.1, load_seconds=60.0),
    server("b", 0, 3, 4.3, shapes=((2, 5.9),)),
    server("c", 0, 4, 3.7, movable=False),
    server("d", 1, 5, 2.9, load_seconds=300.0, fetch_seconds=600.0),
    server("e", 3, 6, 1.3),
    server("f", 4, 6, 1.1, serving=False),
]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"beam": 1, "sharpnesses": (32,)},
        {"depth": 1, "beam": 50},
        {"depth": 2, "beam": 20},
        {"depth": 9, "beam": 2, "move_cost": 0.0},
        {"may_uncover": True},
        {"haste": 0.5},
        {"within_seconds": 400.0},
        {"sharpnesses": (8, 32)},
    ],
    ids=str,
)
def test_the_search_keeps_the_best_different_states_of_each_number_of_moves(changes: dict[str, Any]) -> None:
    rules = replace(RULES, **changes)
    movers = [0, 1, 3, 4]
    start = initial_state(UNEQUAL, 6, 2.5)
    found = list(find_states(UNEQUAL, movers, start, unit=2.5, rules=rules))
    expected = beam_search(UNEQUAL, movers, rules, 2.5)
    assert [set(state.steps) for state in found] == expected
    for state in found:
        made = start
        for step in state.steps:
            then = take_step(UNEQUAL, made, step, unit=2.5, rules=rules)
            assert then is not None
            made = then
        assert rounded(state) == rounded(made)
        assert (state.cost, state.bottleneck, state.uncovered) == (made.cost, made.bottleneck, made.uncovered)
        soft = [SoftMinimum(sharpness).of(state.coverage) for sharpness in rules.sharpnesses]
        if rules.haste == 0:
            assert any(state.score == pytest.approx(each - state.cost) for each in soft)


def test_where_no_more_moves_can_be_made_the_search_ends_and_is_made_with_the_next_sharpness() -> None:
    swarm = [server("a", 0, 3), server("b", 0, 3), server("c", 3, 6, 1.0)]
    rules = replace(RULES, sharpnesses=(8, 32), beam=1)
    found = list(find_states(swarm, [0, 1, 2], initial_state(swarm, 6, 1.0), unit=1.0, rules=rules))
    assert [state.steps for state in found] == [(Step(0, Span(3, 6), 5.0),)] * 2
    assert list(find_states(swarm, [], initial_state(swarm, 6, 1.0), unit=1.0, rules=rules)) == []


def test_moves_that_end_too_late_are_not_looked_at() -> None:
    swarm = [server("a", 0, 3, load_seconds=60.0), server("b", 0, 3), server("c", 0, 3)]
    rules = replace(RULES, depth=1, beam=50, within_seconds=60.0)
    before = initial_state(swarm, 6, 1.0)
    found = list(find_states(swarm, [0, 1, 2], before, unit=1.0, rules=rules))
    assert {step.mover for state in found for step in state.steps} == {0}
    assert len(list(find_states(swarm, [0, 1, 2], before, unit=1.0, rules=replace(rules, within_seconds=math.inf)))) > 3
