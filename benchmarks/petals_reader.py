"""Petals' own reading of a swarm, in a process of its own and in Petals' environment: `dht_reading` asks it.

    .venv-petals/bin/python -m benchmarks.petals_reader

The first request names the initial peers, to which {"reopen": true} joins anew; every other one {"prefix": "a", "blocks": 80} reads that model as a Petals server
does before it decides about its blocks, and gives the seconds, the processor time and what was found.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any

from benchmarks.line_process import answer, children, cpu_seconds
from swarmkeel.control.petals_hivemind import restore_hivemind_names

restore_hivemind_names()

from hivemind import DHT  # noqa: E402 - only now it has the names that Petals wants
from petals.utils.dht import get_remote_module_infos  # noqa: E402


def main() -> None:
    """Answer until nobody asks any more."""
    first = json.loads(sys.stdin.readline())
    dht = _open(first)
    answer("ready")
    for line in sys.stdin:
        request = json.loads(line)
        if "reopen" in request:
            dht.shutdown()
            dht = _open(first)
            answer("ready")
            continue
        uids = [f"{request['prefix']}.{block}" for block in range(request["blocks"])]
        processes = [dht.pid, *children(dht.pid)]
        cpu, started = sum(map(cpu_seconds, processes)), time.perf_counter()
        modules = get_remote_module_infos(dht, uids, latest=True)
        seconds = time.perf_counter() - started
        cpu = sum(map(cpu_seconds, processes)) - cpu
        found = [sorted(peer.to_base58() for peer in module.servers) for module in modules]
        digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
        answer({"seconds": seconds, "cpu": cpu, "keys": sum(map(bool, found)), "digest": digest})
    dht.shutdown()


def _open(first: dict[str, Any]) -> Any:  # noqa: ANN401 - hivemind has no types
    return DHT(
        initial_peers=first["initial_peers"],
        client_mode=True,
        start=True,
        num_workers=first["blocks"],
        use_relay=False,
        use_auto_relay=False,
        auto_nat=False,
    )


if __name__ == "__main__":
    main()
