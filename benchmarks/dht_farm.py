"""Real peers of a DHT on the loopback interface, all in one process, that hold what they are told: `dht_reading` asks them.

A request {"peers": 10} starts them and gives their addresses; {"plant": {...}} puts the records of a swarm where its servers
would have stored them, at the five peers nearest to each key, for good; {"announce": {...}} some for a while; {"load": true} tells what they were asked for so far.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import time
from typing import Any

from benchmarks.line_process import answer
from benchmarks.memory_dht import records
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.dht_lookup import REPLICAS
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.hivemind_dht import DHTID, DHTProtocol
from swarmkeel.swarm.record import ServerInfo, ServerState


class Farm:
    """The peers and what they were asked for."""

    def __init__(self) -> None:
        self.calls = 0
        self.bytes_sent = 0
        self._nodes: list[DhtNode] = []
        self._holders: dict[DHTID, list[DhtNode]] = {}
        self._served: dict[str, range] = {}
        find = DHTProtocol.rpc_find

        @functools.wraps(find)  # hivemind looks at its annotations
        async def counted(protocol: Any, request: Any, context: Any) -> Any:  # noqa: ANN401 - hivemind has no types
            response = await find(protocol, request, context)
            self.calls += 1
            self.bytes_sent += response.ByteSize()
            return response

        DHTProtocol.rpc_find = counted  # before the first node, which registers it

    async def start(self, count: int) -> list[str]:
        """Start peers that know each other, and give their addresses."""
        while len(self._nodes) < count:
            initial = [address for node in self._nodes[:2] for address in node.visible_maddrs()]
            self._nodes.append(await DhtNode.open(initial, client_mode=False))
        for node in self._nodes:
            await node.repair()
        return [address for node in self._nodes for address in node.visible_maddrs()]

    def plant(
        self, prefix: str, servers: int, blocks: int, lengths: tuple[int, int], lifetime: float = 7200.0
    ) -> dict[str, float]:
        """Store the records of a swarm, and say how many they are and what one copy weighs."""
        end, count, size = time.time() + lifetime, 0, 0
        for block, held in records(servers, blocks, lengths).items():
            key = DHTID.generate(f"{prefix}.{block}")
            for subkey, value in held.items():
                count, size = count + 1, size + len(value)
                for node in self._near(key):
                    node.hivemind_node.protocol.storage.store(key, value, end, subkey=subkey)
        return {"records": count, "bytes": size}

    def announce(self, prefix: str, servers: dict[str, list[Any]], lifetime: float) -> None:
        """Store what servers announce, and OFFLINE under the blocks that they have left."""
        end = time.time() + lifetime
        for peer_id, (state, throughput, start, stop) in servers.items():
            former = self._served.get(peer_id, range(0))
            self._served[peer_id] = now = range(start, stop)
            for block in {*former, *now}:
                info = ServerInfo(
                    ServerState(state if block in now else 0), throughput, start_block=start, end_block=stop
                )
                key = DHTID.generate(f"{prefix}.{block}")
                for node in self._near(key):
                    value = encode_value(info.to_tuple())
                    node.hivemind_node.protocol.storage.store(key, value, end, subkey=peer_id)

    def _near(self, key: DHTID) -> list[DhtNode]:
        if key not in self._holders:
            near = sorted(self._nodes, key=lambda node: key.xor_distance(node.hivemind_node.node_id))
            self._holders[key] = near[:REPLICAS]
        return self._holders[key]

    async def close(self) -> None:
        """End all peers."""
        for node in self._nodes:
            await node.close()


async def main() -> None:
    """Answer until nobody asks any more."""
    farm, loop = Farm(), asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            request = json.loads(line)
            if "peers" in request:
                answer(await farm.start(request["peers"]))
            elif "plant" in request:
                answer(farm.plant(**request["plant"]))
            elif "announce" in request:
                farm.announce(**request["announce"])
                answer("done")
            else:
                answer({"calls": farm.calls, "bytes": farm.bytes_sent})
    finally:
        await farm.close()


if __name__ == "__main__":
    asyncio.run(main())
