"""Swarms to measure with, the same for the same words: records as servers announce them, for Swarmkeel and for Petals.

Needs nothing but the standard library, so that it runs in Petals' environment too.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Kind = Literal["balanced", "piled", "holed"]
KINDS: Final[tuple[Kind, ...]] = ("balanced", "piled", "holed")

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ONLINE: Final = 2

Record = tuple[int, float, dict[str, Any]]
"""What a server stores under each of its blocks: state, throughput, the rest."""


@dataclass(frozen=True)
class Swarm:
    """Which swarm.

    Attributes:
        kind: `balanced`: server by server, each begins where coverage is least; `piled`: a third of the servers begin at the
            first block; `holed`: like balanced, but for a tenth of the blocks, which nobody covers.
        servers: How many.
        blocks: Blocks of the model.
        shortest: Fewest blocks of a server; 0 for a thirtieth of the model.
        longest: Most blocks of a server; 0 for a third of the model.
        equal: All servers are equally fast, else 1 to 100 RPS.
        seed: Of the draws.
    """

    kind: Kind
    servers: int
    blocks: int
    shortest: int = 0
    longest: int = 0
    equal: bool = False
    seed: int = 1

    @property
    def lengths(self) -> tuple[int, int]:
        """Fewest and most blocks of a server."""
        return self.shortest or max(1, self.blocks // 30), self.longest or max(1, self.blocks // 3)


def announced(swarm: Swarm) -> list[dict[str, Record]]:
    """Give the records under each block by peer id; every block has a record of its own, as the DHT has."""
    draws = random.Random(json.dumps(asdict(swarm)))  # noqa: S311 -- a swarm, not a secret
    hole = (
        range(swarm.blocks // 2, swarm.blocks // 2 + max(1, swarm.blocks // 10)) if swarm.kind == "holed" else range(0)
    )
    coverage = [0.0] * swarm.blocks
    blocks: list[dict[str, Record]] = [{} for _ in range(swarm.blocks)]
    shortest, longest = swarm.lengths
    for number in range(swarm.servers):
        peer = "Qm" + "".join(draws.choices(_BASE58, k=44))
        length = draws.randint(shortest, longest)
        throughput = 10.0 if swarm.equal else draws.uniform(1, 100)
        start = _place(swarm, number, length, coverage, hole, draws)
        for block in range(start, start + length):
            coverage[block] += throughput
            blocks[block][peer] = (_ONLINE, throughput, _extras(start, start + length, draws))
    return blocks


def _place(swarm: Swarm, number: int, length: int, coverage: list[float], hole: range, draws: random.Random) -> int:  # noqa: PLR0917 -- a part of the loop
    last = swarm.blocks - length
    if swarm.kind == "piled" and number % 3 == 0:
        return 0
    starts = [start for start in draws.choices(range(last + 1), k=8) if not _overlap(start, length, hole)]
    if not starts:
        starts = [0] if hole.start >= length or not hole else [last]
    # The least covered of a few places drawn: near balance, as a swarm is that grew, and not exactly balanced.
    return min(starts, key=lambda start: max(coverage[start : start + length]))


def _overlap(start: int, length: int, hole: range) -> bool:
    return start < hole.stop and hole.start < start + length


def _extras(start: int, end: int, draws: random.Random) -> dict[str, Any]:
    """Give the rest of a record as Petals 2.2 writes it."""
    return {
        "start_block": start,
        "end_block": end,
        "public_name": None,
        "version": "2.2.0.post1",
        "network_rps": 210.5,
        "forward_rps": 1520.25,
        "inference_rps": 95.75,
        "adapters": [],
        "torch_dtype": "bfloat16",
        "quant_type": "nf4",
        "using_relay": False,
        "cache_tokens_left": draws.randint(0, 65536),
        "next_pings": None,
    }


def digest(blocks: list[dict[str, Record]]) -> str:
    """Give a short digest of the records, to see that two processes made the same."""
    return hashlib.sha256(json.dumps(blocks).encode()).hexdigest()[:16]


def find_peer(blocks: list[dict[str, Record]], wanted: Callable[[str], bool], tries: int = 500) -> str | None:
    """Give the first server that is wanted, of so many tried in an order drawn; None if none is."""
    peers = list(dict.fromkeys(peer for servers in blocks for peer in servers))
    random.Random(1).shuffle(peers)  # noqa: S311 -- as above
    return next((peer for peer in peers[:tries] if wanted(peer)), None)
