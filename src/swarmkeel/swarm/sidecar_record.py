"""The record that a sidecar keeps in the DHT, and how it is checked.

On the wire it is a plain tuple `(version, fields)` with `fields` a dictionary of numbers, texts and lists, below
`MAX_RECORD_BYTES`. Unknown fields are passed over, so that a later version of the same meaning can tell more. Everything
that comes from the DHT is unsigned and untrusted: what is not accepted is rejected one record at a time with a reason of
a small fixed set, and no record makes anything else be raised. Whether an accepted record can be true is for
`swarm.sidecar_check`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.sidecar import SIDECAR_VERSION, Claim, Sidecar
from swarmkeel.swarm.span import Span

MAX_RECORD_BYTES: Final = 1024
"""Larger records are refused unread; an honest one has 200 to 500 bytes."""
MAX_SHAPES: Final = 8
"""Numbers of blocks that one server may tell."""
MAX_LOAD_SECONDS: Final = 86_400.0
_MAX_BLOCKS: Final = 100_000
_MAX_DIGEST: Final = 16
_HEX: Final = frozenset("0123456789abcdef")
_LATEST: Final = 1e12
"""Seconds since the epoch; later moments are nonsense."""


class SidecarRejection(StrEnum):
    """Why a sidecar's record was not accepted: stable names."""

    PEER_ID = "peer_id"
    """The subkey is no base58 text."""
    NO_ROOM = "no_room"
    """There were more records than are looked at."""
    UNREADABLE = "unreadable"
    """The value is no msgpack, or nested too deep."""
    TOO_LARGE = "too_large"
    """It has more bytes than `MAX_RECORD_BYTES`."""
    SHAPE = "shape"
    """It is not (version, fields)."""
    VERSION = "version"
    """Its version is not the one that is understood here."""
    MOVABLE_AT = "movable_at"
    """The time is neither left out nor a finite number."""
    LOAD_SECONDS = "load_seconds"
    """The time to load or to fetch is no number from 0 to a day."""
    ARRIVES_AT = "arrives_at"
    """The time at which it will serve is no number."""
    SHAPES = "shapes"
    """The numbers of blocks are no short list of (blocks, requests a second)."""
    CLAIM = "claim"
    """The claim has no two spans, or a number of it is none."""


class SidecarRejected(SwarmkeelError, ValueError):  # noqa: N818 -- named after what happened to the record
    """A record is not what a sidecar tells.

    Attributes:
        reason: Why. The record itself is not kept: its text may be hostile.
    """

    def __init__(self, reason: SidecarRejection) -> None:
        super().__init__(f"sidecar's record rejected: {reason.value}", "the sidecar that tells it has to be mended")
        self.reason = reason


@dataclass(frozen=True)
class BoardReading:
    """What the board of all sidecars showed, see `swarm.sidecar_board`.

    Attributes:
        sidecars: Accepted records by their servers' peer ids; none of it has been held against the servers' own records.
        rejected: Records that were not accepted, by `SidecarRejection`.
        readable: Whether the board could be read: with False, that a sidecar is not on it says nothing.
    """

    sidecars: Mapping[str, Sidecar]
    rejected: Mapping[str, int]
    readable: bool


def sidecar_to_wire(sidecar: Sidecar) -> tuple[int, dict[str, object]]:
    """Give the value that is stored in the DHT; the peer id is its subkey."""
    fields: dict[str, object] = {"movable_at": sidecar.movable_at, "load_seconds": sidecar.load_seconds}
    if sidecar.fetch_seconds:
        fields["fetch_seconds"] = sidecar.fetch_seconds
    if sidecar.arrives_at is not None:
        fields["arrives_at"] = sidecar.arrives_at
    if sidecar.dry_run_movable_at is not None:
        fields["dry_run_movable_at"] = sidecar.dry_run_movable_at
    if sidecar.shapes:
        fields["shapes"] = [[length, throughput] for length, throughput in sidecar.shapes[:MAX_SHAPES]]
    if sidecar.claim is not None:
        claim = sidecar.claim
        fields["claim"] = {
            "origin": None if claim.origin is None else [claim.origin.start, claim.origin.end],
            "target": [claim.target.start, claim.target.end],
            "made_at": claim.made_at,
            "expires_at": claim.expires_at,
            "throughput": claim.throughput,
            "gain_rps": claim.gain_rps,
            "digest": claim.digest[:_MAX_DIGEST],
        }
    return sidecar.version, fields


