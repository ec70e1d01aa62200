"""What must hold in every simulated world, whoever runs the servers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.imbalance import should_choose_other_blocks
from swarmkeel.simulation.dht import View
from swarmkeel.simulation.petals_loop import PetalsCheck, check_like_petals
from swarmkeel.simulation.policies import parse_policy
from swarmkeel.simulation.population import Population, draw_population
from swarmkeel.simulation.scenario import PetalsPart, Size
from swarmkeel.simulation.server import Phase, SimulatedServer
from swarmkeel.simulation.world import World
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, RemoteSpanInfo
from tests.simulation.swarms import SMALL, small_scenario, small_world
from tests.support.examples import examples

POLICIES = ("none", "petals", "coordinated", "coordinated@50", "petals-sidecar")


@pytest.mark.parametrize("policy", POLICIES)
def test_nobody_serves_what_is_not_loaded_and_nobody_is_in_two_places(policy: str) -> None:
    world = small_world(policy)
    checked = 0

    def check() -> None:
        nonlocal checked
        serving = world.truth.serving()
        for peer_id, server in world.servers.items():
            if server.phase is Phase.SERVING:
                assert serving[peer_id] == server.span
                assert server.span is not None
                assert len(server.span) == server.fate.num_blocks
                assert server.count_missing(server.span) == 0
            else:
                assert peer_id not in serving
            checked += 1
        for peer_id, span in world.dht.servers.at(world.queue.now).entries.items():
            fate = world.servers[peer_id].fate
            assert span.length == fate.num_blocks
            assert 0 <= span.start < span.end <= SMALL.blocks
        world.queue.after(60.0, check)

    world.queue.after(1.0, check)
    world.run()
    assert checked > 500


@pytest.mark.parametrize("policy", ["petals", "coordinated"])
def test_records_of_the_dead_linger_and_then_expire(policy: str) -> None:
    world = small_world(policy, churn={"mean_life": "2h", "crash_share": 1.0}, sidecars={"clock_skew": 0})
    lingered = False

    def check() -> None:
        nonlocal lingered
        now = world.queue.now
        for peer_id in world.dht.servers.at(now).entries:
            gone_for = now - world.servers[peer_id].fate.leaves_at
            lingered = lingered or gone_for > 60
            assert gone_for <= 241, "a record outlives its expiry"
        world.queue.after(20.0, check)

    world.queue.after(1.0, check)
    world.run()
    assert lingered


def test_a_goodbye_is_seen_soon() -> None:
    quiet = {"lost_write_share": 0.0, "store_delay": "1s"}
    world = small_world("none", churn={"mean_life": "2h", "crash_share": 0.0}, failures=[], dht=quiet)
    longest = 0.0

    def check() -> None:
        nonlocal longest
        now = world.queue.now
        for peer_id in world.dht.servers.at(now).entries:
            longest = max(longest, now - world.servers[peer_id].fate.leaves_at)
        world.queue.after(2.0, check)

    world.queue.after(1.0, check)
    world.run()
    assert longest < 30


def test_loading_takes_the_servers_time_and_what_is_on_disk_loads_faster() -> None:
    world = small_world("none")
    world.run()
    loads = small_scenario().loads
    for server in world.servers.values():
        fate = server.fate
        cold, warm = fate.load_seconds(fate.num_blocks, loads), fate.load_seconds(0, loads)
        assert cold == pytest.approx(fate.cold_seconds + loads.start)
        assert warm == pytest.approx(0.2 * fate.cold_seconds + loads.start)


def test_a_move_is_as_long_offline_as_its_load_and_shutdown_take() -> None:
    world = small_world("coordinated", dht={"lost_write_share": 0.0})
    world.run()
    ended = [move for move in world.truth.moves if move.ended_at is not None]
    assert ended
    loads = small_scenario().loads
    for move in ended:
        assert move.ended_at is not None
        fate = world.servers[move.peer_id].fate
        shortest = loads.shutdown + fate.load_seconds(0, loads)
        longest = loads.shutdown + fate.load_seconds(fate.num_blocks, loads)
        assert shortest - 1e-6 <= move.ended_at - move.began_at <= longest + 1e-6
        # Weights are fetched before: what is missing then has been dropped meanwhile, which is rare.
    prefetched = [
        move
        for move in ended
        if move.ended_at is not None
        and move.ended_at - move.began_at
        <= loads.shutdown + world.servers[move.peer_id].fate.load_seconds(0, loads) + 1e-6
    ]
    assert len(prefetched) > len(ended) / 2


def _modules(view: View[RemoteSpanInfo[str]], total_blocks: int) -> list[RemoteModuleInfo[str]]:
    """Give a view as the records that stand under each block's key."""
    return [
        RemoteModuleInfo(
            f"simulated.{block}",
            {
                peer_id: ServerInfo(span.state, span.throughput, start_block=span.start, end_block=span.end)
                for peer_id, span in view.entries.items()
                if span.start <= block < span.end
            },
        )
        for block in range(total_blocks)
    ]


