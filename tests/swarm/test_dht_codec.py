from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.utils import MSGPackSerializer
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.swarm.dht_codec import (
    MAX_VALUE_BYTES,
    RawRecord,
    UndecodableError,
    decode_dictionary,
    decode_value,
    encode_value,
)
from swarmkeel.swarm.record import ServerInfo, ServerState

_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


def nested_tuples(depth: int) -> bytes:
    data = b"\xc0"
    for _ in range(depth):
        body = b"\x91" + data
        data = b"\xc8" + len(body).to_bytes(2) + b"\x40" + body
    return data


def nested(container: str, depth: int) -> bytes:
    return {"list": b"\x91", "map": b"\x81\xa1k"}[container] * depth + b"\xc0"


@given(_VALUES)
def test_what_hivemind_writes_is_read_as_hivemind_reads_it(value: Any) -> None:
    data = MSGPackSerializer.dumps(value)

    assert encode_value(value) == data
    try:
        decoded = decode_value(data)
    except UndecodableError:
        assert _depth(value) > 8
    else:
        assert decoded == MSGPackSerializer.loads(data) == value


def _depth(value: Any) -> int:
    if isinstance(value, list | tuple):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 0


def test_a_servers_record_comes_back_whole() -> None:
    info = ServerInfo(ServerState.ONLINE, 12.5, 3, 9, adapters=("a", "b"), next_pings={"Qm1": 0.5})

    assert ServerInfo.from_tuple(decode_value(encode_value(info.to_tuple()))) == info  # type: ignore[arg-type] # checked there


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for decode in (decode_value, lambda data: list(decode_dictionary(data))):
        with suppress(UndecodableError):
            decode(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(nested_tuples(9), id="tuples nested 9 deep"),
        pytest.param(nested_tuples(200), id="tuples nested 200 deep, which end a process that runs hivemind's reader"),
        pytest.param(nested_tuples(5000), id="tuples nested 5000 deep"),
        pytest.param(nested("list", 9), id="lists nested 9 deep"),
        pytest.param(nested("list", 1000), id="lists nested 1000 deep"),
        pytest.param(nested("list", 2000), id="lists nested 2000 deep"),
        pytest.param(nested("map", 1000), id="maps nested 1000 deep"),
        pytest.param(b"\xc1", id="no msgpack"),
        pytest.param(b"", id="nothing"),
        pytest.param(encode_value((2, 1.0))[:-1], id="cut short"),
        pytest.param(encode_value((2, 1.0)) + b"\x00", id="one byte too many"),
        pytest.param(b"\xd5\xff\x00\x00", id="a timestamp of the wrong length"),
        pytest.param(b"\xd4\x40\x07", id="a tuple that is a number"),
        pytest.param(b"\x81\x90\xc0", id="a map with a list as key"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="a list of four billion items, none of which is there"),
        pytest.param(b"\xdc\xff\xff" * 1000, id="lies about lengths, nested"),
        pytest.param(b"\xa2\xff\xff", id="text that is no UTF-8"),
        pytest.param(encode_value("x" * MAX_VALUE_BYTES), id="too large"),
    ],
)
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode_value(data)


def test_other_extension_types_stay_undecoded() -> None:
    assert decode_value(msgpack.packb(msgpack.ExtType(0x51, b"junk"))) == b"junk"
    assert decode_value(msgpack.packb(msgpack.ExtType(0x50, b"junk"))) == b"junk"


@given(
    st.dictionaries(
        st.text() | st.integers(0, 5) | st.binary() | st.tuples(st.text()) | st.none(),
        st.tuples(st.binary(), st.floats(allow_nan=False, min_value=0)),
    )
)
def test_a_dictionary_of_hivemind_is_read_entry_by_entry(entries: dict[Any, tuple[bytes, float]]) -> None:
    expirations = {expiration for _, expiration in entries.values()}
    stored = DictionaryDHTValue()
    with stored.freeze():
        if len(expirations) < len(entries):  # hivemind cannot order some subkeys that end at the same time
            entries = {key: item for key, item in entries.items() if isinstance(key, str)}
        for subkey, (value, expiration) in entries.items():
            stored.store(subkey, value, expiration)
        data = MSGPackSerializer.dumps(stored)

    records = [record for record in decode_dictionary(data) if record is not None]

    assert len(records) == len(entries)
    for record in records:
        if not isinstance(record.subkey, msgpack.ExtType):  # tuples, which nobody needs here, stay undecoded
            assert entries[record.subkey] == (record.value, record.expiration)


def _dictionary(*entries: Any) -> bytes:
    content = msgpack.packb([float("inf"), 9.0, list(entries)])
    return bytes(msgpack.packb(msgpack.ExtType(0x50, content)))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param([["a list"], b"v", 9.0], id="a subkey that cannot be one"),
        pytest.param(["k", "v", 9.0], id="a value that is not serialized"),
        pytest.param(["k", b"v", "soon"], id="no time"),
        pytest.param(["k", b"v", float("nan")], id="not a number"),
        pytest.param(["k", b"v"], id="no expiration"),
        pytest.param(None, id="nothing"),
        pytest.param({"k": b"v"}, id="a map"),
        pytest.param("abc", id="text of three letters"),
    ],
)
def test_one_bad_entry_costs_no_other(bad: object) -> None:
    data = _dictionary(["a", b"1", 9.0], bad, ["b", b"2", 8])

    assert list(decode_dictionary(data)) == [RawRecord("a", b"1", 9.0), None, RawRecord("b", b"2", 8.0)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        encode_value(("a", "tuple")),
        encode_value({"a": 1}),
        msgpack.packb(msgpack.ExtType(0x50, b"")),
        msgpack.packb(msgpack.ExtType(0x50, msgpack.packb([1, 2]))),
        msgpack.packb(msgpack.ExtType(0x50, msgpack.packb([1, 2, {}]))),
        msgpack.packb(msgpack.ExtType(0x50, b"\xdd\x00\x00\x40\x00" * 1000)),
        nested_tuples(1000),
    ],
)
def test_what_is_no_dictionary_is_refused(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        list(decode_dictionary(data))


def test_a_dictionary_as_large_as_an_answer_may_be_is_read_whole() -> None:
    stored = DictionaryDHTValue()
    value = encode_value(ServerInfo(ServerState.ONLINE, 1.0, 0, 9, public_name="x" * 400).to_tuple())
    while len(stored) * len(value) < 3.8 * 2**20:
        stored.store(f"Qm{len(stored)}", value, time.time() + 600)

    records = list(decode_dictionary(MSGPackSerializer.dumps(stored)))

    assert len(records) == len(stored) > 5000
    assert None not in records
