from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hivemind.p2p import PeerID
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.record import (
    MAX_PEER_ID_LENGTH,
    RecordRejected,
    ServerInfo,
    ServerState,
    parse_block_records,
    parse_peer_id,
    parse_record,
)

PEER = "QmSK3sroMXUiyJHNWULvC4YqYEhmJFS8LbK2ZSw96czJdV"
FULL: dict[str, Any] = {
    "start_block": 0,
    "end_block": 33,
    "public_name": "somebody",
    "version": "2.2.0",
    "network_rps": 1.5,
    "forward_rps": 2.5,
    "inference_rps": 3.5,
    "adapters": ("a/b", "c/d"),
    "torch_dtype": "bfloat16",
    "quant_type": "nf4",
    "using_relay": False,
    "cache_tokens_left": 1000,
    "next_pings": {PEER: 0.1, "gone": math.inf},
}


def nested(depth: int, kind: type[list[Any] | tuple[Any, ...]] = list) -> Any:
    value: Any = kind()
    for _ in range(depth):
        value = kind([value])
    return value


# Each of these, and each of the rejected ones below, was put to Petals 2.2.0.post1 under pydantic 2. It answers the same
# but for the two deep states, on which its whole reading of the DHT fails.
ACCEPTED: Mapping[str, Any] = {
    "tuple": (2, 1.5, FULL),
    "list": [2, 1.5, FULL],
    "no extras": (2, 1.5),
    "empty extras": (1, 0.0, {}),
    "more than three elements": (0, 1.5, {}, "more", 5),
    "whole number as throughput": (2, 3),
    "huge throughput": (2, 1e308),
    "true is 1": (True, 1.5),
    "float state": (2.0, 1.5),
    "unknown fields": (2, 1.5, {"future": {"x": [1]}, "": 0}),
    "fields that are None": (2, 1.5, dict.fromkeys(FULL) | {"adapters": ()}),
    "bytes as text": (2, 1.5, {"public_name": b"x"}),
    "lax truth": (2, 1.5, {"using_relay": "yes"}),
    "adapters as a list": (2, 1.5, {"adapters": ["a"]}),
    "whole numbers in pings": (2, 1.5, {"next_pings": {"x": 1}}),
    "end before start": (2, 1.5, {"start_block": 9, "end_block": 3}),
    "huge block": (2, 1.5, {"start_block": 2**63}),
    "bytes are numbers": b"\x02\x03",
}

