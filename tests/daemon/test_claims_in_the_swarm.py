"""Real sidecars and a real DHT: of those that want the same only one moves, and claims that are lost stop nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import PrefetchPhase, ServerStatus
from swarmkeel.daemon.check import decide_again
from swarmkeel.daemon.journal import Journal
from swarmkeel.daemon.move import MoveStep
from swarmkeel.daemon.own_server import own_server
from swarmkeel.daemon.service import Sidecar
from swarmkeel.demo.server_life import Gpu
from swarmkeel.swarm.announcer import Announcer
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.dht_lookup import Lookup
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Claim
from swarmkeel.swarm.sidecar import Sidecar as Told
from swarmkeel.swarm.sidecar_board import board_key
from swarmkeel.swarm.sidecar_record import sidecar_to_wire
from swarmkeel.swarm.span import Span
from tests.support.dht import DhtPeers, plant, wait_until
from tests.support.servers import stand_in
from tests.support.shared_peers import beside_shared_peers
from tests.support.sidecars import MODEL, short_folder, sidecar, sidecar_process, write_config

LOW, HIGH = Span(0, 4), Span(4, 8)
COORDINATED: dict[str, object] = {"policy": "coordinated", "load_seconds": 1}
CLAIMS: dict[str, object] = {"settle": 2, "lifetime": 20, "prefetch_poll": 0.1}


pytestmark = beside_shared_peers


@pytest.fixture
def peers(shared_peers: DhtPeers) -> DhtPeers:
    return shared_peers


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def config(folder: Path, name: str, socket: Path, peers: DhtPeers, claims: dict[str, object] | None = None) -> Path:
    return write_config(
        folder / f"{name}.yaml",
        socket,
        peers.initial_peers,
        balance=COORDINATED,
        claims=claims or CLAIMS,
        journal={"path": str(folder / f"{name}.sqlite")},
    )


async def status_of(control_socket: Path) -> ServerStatus:
    async with ControlClient(control_socket, request_timeout=10) as client:
        return await client.status()


async def span_of(control_socket: Path) -> Span | None:
    return (await status_of(control_socket)).span


async def announce(peers: DhtPeers, index: int, span: Span) -> None:
    info = ServerInfo(ServerState.ONLINE, 10.0, start_block=span.start, end_block=span.end)
    announcer = Announcer(peers.node(index), MODEL)
    assert (await announcer.announce(info, range(span.start, span.end), 600)).complete


def is_balanced(daemon: Sidecar) -> bool:
    return daemon.state.decision is not None and daemon.state.decision.verdict == "balanced"


def has_settled(*daemons: Sidecar) -> bool:
    """Tell whether every block is served and nobody wants anything."""
    return all(
        is_balanced(daemon)
        and daemon.state.own_claim is None
        and daemon.state.swarm is not None
        and not daemon.state.swarm.uncovered_blocks
        for daemon in daemons
    )


def moves(folder: Path, name: str) -> list[tuple[Span | None, Span, MoveStep]]:
    with Journal(folder / f"{name}.sqlite", read_only=True) as journal:
        return [(move.origin, move.target, move.step) for move in journal.moves()]


async def test_of_two_sidecars_that_want_the_same_hole_one_moves(peers: DhtPeers, folder: Path) -> None:
    async with stand_in(peers.initial_peers) as one, stand_in(peers.initial_peers) as two:
        first = config(folder, "one", one.settings.socket, peers)
        second = config(folder, "two", two.settings.socket, peers)
        # Started at once, neither knows of the other at its first check: each sees itself as the only one who can.
        async with sidecar(first) as left, sidecar(second) as right:
            await wait_until(lambda: has_settled(left, right))
            assert {await span_of(server.settings.socket) for server in (one, two)} == {LOW, HIGH}
            assert left.state.claims is not None
            assert left.state.claims.readable
            await wait_until(lambda: left.state.claims is not None and left.state.claims.sidecars == 1)
        assert moves(folder, "one") + moves(folder, "two") == [(LOW, HIGH, MoveStep.DONE)]
        for name in ("one", "two"):
            with Journal(folder / f"{name}.sqlite", read_only=True) as journal:
                checks = [journal.check(check.check_id) for check in journal.checks(limit=1000)]
            replayed = [check for check in checks if check is not None and check.inputs is not None]
            assert replayed
            for check in replayed:
                assert check.inputs is not None
                assert decide_again(check.inputs, "coordinated") == check.decision


async def test_two_idle_servers_do_not_take_the_same_place(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, LOW)
    async with (
        stand_in(peers.initial_peers, first_block=None) as one,
        stand_in(peers.initial_peers, first_block=None) as two,
    ):
        first = config(folder, "one", one.settings.socket, peers)
        second = config(folder, "two", two.settings.socket, peers)
        async with sidecar(first) as left, sidecar(second) as right:
            await wait_until(lambda: has_settled(left, right))
            assert {await span_of(server.settings.socket) for server in (one, two)} == {LOW, HIGH}


async def test_the_claim_of_a_sidecar_that_is_killed_makes_the_others_wait_and_no_longer(
    peers: DhtPeers, folder: Path
) -> None:
    async with stand_in(peers.initial_peers) as one, stand_in(peers.initial_peers) as two:
        never_settles = config(folder, "one", one.settings.socket, peers, {"settle": 300, "lifetime": 8})
        async with sidecar_process(never_settles, log="one.log") as doomed:
            await doomed.wait_for("claim_step", lambda event: event["action"] == "publish")
            killed_at = time.time()
            await doomed.process.crash()
        async with sidecar_process(config(folder, "two", two.settings.socket, peers), log="two.log") as other:
            done = await other.wait_for("move_done")
            assert (done["target"], await span_of(one.settings.socket)) == ("4:8", LOW)
            assert time.time() - killed_at > 0
            first_wish = next(event for event in other.events("check") if event["target"] == "4:8")
            assert first_wish["sentence"].startswith("holding: the move to 4:8 is claimed")
        # The one that was killed comes back, and finds nothing left to do.
        async with sidecar(config(folder, "one", one.settings.socket, peers)) as again:
            await wait_until(lambda: is_balanced(again))
        assert moves(folder, "one") == []


@pytest.mark.parametrize("junk", ["a plain value", "liars"])
async def test_a_board_that_is_lost_or_full_of_lies_stops_nobody(peers: DhtPeers, folder: Path, junk: str) -> None:
    key, soon = board_key(MODEL), time.time() + 600
    async with stand_in(peers.initial_peers) as either, stand_in(peers.initial_peers) as other:
        # Of two that could as well, the plan names the first by peer id: here one whose sidecar is only a liar's word.
        two, one = sorted((either, other), key=lambda server: server.peer_id)
        if junk == "liars":
            promise = Claim(LOW, HIGH, time.time() - 5, time.time() + 600, 1e6)
            lies = {
                two.peer_id: promise,  # more than the server announces
                "QmNobody": promise,  # of a server that is not there
                "QmTomorrow": replace(promise, origin=None, made_at=time.time() + 3600),
                "QmForever": replace(promise, origin=None, expires_at=time.time() + 1e6),
            }
            for liar, claim in lies.items():
                plant(peers.nodes, key, liar, encode_value(sidecar_to_wire(Told(liar, 0.0, 1.0, claim=claim))), soon)
            plant(peers.nodes, key, "QmJunk", b"\xc1", soon)
        else:
            plant(peers.nodes, key, None, encode_value("mine now"), soon)
        with capture_logs() as logs:
            async with sidecar(config(folder, "one", one.settings.socket, peers)) as daemon:
                await wait_until(lambda: daemon.state.claims is not None)
                seen = daemon.state.claims
                assert seen is not None
                assert (seen.claims, seen.implausible, seen.rejected, seen.readable) == (
                    (0, 4, 1, True) if junk == "liars" else (0, 0, 0, False)
                )
                await wait_until(lambda: daemon.state.move is not None and daemon.state.move.step is MoveStep.DONE)
        # Said once, by reason, however many checks found it; nothing that a liar wrote is in the line.
        said = [log for log in logs if log["event"] == "claims_not_believed"]
        assert [{name: log[name] for name in log if isinstance(log[name], int)} for log in said] == (
            [{"throughput": 1, "origin": 1, "future": 1, "too_long": 1}] if junk == "liars" else []
        )
        assert await span_of(one.settings.socket) == HIGH


async def test_the_weights_are_fetched_before_the_server_stops_serving(peers: DhtPeers, folder: Path) -> None:
    gpu = Gpu(load_seconds=0.2, download_seconds=3.0)
    async with stand_in(peers.initial_peers, gpu=gpu) as one, stand_in(peers.initial_peers):
        async with sidecar_process(config(folder, "one", one.settings.socket, peers)) as running:
            await running.wait_for("move_done")
            actions = [event["action"] for event in running.events("claim_step")]
            assert actions[actions.index("prefetch") :][:2] == ["prefetch", "go"]
            said = [event["sentence"] for event in running.events("check")]
            assert any("fetches the weights of 4:8 while it serves" in sentence for sentence in said)
            order = [event["event"] for event in running.events()]
            assert order.index("prefetch_done") < order.index("move_planned")
        with Journal(folder / "one.sqlite", read_only=True) as journal:
            (move,) = journal.moves()
        assert move.staged
        assert move.outage_seconds is not None
        status = await status_of(one.settings.socket)
        assert status.prefetch is not None
        assert (status.prefetch.span, status.prefetch.phase) == (HIGH, PrefetchPhase.DONE)
        own = own_server(status, (move,), claim=None, assumed_load_seconds=600)
        assert own.load_seconds == move.outage_seconds


async def test_a_sidecar_with_petals_rule_tells_nothing_and_believes_no_claim(peers: DhtPeers, folder: Path) -> None:
    key, soon = board_key(MODEL), time.time() + 600
    async with stand_in(peers.initial_peers) as one, stand_in(peers.initial_peers) as two:
        promise = Told(two.peer_id, 0.0, 1.0, claim=Claim(LOW, HIGH, time.time() - 5, time.time() + 600, 10.0))
        plant(peers.nodes, key, two.peer_id, encode_value(sidecar_to_wire(promise)), soon)
        as_petals = write_config(folder / "one.yaml", one.settings.socket, peers.initial_peers)
        async with sidecar(as_petals) as daemon:
            await wait_until(lambda: daemon.state.move is not None and daemon.state.move.step is MoveStep.DONE)
            assert (daemon.state.claims, daemon.state.own_claim) == (None, None)
        found = await Lookup(peers.node(1)).find([key], seconds=20)
        assert list(found[key].records) == [two.peer_id]


async def test_a_sidecar_leaves_the_board_when_it_ends(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, HIGH)
    async with (
        stand_in(peers.initial_peers) as one,
        stand_in(peers.initial_peers, first_block=4) as two,
        sidecar(config(folder, "two", two.settings.socket, peers)) as watching,
    ):
        async with sidecar(config(folder, "one", one.settings.socket, peers)):
            await wait_until(lambda: watching.state.claims is not None and watching.state.claims.sidecars == 1)
        await wait_until(lambda: watching.state.claims is not None and watching.state.claims.sidecars == 0)


async def test_in_quiet_hours_the_spare_server_fetches_what_it_would_serve_next(peers: DhtPeers, folder: Path) -> None:
    await announce(peers, 0, HIGH)
    gpu = Gpu(load_seconds=0.3, download_seconds=1)
    async with stand_in(peers.initial_peers, gpu=gpu) as one, stand_in(peers.initial_peers, gpu=gpu) as two:
        spare = min((one, two), key=lambda server: server.peer_id)  # of two that could as well, as every plan has it
        path = write_config(
            folder / "c.yaml",
            spare.settings.socket,
            peers.initial_peers,
            balance=COORDINATED,
            claims=CLAIMS,
            staging={"quiet_for": 0, "period": 0.1},
        )
        async with sidecar(path) as daemon:
            await wait_until(lambda: daemon.state.staged_blocks == len(HIGH))
            assert daemon.metrics.registry.get_sample_value("swarmkeel_staging_requests_total", {"result": "done"}) == 1
            assert daemon.state.own_claim is None
        status = await status_of(spare.settings.socket)
        assert (status.span, status.restart) == (LOW, None)
        assert status.prefetch is not None
        assert (status.prefetch.span, status.prefetch.phase) == (HIGH, PrefetchPhase.DONE)
