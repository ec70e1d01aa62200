"""A DHT in memory: what its peers answer is real, only the way between is not.

Stands in the place of `DhtNode` where a swarm is larger than real peers on one machine could carry. Every answer is the
bytes that a peer of hivemind would send, and goes through the same parser; it comes one turn of the event loop later.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

import msgpack

from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.dht_messages import Answer, AnswerReader
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.dht_traffic import DhtTraffic
from swarmkeel.swarm.hivemind_dht import DHTID, PeerID, dht_pb2
from swarmkeel.swarm.record import ServerInfo, ServerState

MODEL: Final = "model"
ANSWER_LIMIT: Final = 4 * 1024 * 1024
"""hivemind sends no larger answer, nor an error in its place."""
_RESULTS_TAG: Final = bytes([dht_pb2.FindResponse.DESCRIPTOR.fields_by_name["results"].number << 3 | 2])
_HOLDERS: Final = 5
_NEIGHBOURS: Final = 20


def peer_id(number: int) -> str:
    """Give the base58 text of a peer id that looks like one of libp2p's."""
    drawn = random.Random(number).randbytes(32)  # noqa: S311 - to be repeatable
    return str(PeerID(b"\x12\x20" + drawn).to_base58())


def records(servers: int, blocks: int, lengths: tuple[int, int], seed: int = 0) -> dict[int, dict[str, bytes]]:
    """Make the records of a swarm: for each block the serialized record of each server over it.

    Args:
        servers: Number of servers.
        blocks: Number of blocks.
        lengths: The shortest and the longest span.
        seed: Of what is drawn.
    """
    drawn = random.Random(seed)  # noqa: S311 - to be repeatable
    names = [peer_id(number) for number in range(servers)]
    held: dict[int, dict[str, bytes]] = {block: {} for block in range(blocks)}
    for number, name in enumerate(names):
        length = drawn.randint(*lengths)
        start = drawn.randint(0, blocks - length)
        value = encode_value(_server(number, start, start + length, drawn, names).to_tuple())
        for block in range(start, start + length):
            held[block][name] = value
    return held


def _server(number: int, start: int, end: int, drawn: random.Random, names: Sequence[str]) -> ServerInfo:
    """Make a record as long as Petals' are: most of it are the pings to servers of the next blocks."""
    return ServerInfo(
        ServerState.ONLINE,
        drawn.uniform(5, 200),
        start_block=start,
        end_block=end,
        public_name=f"server-{number}",
        version="2.2.0.post1",
        network_rps=drawn.uniform(100, 1000),
        forward_rps=drawn.uniform(1000, 9000),
        inference_rps=drawn.uniform(50, 300),
        torch_dtype="float16",
        quant_type="nf4",
        using_relay=False,
        cache_tokens_left=drawn.randrange(100_000),
        next_pings={drawn.choice(names): drawn.uniform(0.01, 0.3) for _ in range(10)},
    )


