"""What is no record of anything: it costs only itself, is counted by its reason, and said once."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hivemind.dht.routing import DHTID
from hivemind.proto import dht_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkeel.balance.decision import Verdict
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.sidecar_record import MAX_RECORD_BYTES
from tests.hostile.besieged import BOARD, HONEST, KEYS, Besieged, Sight
from tests.support.dht import plant
from tests.support.examples import examples
from tests.support.hostile import LIES, RECORD, SUBKEYS, VALUES, Liar, nested_tuples

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("hostile")]

LIAR = "QmLiar"


def assert_sees_the_honest(sight: Sight) -> None:
    assert all(sight.sees(peer_id) for peer_id in HONEST), sight.servers


async def rejected_by(swarm: Besieged, plant_it: Callable[[], object], reason: str) -> Sight:
    """Plant something and look: it is rejected for this reason, said so in the log, and changes nothing."""
    before = (await swarm.look()).rejected.get(reason, 0.0)
    plant_it()
    sight = await swarm.look()
    assert sight.rejected[reason] > before
    assert reason in swarm.said("records_rejected")
    assert_sees_the_honest(sight)
    assert sight.check.verdict is Verdict.BALANCED, sight.check.sentence
    swarm.assert_unharmed()
    return sight


@pytest.mark.parametrize("name", VALUES)
async def test_values_that_are_no_records(swarm: Besieged, name: str) -> None:
    value, reason = VALUES[name]
    await rejected_by(swarm, lambda: swarm.plant(KEYS[0], LIAR, value), reason)


MORE_VALUES: dict[str, tuple[object, str]] = {
    "a span below 0": ((2, 1.0, {"start_block": -1, "end_block": 4}), "span"),
    "a span that is no whole number": ((2, 1.0, {"start_block": 0.5, "end_block": math.inf}), "span"),
    "requests below 0": ((2, -1.0, {}), "throughput"),
    "requests beyond all measure": ((2, 1.1e300, {}), "throughput"),
    "text for requests": ((2, "1e9", {}), "throughput"),
    "extras that are no dictionary": ((2, 1.0, [1, 2]), "extras"),
    "extras that name the first fields": ((2, 1.0, {"throughput": 5.0, "state": 2}), "extras"),
    "a field of the wrong kind": ((2, 1.0, {"public_name": ["\x1b[2Jevil\n"]}), "extras"),
    "pings to everybody": ((2, 1.0, {"next_pings": {f"Qm{number}": math.nan for number in range(1000)}}), "extras"),
    "names of adapters for ever": ((2, 1.0, {"adapters": [[["evil"]] * 200]}), "extras"),
}


@pytest.mark.parametrize("name", MORE_VALUES)
async def test_fields_that_are_none(swarm: Besieged, name: str) -> None:
    value, reason = MORE_VALUES[name]
    await rejected_by(swarm, lambda: swarm.plant(KEYS[1], LIAR, encode_value(value)), reason)


@pytest.mark.parametrize(
    "name", [name for name in SUBKEYS if name != "empty bytes"]
)  # base58 of nothing, to Petals too
async def test_subkeys_that_are_no_peers(swarm: Besieged, name: str) -> None:
    # Each is another subkey, and stays in the sidecar's memory while it holds.
    end = time.time() + 3
    await rejected_by(swarm, lambda: swarm.plant(KEYS[2], SUBKEYS[name], RECORD, end), "peer_id")


async def test_subkeys_that_cannot_be_ordered(swarm: Besieged) -> None:
    end = time.time() + 3
    for index, subkey in enumerate((7, LIAR, b"QmOther")):
        plant(swarm.peers.nodes[index : index + 1], KEYS[3], subkey, b"\xc1", end)
    assert_sees_the_honest(await swarm.look())
    swarm.assert_unharmed()


async def test_expirations_that_are_no_times(swarm: Besieged) -> None:
    await rejected_by(swarm, lambda: swarm.plant(KEYS[4], "QmNaN", RECORD, math.nan), "malformed")


@pytest.mark.parametrize("value", [RECORD, b"\xc1", nested_tuples(200)], ids=["a record", "no msgpack", "the bomb"])
async def test_a_plain_value_in_the_place_of_all_records_makes_nobody_forgotten(swarm: Besieged, value: bytes) -> None:
    """What is remembered of the honest counts on: a hole there would call everyone to it."""
    await swarm.look()
    for index in range(5, 8):
        swarm.plant(KEYS[index], None, value)
    before = (await swarm.look()).rejected.get("not_a_dictionary", 0.0)
    sight = await swarm.look()
    assert sight.rejected["not_a_dictionary"] >= before + 3
    assert_sees_the_honest(sight)
    assert sight.check.verdict in (Verdict.BALANCED, Verdict.INSUFFICIENT_INFORMATION)
    swarm.assert_unharmed()


@pytest.mark.parametrize("name", LIES)
async def test_a_peer_whose_answers_are_lies(swarm: Besieged, name: str) -> None:
    protocol = swarm.peers.node(0).hivemind_node.protocol
    honest = protocol.serializer
    protocol.serializer = Liar(LIES[name])
    try:
        sight = await swarm.look()
    finally:
        protocol.serializer = honest
    assert_sees_the_honest(sight)
    swarm.assert_unharmed()


async def test_a_key_that_holds_too_much_for_any_answer(swarm: Besieged) -> None:
    """Over 4 MiB nobody answers: what is remembered of that key counts, and no other key suffers."""
    # What hivemind does in the place of an answer is an error in a task of the peer's that nobody waits for.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    await swarm.look()
    for part in range(5):
        swarm.plant(KEYS[6], f"QmHuge{part + 1}", encode_value("x" * 1_000_000), time.time() + 30)
    assert_sees_the_honest(await swarm.look())
    swarm.assert_unharmed()


BOARD_JUNK: dict[str, tuple[Any, bytes, str]] = {
    "no msgpack": (LIAR, b"\xc1", "unreadable"),
    "nothing": (LIAR, b"", "unreadable"),
    "nested": (LIAR, b"\x91" * 900 + b"\xc0", "unreadable"),
    "too large": (LIAR, encode_value("evil" * MAX_RECORD_BYTES), "too_large"),
    "a number": (LIAR, encode_value(7), "shape"),
    "another version": (LIAR, encode_value((2, {})), "version"),
    "movable never": (LIAR, encode_value((1, {"movable_at": math.nan})), "movable_at"),
    "a load without end": (LIAR, encode_value((1, {"movable_at": 0, "load_seconds": 1e300})), "load_seconds"),
    "a claim of text": (LIAR, encode_value((1, {"movable_at": 0, "load_seconds": 1, "claim": "evil"})), "claim"),
    "no peer": ("\x1b[2Jevil", encode_value((1, {})), "peer_id"),
}


@pytest.mark.parametrize("name", BOARD_JUNK)
async def test_what_is_no_record_of_a_sidecar(swarm: Besieged, name: str) -> None:
    subkey, value, reason = BOARD_JUNK[name]
    swarm.plant(BOARD, subkey, value, None if subkey == LIAR else time.time() + 3)
    sight = await swarm.look()
    assert sight.board_rejected >= 1
    assert reason in swarm.said("sidecar_records_rejected")
    assert_sees_the_honest(sight)
    swarm.assert_unharmed()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "start_block": PLAIN | st.integers(-2, 12),
        "end_block": PLAIN | st.integers(-2, 12),
        "public_name": PLAIN | st.just("\x1b[31mevil\r\n\u202e"),
        "adapters": PLAIN,
        "next_pings": PLAIN,
        "cache_tokens_left": PLAIN,
        "load_seconds": PLAIN,
        "claim": PLAIN,
    },
)
ALMOST_RECORDS = st.tuples(st.integers(-1, 3) | PLAIN, st.floats() | PLAIN, FIELDS | PLAIN).map(encode_value)
MUTATED = st.tuples(st.just(RECORD), st.integers(0, len(RECORD) - 1), st.binary(max_size=3)).map(
    lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + 1 :]
)
SHORT_LIVED = 20.0
fuzzed = settings(examples(0.08), suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Each example is a whole reading of the swarm, with dozens of hostile records in it."""


