"""Staging in simulated swarms: it is done in quiet hours, nothing twice, and gives way to claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from swarmkeel.control.protocol import PrefetchPhase, PrefetchStatus
from swarmkeel.simulation.dht import Dht
from swarmkeel.simulation.events import EventQueue
from swarmkeel.simulation.population import draw_population, stream
from swarmkeel.simulation.server import SimulatedServer
from swarmkeel.simulation.truth import Truth
from swarmkeel.simulation.world import World
from swarmkeel.swarm.span import Span
from tests.simulation.swarms import SMALL, small_scenario, small_world


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Span]]:
    """Give a list of what servers are asked to fetch without a claim; worlds that run fill it."""
    asked: list[tuple[str, Span]] = []
    prefetch = SimulatedServer.prefetch

    def noting(server: SimulatedServer, span: Span, done: Callable[[], None] | None = None) -> str:
        if done is not None:
            return prefetch(server, span, done)
        asked.append((server.peer_id, span))
        return prefetch(server, span)

    monkeypatch.setattr(SimulatedServer, "prefetch", noting)
    return asked


def run(*, staging: bool, **changes: Any) -> World:
    sidecars = {"staging": staging, "crashes_per_day": 0, "crash_at_step_share": 0}
    world = small_world("coordinated", seed=3, sidecars=sidecars, **changes)
    world.run()
    return world


QUIET: dict[str, Any] = {
    "churn": {"enabled": False},
    "failures": [],
    "dht": {"lost_write_share": 0, "lost_key_share": 0, "bad_read_share": 0, "stale_read_share": 0},
}


def test_servers_of_a_quiet_swarm_fetch_what_they_might_serve_next_and_nothing_twice(
    staged: list[tuple[str, Span]],
) -> None:
    world = run(staging=True, **QUIET)
    assert staged
    assert len(set(staged)) == len(staged)
    for peer_id, span in staged:
        assert len(span) == world.servers[peer_id].fate.num_blocks


def test_where_it_is_switched_off_only_claims_fetch(staged: list[tuple[str, Span]]) -> None:
    run(staging=False, **QUIET)
    assert staged == []


def test_the_same_seed_stages_the_same(staged: list[tuple[str, Span]]) -> None:
    run(staging=True)
    first = staged.copy()
    staged.clear()
    run(staging=True)
    assert staged == first


@pytest.fixture
def world_of_one() -> tuple[SimulatedServer, EventQueue, float]:
    """Give a server that serves its first blocks, the time, and how long it takes to download one block."""
    scenario = small_scenario()
    population = draw_population(scenario, SMALL, 1)
    queue = EventQueue()
    truth = Truth(queue, population, 0.0)
    fate = population.fates[0]
    truth.arrives(fate.peer_id)
    dht = Dht(queue, scenario.dht, SMALL.blocks, stream(1, "dht"))
    server = SimulatedServer(fate, scenario, SMALL.blocks, queue=queue, dht=dht, truth=truth, draw=stream(1, "loads"))
    server.start_on(Span(0, fate.num_blocks))
    return server, queue, fate.download_seconds(1, scenario.loads)


def shown(server: SimulatedServer) -> PrefetchStatus:
    status = server.status()
    assert status is not None
    assert status.prefetch is not None
    return status.prefetch


def test_a_prefetch_takes_the_place_of_another_which_leaves_its_whole_blocks(
    world_of_one: tuple[SimulatedServer, EventQueue, float],
) -> None:
    server, queue, seconds = world_of_one
    length = server.fate.num_blocks
    first, second = Span(length, 2 * length), Span(length + 1, 2 * length + 1)
    over: list[str] = []
    staged = server.prefetch(first, lambda: over.append("first"))
    assert (shown(server).id, shown(server).phase) == (staged, PrefetchPhase.FETCHING)
    queue.run_until(1.5 * seconds)
    claimed = server.prefetch(second, lambda: over.append("second"))
    assert shown(server).id == claimed
    assert server.count_missing(first) == length - 1
    queue.run_until((length + 2) * seconds)
    assert over == ["second"]
    assert (shown(server).id, shown(server).phase) == (claimed, PrefetchPhase.DONE)
    assert server.count_missing(second) == 0