class MemoryDht:
    """The peers and what they hold.

    Args:
        held: Records by block and peer id, from `records`.
        peers: Number of peers; each key is held by the five nearest to it.
        lifetime: Seconds that the records hold.

    Attributes:
        calls: Questions that were answered.
        bytes_sent: Bytes of the answers.
        refused: Questions whose answer would have been over the limit.
    """

    def __init__(self, held: Mapping[int, Mapping[str, bytes]], *, peers: int = 30, lifetime: float = 1800.0) -> None:
        drawn = random.Random(1)  # noqa: S311 - as above
        self._peers = {PeerID(b"\x12\x20" + drawn.randbytes(32)): DHTID(drawn.getrandbits(160)) for _ in range(peers)}
        self.calls = 0
        self.bytes_sent = 0
        self.refused = 0
        self._results: dict[PeerID, dict[bytes, bytes]] = defaultdict(dict)
        self._absent: dict[bytes, bytes] = {}
        end = time.time() + lifetime
        for block, values in held.items():
            key = DHTID.generate(f"{MODEL}.{block}")
            near = self.near(key)
            found = self._result(key, dht_pb2.FOUND_DICTIONARY, _dictionary(values, end), end)
            self._absent[key.to_bytes()] = self._result(key, dht_pb2.NOT_FOUND, b"", 0.0)
            for peer in near[:_HOLDERS]:
                self._results[peer][key.to_bytes()] = found

    def near(self, key: DHTID) -> list[PeerID]:
        """Give the peers nearest to a key."""
        return sorted(self._peers, key=lambda peer: key.xor_distance(self._peers[peer]))[:_NEIGHBOURS]

    def _result(self, key: DHTID, kind: int, value: bytes, end: float) -> bytes:
        near = self.near(key)
        result = dht_pb2.FindResult(
            type=kind,
            value=value,
            expiration_time=end,
            nearest_node_ids=[self._peers[peer].to_bytes() for peer in near],
            nearest_peer_ids=[peer.to_bytes() for peer in near],
        )
        return bytes(result.SerializeToString())

    def answer(self, peer: PeerID, keys: Sequence[DHTID]) -> bytes | None:
        """Give the bytes of a peer's answer; None where there are too many of them."""
        # Put together by hand, so that it takes next to no time of the event loop that is measured.
        parts = [dht_pb2.FindResponse(peer=dht_pb2.NodeInfo(node_id=self._peers[peer].to_bytes())).SerializeToString()]
        for key in keys:
            known = self._results[peer].get(key.to_bytes()) or self._absent.get(key.to_bytes())
            if known is None:
                known = self._absent[key.to_bytes()] = self._result(key, dht_pb2.NOT_FOUND, b"", 0.0)
            parts += [_RESULTS_TAG, _varint(len(known)), known]
        data = b"".join(parts)
        self.calls += 1
        if len(data) > ANSWER_LIMIT:
            self.refused += 1
            return None
        self.bytes_sent += len(data)
        return data

    def node(self) -> Any:  # noqa: ANN401 - it passes for a DhtNode
        """Make a node that asks these peers."""
        return _MemoryNode(self)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have every node that is opened meanwhile ask these peers."""

        async def opened(*_: object, **__: object) -> object:
            return self.node()

        with mock.patch.object(DhtNode, "open", opened):
            yield


def _dictionary(values: Mapping[str, bytes], end: float) -> bytes:
    entries = [[subkey, value, end] for subkey, value in values.items()]
    content = msgpack.packb([1 << 30, end, entries], use_bin_type=True)
    return bytes(msgpack.packb(msgpack.ExtType(0x50, content)))


def _varint(number: int) -> bytes:
    """Write a number as protobuf writes lengths."""
    data = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])


class _MemoryNode:
    client_mode = True
    is_alive = True
    is_founder = False

    def __init__(self, dht: MemoryDht) -> None:
        self._dht = dht
        self._reader = AnswerReader()
        self.traffic = DhtTraffic()
        self.peer_id = peer_id(-1)
        self.own_peer = PeerID.from_base58(self.peer_id)
        self.known_peers = len(dht._peers)  # noqa: SLF001 - its other half
        self.hivemind_node = self
        self.protocol = self
        self.asked: Counter[PeerID] = Counter()

    async def ask(self, peer: PeerID, keys: Sequence[DHTID]) -> list[Answer] | None:
        data = self._dht.answer(peer, keys)
        self.traffic.finds += 1
        await asyncio.sleep(0)
        if data is None:
            return None
        self.traffic.bytes_received += len(data)
        return (await self._reader.read(dht_pb2.FindResponse.FromString(data), len(keys)))[1]

    async def ping(self, _: PeerID) -> bool:
        return True

    async def repair(self) -> int:
        return self.known_peers

    def nearest_known(self, key: DHTID) -> list[tuple[DHTID, PeerID]]:
        return [(self._dht._peers[peer], peer) for peer in self._dht.near(key)]  # noqa: SLF001 - as above

    async def shun(self, peer: PeerID) -> None:
        """No peer here fails."""

    def shuns(self, _: PeerID) -> bool:
        return False

    async def call_store(self, _: PeerID, keys: Sequence[DHTID], **__: object) -> list[bool]:
        return [True] * len(keys)

    async def close(self) -> None:
        """There is nothing to end."""
