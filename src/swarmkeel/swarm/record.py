"""The record that a server keeps in the DHT under each of its blocks, and how it is checked.

Field by field this accepts what `petals.data_structures.ServerInfo.from_tuple` of Petals 2.2.0.post1 accepts (under
pydantic 2). Everything that comes from the DHT is unsigned and untrusted: what is not accepted is rejected one record
at a time with a reason of a small fixed set, and no record makes anything else be raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum, StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from swarmkeel.errors import SwarmkeelError

RequestsPerSecond = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
_Count = Annotated[int, Field(ge=0, strict=True)]
_Seconds = Annotated[float, Field(ge=0, strict=True)]

MAX_PEER_ID_LENGTH: Final = 128
"""Longest peer id that is taken, in characters; libp2p's own are 46 to 52. Petals knows no limit."""

_BASE58: Final = frozenset("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")


class ServerState(Enum):
    """What a server announces of itself; the values are those on the wire."""

    OFFLINE = 0
    JOINING = 1
    ONLINE = 2


class RejectionReason(StrEnum):
    """Why a record was not accepted: stable names, also labels of the metric `swarmkeel_records_rejected_total`."""

    NOT_A_DICTIONARY = "not_a_dictionary"
    """What is stored under the block's key holds no records at all."""
    PEER_ID = "peer_id"
    """The subkey is no base58 text."""
    SHAPE = "shape"
    """The value is not (state, throughput) or (state, throughput, extras)."""
    STATE = "state"
    """The state is none of 0, 1 and 2."""
    THROUGHPUT = "throughput"
    """The throughput is no finite number of at least 0, or beyond all measure."""
    SPAN = "span"
    """start_block or end_block is no whole number of at least 0."""
    EXTRAS = "extras"
    """The extras are no dictionary with text keys, or one of their known fields is wrong."""


class RecordRejected(SwarmkeelError, ValueError):  # noqa: N818 -- named after what happened to the record
    """A record is not what a Petals server announces.

    Attributes:
        reason: Why. The record itself is not kept: its text may be hostile.
    """

    def __init__(self, reason: RejectionReason) -> None:
        super().__init__(f"record rejected: {reason.value}", "the server that announces it has to be mended")
        self.reason = reason


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="ignore"))
class ServerInfo:
    """What one server announces under one block: names, order and defaults are those of Petals' `ServerInfo`.

    Attributes:
        state: OFFLINE, JOINING or ONLINE.
        throughput: Requests a second that the server claims to serve.
        start_block: First block of its span, as an index of the model; None where the server does not tell.
        end_block: Block after the last one of its span.
    """

    state: ServerState
    throughput: RequestsPerSecond

    start_block: _Count | None = None
    end_block: _Count | None = None

    public_name: str | None = None
    version: str | None = None

    network_rps: RequestsPerSecond | None = None
    forward_rps: RequestsPerSecond | None = None
    inference_rps: RequestsPerSecond | None = None

    adapters: Annotated[Sequence[str], AfterValidator(tuple)] = ()
    torch_dtype: str | None = None
    quant_type: str | None = None
    using_relay: bool | None = None
    cache_tokens_left: _Count | None = None
    next_pings: dict[str, _Seconds] | None = None

    def to_tuple(self) -> tuple[int, float, dict[str, Any]]:
        """Give the record as it is stored in the DHT: (state, throughput, all other fields)."""
        extras = {name: getattr(self, name) for name in _EXTRAS}
        if self.next_pings is not None:
            extras["next_pings"] = dict(self.next_pings)
        return self.state.value, self.throughput, extras

    @classmethod
    def from_tuple(cls, source: Sequence[Any]) -> ServerInfo:
        """Check and read a record as it is stored in the DHT.

        Args:
            source: (state, throughput) or (state, throughput, extras), as a tuple or a list.

        Raises:
            RecordRejected: If Petals would reject it or fail on it; it is a ValueError.
        """
        try:
            state, throughput = source[:2]
            extras = source[2] if len(source) > 2 else {}  # noqa: PLR2004 -- the third element
        except Exception:  # noqa: BLE001 -- anything may have been stored; whatever it raises, it is no record
            raise RecordRejected(RejectionReason.SHAPE) from None
        if isinstance(state, tuple | list | dict):  # hashing or printing a deeply nested one can exhaust the stack
            raise RecordRejected(RejectionReason.STATE)
        try:
            known_state = ServerState(state)
        except (TypeError, ValueError):
            raise RecordRejected(RejectionReason.STATE) from None
        try:
            return cls(state=known_state, throughput=throughput, **extras)
        except ValidationError as error:
            raise RecordRejected(_reason_of(error)) from None
        except Exception:  # noqa: BLE001 -- extras may be no mapping, or one with any keys
            raise RecordRejected(RejectionReason.EXTRAS) from None


_EXTRAS: Final = tuple(field.name for field in fields(ServerInfo) if field.name not in ("state", "throughput"))


def _reason_of(error: ValidationError) -> RejectionReason:
    field = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0]
    if field == "throughput":
        return RejectionReason.THROUGHPUT
    return RejectionReason.SPAN if field in ("start_block", "end_block") else RejectionReason.EXTRAS


def parse_peer_id(subkey: object) -> str:
    """Give a subkey as the peer id's base58 text.

    Like hivemind's `PeerID.from_base58` this takes text or bytes, drops white space at the end, and does not ask
    whether the bytes inside are a multihash. Unlike it, this takes no more than `MAX_PEER_ID_LENGTH` characters.

    Raises:
        RecordRejected: If it is anything else.
    """
    if isinstance(subkey, bytes):
        text = subkey.rstrip().decode("latin-1")
    elif isinstance(subkey, str):
        text = subkey.rstrip()
    else:
        raise RecordRejected(RejectionReason.PEER_ID)
    if len(text) > MAX_PEER_ID_LENGTH or not _BASE58.issuperset(text):
        raise RecordRejected(RejectionReason.PEER_ID)
    return text


def parse_record(peer_id: object, value: object) -> ServerInfo:
    """Check one record: the subkey that it is stored under, and its value.

    Args:
        peer_id: The subkey; it should be a peer id, see `parse_peer_id`.
        value: What is stored there.

    Raises:
        RecordRejected: If Petals would not accept it.
    """
    parse_peer_id(peer_id)
    return ServerInfo.from_tuple(value)  # type: ignore[arg-type]  # whether it is a sequence is what is checked


def parse_block_records(raw: object) -> tuple[dict[str, ServerInfo], Counter[str]]:
    """Check all records under one block's key; a bad one never costs the others.

    Args:
        raw: What is stored under the key: a dictionary from peer ids to records, if all is well.

    Returns:
        The accepted records by base58 peer id, in the given order, and the rejected ones counted by
        `RejectionReason`. Of two subkeys that mean the same peer the later wins, as in Petals.
    """
    rejected: Counter[str] = Counter()
    if not isinstance(raw, Mapping):
        rejected[RejectionReason.NOT_A_DICTIONARY.value] += 1
        return {}, rejected
    accepted: dict[str, ServerInfo] = {}
    for subkey, value in raw.items():
        try:
            peer_id = parse_peer_id(subkey)
            accepted[peer_id] = ServerInfo.from_tuple(value)
        except RecordRejected as error:
            rejected[error.reason.value] += 1
    return accepted, rejected