@fuzzed
@given(
    values=st.lists(
        ALMOST_RECORDS | PLAIN.map(encode_value) | st.binary(max_size=40) | MUTATED, min_size=30, max_size=60
    )
)
async def test_values_and_raw_bytes_of_any_kind(running: Besieged, values: list[bytes]) -> None:
    running.restore()
    for number, value in enumerate(values):
        # The same few names again and again: later examples take the place of earlier ones.
        running.plant((*KEYS, BOARD)[number % 9], f"QmFuzz{number // 9 + 1}", value)
    sight = await running.look(times=2)
    assert_sees_the_honest(sight)
    running.assert_unharmed()


ENTRIES = st.lists(
    st.tuples(st.sampled_from([LIAR, "QmHonest2", b"QmLiar", 7, ""]) | PLAIN, st.binary(max_size=30) | st.just(RECORD), st.floats() | st.just(time.time() + SHORT_LIVED)).map(list)
    | PLAIN,
    max_size=5,
)  # fmt: skip
ANSWERS = st.builds(
    lambda kind, value, expiration, ids, peers: dht_pb2.FindResult(
        type=kind, value=value, expiration_time=expiration, nearest_node_ids=ids, nearest_peer_ids=peers
    ),
    st.sampled_from([dht_pb2.NOT_FOUND, dht_pb2.FOUND_REGULAR, dht_pb2.FOUND_DICTIONARY, 77]),
    st.binary(max_size=60)
    | ENTRIES.map(lambda entries: msgpack.packb(msgpack.ExtType(0x50, encode_value([1, 1.0, entries])))),
    st.floats(),
    st.lists(st.binary(max_size=3) | st.binary(min_size=20, max_size=20), max_size=4),
    st.lists(st.binary(max_size=40), max_size=4),
)


