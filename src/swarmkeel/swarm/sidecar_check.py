"""Which of the sidecars' claims can be true, held against the servers' own records. Pure.

Claims are as unsigned as all else in the DHT. One that contradicts what the DHT shows of its server is worth nothing. One
that could be true counts, but not for long: its server has to be on its way by then. So a liar gains nothing by a claim
that it would not gain by lying in the server's own record, which everybody believes already.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.sidecar import SIDECAR_VERSION, Claim, Sidecar
from swarmkeel.swarm.span import Span

CLOCK_TOLERANCE: Final = 30.0
"""Seconds that another machine's clock may be ahead."""
MAX_CLAIM_REST: Final = 900.0
"""Seconds that a claim may still have to live: honest ones are extended every few minutes, never by more."""
MAX_CLAIM_AGE: Final = 1800.0
"""Seconds after which a claim counts no more, however often it was extended: fetching weights is given up before."""
MAX_FIRST_CLAIM_AGE: Final = 300.0
"""The same for the first placement of a server of which nothing is known: it fetches nothing before it announces."""
FIRST_CLAIMS_SHARE: Final = 0.1
"""Of the servers that the DHT shows; so many unknown ones may claim a first place at the same time. Anyone can make up
servers, so that more of them than usually come at once are not believed."""
FIRST_CLAIMS_AT_LEAST: Final = 2
_ROUNDING: Final = 1 + 1e-6


class ClaimDoubt(StrEnum):
    """Why a claim is worth nothing: stable names."""

    VERSION = "version"
    """The record is of another version."""
    ORIGIN = "origin"
    """The DHT does not show the server on the blocks that it claims to leave."""
    TARGET = "target"
    """The target is outside of the model, or where the server is said to leave from."""
    LENGTH = "length"
    """The server cannot hold so many blocks."""
    THROUGHPUT = "throughput"
    """The server claims to serve more there than its own record says it can."""
    FUTURE = "future"
    """It was made in the future."""
    TOO_LONG = "too_long"
    """It is to last longer than any honest one, or has lasted so long."""
    TOO_MANY = "too_many"
    """Too many servers that nobody knows claim a first place."""


@dataclass(frozen=True, slots=True)
class CheckedSidecars:
    """What sidecars tell, without what cannot be true.

    Attributes:
        sidecars: By their servers' peer ids; implausible or expired claims and impossible shapes are taken out of them.
        doubts: Claims that were taken out since they cannot be true, by `ClaimDoubt`.
    """

    sidecars: Mapping[str, Sidecar]
    doubts: Mapping[str, int]


def check_sidecars(
    sidecars: Mapping[str, Sidecar],
    spans: Mapping[str, RemoteSpanInfo[str]],
    *,
    total_blocks: int,
    now: float,
    first_block: int = 0,
) -> CheckedSidecars:
    """Take out of the sidecars' records what contradicts the servers' own.

    Args:
        sidecars: What sidecars tell, by their servers' peer ids.
        spans: The servers, counted from the first block read. One that is OFFLINE may be on its way to what it claims; of
            one that claims its first blocks that record is of a former life.
        total_blocks: Number of blocks read.
        now: Seconds since the epoch.
        first_block: Index of the first block read: claims count from the model's first block.
    """
    checked: dict[str, Sidecar] = {}
    doubts: Counter[str] = Counter()
    unknown: list[tuple[float, str]] = []
    blocks = range(first_block, first_block + total_blocks)
    for peer_id, sidecar in sidecars.items():
        span = spans.get(peer_id)
        if sidecar.version != SIDECAR_VERSION:
            doubts[ClaimDoubt.VERSION.value] += sidecar.claim is not None
            continue
        claim = sidecar.claim
        if span is not None and span.state is ServerState.OFFLINE and (claim is None or claim.origin is None):
            span = None
        if span is not None:
            sidecar = replace(sidecar, shapes=_possible_shapes(sidecar.shapes, span))  # noqa: PLW2901 - the same, less
        if claim is not None:
            present = None if span is None else _present(span, first_block)
            doubt = _doubt_of_time(claim, MAX_FIRST_CLAIM_AGE if span is None else MAX_CLAIM_AGE, now)
            doubt = doubt or _doubt_of_place(claim, sidecar, span, present, blocks)
            if doubt is not None:
                doubts[doubt.value] += 1
            if doubt is not None or claim.expires_at <= now or claim.target == present:
                sidecar = replace(sidecar, claim=None)  # noqa: PLW2901 - as above
            elif span is None:
                unknown.append((claim.made_at, peer_id))
        checked[peer_id] = sidecar
    for _, peer_id in sorted(unknown)[max(FIRST_CLAIMS_AT_LEAST, int(FIRST_CLAIMS_SHARE * len(spans))) :]:
        doubts[ClaimDoubt.TOO_MANY.value] += 1
        checked[peer_id] = replace(checked[peer_id], claim=None)
    return CheckedSidecars(checked, {name: count for name, count in doubts.items() if count})


def _present(span: RemoteSpanInfo[str], first_block: int) -> Span | None:
    return Span(span.start + first_block, span.end + first_block) if 0 <= span.start < span.end else None


def _doubt_of_time(claim: Claim, oldest: float, now: float) -> ClaimDoubt | None:
    if claim.made_at > now + CLOCK_TOLERANCE:
        return ClaimDoubt.FUTURE
    if claim.expires_at > now + MAX_CLAIM_REST or now - claim.made_at > oldest:
        return ClaimDoubt.TOO_LONG
    return None


def _doubt_of_place(
    claim: Claim, sidecar: Sidecar, span: RemoteSpanInfo[str] | None, present: Span | None, blocks: range
) -> ClaimDoubt | None:
    if claim.target.start < blocks.start or claim.target.end > blocks.stop:
        return ClaimDoubt.TARGET
    if present is not None and claim.target == present:
        return None  # it has arrived
    if claim.origin == claim.target:
        return ClaimDoubt.TARGET
    # A server without blocks has no record, or one that is left of its last life.
    if claim.origin not in (None, present):
        return ClaimDoubt.ORIGIN
    if span is None:
        return None
    if len(claim.target) == span.length:
        most = span.throughput
    else:
        most = next((rps for length, rps in sidecar.shapes if length == len(claim.target)), -math.inf)
        if most < 0:
            return ClaimDoubt.LENGTH
    return ClaimDoubt.THROUGHPUT if claim.throughput > most * _ROUNDING else None


def _possible_shapes(shapes: tuple[tuple[int, float], ...], span: RemoteSpanInfo[str]) -> tuple[tuple[int, float], ...]:
    """Keep the shapes that the announced throughput allows.

    A server's throughput is min(compute / ((blocks + 1) / 2), network): with fewer blocks at most what its compute would
    give, with more never above what it announces.
    """
    if span.length <= 0:
        return ()
    return tuple(
        (length, rps)
        for length, rps in shapes
        if rps <= span.throughput * max(1.0, (span.length + 1) / (length + 1)) * _ROUNDING
    )
