"""Finds all that the DHT holds under many keys at once, and knows what it could not find out.

This is Kademlia's iterative search (Maymounkov and Mazieres, 2002), as hivemind's `traverse_dht` does it: for every key
ask the nearest peers known, learn nearer ones from their answers, until the nearest have all been asked. What differs is
what happens when peers fail or lie: hivemind's search ends early at a record that never expires, fails as a whole where
two holders' records cannot be ordered, gives nothing where one record cannot be read, and does not say who was silent.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from swarmkeel.swarm.dht_codec import ENTRY_BYTES, RawRecord
from swarmkeel.swarm.dht_messages import Answer
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.hivemind_dht import DHTID, PeerID

REPLICAS: Final = 5
"""A record is kept by this many peers nearest to its key; hivemind's default."""
_BEAM: Final = 2 * REPLICAS
"""The nearest peers that are asked for a key: twice the replicas, since peers come, go and disagree who is near."""
_QUORUM: Final = 3
"""So many of a key's replicas, the nearest, are asked where it is enough to see that nothing is amiss: most of them."""
_WITNESSES: Final = 2
"""So many of these must show the same newest record."""
_KEYS_PER_QUESTION: Final = 32
_BYTES_PER_ANSWER: Final = 1024 * 1024
"""hivemind sends no answer over 4 MiB, nor an error instead. What the keys of one question weighed in the last reading
stays well below: records come meanwhile, and a slow peer has to send it all within `RPC_TIMEOUT`. Nor does the event loop
take long over so much. A key that alone weighs more is asked alone."""
_BYTES_UNKNOWN: Final = _BYTES_PER_ANSWER // 2
"""What a key is taken to weigh while nothing is known of any."""
_UNEVEN: Final = 2
"""A key that nobody has answered yet is taken to weigh so many times as much as the heaviest that is known."""
_QUESTIONS_AT_ONCE: Final = 16
_QUESTIONS_PER_PEER: Final = 2
_ALONE_AT_ONCE: Final = 8
_SEARCHES_AT_ONCE: Final = 8
_MAX_BYTES: Final = 128 * 1024 * 1024
"""Memory for the records of one search. All of a model with 126 blocks and 10,000 servers, each on 24 of them, takes 35 MB,
since a server stores the same record under all its blocks. Half of it is shared out among the keys, so that a flood under
some leaves room for what is under the others."""


class LookupRejection(StrEnum):
    """Why an entry of the DHT did not even become a record to check; stable names beside those of `RejectionReason`."""

    NOT_A_DICTIONARY = "not_a_dictionary"
    """Someone holds something under the key that is no dictionary of records; counted once a key."""
    MALFORMED = "malformed"
    """The entry has no subkey, value and expiration."""
    EXPIRED = "expired"
    """Its time was over when it was read: whoever holds it has another clock."""
    UNREADABLE = "unreadable"
    """The value is no msgpack, larger than 64 KiB, or nested too deep."""
    NO_ROOM = "no_room"
    """There were more records than one search keeps; what is under their keys counts as unknown."""


@dataclass(frozen=True)
class Found:
    """What is known of one key after a search.

    Attributes:
        records: The newest record under every subkey.
        rejected: Number of entries that are no such records, by `LookupRejection`.
        conclusive: Whether most of the peers that should hold this key gave a readable answer, nobody near was left
            unasked, and no record was left out: only then does a record that was not found not exist.
        nearest: Peers that answered, nearest to the key first.
        overflowed: Whether there was no room for all records.
    """

    records: Mapping[object, RawRecord]
    rejected: Mapping[str, int]
    conclusive: bool
    nearest: tuple[PeerID, ...]
    overflowed: bool = False


