"""The daemon against a real DHT, real control sockets and real stand-in servers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from swarmkeel.balance.decision import Verdict
from swarmkeel.config import load_config
from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import ServerStatus
from swarmkeel.daemon.journal import Journal
from swarmkeel.daemon.move import MoveStep
from swarmkeel.daemon.service import Sidecar
from swarmkeel.demo.server_life import Gpu
from swarmkeel.swarm.announcer import Announcer
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.span import Span
from tests.support.dht import DhtPeers, process_runs, wait_until
from tests.support.servers import stand_in
from tests.support.shared_peers import beside_shared_peers
from tests.support.sidecars import (
    MODEL,
    ObedientServer,
    short_folder,
    sidecar,
    sidecar_process,
    write_config,
)

LOW, HIGH = Span(0, 4), Span(4, 8)


pytestmark = beside_shared_peers


@pytest.fixture
def peers(shared_peers: DhtPeers) -> DhtPeers:
    return shared_peers


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


async def server_status(control_socket: Path) -> ServerStatus:
    async with ControlClient(control_socket, request_timeout=10) as client:
        return await client.status()


async def announce(peers: DhtPeers, index: int, span: Span, lifetime: float = 600) -> None:
    """Announce a server on these blocks under the peer id of one of the peers."""
    info = ServerInfo(ServerState.ONLINE, 10.0, start_block=span.start, end_block=span.end)
    announcer = Announcer(peers.node(index), MODEL)
    assert (await announcer.announce(info, range(span.start, span.end), lifetime)).complete


def verdict(daemon: Sidecar) -> Verdict | None:
    return daemon.state.decision.verdict if daemon.state.decision else None


def reasons(daemon: Sidecar) -> list[str]:
    return [reason.name for reason in daemon.state.decision.reasons] if daemon.state.decision else []


def complains_of(daemon: Sidecar, field: str) -> bool:
    decision = daemon.state.decision
    return decision is not None and reasons(daemon) == ["server_mismatch"] and field in decision.sentence


async def test_a_server_moves_from_a_pile_into_the_hole(peers: DhtPeers, folder: Path) -> None:
    async with stand_in(peers.initial_peers) as own, stand_in(peers.initial_peers):
        config = write_config(folder / "c.yaml", own.settings.socket, peers.initial_peers)
        async with sidecar_process(config) as running:
            done = await running.wait_for("move_done")
            assert done["target"] == "4:8"
            assert done["gain_rps"] == 10
            assert (await server_status(own.settings.socket)).span == HIGH
            await running.wait_for_metric("verdict", 1, verdict="balanced")
            await running.wait_for_metric("swarm_uncovered_blocks", 0)
            assert await running.metric("moves_total") == 1
            assert await running.metric("move_failures_total") == 0
            assert await running.metric("move_realised_gain_rps") == 10
            assert (await running.metric("server_span_start"), await running.metric("server_span_end")) == (4, 8)
            assert all("check_id" in event for event in running.events("check"))
            assert await running.process.end() == 0
            assert running.events()[-1]["event"] == "stopped"
        with Journal(folder / "journal.sqlite") as journal:
            assert [(move.origin, move.target, move.step) for move in journal.moves()] == [(LOW, HIGH, MoveStep.DONE)]
            decided = journal.checks(verdict=Verdict.MOVING)[-1]
            assert decided.decision.target == HIGH
            assert decided.decision.reasons[0].name == "imbalance"


async def test_an_idle_server_gets_its_first_span(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW)
    async with stand_in(peers.initial_peers, first_block=None) as own:
        guards: dict[str, object] = {"cooldown": 3600, "minimum_uptime": 3600, "confirmations": 9, "moves_per_day": 0}
        config = write_config(folder / "c.yaml", own.settings.socket, peers.initial_peers, guards=guards)
        async with sidecar(config) as daemon:
            await wait_until(lambda: daemon.state.move is not None and daemon.state.move.step is MoveStep.DONE)
            assert daemon.state.move is not None
            assert (daemon.state.move.origin, daemon.state.move.target) == (None, HIGH)
        assert (await server_status(own.settings.socket)).span == HIGH


async def test_a_load_that_fails_leaves_the_server_where_it_was_and_opens_the_breaker(
    peers: DhtPeers, folder: Path
) -> None:
    gpu = Gpu(load_seconds=0.3, failing_blocks=frozenset({6}))
    async with stand_in(peers.initial_peers, gpu=gpu) as own, stand_in(peers.initial_peers):
        config = write_config(folder / "c.yaml", own.settings.socket, peers.initial_peers)
        async with sidecar(config) as daemon:
            await wait_until(lambda: verdict(daemon) is Verdict.HOLDING and "breaker" in reasons(daemon))
            assert daemon.state.move is not None
            assert daemon.state.move.step is MoveStep.FELL_BACK
            assert daemon.metrics.registry.get_sample_value("swarmkeel_breaker_open") == 1
            status = await server_status(own.settings.socket)
            assert status.span == LOW
            with Journal(folder / "journal.sqlite", read_only=True) as journal:
                # The failure is written down beside the next check, which may be through before it.
                await wait_until(lambda: journal.checks(verdict=Verdict.FAILED))
        with Journal(folder / "journal.sqlite") as journal:
            assert len(journal.moves()) == 1
            assert [check.decision.reasons[0].name for check in journal.checks(verdict=Verdict.FAILED)] == [
                "move_failed"
            ]


async def test_a_dry_run_tells_the_server_nothing(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW)
    await announce(peers, 1, LOW)
    own = ObedientServer(folder / "s", peers.node(0).peer_id, LOW)
    config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers, balance={"dry_run": True})
    with own.listening():
        async with sidecar(config) as daemon:
            await wait_until(lambda: verdict(daemon) is Verdict.WOULD_MOVE)
            assert daemon.state.decision is not None
            assert daemon.state.decision.target == HIGH
    assert own.requests == []


async def test_once_makes_one_check_and_says_what_it_ended_in(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW)
    await announce(peers, 1, LOW)
    own = ObedientServer(folder / "s", peers.node(0).peer_id, LOW)
    path = write_config(
        folder / "c.yaml", folder / "s", peers.initial_peers, balance={"dry_run": True}, guards={"confirmations": 2}
    )
    verdicts = []
    with own.listening():
        for _ in range(2):
            decision = await Sidecar(load_config(path), config_path=path).run_once()
            verdicts.append(decision.verdict)
    # The second process finds the first one's wish in the journal.
    assert verdicts == [Verdict.HOLDING, Verdict.WOULD_MOVE]


async def test_a_dht_that_dies_and_comes_back_is_read_again_and_nobody_is_moved(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW)
    await announce(peers, 1, HIGH)
    own = ObedientServer(folder / "s", peers.node(0).peer_id, LOW)
    config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers)
    with own.listening():
        async with sidecar(config) as daemon:
            await wait_until(lambda: verdict(daemon) is Verdict.BALANCED)
            await peers.kill_all()
            await wait_until(lambda: "snapshot_unavailable" in reasons(daemon))
            assert not daemon.state.snapshot_is_good
            await peers.restart_all()
            await announce(peers, 0, LOW)
            await announce(peers, 1, HIGH)
            await wait_until(lambda: verdict(daemon) is Verdict.BALANCED)
            assert daemon.state.snapshot_is_good
    assert own.requests == []


async def test_a_dht_that_lost_all_records_is_no_reason_to_move(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW)
    own = ObedientServer(folder / "s", peers.node(0).peer_id, LOW)
    config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers)
    with own.listening():
        async with sidecar(config) as daemon:
            await wait_until(lambda: verdict(daemon) is Verdict.BALANCED)
            await peers.kill_all()
            await wait_until(lambda: reasons(daemon) == ["snapshot_unavailable"])
            await peers.restart_all()
            # What the records said holds as long as they said, whoever has lost them.
            await wait_until(lambda: verdict(daemon) is Verdict.BALANCED)
            assert daemon.state.swarm is not None
            assert daemon.state.swarm.snapshot.quality(0.0, own.present.peer_id).own_record_found
    assert own.requests == []


async def test_a_server_whose_record_has_run_out_is_not_moved(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW, lifetime=5)
    own = ObedientServer(folder / "s", peers.node(0).peer_id, LOW)
    config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers)
    with own.listening():
        async with sidecar(config) as daemon:
            await wait_until(lambda: "own_record_missing" in reasons(daemon))
    assert own.requests == []


async def test_a_control_socket_that_vanishes_and_comes_back_is_used_again(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW)
    await announce(peers, 1, LOW)
    own = ObedientServer(folder / "s", peers.node(0).peer_id, LOW)
    own.present = replace(own.present, pinned=True)
    config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers, server={"request_timeout": 0.5})
    with ExitStack() as first:
        first.enter_context(own.listening())
        async with sidecar(config) as daemon:
            await wait_until(lambda: reasons(daemon)[:1] == ["pinned"])
            first.close()
            await wait_until(lambda: reasons(daemon) == ["server_unreachable"])
            assert daemon.state.server is None
            with own.listening():
                await wait_until(lambda: reasons(daemon)[:1] == ["pinned"])
    assert own.requests == []


async def test_a_server_that_is_not_the_configured_one_is_left_alone(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW)
    own = ObedientServer(folder / "s", peers.node(0).peer_id, LOW)
    right = own.present
    config = write_config(
        folder / "c.yaml", folder / "s", peers.initial_peers, server={"peer_id": peers.node(0).peer_id}
    )
    with own.listening():
        async with sidecar(config) as daemon:
            for wrong in ({"dht_prefix": "other"}, {"total_blocks": 9}, {"peer_id": "QmX"}):
                own.present = replace(right, **wrong)
                (field,) = wrong
                await wait_until(partial(complains_of, daemon, field))
    assert own.requests == []


async def test_a_sidecar_killed_in_the_middle_of_a_move_finishes_it_after_its_restart(
    peers: DhtPeers, folder: Path
) -> None:
    async with stand_in(peers.initial_peers, gpu=Gpu(load_seconds=4)) as own, stand_in(peers.initial_peers):
        config = write_config(folder / "c.yaml", own.settings.socket, peers.initial_peers)
        async with sidecar_process(config, log="first.log") as first:
            # Its own blocks have to be loaded before there is a move.
            planned = await first.wait_for("move_planned")
            async with asyncio.timeout(60):
                while (status := await server_status(own.settings.socket)).restart is None:
                    await asyncio.sleep(0.05)
            first.process.kill()
            await first.process.wait()
        async with sidecar_process(config, log="second.log") as second:
            assert (await second.wait_for("move_resumed"))["move_id"] == planned["move_id"]
            done = await second.wait_for("move_done")
            assert (done["move_id"], done["target"]) == (planned["move_id"], "4:8")
            status = await server_status(own.settings.socket)
            assert status.span == HIGH
            assert status.restart is not None
            assert status.restart.id == planned["move_id"]
            await second.wait_for("check", lambda event: event["verdict"] == "balanced")
        with Journal(folder / "journal.sqlite") as journal:
            assert [move.step for move in journal.moves()] == [MoveStep.DONE]


async def test_a_reload_takes_a_good_file_and_keeps_the_old_one_before_a_bad_one(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW)
    own = ObedientServer(folder / "s", peers.node(0).peer_id, LOW)
    path = write_config(folder / "c.yaml", folder / "s", peers.initial_peers)
    with own.listening():
        async with sidecar_process(path) as running:
            await running.wait_for_metric("verdict", 1, verdict="balanced")
            path.write_text(path.read_text().replace("quality: 0.9", "quality: lots"))
            running.process.signal(signal.SIGHUP)
            rejected = await running.wait_for("config_rejected")
            assert rejected["where"] == "balance.quality"
            await running.wait_for_metric("config_last_reload_successful", 0)
            assert await running.metric("verdict", verdict="balanced") == 1
            write_config(path, folder / "s", peers.initial_peers, balance={"enabled": False}, http={"port": 1})
            running.process.signal(signal.SIGHUP)
            assert (await running.wait_for("config_needs_restart"))["sections"] == ["http"]
            await running.wait_for_metric("config_last_reload_successful", 1)
            await running.wait_for_metric("verdict", 1, verdict="disabled")
            assert await running.process.end() == 0


async def test_the_service_manager_sees_it_start_live_reload_and_stop(
    peers: DhtPeers, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.setblocking(False)  # noqa: FBT003 - the standard library's signature
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers, server={"request_timeout": 0.2})
        async with sidecar(config) as daemon:
            loop = asyncio.get_running_loop()

            async def told(*wanted: str) -> None:
                async with asyncio.timeout(60):
                    missing = set(wanted)
                    while missing:
                        message = (await loop.sock_recv(manager, 4096)).decode()
                        missing = {text for text in missing if text not in message}

            await told("READY=1")
            await told("STATUS=insufficient_information", "WATCHDOG=1")
            daemon.reload()
            await told("RELOADING=1\nMONOTONIC_USEC=", "READY=1")
            daemon.stop()
            await told("STOPPING=1")


async def test_it_listens_although_neither_dht_nor_server_is_there(folder: Path) -> None:
    dead = "/ip4/127.0.0.1/tcp/9/p2p/QmSK3sroMXUiyJHNWULvC4YqYEhmJFS8LbK2ZSw96czJdV"
    path = write_config(folder / "c.yaml", folder / "s", [dead], server={"request_timeout": 0.2})
    async with sidecar(path) as daemon:
        await wait_until(lambda: verdict(daemon) is Verdict.INSUFFICIENT_INFORMATION)
        assert not daemon.state.ready
        value = daemon.metrics.registry.get_sample_value
        assert value("swarmkeel_up") == 0
        assert (value("swarmkeel_snapshot_failures_total") or 0) >= 1


async def test_sigterm_ends_it_although_nobody_it_waits_for_answers(peers: DhtPeers, folder: Path) -> None:
    path = write_config(
        folder / "c.yaml",
        folder / "s",
        peers.initial_peers,
        swarm={"read_timeout": 600},
        server={"request_timeout": 600},
    )
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "s"))
        silent.listen()
        async with sidecar_process(path) as running:
            await running.wait_for("dht_joined")
            peers.freeze()
            try:
                pid = running.process.pid
                (child,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
                # Not killed: ended by itself, within the time that `end` grants.
                assert await running.process.end() == 0
                await wait_until(lambda: not process_runs(child))
            finally:
                peers.thaw()
    with Journal(folder / "journal.sqlite") as journal:
        assert journal.unfinished_moves() == ()