@fuzzed
@given(results=st.lists(ANSWERS, min_size=1, max_size=9), right_number=st.booleans(), node_id=st.binary(max_size=21))
async def test_whole_answers_of_any_kind(
    running: Besieged,
    results: list[Any],
    right_number: bool,  # noqa: FBT001 - drawn
    node_id: bytes,
) -> None:
    """One of three peers answers whatever it likes, to every question."""
    running.restore()

    def lie(request: Any, _: Any) -> Any:
        count = len(request.keys) if right_number else len(results)
        return dht_pb2.FindResponse(
            results=[results[number % len(results)] for number in range(count)], peer=dht_pb2.NodeInfo(node_id=node_id)
        )

    running.peers.node(1).hivemind_node.protocol.lie = lie
    sight = await running.look()
    assert_sees_the_honest(sight) if not any(b"QmHonest2" in result.value for result in results) else None
    running.assert_unharmed()


async def test_a_peer_that_makes_up_peers(swarm: Besieged) -> None:
    def lie(request: Any, answer: Any) -> Any:
        for key, result in zip(request.keys, answer.results, strict=True):
            near = int(DHTID.from_bytes(key))
            for _ in range(1000):
                result.nearest_node_ids.append(DHTID(near ^ random.getrandbits(20)).to_bytes())
                result.nearest_peer_ids.append(bytes.fromhex("1220") + random.randbytes(32))  # noqa: S311 - as above
        return answer

    swarm.peers.node(2).hivemind_node.protocol.lie = lie
    assert_sees_the_honest(await swarm.look())
    swarm.assert_unharmed()
