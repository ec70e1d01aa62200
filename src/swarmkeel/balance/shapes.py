"""The shapes that a server can have: numbers of blocks, and the requests a second that it would serve with each."""

from __future__ import annotations

from typing import Final

MAX_SHAPES: Final = 6
"""Numbers of blocks that a plan tries for one server; between these, one more block hardly changes a throughput."""


def throughput_of(blocks: int, *, compute_rps: float, network_rps: float) -> float:
    """Give the requests a second of a server that holds some blocks.

    This is what Petals announces (`petals/server/throughput.py`): a request uses half of a server's blocks on average,
    counted as (blocks + 1) / 2, and goes over its network once.

    Args:
        blocks: How many blocks it holds.
        compute_rps: Passes through one block that it computes a second.
        network_rps: Requests that its network carries a second.
    """
    return min(compute_rps / ((blocks + 1) / 2), network_rps)


def possible_shapes(
    min_blocks: int, max_blocks: int, *, compute_rps: float, network_rps: float, present: int
) -> tuple[tuple[int, float], ...]:
    """Give the shapes that a plan may choose from, other than the present number of blocks.

    Args:
        min_blocks: The fewest blocks that the server can hold, at least 1.
        max_blocks: The most.
        compute_rps: See `throughput_of`.
        network_rps: As above.
        present: How many it holds now.

    Returns:
        Up to `MAX_SHAPES` pairs of blocks and throughput, fewest blocks first, in about equal ratios from the fewest to
        the most. Fewer blocks than the network can make use of are left out: they would serve no faster.
    """
    if not 0 < min_blocks <= max_blocks:
        return ()
    # With so few blocks, computing is as fast as the network; any fewer only leave blocks to others.
    enough = int(2 * compute_rps / network_rps - 1) if network_rps > 0 else max_blocks
    fewest = min(max(min_blocks, enough), max_blocks)
    ratio = (max_blocks / fewest) ** (1 / (MAX_SHAPES - 1))
    lengths = {max(fewest, min(max_blocks, round(fewest * ratio**step))) for step in range(MAX_SHAPES)}
    return tuple(
        (blocks, throughput_of(blocks, compute_rps=compute_rps, network_rps=network_rps))
        for blocks in sorted(lengths - {present})
    )