REJECTED: Mapping[str, tuple[str, Any]] = {
    "None": ("shape", None),
    "number": ("shape", 5),
    "text": ("state", "ab"),
    "empty text": ("shape", ""),
    "dictionary": ("shape", {"state": 2, "throughput": 1.5}),
    "one element": ("shape", (2,)),
    "deep list": ("shape", nested(100_000)),
    "state 3": ("state", (3, 1.5)),
    "negative state": ("state", (-1, 1.5)),
    "no state": ("state", (None, 1.5)),
    "state as text": ("state", ("2", 1.5)),
    "state as a name": ("state", ("ONLINE", 1.5)),
    "NaN state": ("state", (math.nan, 1.5)),
    "unhashable state": ("state", ([2], 1.5)),
    "deep state": ("state", (nested(100_000), 1.5)),
    "deep tuple as state": ("state", (nested(5_000, tuple), 1.5)),
    "huge state": ("state", (10**5000, 1.5)),
    "negative throughput": ("throughput", (2, -0.1)),
    "NaN throughput": ("throughput", (2, math.nan)),
    "infinite throughput": ("throughput", (2, math.inf)),
    "throughput as text": ("throughput", (2, "1.5")),
    "true as throughput": ("throughput", (2, True)),
    "no throughput": ("throughput", (2, None)),
    "huge whole number as throughput": ("throughput", (2, 10**400)),
    "deep throughput": ("throughput", (2, nested(100_000))),
    "negative start": ("span", (2, 1.5, {"start_block": -1})),
    "float start": ("span", (2, 1.5, {"start_block": 1.0})),
    "true as end": ("span", (2, 1.5, {"end_block": True})),
    "end as text": ("span", (2, 1.5, {"end_block": "3"})),
    "extras None": ("extras", (2, 1.5, None)),
    "extras a list": ("extras", (2, 1.5, [])),
    "extras a number": ("extras", (2, 1.5, 4)),
    "bytes as a field's name": ("extras", (2, 1.5, {b"start_block": 1})),
    "number as a field's name": ("extras", (2, 1.5, {1: 1})),
    "state twice": ("extras", (2, 1.5, {"state": 2})),
    "throughput twice": ("extras", (2, 1.5, {"throughput": 2.0})),
    "pydantic's own parameter": ("extras", (2, 1.5, {"__dataclass_self__": 1})),
    "name a number": ("extras", (2, 1.5, {"public_name": 1})),
    "bytes that are no text": ("extras", (2, 1.5, {"public_name": b"\xff"})),
    "RPS as text": ("extras", (2, 1.5, {"network_rps": "1"})),
    "infinite RPS": ("extras", (2, 1.5, {"forward_rps": math.inf})),
    "adapters one text": ("extras", (2, 1.5, {"adapters": "abc"})),
    "adapters None": ("extras", (2, 1.5, {"adapters": None})),
    "adapters numbers": ("extras", (2, 1.5, {"adapters": [1]})),
    "relay unclear": ("extras", (2, 1.5, {"using_relay": 2})),
    "tokens negative": ("extras", (2, 1.5, {"cache_tokens_left": -1})),
    "ping negative": ("extras", (2, 1.5, {"next_pings": {"x": -1.0}})),
    "ping NaN": ("extras", (2, 1.5, {"next_pings": {"x": math.nan}})),
    "pings a list": ("extras", (2, 1.5, {"next_pings": [1.0]})),
    "deep adapters": ("extras", (2, 1.5, {"adapters": nested(100_000)})),
}

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2) | st.integers() | st.sampled_from([*FULL, "state"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("value", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepts_what_petals_accepts(value: Any) -> None:
    info = parse_record(PEER, value)
    assert info.state.value == value[0]
    assert info.throughput == value[1]
    assert type(info.throughput) is float


@pytest.mark.parametrize(("reason", "value"), REJECTED.values(), ids=REJECTED.keys())
def test_rejects_what_petals_rejects_and_says_why(reason: str, value: Any) -> None:
    with pytest.raises(RecordRejected) as caught:
        ServerInfo.from_tuple(value)
    assert caught.value.reason == reason
    assert isinstance(caught.value, ValueError | SwarmkeelError)


def test_reads_every_field() -> None:
    info = ServerInfo.from_tuple((2, 1.5, FULL))
    assert info == ServerInfo(ServerState.ONLINE, 1.5, **FULL)
    assert {name: getattr(info, name) for name in FULL} == FULL


def test_what_came_as_a_list_and_what_came_as_a_tuple_are_equal() -> None:
    assert ServerInfo.from_tuple([2, 1.5, {"adapters": ["a"]}]) == ServerInfo.from_tuple((2, 1.5, {"adapters": ("a",)}))


def test_writes_what_petals_writes() -> None:
    assert ServerInfo.from_tuple((1, 2, {"end_block": 3, "future": 1})).to_tuple() == (
        1,
        2.0,
        dict.fromkeys(FULL) | {"adapters": (), "end_block": 3},
    )
    assert ServerInfo.from_tuple((2, 1.5, FULL)).to_tuple() == (2, 1.5, FULL)


def test_cannot_be_changed_and_shares_nothing_with_what_it_was_read_from() -> None:
    source: Any = (2, 1.5, {"next_pings": {"x": 1.0}})
    info = ServerInfo.from_tuple(source)
    with pytest.raises(AttributeError):
        info.throughput = 9.0  # type: ignore[misc]  # that this is refused is the point
    source[2]["next_pings"]["x"] = 2.0
    info.to_tuple()[2]["next_pings"]["x"] = 3.0
    assert info.next_pings == {"x": 1.0}


@pytest.mark.parametrize(
    ("subkey", "peer_id"),
    [
        (PEER, PEER),
        (PEER.encode(), PEER),
        ("12D3KooWDZ1sUsnsBB1vgqUq8XNN9uUUJnrm4LFmZTGYGFHqXB8W",) * 2,
        (PEER + " \n", PEER),
        (PEER + "\u2003", PEER),
        ("1", "1"),
        ("", ""),
        ("z" * MAX_PEER_ID_LENGTH,) * 2,
    ],
)
def test_subkey_is_a_peer_id_where_hivemind_takes_it(subkey: str | bytes, peer_id: str) -> None:
    assert parse_peer_id(subkey) == peer_id


@pytest.mark.parametrize(
    "subkey",
    [
        None,
        5,
        1.5,
        True,
        (PEER,),
        "0",
        "O",
        "I",
        "l",
        "Qm-",
        " " + PEER,
        "Qm\u0430",
        "z" * (MAX_PEER_ID_LENGTH + 1),
        b"\xff",
        b"Qm\xa0",
        "Qm\x00",
    ],
)
def test_other_subkeys_are_rejected(subkey: object) -> None:
    with pytest.raises(RecordRejected) as caught:
        parse_record(subkey, (2, 1.5))
    assert caught.value.reason == "peer_id"


# Text of another alphabet that looks like base58, white space that bytes and text strip differently, and anything.
@given(subkey=st.text(max_size=5) | st.binary(max_size=5) | st.text("123ABCabc \n\x1c\xa00l", max_size=8))
def test_agrees_with_hivemind_on_what_a_peer_id_is(subkey: str | bytes) -> None:
    try:
        expected: str | None = PeerID.from_base58(subkey).to_base58()
    except ValueError:
        expected = None
    try:
        peer_id: str | None = parse_peer_id(subkey)
    except RecordRejected:
        peer_id = None
    assert peer_id == expected


def test_one_bad_record_never_costs_the_others() -> None:
    raw = {
        "QmA": (2, 1.0),
        "QmB": (2, math.nan),
        "not base58": (2, 1.0),
        "QmC": nested(100_000),
        5: (2, 1.0),
        "QmD": (2, -1.0),
        "QmE": [1, 2.0, {"start_block": 0, "end_block": 1}],
    }
    accepted, rejected = parse_block_records(raw)
    assert accepted == {
        "QmA": ServerInfo(ServerState.ONLINE, 1.0),
        "QmE": ServerInfo(ServerState.JOINING, 2.0, start_block=0, end_block=1),
    }
    assert rejected == {"throughput": 2, "peer_id": 2, "shape": 1}


def test_bad_subkey_counts_before_a_bad_value() -> None:
    assert parse_block_records({"not base58": None})[1] == {"peer_id": 1}


def test_of_two_subkeys_for_one_peer_the_later_wins() -> None:
    accepted, rejected = parse_block_records({PEER: (2, 1.0), PEER.encode(): (2, 2.0), PEER + " ": (2, None)})
    assert accepted == {PEER: ServerInfo(ServerState.ONLINE, 2.0)}
    assert rejected == {"throughput": 1}


@pytest.mark.parametrize("raw", [None, 5, "text", b"bytes", [], [(PEER, (2, 1.0))], (2, 1.0), nested(100_000)])
def test_key_without_a_dictionary_counts_as_one(raw: object) -> None:
    assert parse_block_records(raw) == ({}, {"not_a_dictionary": 1})


@given(raw=st.dictionaries(st.text(max_size=3) | st.integers() | st.binary(max_size=3), ANYTHING, max_size=4))
def test_nothing_escapes_and_every_record_is_accounted_for(raw: dict[Any, Any]) -> None:
    accepted, rejected = parse_block_records(raw)
    assert len(accepted) + rejected.total() <= len(raw)
    assert set(rejected) <= {"peer_id", "shape", "state", "throughput", "span", "extras"}
    for peer_id, info in accepted.items():
        assert parse_record(peer_id, info.to_tuple()) == info


@given(value=st.tuples(st.sampled_from([0, 1, 2]), st.floats(0, 1e9), ANYTHING) | ANYTHING)
def test_no_value_makes_anything_else_be_raised(value: Any) -> None:
    try:
        info = ServerInfo.from_tuple(value)
    except RecordRejected:
        return
    assert math.isfinite(info.throughput)
    assert info.throughput >= 0
