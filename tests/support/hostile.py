"""What anyone may write into a public DHT, and what peers may answer."""

from __future__ import annotations

import math
from typing import Any

import msgpack

from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.record import ServerInfo, ServerState

RECORD = encode_value(ServerInfo(ServerState.ONLINE, 5.0, 0, 30).to_tuple())


def nested_tuples(depth: int) -> bytes:
    data = b"\xc0"
    for _ in range(depth):
        body = b"\x91" + data
        data = b"\xc8" + len(body).to_bytes(2) + b"\x40" + body
    return data


VALUES = {
    "tuples nested 200 deep": (nested_tuples(200), "unreadable"),
    "tuples nested 5000 deep": (nested_tuples(5000), "unreadable"),
    "lists nested 1000 deep": (b"\x91" * 1000 + b"\xc0", "unreadable"),
    "lists nested 2000 deep": (b"\x91" * 2000 + b"\xc0", "unreadable"),
    "lists nested in a state": (encode_value((2, 1.0))[:3] + b"\x92" + b"\x91" * 500 + b"\x01\x01", "unreadable"),
    "no msgpack": (b"\xc1", "unreadable"),
    "nothing": (b"", "unreadable"),
    "cut short": (RECORD[:-2], "unreadable"),
    "an unknown extension": (
        msgpack.packb(msgpack.ExtType(0x51, b"junk")),
        "state",
    ),  # bytes are a sequence, here and to Petals
    "a dictionary of the DHT": (msgpack.packb(msgpack.ExtType(0x50, b"junk")), "state"),
    "one megabyte": (encode_value("x" * 1_000_000), "unreadable"),
    "text": (encode_value("x"), "shape"),
    "a number": (encode_value(7), "shape"),
    "not a number": (encode_value(math.nan), "shape"),
    "none": (encode_value(None), "shape"),
    "NaN requests a second": (encode_value((2, math.nan, {})), "throughput"),
    "endless requests a second": (encode_value((2, math.inf, {})), "throughput"),
    "state 3": (encode_value((3, 1.0, {})), "state"),
    "a span of text": (encode_value((2, 1.0, {"start_block": "0"})), "span"),
}
SUBKEYS: dict[str, Any] = {"a number": 7, "none of base58": "l0O", "empty bytes": b"", "a tuple": ("Qm",), "true": True}


class Liar:
    """Stands for a peer's serializer: whatever the peer is asked for, it answers with these bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def dumps(self, _: object) -> bytes:
        return self.answer


LIES = {
    "nothing": b"",
    "junk": b"\xc1",
    "no dictionary": encode_value("text"),
    "a bomb": nested_tuples(5000),
    "a bomb in a dictionary": msgpack.packb(msgpack.ExtType(0x50, nested_tuples(5000))),
    "a bomb in a value, and half a record": msgpack.packb(
        msgpack.ExtType(0x50, msgpack.packb([1, 1.0, [["QmEvi1", nested_tuples(5000), 9e9], 7]]))
    ),
    "lies about lengths": msgpack.packb(msgpack.ExtType(0x50, b"\xdd\x00\x00\x3f\xff" * 1000)),
}
