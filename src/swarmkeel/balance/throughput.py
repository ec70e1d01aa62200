"""Throughput of every block: what the servers that cover it serve together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from swarmkeel.swarm.remote import Peer, RemoteSpanInfo, peer_text


def compute_throughputs(spans: Mapping[Peer, RemoteSpanInfo[Peer]], *, total_blocks: int) -> NDArray[np.float64]:
    """Sum up, block by block, the throughputs of the servers that cover it (Petals' `compute_throughputs`).

    The sums are taken in the order of the servers' peer ids, so that every server that sees the same records computes
    the same bits. Spans are taken as Python slices: one that ends before it starts covers nothing.

    Args:
        spans: The servers' spans, as `compute_spans` gives them.
        total_blocks: Number of blocks that were read.

    Returns:
        Requests a second, shape (total_blocks,). Hostile records can make a sum overflow to infinity.
    """
    throughputs = np.zeros(total_blocks)
    with np.errstate(over="ignore"):
        for span in sorted(spans.values(), key=lambda span: peer_text(span.peer_id)):
            throughputs[span.start : span.end] += span.throughput
    return throughputs