class Lookup:
    """Searches through one node. It remembers what the keys weigh, and so how many of them fit into one answer."""

    def __init__(self, node: DhtNode) -> None:
        self._node = node
        self._weights: dict[str, float] = {}

    async def find(
        self, keys: Sequence[str], *, seconds: float, known: Mapping[str, Collection[object]] | None = None
    ) -> dict[str, Found]:
        """Look for all records under some keys.

        What was found when the time is up is given all the same. When this is cancelled, nothing goes on behind it.

        Args:
            keys: Different keys.
            seconds: How long it may take. A peer that does not answer costs 5 seconds, beside whatever others do.
            known: Subkeys that are known to be under some of the keys. Of these keys only the three nearest of the
                peers that hold them are asked, as long as they show all of these subkeys and agree about what is
                there; whatever is amiss, the key is looked for like any other.
        """
        # Those that may take their holders' full time come last, lest the others wait for them.
        ordered = sorted(keys, key=lambda key: self._weights.get(key) == math.inf)
        search = _Search(self._node, ordered, self._weights, known or {})
        await search.run(seconds)
        return search.found()


@dataclass(eq=False)
class _KeySearch:
    """The search for one key.

    Attributes:
        candidates: Distance and name of all peers heard of, nearest first.
        asked: Peers that the question was put to.
        answered: Those of them that answered.
        failed: Peers that did not, or that are known not to.
        unreadable: Peers whose answer was not a dictionary of records.
        expected: Subkeys that are known to be there; None to ask whoever may hold anything.
        shown: How many peers have shown the newest record under a subkey; only kept where `expected` is given.
        beam: The nearest so many peers are to be asked.
    """

    key: str
    key_id: DHTID
    known: set[PeerID]
    expected: Collection[object] | None = None
    candidates: list[tuple[int, PeerID]] = field(default_factory=list)
    asked: set[PeerID] = field(default_factory=set)
    answered: set[PeerID] = field(default_factory=set)
    failed: set[PeerID] = field(default_factory=set)
    unreadable: set[PeerID] = field(default_factory=set)
    records: dict[object, RawRecord] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    shown: Counter[object] = field(default_factory=Counter)
    beam: int = _BEAM
    bytes_kept: int = 0

    def __post_init__(self) -> None:
        if self.expected is not None:
            self.beam = _QUORUM

    def learn(self, neighbours: Iterable[tuple[DHTID, PeerID]]) -> None:
        """Hear of peers."""
        for node_id, peer in neighbours:
            if peer not in self.known:
                self.known.add(peer)
                bisect.insort(self.candidates, (self.key_id.xor_distance(node_id), peer))

    def unasked(self) -> list[PeerID]:
        """Give those of the nearest peers, failed ones not counted, that have yet to be asked."""
        beam = itertools.islice((peer for _, peer in self.candidates if peer not in self.failed), self.beam)
        return [peer for peer in beam if peer not in self.asked]

    def widen_if_amiss(self) -> None:
        """Ask whoever may hold anything if the nearest are not enough; to be called whenever one of them has had its say."""
        if self.expected is None or self.beam == _BEAM:
            return
        if self.failed or self.unreadable or self.rejected:
            self.beam = _BEAM
        elif len(self.answered) >= _QUORUM and self.asked <= self.answered and not self.unasked():
            agreed = all(self.shown[subkey] >= _WITNESSES for subkey in self.records)
            if not agreed or not all(subkey in self.records for subkey in self.expected):
                self.beam = _BEAM

    def found(self) -> Found:
        """Sum up."""
        holders = [peer for _, peer in self.candidates[:REPLICAS]]
        answers = sum(peer in self.answered and peer not in self.unreadable for peer in holders)
        overflowed = self.rejected[LookupRejection.NO_ROOM.value] > 0
        complete = not self.unasked() and self.asked <= self.answered | self.failed and not overflowed
        return Found(
            records=self.records,
            rejected=self.rejected,
            conclusive=complete and 2 * answers > len(holders),
            nearest=tuple(peer for _, peer in self.candidates if peer in self.answered),
            overflowed=overflowed,
        )


