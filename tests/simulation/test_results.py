"""Bounds, measures, comparisons, and that all of it can be repeated to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.bound import throughput_bound
from swarmkeel.simulation.bounds import BoundStep, bound_steps, frozen_optimum, lp_bound
from swarmkeel.simulation.compare import Job, compare, run_jobs
from swarmkeel.simulation.events import EventQueue
from swarmkeel.simulation.measures import measure_run
from swarmkeel.simulation.policies import parse_policy
from swarmkeel.simulation.population import Population, draw_population
from swarmkeel.simulation.truth import Truth
from swarmkeel.simulation.world import simulate
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.span import Span
from tests.simulation.swarms import SMALL, small_scenario, small_world
from tests.support.examples import examples

_servers = st.lists(st.tuples(st.integers(1, 9), st.floats(0.1, 50.0)), min_size=1, max_size=7)


@examples(0.6)
@given(_servers, st.integers(9, 14), st.data())
def test_no_placement_exceeds_the_lp_bound_which_does_not_exceed_the_mean(
    servers: list[tuple[int, float]], total_blocks: int, data: st.DataObject
) -> None:
    bound = lp_bound(servers, total_blocks)
    coverage = [0.0] * total_blocks
    spans = {}
    for number, (length, throughput) in enumerate(servers):
        start = data.draw(st.integers(0, total_blocks - length))
        spans[f"Qm{number}"] = RemoteSpanInfo(
            f"Qm{number}", start, start + length, ServerInfo(ServerState.ONLINE, throughput)
        )
        for block in range(start, start + length):
            coverage[block] += throughput
    assert min(coverage) <= bound * (1 + 1e-6)
    assert bound <= sum(length * throughput for length, throughput in servers) / total_blocks * (1 + 1e-6)


@examples(0.15)
@given(_servers, st.integers(9, 12))
def test_bounds_hold_for_the_best_placement(servers: list[tuple[int, float]], total_blocks: int) -> None:
    """The optimum of the integer program is under both bounds."""
    best = frozen_optimum(servers, total_blocks, seconds=120)  # what was not searched to its end is no optimum
    spans = {
        f"Qm{number}": RemoteSpanInfo(f"Qm{number}", 0, length, ServerInfo(ServerState.ONLINE, throughput))
        for number, (length, throughput) in enumerate(servers)
    }
    slack = 1e-5 * max(throughput for _, throughput in servers)
    assert best <= lp_bound(servers, total_blocks) + slack
    assert best <= throughput_bound(spans, total_blocks) + slack


def test_the_lp_bound_of_servers_that_tile_the_model_is_reached() -> None:
    assert lp_bound([(4, 10.0), (4, 10.0), (4, 10.0)], 12) == pytest.approx(10.0)
    # A server over more than half of the blocks always covers the middle: more than its share is lost there.
    assert lp_bound([(3, 8.0)], 4) == pytest.approx(4.0)


def test_the_bound_follows_who_is_alive() -> None:
    scenario = small_scenario()
    population = draw_population(scenario, SMALL, 1)
    steps = bound_steps(population, scenario.ends_at)
    for step in steps[1::5]:
        alive = [fate for fate in population.fates if fate.arrives_at <= step.since < fate.leaves_at]
        assert step.is_coverable == (sum(fate.num_blocks for fate in alive) >= SMALL.blocks)
        if step.is_coverable:
            expected = lp_bound([(fate.num_blocks, fate.throughput) for fate in alive], SMALL.blocks)
            assert step.bound_rps == pytest.approx(expected)


@pytest.mark.parametrize("policy", ["petals", "coordinated", "none"])
def test_no_run_serves_more_than_the_bound(policy: str) -> None:
    scenario = small_scenario()
    population = draw_population(scenario, SMALL, 1)
    steps = bound_steps(population, scenario.ends_at)
    world = small_world(policy)
    world.run()
    served = dict(zip(world.truth.trace.times, world.truth.trace.bottlenecks, strict=True))
    for time, bottleneck in served.items():
        current = [step for step in steps if step.since <= time][-1]
        limit = current.bound_rps if current.is_coverable else 0.0
        assert bottleneck <= limit * (1 + 1e-6) or any(step.since == time for step in steps)
    assert max(served.values()) > 0


def _hand_made() -> tuple[EventQueue, Truth, Population]:
    """Two servers of two blocks for a model of four, by hand."""
    scenario = small_scenario(churn={"enabled": False}, failures=[])
    fates = draw_population(scenario, SMALL, 1).fates[:3]
    queue = EventQueue()
    population = Population(4, fates)
    return queue, Truth(queue, population, 0.0), population


def test_ratio_holes_and_offline_time_are_those_of_a_story_told_by_hand() -> None:
    queue, truth, population = _hand_made()
    left, right, third = (fate.peer_id for fate in population.fates)
    rate = {fate.peer_id: fate.throughput for fate in population.fates}
    for peer_id in (left, right, third):
        truth.arrives(peer_id)
    truth.serves(left, Span(0, 2))
    truth.serves(right, Span(2, 4))
    queue.run_until(100.0)
    truth.stops(right)  # a hole for 50 s
    queue.run_until(120.0)
    truth.loads(right, Span(2, 4))
    queue.run_until(150.0)
    truth.serves(right, Span(2, 4))
    queue.run_until(200.0)
    truth.finish()
    scenario = small_scenario(duration="200s", warm_up="0s", failures=[{"at": "100s", "share": 0.5}])
    bound = 10 * max(rate.values())
    result = measure_run(
        scenario,
        population,
        truth,
        (BoundStep(0.0, bound, is_coverable=True),),
        policy="by hand",
        seed=0,
        servers=3,
        claims=0,
        claims_lost=0,
    )
    bottleneck = min(rate[left], rate[right])
    assert result.ratio == pytest.approx(0.75 * bottleneck / bound)
    assert result.uncovered_share == pytest.approx(0.25)
    assert (result.holes, result.hole_seconds) == (1, 50.0)
    assert result.recovery_seconds == 50.0
    assert result.moves == 1
    assert result.unhelpful_share == 1.0, "it went back to where it was"
    assert truth.offline_seconds == 50.0


def test_a_move_helped_if_without_it_alone_the_swarm_would_be_worse_off() -> None:
    queue, truth, population = _hand_made()
    left, right, third = (fate.peer_id for fate in population.fates)
    for peer_id in (left, right, third):
        truth.arrives(peer_id)
    truth.serves(left, Span(0, 2))
    truth.serves(right, Span(0, 2))
    queue.run_until(10.0)
    truth.stops(right)
    truth.loads(right, Span(2, 4))
    queue.run_until(20.0)
    truth.serves(right, Span(2, 4))
    assert [move.helped for move in truth.moves] == [True]
    # The same way again: now somebody else is on his way to the hole, so that coming there as well helps nobody.
    truth.serves(third, Span(0, 2))
    truth.stops(right)
    truth.loads(right, Span(0, 2))
    truth.serves(right, Span(0, 2))
    assert truth.moves[-1].helped is False


def test_results_do_not_depend_on_processes_or_hash_seed() -> None:
    scenario = small_scenario(duration="20m", warm_up="10m")
    policies = (parse_policy("petals"), parse_policy("coordinated"))
    jobs = [Job(scenario, SMALL, seed, policies) for seed in (1, 2)]
    here = run_jobs(jobs, processes=1)
    assert run_jobs(jobs, processes=2) == here
    code = (
        "import json, sys; from swarmkeel.simulation.scenario import Scenario, Size\n"
        "from swarmkeel.simulation.policies import parse_policy\n"
        "from swarmkeel.simulation.compare import Job, run_job\n"
        f"scenario = Scenario.model_validate_json({scenario.model_dump_json()!r})\n"
        "job = Job(scenario, Size(20, 6), 1, (parse_policy('petals'), parse_policy('coordinated')))\n"
        "print(json.dumps([result.to_json() for result in run_job(job)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(run.stdout) == json.loads(json.dumps([result.to_json() for result in here[0]]))
    assert here[0] != here[1], "another seed is another world"


def test_the_policies_own_randomness_does_not_touch_the_population() -> None:
    scenario = small_scenario(duration="1h")
    alone = simulate(scenario, SMALL, parse_policy("petals"), 5)
    (together,) = run_jobs([Job(scenario, SMALL, 5, (parse_policy("none"), parse_policy("petals")))], processes=1)
    assert together[1] == alone
    assert together[0].server_days == alone.server_days


def test_comparisons_count_seed_by_seed() -> None:
    scenario = small_scenario(duration="1h")
    policies = (parse_policy("petals"), parse_policy("none"))
    results = run_jobs([Job(scenario, SMALL, seed, policies) for seed in range(3)], processes=1)
    comparison = compare("small", SMALL, results)
    first, second = comparison.summaries
    assert first["ratio"].better is None
    pairs = [(row[0].ratio, row[1].ratio) for row in results]
    assert second["ratio"].better == sum(none > petals for petals, none in pairs)
    assert second["ratio"].worse == sum(none < petals for petals, none in pairs)
    assert second["ratio"].factor == pytest.approx(sorted(none / petals for petals, none in pairs)[1])
    moves = second["moves_per_server_day"]
    assert moves.better == sum(row[0].moves > 0 for row in results), "fewer moves are better"


def test_adopted_by_nobody_a_policy_is_petals_to_the_bit() -> None:
    scenario = small_scenario()
    alone = simulate(scenario, SMALL, parse_policy("petals"), 3)
    nobody = simulate(scenario, SMALL, parse_policy("coordinated@0"), 3)
    assert replace(nobody, policy="petals") == alone