def sidecar_from_wire(peer_id: str, value: object) -> Sidecar | None:
    """Check and read what is stored in the DHT.

    Args:
        peer_id: The subkey: the server's base58 peer id.
        value: What is stored there, decoded.

    Returns:
        The record; None if it was withdrawn.

    Raises:
        SidecarRejected: If it is anything else.
    """
    if value is None:
        return None
    if not isinstance(value, tuple | list) or len(value) != 2:  # noqa: PLR2004 - (version, fields)
        raise SidecarRejected(SidecarRejection.SHAPE)
    version, fields = value
    if type(version) is not int or not isinstance(fields, dict):
        raise SidecarRejected(SidecarRejection.SHAPE)
    if version != SIDECAR_VERSION:
        raise SidecarRejected(SidecarRejection.VERSION)
    movable_at, claim, arrives_at = fields.get("movable_at"), fields.get("claim"), fields.get("arrives_at")
    in_dry_run = fields.get("dry_run_movable_at")
    return Sidecar(
        peer_id=peer_id,
        movable_at=None if movable_at is None else _number(movable_at, _LATEST, SidecarRejection.MOVABLE_AT),
        load_seconds=_number(fields.get("load_seconds"), MAX_LOAD_SECONDS, SidecarRejection.LOAD_SECONDS),
        fetch_seconds=_number(fields.get("fetch_seconds", 0.0), MAX_LOAD_SECONDS, SidecarRejection.LOAD_SECONDS),
        shapes=_shapes(fields.get("shapes", ())),
        claim=None if claim is None else _claim(claim),
        arrives_at=None if arrives_at is None else _number(arrives_at, _LATEST, SidecarRejection.ARRIVES_AT),
        dry_run_movable_at=None if in_dry_run is None else _number(in_dry_run, _LATEST, SidecarRejection.MOVABLE_AT),
        version=version,
    )


def _number(value: object, largest: float, reason: SidecarRejection) -> float:
    """Give a finite number from 0 to `largest`; what hostile records hold instead may not even be comparable."""
    if type(value) is not float and type(value) is not int:
        raise SidecarRejected(reason)
    if not 0 <= value <= largest:  # NaN fails this too
        raise SidecarRejected(reason)
    return float(value)


def _shapes(value: object) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, tuple | list) or len(value) > MAX_SHAPES:
        raise SidecarRejected(SidecarRejection.SHAPES)
    shapes = []
    for entry in value:
        if not isinstance(entry, tuple | list) or len(entry) != 2 or type(entry[0]) is not int:  # noqa: PLR2004 - a pair
            raise SidecarRejected(SidecarRejection.SHAPES)
        if not 0 < entry[0] <= _MAX_BLOCKS:
            raise SidecarRejected(SidecarRejection.SHAPES)
        shapes.append((entry[0], _number(entry[1], math.nextafter(math.inf, 0), SidecarRejection.SHAPES)))
    return tuple(shapes)


def _claim(value: object) -> Claim:
    if not isinstance(value, dict):
        raise SidecarRejected(SidecarRejection.CLAIM)
    origin, digest = value.get("origin"), value.get("digest", "")
    if not isinstance(digest, str) or len(digest) > _MAX_DIGEST or not _HEX.issuperset(digest):
        raise SidecarRejected(SidecarRejection.CLAIM)
    gain = value.get("gain_rps", 0.0)
    if type(gain) not in (int, float) or not abs(gain) < math.inf:
        raise SidecarRejected(SidecarRejection.CLAIM)
    return Claim(
        origin=None if origin is None else _span(origin),
        target=_span(value.get("target")),
        made_at=_number(value.get("made_at"), _LATEST, SidecarRejection.CLAIM),
        expires_at=_number(value.get("expires_at"), _LATEST, SidecarRejection.CLAIM),
        throughput=_number(value.get("throughput"), math.nextafter(math.inf, 0), SidecarRejection.CLAIM),
        gain_rps=float(gain),
        digest=digest,
    )


def _span(value: object) -> Span:
    match value:
        case [start, end] if type(start) is int and type(end) is int and 0 <= start < end <= _MAX_BLOCKS:
            return Span(start, end)
        case _:
            raise SidecarRejected(SidecarRejection.CLAIM)
