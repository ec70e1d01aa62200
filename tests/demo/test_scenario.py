"""What the demo plans: servers that start badly placed, and that Petals' rule can heal from wherever they are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from swarmkeel.balance.decision import Verdict
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, Policy, PolicySettings, Situation
from swarmkeel.demo.optimum import BestPossible, find_best_possible
from swarmkeel.demo.report import what_is_missing
from swarmkeel.demo.scenario import TOTAL_BLOCKS, Timing, choose_victims, plan_servers
from swarmkeel.demo.sight import Sight
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.span import Span
from tests.demo.swarms import Placed, snapshot


@pytest.mark.parametrize("count", [8, 12, 16])
@pytest.mark.parametrize("seed", range(5))
def test_servers_pile_up_in_front_and_leave_a_hole(count: int, seed: int) -> None:
    plans = plan_servers(count, seed)
    assert plans == plan_servers(count, seed)
    assert len({plan.name for plan in plans}) == count
    assert len({plan.num_blocks for plan in plans}) > 3
    assert len({plan.throughput for plan in plans}) > 2
    served = np.zeros(TOTAL_BLOCKS, dtype=int)
    for plan in plans:
        assert plan.first_block + plan.num_blocks <= TOTAL_BLOCKS
        served[plan.first_block : plan.first_block + plan.num_blocks] += 1
    assert served[-1] == 0
    assert served.max() > count / 2


def test_another_seed_places_them_otherwise() -> None:
    assert len({plan_servers(8, seed) for seed in range(10)}) == 10


def test_those_strong_servers_are_killed_whose_loss_leaves_most_blocks_to_nobody() -> None:
    servers = [Placed("a", 0, 4, 3.0), Placed("b", 0, 4, 4.0), Placed("c", 4, 8, 2.0), Placed("d", 7, 8, 1.0)]
    online = Sight.take(snapshot(8, servers)).online
    assert choose_victims(online, 8) == ("b", "a")  # four blocks; with c it would be three
    assert choose_victims({peer: online[peer] for peer in "abc"}, 8) == (
        "b",
        "a",
    )  # a hole either way, so the strongest
    assert choose_victims({peer: online[peer] for peer in "bcd"}, 8) == ("b", "c")
    assert choose_victims(online, 8, 3) == ("b", "a", "c")


@cache
def best_possible(sizes: Sequence[tuple[int, float]]) -> BestPossible:
    return find_best_possible(sizes, TOTAL_BLOCKS)


def let_them_move(servers: list[Placed], rng: random.Random, policy: Policy) -> list[Placed]:
    """Let the servers check the balance one after the other until nobody wants to move any more."""
    settings = PolicySettings(quality=Timing().quality)
    told = {server.peer_id: Sidecar(server.peer_id, 0.0, Timing().load) for server in servers}
    for _ in range(40):
        moved = False
        for index in rng.sample(range(len(servers)), len(servers)):
            own = servers[index]
            here = Span(own.start, own.end)
            seen = snapshot(TOTAL_BLOCKS, servers)
            decision = policy.decide(
                Situation(
                    snapshot=seen,
                    own=OwnServer(
                        peer_id=own.peer_id,
                        span=here,
                        num_blocks=len(here),
                        throughput=own.throughput,
                        load_seconds=Timing().load,  # as all others know it
                    ),
                    settings=settings,
                    now=seen.read_at,
                    seed=rng.randrange(2**32),
                    sidecars=told,
                )
            )
            if decision.verdict is Verdict.MOVING and decision.target is not None:
                servers[index] = Placed(own.peer_id, decision.target.start, decision.target.end, own.throughput)
                moved = True
        if not moved:
            return servers
    raise AssertionError(f"they never settle: {servers}")


@pytest.mark.parametrize(
    ("policy", "seed"),
    [("petals", seed) for seed in range(50)] + [("coordinated", seed) for seed in range(25)],
)
def test_the_servers_heal_from_wherever_they_can_be(policy: str, seed: int) -> None:
    # Moves that collide, and reads that are late, can put servers that do not tell each other of their moves anywhere: no
    # start may end in a dead end. Those that do move in step; a few starts in a hundred are dead ends for these.
    rng = random.Random(seed)  # noqa: S311 - an example that can be repeated
    servers = []
    for plan in plan_servers(8, seed):
        start = rng.randint(0, TOTAL_BLOCKS - plan.num_blocks) if policy == "petals" else plan.first_block
        servers.append(Placed(plan.name, start, start + plan.num_blocks, plan.throughput))
    for _ in ("before the kill", "after it"):
        servers = let_them_move(servers, rng, get_policy(policy))
        sight = Sight.take(snapshot(TOTAL_BLOCKS, servers))
        best = best_possible(tuple(sorted((server.end - server.start, server.throughput) for server in servers)))
        assert what_is_missing(sight, best) is None, servers
        victims = choose_victims(sight.online, TOTAL_BLOCKS)
        servers = [server for server in servers if server.peer_id not in victims]