def test_petals_checks_answer_as_should_choose_other_blocks_does_on_the_same_records() -> None:
    checks: list[PetalsCheck] = []
    scenario = small_scenario(sizes=["40/14"], population={"coverage": 3})
    size = Size(40, 14)
    World(scenario, draw_population(scenario, size, 2), parse_policy("petals"), 2, audit=checks.append).run()
    full = [check for check in checks if not check.is_sampled and check.peer_id in check.view.entries]
    sample = full[:: max(len(full) // 150, 1)] + [check for check in full if check.should_move]
    for check in sample:
        expected = should_choose_other_blocks(
            check.peer_id, _modules(check.view, size.blocks), 0.75, rng=np.random.RandomState(check.seed)
        )
        assert check.should_move == expected
    assert any(check.should_move for check in sample)
    assert any(not check.should_move for check in sample)


@examples(0.6)
@given(st.data())
def test_the_quick_no_of_a_check_is_petals_no(data: st.DataObject) -> None:
    """What is answered without setting up the search is answered alike with screening off, whatever the shuffle."""
    total_blocks = data.draw(st.integers(4, 20))
    entries: dict[str, RemoteSpanInfo[str]] = {}
    for number in range(data.draw(st.integers(1, 8))):
        length = data.draw(st.integers(1, total_blocks))
        start = data.draw(st.integers(0, total_blocks - length))
        info = ServerInfo(ServerState.ONLINE, data.draw(st.sampled_from([0.5, 1.0, 2.0, 3.7, 100.0])))
        entries[f"Qm{number}"] = RemoteSpanInfo(f"Qm{number}", start, start + length, info)
    seed = data.draw(st.integers(0, 2**32 - 1))
    screened = check_like_petals("Qm0", View(-1, entries), PetalsPart(), total_blocks, seed)
    full = check_like_petals("Qm0", View(-1, entries), PetalsPart(screening=False), total_blocks, seed)
    assert screened.should_move == full.should_move


def test_sampled_answers_are_nearly_always_the_right_ones() -> None:
    checks: list[PetalsCheck] = []
    scenario = small_scenario(population={"coverage": 3}, duration="4h")
    size = Size(40, 14)
    World(scenario, draw_population(scenario, size, 3), parse_policy("petals"), 3, audit=checks.append).run()
    sampled = [check for check in checks if check.is_sampled]
    assert len(sampled) > 200
    sampled = sampled[:: len(sampled) // 200]
    exact = PetalsPart(screening=False)
    wrong = sum(
        check_like_petals(check.peer_id, check.view, exact, size.blocks, check.seed).should_move != check.should_move
        for check in sampled
    )
    assert wrong <= len(sampled) * 0.01


def test_sidecars_are_killed_at_any_step_and_their_moves_still_end() -> None:
    world = small_world(
        "coordinated", duration="3h", sidecars={"crashes_per_day": 100, "crash_at_step_share": 0.3, "cooldown": "5m"}
    )
    world.run()
    moves = [move for move in world.truth.moves if move.began_at < 2.5 * 3600.0]
    assert moves
    alive = {peer_id for peer_id, server in world.servers.items() if server.phase is not Phase.GONE}
    for move in moves:
        assert move.ended_at is not None or move.peer_id not in alive


@pytest.mark.parametrize("policy", ["petals", "coordinated"])
def test_loads_that_fail_leave_nobody_without_blocks_for_good(policy: str) -> None:
    world = small_world(policy, duration="3h", loads={"failure_share": 0.3, "cold_seconds": {"low": 30, "high": 60}})
    idle_since: dict[str, float] = {}
    failures = 0

    def check() -> None:
        nonlocal failures
        for peer_id, server in world.servers.items():
            if server.phase is not Phase.IDLE:
                idle_since.pop(peer_id, None)
                continue
            failures += peer_id not in idle_since
            began = idle_since.setdefault(peer_id, world.queue.now)
            assert world.queue.now - began < 7200, "it was given up"
        world.queue.after(10.0, check)

    world.queue.after(1.0, check)
    world.run()
    assert failures > 5


def test_with_several_lengths_a_server_serves_by_petals_formula_what_its_length_allows() -> None:
    world = small_world("coordinated", duration="1h", population={"coverage": 3, "min_blocks_share": 0.3})
    world.run()
    lengths = set()
    for peer_id, span in world.truth.serving().items():
        fate = world.servers[peer_id].fate
        assert fate.rates is not None
        assert fate.min_blocks <= len(span) <= fate.num_blocks
        expected = min(fate.rates[0] / ((len(span) + 1) / 2), fate.rates[1])
        assert fate.throughput_of(len(span)) == pytest.approx(expected)
        record = world.dht.servers.at(world.queue.now).entries.get(peer_id)
        if record is not None and record.length == len(span):
            assert record.throughput == pytest.approx(expected)
        lengths.add(len(span) < fate.num_blocks)
    assert lengths


def test_a_share_of_servers_without_sidecars_runs_petals_own_loop() -> None:
    def audited(policy: str) -> tuple[set[str], Population]:
        checks: list[PetalsCheck] = []
        scenario = small_scenario(duration="30m")
        population = draw_population(scenario, SMALL, 4)
        World(scenario, population, parse_policy(policy), 4, audit=checks.append).run()
        return {check.peer_id for check in checks}, population

    half, population = audited("coordinated@50")
    quarter, _ = audited("coordinated@25")
    assert half < quarter, "who adopts at 25 % adopts at 50 % too"
    adopters = {fate.peer_id for fate in population.fates if fate.adoption_draw < 0.5}
    assert not half & adopters


def test_fixed_servers_never_move() -> None:
    world = small_world("petals", seed=2, duration="6h", hostile={"fixed_share": 1.0})
    world.run()
    assert not world.truth.moves
    moving = small_world("petals", seed=2, duration="6h")
    moving.run()
    assert moving.truth.moves


def _arrivals_of(world: World) -> dict[str, SimulatedServer]:
    return dict(world.servers)


def test_every_policy_meets_the_same_servers_and_lives() -> None:
    worlds = [small_world(policy, duration="20m") for policy in POLICIES]
    for world in worlds:
        world.run()
    fates = [[server.fate for server in _arrivals_of(world).values()] for world in worlds]
    assert all(each == fates[0] for each in fates)
    other = small_world("none", seed=2)
    other.run()
    assert [server.fate for server in other.servers.values()] != fates[0]
