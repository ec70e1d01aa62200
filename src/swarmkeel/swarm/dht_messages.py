"""What a peer answers to the question for some keys, checked and cut to size before anything else sees it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from swarmkeel.swarm.dht_codec import RawRecord, UndecodableError, decode_dictionary
from swarmkeel.swarm.hivemind_dht import DHTID, PeerID, dht_pb2

_MAX_NEIGHBOURS: Final = 20
"""Peers near a key in one answer; an honest peer gives at most 20, hivemind's bucket size."""
_MAX_PEER_ID_BYTES: Final = 64
_BYTES_AT_ONCE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """One peer's answer for one key.

    Attributes:
        readable: False if it holds something there that is no dictionary of records; what else is there is unknown.
        records: The records that it holds.
        malformed: Number of entries beside these that are no records.
        neighbours: Peers near the key, with the ids that decide how near.
        weight: Bytes that the answer took for this key.
    """

    readable: bool
    records: tuple[RawRecord, ...]
    malformed: int
    neighbours: tuple[tuple[DHTID, PeerID], ...]
    weight: int = 0


class AnswerReader:
    """Reads what peers answer: one answer after the other, and a large one in pieces.

    So the event loop turns between, though many peers answer at once.
    """

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()

    async def read(self, response: dht_pb2.FindResponse, count: int) -> tuple[DHTID | None, list[Answer]]:
        """Read hivemind's `FindResponse`.

        Args:
            response: The message.
            count: Number of keys asked for.

        Returns:
            The answering node's own id, None if it is a client; and an answer for every key.

        Raises:
            ValueError: If the number of answers is another.
        """
        if len(response.results) != count:
            raise ValueError(f"{len(response.results)} answers to {count} questions")
        answers = []
        async with self._one_at_a_time:
            since_turn = _BYTES_AT_ONCE  # who waited for the lock may have got it in the turn of another's last piece
            for result in response.results:
                if since_turn >= _BYTES_AT_ONCE:
                    await asyncio.sleep(0)
                    since_turn = 0
                answer = _read_answer(result)
                since_turn += answer.weight
                answers.append(answer)
        return _node_id(response.peer.node_id), answers


def _node_id(data: bytes) -> DHTID | None:
    return DHTID.from_bytes(data) if len(data) == DHTID.HASH_NBYTES else None


def _read_answer(result: dht_pb2.FindResult) -> Answer:
    neighbours = []
    for node_bytes, peer_bytes in zip(result.nearest_node_ids, result.nearest_peer_ids, strict=False):
        node_id = _node_id(node_bytes)
        if node_id is not None and 0 < len(peer_bytes) <= _MAX_PEER_ID_BYTES:
            neighbours.append((node_id, PeerID(peer_bytes)))
    readable = result.type in (dht_pb2.NOT_FOUND, dht_pb2.FOUND_DICTIONARY)
    entries: list[RawRecord | None] = []
    if result.type == dht_pb2.FOUND_DICTIONARY:
        try:
            entries = list(decode_dictionary(result.value))
        except UndecodableError:
            readable = False
    records = tuple(entry for entry in entries if entry is not None)
    malformed = len(entries) - len(records)
    return Answer(readable, records, malformed, tuple(neighbours[:_MAX_NEIGHBOURS]), result.ByteSize())
