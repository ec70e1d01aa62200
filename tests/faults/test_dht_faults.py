"""The DHT, and the sidecar's way into it, fail: what it cannot read it does not act on, and it reads again."""

from __future__ import annotations

import signal

import pytest

from swarmkeel.balance.decision import Verdict
from swarmkeel.swarm.record import ServerState
from tests.faults.vocabulary import (
    HIGH,
    LOW,
    Scene,
    Sections,
    announce,
    configure,
    given_a_running_sidecar,
    given_a_sidecar_that_finds_all_well,
    given_a_swarm,
    given_a_swarm_of_python_peers,
    given_a_swarm_with_a_hole,
    then_all_is_well_again,
    then_it_checks_on,
    then_it_says,
    then_nothing_is_lost,
    then_the_server_was_told_nothing,
    then_the_swarms_past_is_unknown,
    when_a_peer_dies,
    when_keys_become_unreadable,
    when_the_dht_is_back,
    when_the_peers_freeze,
    when_the_peers_go_on,
    when_the_sidecars_p2pd_freezes,
    when_the_sidecars_p2pd_is_killed,
    when_the_whole_dht_dies,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK_READING: Sections = {"swarm": {"read_timeout": 4}}
NO_INFORMATION = Verdict.INSUFFICIENT_INFORMATION


@pytest.mark.fault("DHT outage")
async def test_a_dht_outage(scene: Scene) -> None:
    await given_a_swarm(scene)
    await given_a_sidecar_that_finds_all_well(scene)
    await when_the_whole_dht_dies(scene)
    await then_it_says(scene, NO_INFORMATION, "snapshot_unavailable", "keys_unanswered")
    await when_the_dht_is_back(scene)
    # Its records are lost with its peers; what they said holds as long as they said.
    await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("DHT outage")
async def test_a_dht_that_is_away_when_the_sidecar_starts(scene: Scene) -> None:
    await given_a_swarm(scene, QUICK_READING)
    await when_the_whole_dht_dies(scene)
    await given_a_running_sidecar(scene)
    await then_it_says(scene, NO_INFORMATION, "snapshot_unavailable", "keys_unanswered")
    await when_the_dht_is_back(scene)
    await scene.own.announce(ServerState.ONLINE, LOW)
    await announce(scene, 1, HIGH)
    await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("bootstrap peer gone")
async def test_the_bootstrap_peer_is_gone(scene: Scene) -> None:
    await given_a_swarm(scene)
    await given_a_sidecar_that_finds_all_well(scene)
    await when_a_peer_dies(scene, 0)
    await then_it_checks_on(scene)
    await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("bootstrap peer gone")
async def test_a_sidecar_starts_although_the_first_peer_that_it_knows_is_gone(scene: Scene) -> None:
    await given_a_swarm(scene)
    await when_a_peer_dies(scene, 0)
    configure(scene, {"swarm": {"initial_peers": scene.peers.initial_peers[:2]}})
    await given_a_sidecar_that_finds_all_well(scene)
    scene.saw("joined through another, `balanced`")
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("p2pd of the sidecar killed")
async def test_the_sidecars_p2pd_is_killed_again_and_again(scene: Scene) -> None:
    await given_a_swarm(scene)
    await given_a_sidecar_that_finds_all_well(scene)
    for _ in range(2):
        when_the_sidecars_p2pd_is_killed(scene)
        await then_it_checks_on(scene)
        await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("p2pd of the sidecar frozen")
async def test_the_sidecars_p2pd_freezes(scene: Scene) -> None:
    await given_a_swarm(scene, QUICK_READING)
    await given_a_sidecar_that_finds_all_well(scene)
    when_the_sidecars_p2pd_freezes(scene)
    await then_it_says(scene, NO_INFORMATION, "snapshot_unavailable", "keys_unanswered")
    # Nobody thaws it.
    await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("p2pd of the peers frozen")
async def test_the_p2pd_of_all_peers_freezes(scene: Scene) -> None:
    await given_a_swarm(scene, QUICK_READING)
    await given_a_sidecar_that_finds_all_well(scene)
    when_the_peers_freeze(scene)
    try:
        await then_it_says(scene, NO_INFORMATION, "snapshot_unavailable", "keys_unanswered")
    finally:
        when_the_peers_go_on(scene)
    await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("Python of the peers frozen")
async def test_the_python_of_all_peers_freezes(scene: Scene) -> None:
    servers = await given_a_swarm_of_python_peers(scene, QUICK_READING)
    await given_a_sidecar_that_finds_all_well(scene)
    for server in servers:
        scene.injected += 1
        server.process.signal(signal.SIGSTOP)
    await then_it_says(scene, NO_INFORMATION, "snapshot_unavailable", "keys_unanswered")
    for server in servers:
        server.process.signal(signal.SIGCONT)
    await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("half of the keys unreadable")
async def test_half_of_the_keys_cannot_be_read(scene: Scene) -> None:
    # Read whole, this swarm has a hole that the own server would go to.
    await given_a_swarm_with_a_hole(scene)
    when_keys_become_unreadable(scene, range(2, 6))
    await given_a_running_sidecar(scene)
    await then_it_says(scene, NO_INFORMATION, "keys_unanswered")
    await then_it_checks_on(scene)
    then_the_swarms_past_is_unknown(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("own record missing")
async def test_the_own_record_is_missing(scene: Scene) -> None:
    await given_a_swarm(scene, others=(LOW,), lifetime=-1)
    scene.injected += 1
    await given_a_running_sidecar(scene)
    await then_it_says(scene, NO_INFORMATION, "own_record_missing")
    await then_it_checks_on(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("peers flapping")
async def test_peers_flap(scene: Scene) -> None:
    await given_a_swarm(scene)
    await given_a_sidecar_that_finds_all_well(scene)
    for index in (1, 2, 1, 2):
        await when_a_peer_dies(scene, index)
        await then_it_checks_on(scene, times=1)
        await scene.peers.restart(index)
    await announce(scene, 1, HIGH)
    await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)
