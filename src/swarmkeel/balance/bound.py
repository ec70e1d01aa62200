"""How well a swarm does, and how well it could do at best."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.coverage import sum_coverage
from swarmkeel.balance.decision import SwarmNumbers
from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.swarm.remote import Peer, RemoteSpanInfo
from swarmkeel.swarm.span import Span

_Number = TypeVar("_Number", np.float64, np.int64)


def throughput_bound(spans: Mapping[Peer, RemoteSpanInfo[Peer]], total_blocks: int) -> float:
    """Give a bottleneck that no placement of these servers can exceed, wherever each puts its span.

    Proof. Look only at every d-th block: the m = ceil(total_blocks / d) blocks 0, d, 2d, ... A server of n blocks
    covers at most c = min(m, ceil(n / d)) of these, wherever it stands. Take any k servers away: they cover at most
    the sum of their c, so at least r = m minus that sum of the m blocks are left to the others. If r > 0, then of
    these r blocks

    - one gets at most the r-th part of what the others bring to them together, which is no more than the sum of their
      throughputs times their c, and
    - one is covered by at most q = floor(sum of the others' c / r) of the others, so that it gets no more than the q
      fastest of them bring,

    and the bottleneck is no higher than what any block gets. This holds for every d and every k servers; the bound
    returned is the least over all d and, for each, over taking away the k fastest for all k. With d = 1 and k = 0 the
    first is the mean throughput of a block.

    The bound is not always reached: how servers of unequal length fit together is a packing problem.

    Args:
        spans: The servers; only length and throughput count. A span that covers no block is passed over.
        total_blocks: Number of blocks of the model.

    Returns:
        Requests a second, exact but for float rounding; 0 where there are no blocks.
    """
    covered = np.array([len(range(total_blocks)[span.start : span.end]) for span in spans.values()], dtype=np.int64)
    throughput = np.array([span.throughput for span in spans.values()], dtype=np.float64)
    return _bound(covered, throughput, total_blocks)


def _bound(covered: NDArray[np.int64], throughput: NDArray[np.float64], total_blocks: int) -> float:
    """Give the bound of servers by how many blocks each covers and what it serves."""
    fastest_first = np.argsort(-throughput, kind="stable")
    fastest_first = fastest_first[covered[fastest_first] > 0]
    covered, throughput = covered[fastest_first], throughput[fastest_first]

    bound = sys.float_info.max if total_blocks else 0.0
    # Sums are taken from the slowest server on, so that the fast ones that are taken away leave no rounding behind.
    with np.errstate(over="ignore", invalid="ignore"):  # hostile throughputs may add up to infinity: no bound follows
        others_sum = _sums_from_the_end(throughput)
        for distance in range(1, total_blocks + 1):
            looked_at = -(-total_blocks // distance)
            share = np.minimum(-(-covered // distance), looked_at)
            blocks_left = looked_at - np.append(0, np.cumsum(share))
            (taken,) = np.nonzero(blocks_left > 0)
            blocks_left = blocks_left[taken]
            by_sum = _sums_from_the_end(throughput * share)[taken] / blocks_left
            most_on_one = np.minimum(taken + _sums_from_the_end(share)[taken] // blocks_left, len(throughput))
            by_number = others_sum[taken] - others_sum[most_on_one]
            bound = min(bound, float(np.fmin.reduce(np.fmin(by_sum, by_number))))
    return bound


def _sums_from_the_end(values: NDArray[_Number]) -> NDArray[_Number]:
    """Give, for each number of leading values left out (none to all), the sum of the others."""
    return np.append(np.cumsum(values[::-1])[::-1], values.dtype.type(0))


def measure(spans: Mapping[Peer, RemoteSpanInfo[Peer]], total_blocks: int) -> SwarmNumbers:
    """Put a swarm into numbers.

    Args:
        spans: The servers that count, as `compute_spans` gives them.
        total_blocks: Number of blocks of the model.
    """
    throughputs = compute_throughputs(spans, total_blocks=total_blocks)
    return _numbers(throughputs, throughput_bound(spans, total_blocks))


def measure_placed(placed: Collection[tuple[Span, float]], total_blocks: int) -> SwarmNumbers:
    """Put a swarm into numbers as it would be with its servers elsewhere.

    Args:
        placed: The blocks of each server and the requests a second that it serves there, in the order of their peer ids.
        total_blocks: Number of blocks of the model; no server is placed past it.
    """
    spans, throughputs = [span for span, _ in placed], [throughput for _, throughput in placed]
    lengths = np.array([len(span) for span in spans], dtype=np.int64)
    bound = _bound(lengths, np.array(throughputs, dtype=np.float64), total_blocks)
    return _numbers(sum_coverage(spans, throughputs, total_blocks), bound)


def _numbers(throughputs: NDArray[np.float64], bound: float) -> SwarmNumbers:
    return SwarmNumbers(
        bottleneck_rps=min(float(throughputs.min()), sys.float_info.max) if len(throughputs) else 0.0,
        bound_rps=bound,
        uncovered_blocks=int(np.count_nonzero(throughputs <= 0)),
    )
