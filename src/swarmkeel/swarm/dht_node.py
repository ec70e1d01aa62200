"""A node of the DHT inside this process's own event loop, with p2pd, its one child process, under control.

hivemind's own way is a forked process that runs the node; when the parent is killed, that fork and its p2pd live on.
Here p2pd is a direct child, which ends by itself when this process dies.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.dht_guard import install_guards
from swarmkeel.swarm.dht_messages import Answer, AnswerReader
from swarmkeel.swarm.dht_traffic import DhtTraffic
from swarmkeel.swarm.failures import ClockDiffersError, DhtNodeError, IdentityError, InitialPeerError
from swarmkeel.swarm.hivemind_dht import DHTID, P2P, DHTNode, Multiaddr, PeerID, ValidationError, dht_pb2
from swarmkeel.swarm.identity import Identity, claim_identity, create_identity

RPC_TIMEOUT: Final = 3.0
"""Seconds that a peer has for one answer; hivemind's default."""
_PING_TIMEOUT: Final = 1.5
_CONNECT_TIMEOUT: Final = 5.0
_START_TIMEOUT: Final = 20.0
_END_GRACE: Final = 2.0
_MEETING_ROUNDS: Final = 3
_MEETING_SIZE: Final = 20
_SOCKETS: Final = ("_daemon_listen_maddr", "_client_listen_maddr")
"""Where a P2P keeps the addresses of its Unix sockets."""
_LOOPBACK: Final = ("/ip4/127.0.0.1/tcp/0",)


