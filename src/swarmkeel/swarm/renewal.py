"""Tells from the records alone which servers may be gone: those that should have renewed theirs by now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

OVERDUE_BELOW: Final = 0.45
"""Share of its life that a record which is renewed in time has left at least. Petals renews at half; what is known of the
life is at most what is true."""
_FORGETTING: Final = 0.9
"""With each renewal a longer life that was seen before counts for so much: servers may be set to another one."""


@dataclass(frozen=True, slots=True)
class _Life:
    expiration: float
    seconds: float


class RenewalWatch:
    """Knows how long the records of each server live, from reading to reading.

    A server whose record is overdue may have crashed, or be slow: nobody should count on it, and nobody should take it for
    gone. How long records live is told nowhere, and so taken from the longest rest that was seen of each server: one that
    is seen for the first time is never overdue.
    """

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}

    def overdue(self, expirations: Mapping[str, float], now: float) -> frozenset[str]:
        """Take note of a reading, and give those peers whose records should have been renewed by then.

        Args:
            expirations: When the record of each peer expires, seconds since the epoch; who is not in it is forgotten.
            now: The same clock.
        """
        self._lives = {peer_id: self._life(peer_id, end, now) for peer_id, end in expirations.items()}
        return frozenset(
            peer_id for peer_id, life in self._lives.items() if life.expiration - now < OVERDUE_BELOW * life.seconds
        )

    def _life(self, peer_id: str, expiration: float, now: float) -> _Life:
        left, known = expiration - now, self._lives.get(peer_id)
        if known is None:
            return _Life(expiration, left)
        was = known.seconds if expiration == known.expiration else _FORGETTING * known.seconds
        return _Life(expiration, max(left, was))
