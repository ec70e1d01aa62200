"""Remembers the records of former readings until they expire, so that a reading that missed some forgets nobody.

A record says itself how long it holds; that a peer did not answer this time, or that a holder has lost it, does not make
it untrue. What replaces a record (such as OFFLINE) expires later, and so wins here as it does in the DHT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from swarmkeel.swarm.dht_codec import RawRecord

MAX_BYTES_PER_KEY: Final = 1024 * 1024
"""Memory for what is remembered under one key; room for 900 servers. A flood of records costs what is remembered of its
own key alone, and never what is read."""


class RecordMemory:
    """What was read under some keys, while it holds.

    Args:
        seconds: A record that no reading has shown for so long is forgotten, even if it claims to hold for years.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: dict[str, dict[object, RawRecord]] = {}
        self._seen_at: dict[str, dict[object, float]] = {}

    def subkeys(self, key: str, now: float) -> list[object]:
        """Give the subkeys under which something is remembered that holds; the clock is that of `merge`."""
        seen_at = self._seen_at.get(key, {})
        known = self._known.get(key, {})
        return [subkey for subkey, record in known.items() if self._holds(record, seen_at[subkey], now)]

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
        seen_at = dict.fromkeys(read, now)
        former = self._seen_at.get(key, {})
        for subkey, record in self._known.get(key, {}).items():
            present = merged.get(subkey)
            if present is not None and _rank(record) <= _rank(present):
                continue
            if self._holds(record, former[subkey], now):
                merged[subkey] = record
                seen_at[subkey] = former[subkey]
        self._known[key] = kept = _bounded(merged, now)
        self._seen_at[key] = seen_at if len(kept) == len(seen_at) else {subkey: seen_at[subkey] for subkey in kept}
        return merged

    def _holds(self, record: RawRecord, seen_at: float, now: float) -> bool:
        # A clock that was set back must not make a record be remembered for ever.
        return record.expiration > now and abs(now - seen_at) <= self._seconds


def _rank(record: RawRecord) -> tuple[float, bytes]:
    return record.expiration, record.value


def _bounded(records: Mapping[object, RawRecord], now: float) -> dict[object, RawRecord]:
    """Choose what to remember: what holds, and if that is too much what expires first, as honest records do."""
    holding = {subkey: record for subkey, record in records.items() if record.expiration > now}
    if sum(record.size for record in holding.values()) <= MAX_BYTES_PER_KEY:
        return holding
    kept: dict[object, RawRecord] = {}
    room = MAX_BYTES_PER_KEY
    for subkey, record in sorted(holding.items(), key=lambda item: _rank(item[1])):
        room -= record.size
        if room < 0:
            break
        kept[subkey] = record
    return kept
