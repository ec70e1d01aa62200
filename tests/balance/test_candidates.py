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
from swarmkeel.balance.candidates import NOTHING, Candidate, Movers, Pricing, Start, best_candidates
from swarmkeel.balance.coverage import SoftMinimum, sum_coverage
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span

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


def test_most_servers_of_a_large_swarm_are_passed_over() -> None:
    draws = np.random.RandomState(1)
    servers = []
    for index in range(2000):
        start = int(draws.randint(0, 30))
        plain = PlanServer(
            f"p{index:04}",
            Span(start, start + int(draws.randint(2, 11))),
            float(draws.lognormal()),
            serving=True,
            movable=True,
            movable_in_emergency=True,
            load_seconds=600.0,
        )
        servers.append(replace(plain, load_seconds=float(draws.uniform(60, 1200))))
    throughputs = [each.throughput for each in servers]
    coverage = sum_coverage([each.final for each in servers], throughputs, 40)
    unit = float(coverage.mean())
    before = Start(coverage / unit, coverage / unit, 0.0, ())
    pricing = Pricing(0.01, 0.0, may_uncover=False, within_seconds=math.inf)
    rated = 0
    rate = candidates._Rating.rate

    def counted(self: candidates._Rating, states: object, options: np.ndarray, found: object) -> None:
        nonlocal rated
        rated += len(options)
        rate(self, states, options, found)  # type: ignore[arg-type] # as they came

    with mock.patch.object(candidates._Rating, "rate", counted):
        found = best_candidates(Movers(servers, 40, unit), [before], SoftMinimum(32), pricing, enough=1)
    assert len(found) == 1
    assert rated < len(servers) / 2
