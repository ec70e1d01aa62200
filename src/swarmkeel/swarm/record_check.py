"""Decodes and checks the records of a whole swarm, each value once: a server stores the same one under all its blocks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from swarmkeel.swarm.dht_codec import RawRecord, UndecodableError, decode_value
from swarmkeel.swarm.dht_lookup import LookupRejection
from swarmkeel.swarm.record import RecordRejected, RejectionReason, ServerInfo, ServerState, parse_peer_id

_RECORDS_AT_ONCE: Final = 64
_MAX_RPS: Final = 1e300
"""More than so many requests a second are rejected, though Petals knows no limit: sums of less are finite, so that no
single record makes a swarm's numbers useless."""


@dataclass(frozen=True)
class Checked:
    """The records under one key.

    Attributes:
        servers: Accepted records by base58 peer id, the first to expire first: so the order does not depend on who
            answered first. Of two subkeys that mean the same peer the later wins, as in Petals.
        expirations: When the last record of each of these ends that does not say OFFLINE, seconds since the epoch.
        rejected: Records that were not accepted, by `RejectionReason` and `LookupRejection`.
    """

    servers: dict[str, ServerInfo] = field(default_factory=dict)
    expirations: dict[str, float] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)


class RecordCheck:
    """Checks what readings found, and remembers from one reading to the next what it has decoded."""

    def __init__(self) -> None:
        self._former: dict[bytes, ServerInfo | str] = {}
        self._present: dict[bytes, ServerInfo | str] = {}
        self._names: dict[object, str | None] = {}

    def end(self) -> None:
        """End a reading: what was under no key of it is forgotten."""
        self._former, self._present = self._present, {}
        self._names = {}

    async def check(self, records: Mapping[object, RawRecord], now: float) -> Checked:
        """Check the records under one key; lets the event loop turn now and then, since there may be a flood of them.

        Args:
            records: The records by their subkeys.
            now: Seconds since the epoch; a record that ended before is rejected.
        """
        checked = Checked()
        ordered = sorted(records.values(), key=lambda record: (record.expiration, record.value))
        for count, record in enumerate(ordered):
            if count % _RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
            if record.expiration < now:
                checked.rejected[LookupRejection.EXPIRED.value] += 1
                continue
            content = self._content(record.value)
            peer_id = self._peer_id(record.subkey)
            if content == LookupRejection.UNREADABLE.value or (peer_id is not None and isinstance(content, str)):
                checked.rejected[str(content)] += 1
            elif peer_id is None:
                checked.rejected[RejectionReason.PEER_ID.value] += 1
            else:
                assert isinstance(content, ServerInfo)  # noqa: S101 - it is not a reason
                checked.servers[peer_id] = content
        for count, record in enumerate(ordered):
            if count % _RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
            peer_id = self._peer_id(record.subkey)
            info = None if peer_id is None else checked.servers.get(peer_id)
            if peer_id is not None and info is not None and info.state is not ServerState.OFFLINE:
                # They are in order: of several the last one counts.
                checked.expirations[peer_id] = record.expiration
        return checked

    def _content(self, value: bytes) -> ServerInfo | str:
        """Give what a value says, or the reason for which it is rejected."""
        known = self._present.get(value)
        if known is None:
            known = self._former.get(value) or _content(value)
            self._present[value] = known
        return known

    def _peer_id(self, subkey: object) -> str | None:
        """Give the peer that a subkey names; None if it names none."""
        if type(subkey) is not str:  # True and 1 are the same key of a dictionary
            return _peer_id(subkey)
        try:
            return self._names[subkey]
        except KeyError:
            name = self._names[subkey] = _peer_id(subkey)
            return name


def names_one(subkeys: Mapping[object, object], servers: Mapping[str, ServerInfo]) -> bool:
    """Tell whether one of some subkeys names one of some servers."""
    return any(_peer_id(subkey) in servers for subkey in subkeys)


def _content(value: bytes) -> ServerInfo | str:
    try:
        info = ServerInfo.from_tuple(decode_value(value))  # type: ignore[arg-type] # whether it is a sequence is checked
    except UndecodableError:
        return LookupRejection.UNREADABLE.value
    except RecordRejected as error:
        return error.reason.value
    return info if info.throughput <= _MAX_RPS else RejectionReason.THROUGHPUT.value


def _peer_id(subkey: object) -> str | None:
    try:
        return parse_peer_id(subkey)
    except RecordRejected:
        return None
