"""The operator's commands against real sidecars, through their real admin sockets."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from swarmkeel.config import load_config
from swarmkeel.daemon.admin_client import AdminClient, SidecarRefused
from swarmkeel.daemon.journal import Journal
from swarmkeel.daemon.pause import Pause
from swarmkeel.daemon.status import DaemonStatus
from swarmkeel.swarm.announcer import Announcer
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.span import Span
from tests.admin.commands import Commands
from tests.support.dht import DhtPeers, wait_until
from tests.support.shared_peers import beside_shared_peers
from tests.support.sidecars import MODEL, ObedientServer, sidecar, sidecar_process, write_config

LOW, HIGH = Span(0, 4), Span(4, 8)


pytestmark = beside_shared_peers


@pytest_asyncio.fixture(loop_scope="session")
async def pile(shared_peers: DhtPeers) -> DhtPeers:
    """A swarm with two servers on 0:4 and a hole at 4:8; the first is the own one."""
    for index in range(2):
        info = ServerInfo(ServerState.ONLINE, 10.0, start_block=LOW.start, end_block=LOW.end)
        announcer = Announcer(shared_peers.node(index), MODEL)
        assert (await announcer.announce(info, range(LOW.start, LOW.end), 600)).complete
    return shared_peers


@pytest.fixture
def own(pile: DhtPeers, folder: Path) -> Iterator[ObedientServer]:
    server = ObedientServer(folder / "s", pile.node(0).peer_id, LOW)
    with server.listening():
        yield server


async def test_a_pause_holds_a_move_and_outlives_kill_9_until_it_is_resumed(
    pile: DhtPeers, folder: Path, own: ObedientServer, swarmkeel: Commands
) -> None:
    own.present = replace(own.present, pinned=True)
    config = write_config(folder / "c.yaml", folder / "s", pile.initial_peers)
    async with sidecar_process(config, log="first.log") as first:
        await first.wait_for_metric("verdict", 1, verdict="holding")
        assert await first.metric("paused") == 0
        out = await swarmkeel("pause", "-c", config, "--for", "1h", "--reason", "new disks")
        assert out.startswith("paused until 2")
        own.present = replace(own.present, pinned=False)
        check = json.loads(await swarmkeel("check-now", "-c", config, "--json"))
        assert (check["verdict"], check["target"]) == ("paused", {"start": 4, "end": 8})
        assert (check["reasons"][0]["name"], check["reasons"][0]["values"]["would"]) == ("paused", "moving")
        first.process.kill()
        await first.process.wait()
    async with sidecar_process(config, log="second.log") as second:
        await second.wait_for_metric("paused", 1)
        await second.wait_for("check", lambda event: event["verdict"] == "paused")
        told = json.loads(await swarmkeel("status", "-c", config, "--json"))
        assert (told["pause"]["reason"], told["pause"]["uid"]) == ("new disks", os.geteuid())
        assert own.requests == []
        shown = await swarmkeel("status", "-c", config)
        assert f"by user {os.geteuid()} until 2" in shown
        assert "new disks" in shown
        assert (await swarmkeel("resume", "-c", config)).startswith("resumed: it was paused since 2")
        assert (await second.wait_for("move_planned"))["target"] == "4:8"
        await wait_until(lambda: [request.span for request in own.requests] == [HIGH])
        assert "nothing to resume" in await swarmkeel("resume", "-c", config)
        # A move under way is told of, and goes on.
        out = await swarmkeel("pause", "-c", config)
        assert out.startswith("paused until it is resumed\nthe move to 4:8 is under way")


async def test_a_pause_ends_by_itself_and_the_sidecar_looks_at_once(
    pile: DhtPeers, folder: Path, own: ObedientServer, swarmkeel: Commands
) -> None:
    own.present = replace(own.present, pinned=True)
    config = write_config(folder / "c.yaml", folder / "s", pile.initial_peers, balance={"check_period": 3600})
    async with sidecar_process(config) as running:
        await running.wait_for("check", lambda event: event["verdict"] == "holding")
        await swarmkeel("pause", "-c", config, "--for", "3s")
        own.present = replace(own.present, pinned=False)
        ended = await running.wait_for("pause_ended")
        planned = await running.wait_for("move_planned")
        order = [event["event"] for event in running.events()]
        assert order.index("paused") < order.index("pause_ended") < order.index("move_planned")
        assert planned["target"] == "4:8"
        assert ended["until"] <= time.time()
        assert await running.metric("paused") == 0
    with Journal(folder / "journal.sqlite", read_only=True) as journal:
        assert journal.pause() is None


async def test_a_check_that_is_asked_for_is_made_at_once(
    pile: DhtPeers, folder: Path, own: ObedientServer, swarmkeel: Commands
) -> None:
    own.present = replace(own.present, pinned=True)
    config = write_config(folder / "c.yaml", folder / "s", pile.initial_peers, balance={"check_period": 3600})
    async with sidecar_process(config) as running:
        await running.url()
        # One that is asked for while another is under way begins after it, and so sees what is so now.
        out = await swarmkeel("check-now", "-c", config)
        assert out.startswith("holding: the server's blocks are pinned")
        checks = len(running.events("check"))
        assert checks in (1, 2)
        ids = [json.loads(await swarmkeel("check-now", "-c", config, "--json"))["check_id"] for _ in range(2)]
        assert [event["check_id"] for event in running.events("check")][checks:] == ids


async def test_a_pause_withdraws_the_claim_and_tells_the_others_not_to_count_on_the_server(
    pile: DhtPeers, folder: Path, own: ObedientServer
) -> None:
    other = ObedientServer(folder / "o", pile.node(1).peer_id, LOW)
    settings: dict[str, dict[str, object]] = {
        "balance": {"policy": "coordinated", "load_seconds": 1},
        "claims": {"settle": 300},
    }
    names = {"one": folder / "s", "two": folder / "o"}
    configs = {
        name: write_config(
            folder / f"{name}.yaml",
            socket,
            pile.initial_peers,
            **settings,
            journal={"path": str(folder / f"{name}.sqlite")},
        )
        for name, socket in names.items()
    }
    with other.listening():
        async with sidecar(configs["one"]) as left, sidecar(configs["two"]) as right:
            await wait_until(lambda: left.state.own_claim is not None or right.state.own_claim is not None)
            claimant, watcher = (left, right) if left.state.own_claim is not None else (right, left)
            peer_id = pile.node(0 if claimant is left else 1).peer_id
            await wait_until(lambda: getattr(watcher.state.sidecars.get(peer_id), "claim", None) is not None)
            await claimant._loop.pause(Pause(since=time.time(), until=None, uid=0))
            await wait_until(lambda: claimant.state.own_claim is None)
            await wait_until(
                lambda: (
                    (told := watcher.state.sidecars.get(peer_id)) is not None
                    and told.claim is None
                    and told.movable_at is None
                )
            )
            # So the other one takes the hole upon itself.
            await wait_until(lambda: watcher.state.own_claim is not None)
    assert own.requests == other.requests == []


async def test_who_may_not_use_the_socket_is_refused_and_what_makes_no_sense_too(
    pile: DhtPeers, folder: Path, swarmkeel: Commands
) -> None:
    closed = write_config(
        folder / "c.yaml",
        folder / "s",
        pile.initial_peers,
        admin={"uids": [os.geteuid() + 1]},
        balance={"dry_run": True},
    )
    async with sidecar(closed):
        await wait_until(load_config(closed).admin_socket.exists)
        for command in ("status", "pause", "resume", "check-now"):
            line = await swarmkeel(command, "-c", closed, code=1)
            assert line.startswith(f"swarmkeel: the sidecar refused (403): user {os.geteuid()} may not use this socket")
            assert line.count("\n") == 1
    config = write_config(
        folder / "c.yaml",
        folder / "s",
        pile.initial_peers,
        admin={"socket": str(folder / "a" / "b")},
        balance={"dry_run": True},
    )
    async with sidecar(config) as daemon:
        await wait_until((folder / "a" / "b").exists)
        client = AdminClient.of(load_config(config), timeout=60)
        wrong: list[tuple[str, dict[str, object], int, str]] = [
            ("/v1/nope", {}, 404, "/v1/check-now"),
            ("/v1/status", {}, 405, "takes GET"),
            ("/v1/pause", {"for_seconds": 0}, 422, "for_seconds"),
            ("/v1/pause", {"for_seconds": "2h"}, 422, "for_seconds"),
            ("/v1/pause", {"reason": "x" * 301}, 422, "reason"),
        ]
        for path, message, code, what in wrong:
            with pytest.raises(SidecarRefused, match=what) as refused:
                await asyncio.to_thread(lambda: client.post(path, message, DaemonStatus))  # noqa: B023 - awaited here
            assert refused.value.status == code
        assert (folder / "a").stat().st_mode & 0o777 == 0o700
        assert daemon.state.pause is None
        assert "must be more than 0 s" in await swarmkeel("pause", "-c", config, "--for", "0", code=2)
    assert not (folder / "a" / "b").exists()
    for command in ("status", "pause", "resume", "check-now"):
        line = await swarmkeel(command, "-c", config, code=1)
        assert line.startswith(f"swarmkeel: no sidecar answers at {folder}/a/b (no such file or directory): start it")
        assert line.count("\n") == 1
