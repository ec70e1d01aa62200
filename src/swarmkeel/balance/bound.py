"""How well a swarm does, and how well it could do at best."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from swarmkeel.balance.decision import SwarmNumbers
from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.swarm.remote import Peer, RemoteSpanInfo


def throughput_bound(spans: Mapping[Peer, RemoteSpanInfo[Peer]], total_blocks: int) -> float:
    """Give a bottleneck that no placement of these servers can exceed, wherever each puts its span.

    Proof. Look only at every d-th block: the m = ceil(total_blocks / d) blocks 0, d, 2d, ... A server of n blocks
    covers at most c = min(m, ceil(n / d)) of these, wherever it stands. Take any k servers away: they cover at most
    the sum of their c, so at least r = m minus that sum of the m blocks are left to the others. If r > 0, the others
    bring no more than the sum of their throughput times c to those r blocks together, so one of the r gets at most
    that sum divided by r, and the bottleneck is no higher. This holds for every d and every k servers; the bound
    returned is the least over all d and, for each, over taking away the k fastest for all k.

    With d = 1 and k = 0 this is the mean throughput of a block. It is not always reached: how servers of unequal
    length fit together is a packing problem.

    Args:
        spans: The servers; only length and throughput count. A span that covers no block is passed over.
        total_blocks: Number of blocks of the model.

    Returns:
        Requests a second, exact but for float rounding; 0 where there are no blocks.
    """
    covered = np.array([len(range(total_blocks)[span.start : span.end]) for span in spans.values()], dtype=np.int64)
    throughput = np.array([span.throughput for span in spans.values()], dtype=np.float64)
    fastest_first = np.argsort(-throughput, kind="stable")
    fastest_first = fastest_first[covered[fastest_first] > 0]
    covered, throughput = covered[fastest_first], throughput[fastest_first]

    bound = sys.float_info.max if total_blocks else 0.0
    for distance in range(1, total_blocks + 1):
        looked_at = -(-total_blocks // distance)
        share = np.minimum(-(-covered // distance), looked_at)
        blocks_left = looked_at - np.append(0, np.cumsum(share))
        with np.errstate(over="ignore"):  # hostile throughputs may add up to infinity, which bounds nothing
            # Summed up from the slowest, so that the throughput of the servers taken away leaves no rounding behind.
            others_bring = np.append(np.cumsum((throughput * share)[::-1])[::-1], 0.0)
        bound = min(bound, float(np.min((others_bring / np.maximum(blocks_left, 1))[blocks_left > 0])))
    return bound


def measure(spans: Mapping[Peer, RemoteSpanInfo[Peer]], total_blocks: int) -> SwarmNumbers:
    """Put a swarm into numbers.

    Args:
        spans: The servers that count, as `compute_spans` gives them.
        total_blocks: Number of blocks of the model.
    """
    throughputs = compute_throughputs(spans, total_blocks=total_blocks)
    return SwarmNumbers(
        bottleneck_rps=min(float(throughputs.min()), sys.float_info.max) if total_blocks else 0.0,
        bound_rps=throughput_bound(spans, total_blocks),
        uncovered_blocks=int(np.count_nonzero(throughputs <= 0)),
    )
