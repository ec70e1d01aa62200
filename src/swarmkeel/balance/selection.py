"""Where a server of a given size helps most: the window of blocks with the lowest throughputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import ModuleServers, Peer, compute_spans


class TooManyBlocksError(SwarmkeelError, ValueError):
    """A server is to hold more blocks than were read; Petals fails with a bare ValueError there."""

    def __init__(self, num_blocks: int, total_blocks: int) -> None:
        super().__init__(
            f"no window of {num_blocks} blocks fits into {total_blocks} blocks",
            "let the server hold at most as many blocks as the model has",
        )


def find_best_start(throughputs: NDArray[np.float64], num_blocks: int) -> int:
    """Find the window whose throughputs, sorted, are lexicographically smallest; ties go to the lowest start.

    This is Petals' choice without sorting every window. Of two windows that one is smaller which holds more copies of
    the smallest value that they do not hold equally often. Two things follow:

    - If any window holds all copies of the smallest value, the best one does.
    - What two windows both hold does not matter, and the same blocks may be added to both. So the windows from s and
      from t > s compare like the blocks left behind, [s, t), with those entered, [s + num_blocks, t + num_blocks).

    Args:
        throughputs: Requests a second by block, shape (total_blocks,). With NaN among them some start is given.
        num_blocks: Length of the window. A hostile one of 0 or less is taken as Petals takes it, by Python's rules
            for slices: the first start whose slice is empty wins.

    Returns:
        Index of the window's first block.

    Raises:
        TooManyBlocksError: If there are fewer blocks than the window is long.
    """
    total_blocks = len(throughputs)
    if num_blocks > total_blocks:
        raise TooManyBlocksError(num_blocks, total_blocks)
    if num_blocks <= 0:
        return -num_blocks if -num_blocks < total_blocks else 0
    low, high = 0, total_blocks - num_blocks
    # Windows that start from `earliest` on hold the last copy of the smallest value, those up to `latest` the first.
    earliest, latest = high - int(throughputs[::-1].argmin()), int(throughputs.argmin())
    if earliest <= latest:
        if earliest > low:  # noqa: PLR1730 -- a check spends its time here; max() would be a call more
            low = earliest
        if latest < high:  # noqa: PLR1730 -- as above
            high = latest
    return low + _best_step(throughputs[low:high].tolist(), throughputs[low + num_blocks : high + num_blocks].tolist())


def _best_step(left: list[float], entered: list[float]) -> int:
    """Find how many steps to the right lead to the best window.

    The best window so far meets each further one. Of what was left behind and of what was entered since the best one
    the minima are kept: the smaller one decides, and only equal ones need a look at all values. A step that leaves and
    enters equal values changes nothing.

    Args:
        left: What each step leaves behind.
        entered: What it enters.
    """
    best = 0
    lowest_left = lowest_entered = math.inf
    for step, (value_left, value_entered) in enumerate(zip(left, entered, strict=True), 1):
        if value_left == value_entered:
            continue
        if value_left < lowest_left:  # noqa: PLR1730 -- as above
            lowest_left = value_left
        if value_entered < lowest_entered:  # noqa: PLR1730 -- as above
            lowest_entered = value_entered
        if lowest_entered > lowest_left:
            continue
        if lowest_entered < lowest_left or sorted(entered[best:step]) < sorted(left[best:step]):
            best = step
            lowest_left = lowest_entered = math.inf
    return best


def choose_best_blocks(num_blocks: int, module_infos: Sequence[ModuleServers[Peer]]) -> list[int]:
    """Choose the blocks for a server that is not in the swarm yet (Petals' `choose_best_blocks`).

    Args:
        num_blocks: How many blocks the server can hold.
        module_infos: The blocks read, in order, without gaps; without records of the server itself.

    Returns:
        Contiguous indices, counted from the first block read.

    Raises:
        TooManyBlocksError: If fewer blocks were read than the server can hold.
    """
    spans = compute_spans(module_infos, min_state=ServerState.JOINING)
    start = find_best_start(compute_throughputs(spans, total_blocks=len(module_infos)), num_blocks)
    return list(range(start, start + num_blocks))
