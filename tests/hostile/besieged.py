"""One real sidecar process in a real DHT of honest servers, among which anyone may plant whatever they like."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from hivemind.dht.protocol import DHTProtocol
from hivemind.proto import dht_pb2
from prometheus_client.parser import text_string_to_metric_families

from swarmkeel.config import load_config
from swarmkeel.daemon.admin_client import AdminClient
from swarmkeel.daemon.status import CheckInfo
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar_board import board_key
from swarmkeel.swarm.sidecar_check import ClaimDoubt
from swarmkeel.swarm.span import Span
from tests.support.dht import DhtPeers, plant
from tests.support.sidecars import MODEL, TOTAL_BLOCKS, ObedientServer, SidecarProcess, sidecar_process, write_config

OWN = "QmHonest1"
HONEST = {OWN: Span(0, 4), "QmHonest2": Span(0, 4), "QmHonest3": Span(4, 8), "QmHonest4": Span(4, 8)}
"""Balanced: nobody has a reason to move."""
RPS = 10.0
BOARD = board_key(MODEL)
KEYS = tuple(f"{MODEL}.{block}" for block in range(TOTAL_BLOCKS))
QUICK: dict[str, dict[str, object]] = {
    "balance": {"policy": "coordinated", "load_seconds": 1, "check_period": 3600},
    "claims": {"settle": 0},
}
"""It looks when it is told to, and a lie that lures would make it move at the second look."""


@dataclass(frozen=True)
class Sight:
    """What the sidecar shows after a check.

    Attributes:
        check: What the check ended in.
        servers: The servers that it sees, as `/api/v1/swarm` tells them.
        rejected: Records of servers that it has rejected since its start, by reason.
        board_rejected: Records of sidecars that this check rejected.
    """

    check: CheckInfo
    servers: Mapping[str, dict[str, Any]]
    rejected: Mapping[str, float]
    board_rejected: float

    def sees(self, peer_id: str) -> bool:
        """Tell whether it sees an honest server as it is."""
        server = self.servers.get(peer_id, {})
        span = HONEST[peer_id]
        return (server.get("span"), server.get("throughput_rps")) == ({"start": span.start, "end": span.end}, RPS)


class Besieged:
    """The swarm, its sidecar, and the hands that plant things."""

    def __init__(self, peers: DhtPeers, daemon: SidecarProcess, own: ObedientServer, client: AdminClient) -> None:
        self.peers = peers
        self.daemon = daemon
        self.own = own
        self._client = client
        self._later = itertools.count(1)

    def plant(self, key: str, subkey: object, value: bytes, expiration: float | None = None) -> None:
        """Make all peers hold something; it expires later than what was planted before, and so takes its place."""
        plant(
            self.peers.nodes,
            key,
            subkey,
            value,
            time.time() + 3600 + next(self._later) if expiration is None else expiration,
        )

    def plant_server(self, peer_id: str, span: Span, rps: float = RPS, state: ServerState = ServerState.ONLINE) -> None:
        """Make a server announce itself, honestly or not."""
        record = encode_value(ServerInfo(state, rps, span.start, span.end, public_name=peer_id).to_tuple())
        for block in range(span.start, span.end):
            self.plant(KEYS[block], peer_id, record)

    def restore(self) -> None:
        """Take everything out of the DHT but what honest servers announce, newly."""
        for node in self.peers.nodes:
            assert node is not None
            protocol = node.hivemind_node.protocol
            protocol.storage.clear()
            protocol.cache.clear()
            protocol.lie = None
        for peer_id, span in HONEST.items():
            self.plant_server(peer_id, span)

    async def look(self, *, times: int = 1) -> Sight:
        """Let it check now, as often as is said, and give what it shows then."""
        for _ in range(times):
            check = await asyncio.to_thread(self._client.post, "/v1/check-now", {}, CheckInfo)
        url = await self.daemon.url()
        async with ClientSession() as client:
            async with client.get(f"{url}/api/v1/swarm") as answer:
                servers = {server["peer_id"]: server for server in (await answer.json())["servers"]}
            async with client.get(f"{url}/metrics") as answer:
                metrics = {
                    (sample.name.removeprefix("swarmkeel_"), *sample.labels.values()): sample.value
                    for family in text_string_to_metric_families(await answer.text())
                    for sample in family.samples
                }
        rejected = {name[1]: value for name, value in metrics.items() if name[0] == "records_rejected_total"}
        return Sight(check, servers, rejected, metrics.get(("claims", "rejected"), 0.0))

    def assert_unharmed(self) -> None:
        """It lives, has moved nobody, has failed at nothing, and its log is small and clean."""
        assert self.daemon.process.is_running
        assert self.own.requests == []
        log = self.daemon.process.log_path.read_text()
        assert "Traceback" not in log
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]|\\u001b|evil", log) is None
        # However many checks have found the same junk, and in however many records.
        for event in ("records_rejected", "sidecar_records_rejected", "claims_not_believed"):
            said = [reason for line in self.daemon.events(event) for reason in line if reason in REASONS]
            assert all(said.count(reason) <= len(set(said)) for reason in said)
            assert len(self.daemon.events(event)) <= len(set(said))

    def said(self, event: str) -> set[str]:
        """Give the reasons that its log has named."""
        return {key for line in self.daemon.events(event) for key in line}

    @property
    def memory(self) -> int:
        """Bytes of memory that it occupies."""
        status = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024


REASONS = frozenset(
    [
        "not_a_dictionary",
        "peer_id",
        "shape",
        "state",
        "throughput",
        "span",
        "extras",
        "malformed",
        "expired",
        "unreadable",
        "no_room",
        "too_large",
        "version",
        "movable_at",
        "load_seconds",
        "arrives_at",
        "shapes",
        "claim",
        *ClaimDoubt,
    ]
)


def let_peers_lie() -> None:
    """Let a peer answer whatever its attribute `lie` makes of the question; to be called before any peer starts."""
    honest = DHTProtocol.rpc_find
    if honest.__name__ == "rpc_find_or_lie":
        return

    async def rpc_find_or_lie(self: Any, request: dht_pb2.FindRequest, context: Any) -> dht_pb2.FindResponse:
        lie = getattr(self, "lie", None)
        answer = await honest(self, request, context)
        return answer if lie is None else lie(request, answer)

    DHTProtocol.rpc_find = rpc_find_or_lie


@asynccontextmanager
async def besieged(folder: Path, **sections: dict[str, object]) -> AsyncIterator[Besieged]:
    """Run such a swarm until the end of the block."""
    let_peers_lie()
    async with DhtPeers(3) as peers:
        own = ObedientServer(folder / "s", OWN, HONEST[OWN])
        config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers, **{**QUICK, **sections})
        client = AdminClient.of(load_config(config), timeout=120)
        with own.listening():
            async with sidecar_process(config) as daemon:
                swarm = Besieged(peers, daemon, own, client)
                swarm.restore()
                await daemon.url()
                await daemon.wait_for("check")
                yield swarm
