"""More records than anybody can use: they cost a bounded amount of memory and time, and move nobody."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import msgpack
import pytest
from hivemind.proto import dht_pb2

from swarmkeel.balance.decision import Verdict
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.record_memory import MAX_BYTES_PER_KEY
from swarmkeel.swarm.span import Span
from tests.hostile.besieged import HONEST, KEYS, OWN, RPS, besieged
from tests.support.sidecars import short_folder

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("hostile")]

MIB = 1024 * 1024
A_FLOOD = 2000


async def test_floods_cost_a_bounded_amount_of_memory() -> None:
    with short_folder() as folder:
        async with besieged(folder, swarm={"read_timeout": 60}) as swarm:
            await swarm.look()
            at_rest = swarm.memory

            # Thousands of servers that nobody has, which overlap with everything.
            fake = encode_value((2, 1e-3, {"start_block": 0, "end_block": 8}))
            names = [f"QmFake{number}".replace("0", "o") for number in range(2000)]
            for key, name in itertools.product(KEYS, names):
                swarm.plant(key, name, fake, time.time() + 60)
            sight = await swarm.look(times=2)
            assert all(sight.sees(peer_id) for peer_id in HONEST)
            assert len(sight.servers) > len(names)
            swarm.assert_unharmed()
            assert swarm.memory - at_rest < 300 * MIB

            # A peer that has other records of nothing for every question.
            fresh = itertools.count()

            def flood(request: Any, _: Any) -> Any:
                results = []
                for _key in request.keys:
                    entries = [[f"{next(fresh):x}", b"", time.time() + 800] for _ in range(A_FLOOD)]
                    value = msgpack.packb(msgpack.ExtType(0x50, encode_value([1, 1.0, entries])))
                    results.append(dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=value))
                return dht_pb2.FindResponse(results=results)

            swarm.restore()
            swarm.peers.node(0).hivemind_node.protocol.lie = flood
            found, before = [], sight.rejected["unreadable"]
            for _ in range(6):
                sight = await swarm.look()
                assert sight.check.verdict in (Verdict.INSUFFICIENT_INFORMATION, Verdict.BALANCED)
                assert all(sight.sees(peer_id) for peer_id in HONEST)
                counted = sight.rejected["unreadable"]
                found.append(counted - before)
                before = counted
            swarm.assert_unharmed()
            assert max(found) > A_FLOOD
            # Each look brings as many new ones; what is remembered of the former ones is bounded by the room that it takes.
            assert max(found) <= len(KEYS) * (A_FLOOD + MAX_BYTES_PER_KEY // 200)
            assert next(fresh) > 1.2 * max(found)
            assert swarm.memory - at_rest < 300 * MIB


async def test_records_for_a_hundred_years_hold_what_they_hold_and_move_nobody() -> None:
    with short_folder() as folder:
        async with besieged(folder) as swarm:
            record = encode_value(ServerInfo(ServerState.ONLINE, 0.0, 0, 4).to_tuple())
            ends = {"QmHundred": time.time() + 3.2e9, "QmHuge": 1e308, "QmEndLess": math.inf}
            for name, end in ends.items():
                for key in KEYS[:4]:
                    swarm.plant(key, name.replace("0", "o"), record, end)
            sight = await swarm.look()
            assert all(sight.sees(peer_id) for peer_id in HONEST)
            assert ends.keys() <= sight.servers.keys()
            # Our own server's place is taken for good: its sidecar holds still, and says why.
            for key in KEYS[:4]:
                gone = encode_value(ServerInfo(ServerState.OFFLINE, RPS, 0, 4).to_tuple())
                swarm.plant(key, OWN, gone, ends["QmHundred"])
            swarm.plant_server(OWN, Span(0, 4))
            sight = await swarm.look(times=2)
            assert sight.check.verdict is Verdict.INSUFFICIENT_INFORMATION
            assert sight.check.reasons[0].name == "own_record_offline"
            swarm.assert_unharmed()