class _Search:
    """One search for many keys: who is to be asked what, who is being asked, and what they said."""

    def __init__(
        self,
        node: DhtNode,
        keys: Sequence[str],
        weights: dict[str, float],
        known: Mapping[str, Collection[object]],
    ) -> None:
        self._node = node
        self._weights = weights
        self._weighed: dict[str, float] = {}
        self._typical: float = _BYTES_UNKNOWN
        self._records: dict[RawRecord, RawRecord] = {}
        self._values: dict[bytes, bytes] = {}
        self._wanted: dict[PeerID, dict[_KeySearch, None]] = {}  # in order; a dict, since there are no ordered sets
        self._under_way: Counter[PeerID] = Counter()
        self._questions = 0
        self._silent: set[PeerID] = set()
        self._all_asked = asyncio.Event()
        self._stopped = False
        self._own_room = _MAX_BYTES // 2 // max(len(keys), 1)
        self._common_room = _MAX_BYTES // 2
        self._searches = [_KeySearch(key, DHTID.generate(key), {node.own_peer}, known.get(key)) for key in keys]

    async def run(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for count, search in enumerate(self._searches):
                    if count % _SEARCHES_AT_ONCE == 0:
                        await asyncio.sleep(0)
                    search.learn(self._node.nearest_known(search.key_id))
                    self._want(search)
                self._put_questions(group)
                try:
                    await self._all_asked.wait()
                except asyncio.CancelledError:
                    # An answer that comes just now can outrun its task's cancelling: it must lead to no new question.
                    self._stopped = True
                    raise

    def found(self) -> dict[str, Found]:
        # Keys under which nobody holds anything.
        self._weights |= {key: weight for key, weight in self._weighed.items() if key not in self._weights}
        return {search.key: search.found() for search in self._searches}

    def _want(self, search: _KeySearch) -> None:
        """Note whom to ask next for a key."""
        while silent := [peer for peer in search.unasked() if peer in self._silent or self._node.shuns(peer)]:
            search.failed.update(silent)
        for peer in search.unasked():
            self._wanted.setdefault(peer, {})[search] = None

    def _put_questions(self, group: asyncio.TaskGroup) -> None:
        """Ask as much as may be asked at once; every answer calls this again."""
        if self._stopped:
            return
        for peer in list(self._wanted):
            if self._questions >= _QUESTIONS_AT_ONCE:
                break
            while (
                self._under_way[peer] < _QUESTIONS_PER_PEER
                and self._questions < _QUESTIONS_AT_ONCE
                and (batch := self._next_batch(peer))
            ):
                self._under_way[peer] += 1
                self._questions += 1
                group.create_task(self._ask(group, peer, batch))
        if not self._questions:
            self._all_asked.set()

    def _next_batch(self, peer: PeerID) -> list[_KeySearch]:
        """Take keys to ask a peer for in one question: as many as should fit into its answer, one at least."""
        queue = self._wanted.get(peer, {})
        batch: list[_KeySearch] = []
        room = float(_BYTES_PER_ANSWER)
        for search in list(queue):
            weight = self._weights.get(search.key, self._typical)
            if batch and weight > room:
                continue
            del queue[search]
            if peer not in search.unasked():
                continue  # nearer peers have taken its place since
            search.asked.add(peer)
            batch.append(search)
            room -= weight
            if room <= 0 or len(batch) == _KEYS_PER_QUESTION:
                break
        if not queue:
            self._wanted.pop(peer, None)
        return batch

    async def _ask(self, group: asyncio.TaskGroup, peer: PeerID, batch: list[_KeySearch]) -> None:
        answers = await self._node.ask(peer, [search.key_id for search in batch])
        if answers is not None:
            self._take(peer, batch, answers)
        elif not await self._node.ping(peer):
            await self._leave_alone(peer, batch)
        elif len(batch) == 1:
            self._give_up(peer, batch[0])
        else:
            # It is there and yet does not answer: some key holds too much for one answer. The other keys of the
            # question need not suffer from that.
            for start in range(0, len(batch), _ALONE_AT_ONCE):
                await asyncio.gather(
                    *(self._ask_alone(peer, search) for search in batch[start : start + _ALONE_AT_ONCE])
                )
                if not any(peer in search.answered for search in batch):
                    await self._leave_alone(peer, batch)
                    break
        self._under_way[peer] -= 1
        self._questions -= 1
        self._put_questions(group)

    async def _ask_alone(self, peer: PeerID, search: _KeySearch) -> None:
        answers = await self._node.ask(peer, [search.key_id])
        if answers is None:
            self._give_up(peer, search)
        else:
            self._take(peer, [search], answers)

    async def _leave_alone(self, peer: PeerID, batch: Sequence[_KeySearch]) -> None:
        """Note that a peer does not answer at all."""
        self._silent.add(peer)
        await self._node.shun(peer)
        for search in [*batch, *self._wanted.pop(peer, {})]:
            search.failed.add(peer)
            search.widen_if_amiss()
            self._want(search)

    def _give_up(self, peer: PeerID, search: _KeySearch) -> None:
        """Note that a peer that is there has no answer for this one key."""
        self._weights[search.key] = math.inf
        search.failed.add(peer)
        search.widen_if_amiss()
        self._want(search)

    def _take(self, peer: PeerID, batch: Sequence[_KeySearch], answers: Sequence[Answer]) -> None:
        for search, answer in zip(batch, answers, strict=True):
            self._weigh(search.key, answer)
            search.answered.add(peer)
            if not answer.readable:
                search.unreadable.add(peer)
                search.rejected[LookupRejection.NOT_A_DICTIONARY.value] = 1
            if answer.malformed:
                # Honest peers hold the same entries: they are counted where most of them are, not at every peer.
                malformed = max(search.rejected[LookupRejection.MALFORMED.value], answer.malformed)
                search.rejected[LookupRejection.MALFORMED.value] = malformed
            for record in answer.records:
                self._keep(search, record)
            search.learn(answer.neighbours)
            search.widen_if_amiss()
            self._want(search)

    def _weigh(self, key: str, answer: Answer) -> None:
        """Note how many bytes an answer took for a key: the most that any peer took in the newest search."""
        self._weighed[key] = max(self._weighed.get(key, 0.0), answer.weight)
        # Who holds nothing says nothing about those who do.
        if answer.records or not answer.readable:
            self._weights[key] = self._weighed[key]
            if self._typical == _BYTES_UNKNOWN or _UNEVEN * answer.weight > self._typical:
                self._typical = _UNEVEN * answer.weight

    def _keep(self, search: _KeySearch, record: RawRecord) -> None:
        """Keep the later of two records under one subkey, as hivemind does; whoever answered first."""
        present = search.records.get(record.subkey)
        if present is not None:
            ranks = (present.expiration, present.value), (record.expiration, record.value)
            if ranks[0] == ranks[1] and search.expected is not None:
                search.shown[record.subkey] += 1
            if ranks[0] >= ranks[1]:
                return
        record, size = self._share(record)
        kept = search.bytes_kept + size
        from_common = max(kept, self._own_room) - max(search.bytes_kept, self._own_room)
        if from_common > self._common_room:
            search.rejected[LookupRejection.NO_ROOM.value] += 1
            return
        search.bytes_kept = kept
        self._common_room -= from_common
        self._values[record.value] = record.value
        self._records[record] = record
        search.records[record.subkey] = record
        if search.expected is not None:
            search.shown[record.subkey] = 1

    def _share(self, record: RawRecord) -> tuple[RawRecord, int]:
        """Give a record, and the bytes that it takes: a server stores the same one under all its blocks."""
        known = self._records.get(record)
        if known is not None:
            return known, ENTRY_BYTES
        size = record.size + 2 * ENTRY_BYTES  # it is noted by itself and by its value too
        value = self._values.get(record.value)
        if value is not None:
            return replace(record, value=value), size - len(value)
        return record, size
