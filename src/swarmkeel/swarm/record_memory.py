"""Remembers the records of former readings until they expire, so that a reading that missed some forgets nobody.

A record says itself how long it holds; that a peer did not answer this time, or that a holder has lost it, does not make
it untrue. What replaces a record (such as OFFLINE) expires later, and so wins here as it does in the DHT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from swarmkeel.swarm.dht_codec import RawRecord

MAX_BYTES_PER_KEY: Final = 1024 * 1024
"""Memory for what is remembered under one key; room for 900 servers. A flood of records costs what is remembered of its
own key alone, and never what is read."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    record: RawRecord
    seen_at: float


class RecordMemory:
    """What was read under some keys, while it holds.

    Args:
        seconds: A record that no reading has shown for so long is forgotten, even if it claims to hold for years.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: dict[str, dict[object, _Remembered]] = {}

    def merge(self, key: str, read: Mapping[object, RawRecord], now: float) -> dict[object, RawRecord]:
        """Add what is remembered to what was read, and remember that.

        Args:
            key: The key.
            read: The records that this reading found, by their subkeys.
            now: Seconds since the epoch, by the clock that records expire by.

        Returns:
            The record under each subkey that expires last, of those read and those remembered. What was read is in it
            even if it has expired; what is remembered is not.
        """
        merged = dict(read)
        seen = dict.fromkeys(read, now)
        for subkey, remembered in self._known.get(key, {}).items():
            record = remembered.record
            # A clock that was set back must not make a record be remembered for ever.
            if record.expiration <= now or abs(now - remembered.seen_at) > self._seconds:
                continue
            present = merged.get(subkey)
            if present is None or _rank(record) > _rank(present):
                merged[subkey] = record
                seen[subkey] = remembered.seen_at
        self._known[key] = _bounded(merged, seen, now)
        return merged


def _rank(record: RawRecord) -> tuple[float, bytes]:
    return record.expiration, record.value


def _bounded(
    records: Mapping[object, RawRecord], seen: Mapping[object, float], now: float
) -> dict[object, _Remembered]:
    """Choose what to remember: what holds, and if that is too much what expires first, as honest records do."""
    kept: dict[object, _Remembered] = {}
    room = MAX_BYTES_PER_KEY
    for subkey, record in sorted(records.items(), key=lambda item: _rank(item[1])):
        if record.expiration <= now:
            continue
        room -= record.size
        if room < 0:
            break
        kept[subkey] = _Remembered(record, seen[subkey])
    return kept
