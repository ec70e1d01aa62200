"""What the demo shows: which servers there are, how badly they are placed at first, and which of them are killed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from swarmkeel.swarm.remote import RemoteSpanInfo

DHT_PREFIX: Final = "demo-model"
TOTAL_BLOCKS: Final = 16
GOAL: Final = 0.8
"""Share of the best possible bottleneck that the swarm must reach."""

# Chosen so that Petals' rule heals them: from 15,000 random placements, and from 30,000 of what is left without two of the
# three strongest, the sidecars' own code never stopped below 88 % of the best possible. With sizes drawn at random, or
# without other servers, it often does.
_SIZES: Final = ((4, 8.0), (4, 8.0), (4, 8.0), (7, 8.0), (8, 9.0), (8, 17.0), (9, 18.0), (10, 18.0))
_MORE_SIZES: Final = ((8, 18.0), (10, 18.0)) * 4
_FIRST_THIRD: Final = TOTAL_BLOCKS // 3


@dataclass(frozen=True)
class ServerPlan:
    """One server of the demo.

    Attributes:
        name: Public name.
        num_blocks: Blocks that it holds.
        throughput: Requests a second.
        first_block: Where it is placed at first.
    """

    name: str
    num_blocks: int
    throughput: float
    first_block: int


@dataclass(frozen=True)
class Timing:
    """The speed of the demo, in seconds: all that takes minutes or hours in a real swarm happens within a minute here.

    Attributes:
        load: How long a server loads its blocks from disk.
        download: How long it downloads as many blocks as it holds, where it can before a move.
        settle: How long a claim is out before it is decided again.
        update_period: Time between two announcements of a server.
        lifetime: How long an announcement holds: so long is a killed server still believed in.
        check_period: Time between two checks of a sidecar.
        cooldown: Time after a move before the next of the same server.
        quality: The sidecars' balance quality, no time but a ratio.
        steady: How long the goal must be held, with nobody loading, to count as reached.
    """

    load: float = 1.5
    download: float = 1.0
    settle: float = 1.5
    update_period: float = 2.5
    lifetime: float = 9.0
    check_period: float = 2.5
    cooldown: float = 4.0
    quality: float = 0.85
    steady: float = 4.0


def plan_servers(count: int, seed: int) -> tuple[ServerPlan, ...]:
    """Plan servers of unequal size and speed that all pile up in front, so that nobody serves the last blocks.

    Args:
        count: How many servers, 8 to 16.
        seed: Decides who has which size and where exactly it starts.
    """
    rng = random.Random(seed)  # noqa: S311 - a demo that can be repeated
    sizes = list((_SIZES + _MORE_SIZES)[:count])
    rng.shuffle(sizes)
    return tuple(
        ServerPlan(f"server-{number}", blocks, throughput, rng.randint(0, _FIRST_THIRD))
        for number, (blocks, throughput) in enumerate(sizes, 1)
    )


def choose_victims(online: Mapping[str, RemoteSpanInfo[str]], total_blocks: int, count: int = 2) -> tuple[str, ...]:
    """Choose some of the strongest servers, all but one of so many: those whose loss leaves most blocks to nobody.

    Args:
        online: The spans of the servers that serve, by peer id; at least `count`.
        total_blocks: Blocks of the model.
        count: How many.
    """

    def strength(peer_id: str) -> float:
        return online[peer_id].length * online[peer_id].throughput

    def loss(chosen: tuple[str, ...]) -> tuple[int, float]:
        served = np.zeros(total_blocks, dtype=bool)
        for peer_id, span in online.items():
            if peer_id not in chosen:
                served[span.start : span.end] = True
        return int(np.count_nonzero(~served)), sum(map(strength, chosen))

    strongest = sorted(sorted(online), key=strength, reverse=True)[: count + 1]
    return max(combinations(strongest, count), key=loss)
