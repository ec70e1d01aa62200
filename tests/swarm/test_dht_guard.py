from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time

import msgpack
import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer

from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.dht_guard import BoundedSerializer, install_guards
from swarmkeel.swarm.dht_node import DhtNode
from tests.support.dht import DhtPeers


def nested_tuples(depth: int) -> bytes:
    data = b"\xc0"
    for _ in range(depth):
        body = b"\x91" + data
        data = b"\xc8" + len(body).to_bytes(2) + b"\x40" + body
    return data


def test_the_bomb_is_live() -> None:
    """Without the guard these bytes end the process: else the tests with them would show nothing."""
    program = f"""if True:
        from swarmkeel.swarm.hivemind_dht import MSGPackSerializer
        MSGPackSerializer.loads({nested_tuples(5000)!r})
    """

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGSEGV


@pytest.mark.parametrize("depth", [17, 200, 5000])
def test_deep_nesting_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="nested"):
        BoundedSerializer.loads(nested_tuples(depth))


@pytest.mark.parametrize("code", [0x51, 0x52])
def test_types_that_have_no_place_in_a_dht_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match="extension type"):
        BoundedSerializer.loads(encode_value([msgpack.ExtType(code, b"junk")]))


def test_deep_nesting_inside_a_dictionary_is_refused() -> None:
    content = encode_value([float("inf"), 9.0, []])[:-1] + b"\x91\x93" + nested_tuples(200) + b"\xc4\x00" + b"\x09"

    with pytest.raises(ValueError, match="nested"):
        BoundedSerializer.loads(msgpack.packb(msgpack.ExtType(0x50, content)))


def test_honest_values_come_through_as_from_hivemind() -> None:
    value = {"a": (1, [2.5, (None, "x")]), "b": b"y"}
    whole = DictionaryDHTValue()
    for server in range(4000):
        whole.store(f"Qm{server}", encode_value((2, 1.0, {"public_name": "x" * 900})), time.time() + 600)
    data = BoundedSerializer.dumps(whole)

    assert BoundedSerializer.dumps(value) == MSGPackSerializer.dumps(value)
    assert BoundedSerializer.loads(BoundedSerializer.dumps(value)) == value
    assert len(data) > 3.5 * 2**20
    assert BoundedSerializer.loads(data).data == whole.data  # type: ignore[attr-defined] # a dictionary of hivemind


def test_the_process_keeps_its_own_logging() -> None:
    program = """if True:
        import logging
        from swarmkeel.swarm.dht_guard import install_guards
        install_guards()
        install_guards()
        hivemind = logging.getLogger("hivemind")
        assert logging.getLevelName(logging.WARNING) == "WARNING", logging.getLevelName(logging.WARNING)
        assert hivemind.propagate and not hivemind.handlers, hivemind.handlers
        assert not hivemind.isEnabledFor(logging.WARNING)
    """
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_a_node_that_keeps_records_survives_hostile_requests() -> None:
    install_guards()
    key = DHTID.generate("m.0").to_bytes()
    later = time.time() + 600
    bomb = nested_tuples(5000)
    async with DhtPeers(1) as peers:
        attacker = await DhtNode.open(peers.initial_peers)
        try:
            protocol = attacker.hivemind_node.protocol
            stub = protocol.get_stub(peers.node().own_peer)
            for subkey, value in (
                (bomb, b"\x01"),
                (b"", bomb),
                (b"", msgpack.packb(msgpack.ExtType(0x50, bomb))),
                (b"\xc1", b"\x01"),
                (b"", b"\xc1"),
            ):
                request = dht_pb2.StoreRequest(
                    keys=[key], subkeys=[subkey], values=[value], expiration_time=[later], in_cache=[False]
                )
                with pytest.raises(Exception):  # noqa: B017, PT011 - the peer answers with whatever failed in it
                    await stub.rpc_store(request, timeout=10)
            async with asyncio.timeout(10):
                assert await attacker.ping(peers.node().own_peer)
        finally:
            await attacker.close()
