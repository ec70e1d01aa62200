"""One contender in a process of its own, for `benchmarks/beside_petals.py`: answers lines of JSON with lines of JSON.

    .venv-petals/bin/python -m benchmarks.worker petals
    .venv/bin/python -m benchmarks.worker swarmkeel

A request {"swarm": {...}} makes that swarm's records; {"function": "decision", "peer": "Qm...", "repeats": 3} calls that function
and gives the seconds of processor time of each call, and the answer. What is timed is what a check does: from the records in
memory, in the types of the contender, to the answer.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import time
import types
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from benchmarks.swarms import Swarm, announced, digest

SEED = 1
QUALITY = 0.75

Functions = Mapping[str, Callable[[], Any]]


def of_swarmkeel(blocks: list[dict[str, Any]], peer: str, num_blocks: int) -> Functions:
    """Give what Swarmkeel does, on the records in its own types."""
    import swarmkeel  # noqa: PLC0415 -- one process has the one, the other the other
    from swarmkeel.balance.throughput import compute_throughputs  # noqa: PLC0415 -- as above

    modules = _modules(blocks, swarmkeel, str)
    spans = swarmkeel.compute_spans(modules, min_state=swarmkeel.ServerState.JOINING)
    return {
        "spans": lambda: swarmkeel.compute_spans(modules, min_state=swarmkeel.ServerState.JOINING),
        "throughputs": lambda: compute_throughputs(spans, total_blocks=len(modules)),
        "choice": lambda: swarmkeel.choose_best_blocks(num_blocks, modules),
        "decision": lambda: swarmkeel.should_choose_other_blocks(
            peer, modules, QUALITY, rng=np.random.RandomState(SEED)
        ),
    }


def of_petals(blocks: list[dict[str, Any]], peer: str, num_blocks: int) -> Functions:
    """Give what the installed Petals does, on the records in its own types."""
    from swarmkeel.control.petals_hivemind import restore_hivemind_names  # noqa: PLC0415 -- as above

    restore_hivemind_names()
    from hivemind import PeerID  # noqa: PLC0415 -- as above
    from petals import data_structures  # noqa: PLC0415 -- as above
    from petals.server import block_selection  # noqa: PLC0415 -- as above

    block_selection.logger.setLevel("ERROR")
    modules = _modules(blocks, data_structures, PeerID.from_base58)
    state, own = data_structures.ServerState.JOINING, PeerID.from_base58(peer)
    spans = block_selection.compute_spans(modules, min_state=state)

    def decide() -> bool:
        np.random.seed(SEED)  # noqa: NPY002 -- Petals shuffles by the global generator
        return bool(block_selection.should_choose_other_blocks(own, modules, QUALITY))

    return {
        "spans": lambda: block_selection.compute_spans(modules, min_state=state),
        "throughputs": lambda: block_selection.compute_throughputs(spans, total_blocks=len(modules)),
        "choice": lambda: block_selection.choose_best_blocks(num_blocks, modules),
        "decision": decide,
    }


def _modules(blocks: list[dict[str, Any]], kinds: types.ModuleType, peer_id: Callable[[str], Any]) -> list[Any]:
    return [
        kinds.RemoteModuleInfo(
            f"model.{block}",
            {peer_id(peer): kinds.ServerInfo.from_tuple(tuple(record)) for peer, record in servers.items()},
        )
        for block, servers in enumerate(blocks)
    ]


def _petals_version() -> str:
    try:
        return version("petals")
    except PackageNotFoundError:
        return "none"


def comparable(answer: object) -> object:
    """Give an answer as JSON that is equal only if the answers are, to the last bit."""
    if isinstance(answer, np.ndarray):
        return [value.hex() for value in answer.tolist()]
    if isinstance(answer, dict):
        spans = [[str(span.peer_id), span.start, span.end, span.throughput.hex()] for span in answer.values()]
        return hashlib.sha256(json.dumps(spans).encode()).hexdigest()
    return answer


def measure(call: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    """Call so many times; give the processor time of each and the last answer."""
    seconds, answer = [], None
    for _ in range(repeats):
        gc.collect()
        started = time.process_time()
        answer = call()
        seconds.append(time.process_time() - started)
    return seconds, answer


def main() -> None:
    """Answer until the input ends."""
    contenders = {"swarmkeel": of_swarmkeel, "petals": of_petals}
    prepare = contenders[sys.argv[1]]
    blocks: list[dict[str, Any]] = []
    functions: dict[tuple[str, int], Functions] = {}
    print(
        json.dumps(
            {
                "ready": sys.argv[1],
                "python": sys.version.split()[0],
                "numpy": np.__version__,
                "petals": _petals_version(),
            }
        ),
        flush=True,
    )
    for line in sys.stdin:
        request = json.loads(line)
        if "swarm" in request:
            blocks, functions = announced(Swarm(**request["swarm"])), {}
            answer: dict[str, Any] = {"digest": digest(blocks)}
        else:
            key = (request["peer"], request["num_blocks"])
            if key not in functions:
                functions = {key: prepare(blocks, *key)}
            seconds, answered = measure(functions[key][request["function"]], request["repeats"])
            answer = {"seconds": seconds, "answer": comparable(answered)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