class DhtNode:
    """A running node; made by `open`, ended by `close`.

    Attributes:
        peer_id: Its own peer id, base58.
        client_mode: Whether it only asks others, and neither listens nor keeps records for them.
        traffic: What it has asked of others.
    """

    def __init__(
        self, node: DHTNode, p2p: P2P, identity: Identity | None, initial_peers: Mapping[PeerID, Sequence[Multiaddr]]
    ) -> None:
        self.peer_id: str = p2p.peer_id.to_base58()
        self.client_mode: bool = node.protocol.client_mode
        self.traffic = DhtTraffic()
        self._answer_reader = AnswerReader()
        self._node = node
        self._p2p = p2p
        self._identity = identity
        self._initial_peers = initial_peers
        self._visible_maddrs = [f"{address}/p2p/{self.peer_id}" for address in p2p._visible_maddrs]  # noqa: SLF001 - the public getter raises where there are none

    @classmethod
    async def open(
        cls,
        initial_peers: Sequence[str],
        *,
        identity_path: Path | None = None,
        client_mode: bool = True,
        host_maddrs: Sequence[str] | None = None,
    ) -> Self:
        """Start a node and greet the initial peers.

        It opens although none of them answers (`known_peers` is 0 then, and `repair` tries again). If it fails or is
        cancelled, nothing is left behind.

        Args:
            initial_peers: Multiaddresses, each ending in /p2p/PEER_ID; none for the first node of a swarm. A node that is
                no client may be among them.
            identity_path: The node's key file, made when missing; a new peer id at every start without.
            client_mode: Only ask others. A node that is no client listens, and keeps records for others.
            host_maddrs: Where to listen if no client; a free port of the loopback interface where left out.

        Raises:
            InitialPeerError: If an initial peer is no multiaddress of a peer.
            IdentityError: If the key file cannot be used.
            ClockDiffersError: If those who answer have another time.
            DhtNodeError: If p2pd does not start.
        """
        peers = _parse_peers(initial_peers)
        install_guards()
        identity = None
        started: list[P2P] = []
        try:
            if identity_path is not None:
                await asyncio.to_thread(create_identity, identity_path)
                identity = claim_identity(identity_path)
                _tell_apart(identity, peers, client_mode=client_mode)
            async with asyncio.timeout(_START_TIMEOUT):
                p2p = await _remembering_p2p(started).create(
                    identity_path=None if identity is None else str(identity.path),
                    dht_mode="client" if client_mode else "server",
                    no_listen=client_mode,
                    host_maddrs=None if client_mode else host_maddrs or _LOOPBACK,
                    auto_nat=False,
                    nat_port_map=False,
                )
                node = await DHTNode.create(
                    p2p=p2p,
                    client_mode=client_mode,
                    wait_timeout=RPC_TIMEOUT,
                    cache_locally=False,
                    cache_nearest=0,
                    cache_on_store=False,
                )
            _fail_calls_when_gone(p2p)
            self = cls(node, p2p, identity, peers)
            await self.repair()
        except BaseException as error:
            for p2p in started:
                await _end(p2p)
            if identity is not None:
                identity.release()
            if isinstance(error, Exception) and not isinstance(error, SwarmkeelError):
                raise _start_failure(error) from error
            raise
        return self

    @property
    def is_alive(self) -> bool:
        """Whether p2pd still runs and talks to us."""
        control = self._p2p._client.control  # noqa: SLF001 - hivemind's own is_alive stays true when p2pd is gone
        return self._p2p._child.returncode is None and not control._read_task.done()  # noqa: SLF001 - as above

    @property
    def known_peers(self) -> int:
        """Number of other peers in the routing table; those that stop answering leave it."""
        return len(self._node.protocol.routing_table.peer_id_to_uid)

    @property
    def is_founder(self) -> bool:
        """Whether it was given no other peer to join: the first of a swarm."""
        return not self._initial_peers

    @property
    def own_peer(self) -> PeerID:
        """Its own peer id as hivemind has it."""
        return self._node.peer_id

    @property
    def hivemind_node(self) -> DHTNode:
        """The node that this one wraps."""
        return self._node

    def visible_maddrs(self) -> list[str]:
        """Give the addresses under which others reach this node, each ending in /p2p/PEER_ID; none for a client."""
        return list(self._visible_maddrs)

    async def repair(self) -> int:
        """Connect to the initial peers again, and forget who failed to answer so far.

        hivemind drops a peer that fails once from its routing table and never looks for it again, so that a node that
        was in use while its swarm was away stays cut off when the swarm comes back.

        Returns:
            How many initial peers answered.

        Raises:
            ClockDiffersError: If some answered, and all of these have another time.
        """
        self._node.blacklist.clear()
        answers = await asyncio.gather(*(self._greet(*peer) for peer in self._initial_peers.items()))
        answered = sum(answer is True for answer in answers)
        if not answered and any(answer is None for answer in answers):
            raise ClockDiffersError(
                "this machine's clock differs from the swarm's by more than 3 seconds", "synchronise it, e.g. with NTP"
            )
        if answered and not self.client_mode:
            await self._meet_neighbours()
        return answered

    async def _meet_neighbours(self) -> None:
        """Ask for the peers near this node until no new ones come up: each that answers knows it from then on."""
        own_id = self._node.node_id
        heard = {peer: node_id for node_id, peer in self.nearest_known(own_id)}
        met = {self.own_peer}
        for _ in range(_MEETING_ROUNDS):
            new = sorted(heard.keys() - met, key=lambda peer: own_id.xor_distance(heard[peer]))[:_MEETING_SIZE]
            met.update(new)
            for answers in await asyncio.gather(*(self.ask(peer, [own_id]) for peer in new)):
                for node_id, peer in answers[0].neighbours if answers else ():
                    heard.setdefault(peer, node_id)

    async def _greet(self, peer: PeerID, addresses: Sequence[Multiaddr]) -> bool | None:
        """Connect and ping; False without an answer, None if the peer's clock differs from ours."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                await self._p2p._client.connect(peer, addresses)  # noqa: SLF001 - hivemind connects only at a start
            # A peer checks our reachability too if asked for validation, which is not ours to demand as a server.
            node_id = await self._node.protocol.call_ping(peer, validate=self.client_mode)
        except ValidationError:
            return None
        except Exception:  # noqa: BLE001 - whatever p2pd or the peer does, it did not answer
            return False
        if node_id is None:
            return False
        await self._node.protocol.update_routing_table(node_id, peer)
        return True

    async def ask(self, peer: PeerID, keys: Sequence[DHTID]) -> list[Answer] | None:
        """Ask one peer for the records under some keys, and for the peers that it knows near each.

        hivemind's own call parses the answer with a parser that one bad record brings down, so this one does not use it.

        Returns:
            One answer a key, in order; None if the peer did not answer within `RPC_TIMEOUT`, or answered nonsense.
        """
        if not self.is_alive:
            return None
        protocol = self._node.protocol
        request = dht_pb2.FindRequest(keys=[key.to_bytes() for key in keys], peer=protocol.node_info)
        self.traffic.finds += 1
        self.traffic.bytes_sent += request.ByteSize()
        try:
            response = await protocol.get_stub(peer).rpc_find(request, timeout=RPC_TIMEOUT)
            self.traffic.bytes_received += response.ByteSize()
            node_id, answers = await self._answer_reader.read(response, len(keys))
            if node_id is not None:
                await protocol.update_routing_table(node_id, peer)
        except Exception:  # noqa: BLE001 - whatever p2pd or the peer does, it did not answer
            return None
        self._node.blacklist.register_success(peer)
        return answers

    async def ping(self, peer: PeerID) -> bool:
        """Tell whether a peer answers at all."""
        if not self.is_alive:
            return False
        self.traffic.pings += 1
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                node_id = await self._node.protocol.call_ping(peer)
            if node_id is not None:
                await self._node.protocol.update_routing_table(node_id, peer)
        except Exception:  # noqa: BLE001 - hivemind checks some of the answer where it does not expect it to be wrong
            return False
        return node_id is not None

    def nearest_known(self, key: DHTID) -> list[tuple[DHTID, PeerID]]:
        """Give the peers of the routing table that are nearest to a key, nearest first."""
        table = self._node.protocol.routing_table
        return list(table.get_nearest_neighbors(key, k=self._node.protocol.bucket_size, exclude=self._node.node_id))

    async def shun(self, peer: PeerID) -> None:
        """Forget a peer that does not answer, and leave it alone for 5 seconds, twice as long every further time."""
        self._node.blacklist.register_failure(peer)
        protocol = self._node.protocol
        with suppress(KeyError):  # hivemind's table may not agree with itself about peers that came back as other nodes
            await protocol.update_routing_table(protocol.routing_table.get(peer_id=peer), peer, responded=False)

    def shuns(self, peer: PeerID) -> bool:
        """Tell whether a peer is to be left alone for now."""
        return peer in self._node.blacklist

    async def close(self) -> None:
        """End the node and its p2pd, even one that hangs or is gone; takes a few seconds at most; may be repeated."""
        self._node.is_alive = False
        # hivemind's own shutdown asks p2pd to forget the handlers, and waits for ever if it is gone.
        try:
            await _end(self._p2p)
        finally:
            if self._identity is not None:
                self._identity.release()
                self._identity = None


def _parse_peers(initial_peers: Sequence[str]) -> dict[PeerID, list[Multiaddr]]:
    peers: dict[PeerID, list[Multiaddr]] = {}
    for text in initial_peers:
        address, _, peer_id = text.rpartition("/p2p/")
        try:
            Multiaddr(text)  # checks the peer id too
            peers.setdefault(PeerID.from_base58(peer_id), []).append(Multiaddr(address))
        except Exception as error:  # base58 and multiaddr each have their own ways to refuse
            raise InitialPeerError(
                f"{text!r} is no address of a peer", "write it like /ip4/1.2.3.4/tcp/31337/p2p/QmPeerId"
            ) from error
    return peers


def _tell_apart(identity: Identity, peers: dict[PeerID, list[Multiaddr]], *, client_mode: bool) -> None:
    """Take a node that keeps records off its own list of peers; a client on it uses the key of another node."""
    if peers.pop(PeerID.from_base58(identity.peer_id), None) and client_mode:
        raise IdentityError(
            f"the key file {identity.path} is that of an initial peer", "give this node a key of its own"
        )


def _remembering_p2p(started: list[P2P]) -> type[Any]:
    """Make a P2P class whose instances are noted: `P2P.create` loses its child process when it fails or is cancelled."""

    class RememberedP2P(P2P):  # type: ignore[misc] # hivemind is published without types
        def __init__(self) -> None:
            super().__init__()
            started.append(self)

    return RememberedP2P


def _fail_calls_when_gone(p2p: P2P) -> None:
    """Make calls under way fail as soon as p2pd is gone: hivemind leaves them to wait for their timeout."""
    control = p2p._client.control  # noqa: SLF001 - there is no public sign of p2pd's end

    def fail_calls(_: object) -> None:
        for answer in control._pending_calls.values():  # noqa: SLF001 - as above
            if not answer.done():
                answer.set_exception(ConnectionError("p2pd is gone"))

    control._read_task.add_done_callback(fail_calls)  # noqa: SLF001 - as above


def _start_failure(error: Exception) -> DhtNodeError:
    detail = str(error).partition("\n")[0][:200] or type(error).__name__
    return DhtNodeError(f"the DHT node did not start ({detail})", "see that p2pd of the hivemind package can run here")


async def _end(p2p: P2P) -> None:
    """End p2pd: politely first, for certain in the end; remove its sockets."""
    child = p2p._child  # noqa: SLF001 - what `create` got as far as
    if p2p._reader_task is not None:  # noqa: SLF001 - as above
        # Where `create` was cancelled it trips over what nobody waits for any more, and nobody looks at that either.
        p2p._reader_task.add_done_callback(lambda task: task.cancelled() or task.exception())  # noqa: SLF001 - as above
    try:
        if child is not None:
            p2p._terminate()  # noqa: SLF001 - the first half of P2P.shutdown, whose second half waits without end
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_GRACE):
                    await child.wait()
    finally:
        if child is not None:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
            await child.wait()  # when cancelled too: it is short now, and else the event loop might not live to see it
        for name in _SOCKETS:
            # Left behind by a p2pd that was killed; the names are not there yet where `create` failed early.
            with suppress(FileNotFoundError, AttributeError):
                address = getattr(p2p, name)
                os.unlink(address["unix"])  # noqa: PTH108 - in memory, and this must not be put off
