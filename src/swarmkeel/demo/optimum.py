"""The best bottleneck that any placement of some servers can have: `python -m swarmkeel.demo.optimum 16 4:8 10:18`.

Solved as a mixed-integer program by HiGHS: one binary variable for each server and each place that it can take, exactly
one place a server, and the throughput of every block at least the bottleneck, which is maximised. Where time runs out
the solver's dual bound stands in, which no placement exceeds either. The solver holds Python's lock and prints what it
likes, so the demo asks it in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MOST_SUMS: Final = 100_000
_TOLERANCE: Final = 1e-6
"""HiGHS keeps constraints and whole numbers to about this."""
_START_SECONDS: Final = 30.0

ServerSize = tuple[int, float]
"""How many blocks a server holds, and the requests a second that it brings to each."""


@dataclass(frozen=True)
class BestPossible:
    """What no placement can exceed.

    Attributes:
        bound_rps: The bottleneck of the best placement, or a number above it.
        is_exact: Whether there is a placement that has it.
    """

    bound_rps: float
    is_exact: bool


def find_best_possible(servers: Sequence[ServerSize], total_blocks: int, *, seconds: float = 5.0) -> BestPossible:
    """Find the best bottleneck that any placement of these servers can have.

    Args:
        servers: The servers.
        total_blocks: Blocks of the model.
        seconds: How long to search.

    Returns:
        The bottleneck, to a millionth of the fastest server's throughput.

    Raises:
        ValueError: If a server holds more blocks than there are, or none.
    """
    if not all(0 < blocks <= total_blocks for blocks, _ in servers):
        raise ValueError(f"servers hold 1 to {total_blocks} blocks, not {[blocks for blocks, _ in servers]}")
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415 - only the process that solves needs scipy

    fastest = max((throughput for _, throughput in servers), default=0.0)
    if not fastest:
        return BestPossible(0.0, is_exact=True)
    # In units of the fastest server, for the solver's absolute tolerances.
    sizes = [(blocks, throughput / fastest) for blocks, throughput in servers]
    mean = sum(map(math.prod, sizes)) / total_blocks
    ceiling = _largest_sum([throughput for _, throughput in sizes], mean)

    constraints, placements = _constraints(sizes, total_blocks)
    lower = np.concatenate([np.zeros(total_blocks), np.ones(len(sizes))])
    upper = np.concatenate([np.full(total_blocks, np.inf), np.ones(len(sizes))])
    result = milp(
        np.concatenate([np.zeros(placements), [-1.0]]),
        constraints=LinearConstraint(constraints, lower, upper),
        integrality=np.concatenate([np.ones(placements), [0.0]]),
        bounds=Bounds(0.0, np.concatenate([np.ones(placements), [ceiling]])),
        options={"time_limit": seconds},
    )
    bound = ceiling if result.mip_dual_bound is None else min(-float(result.mip_dual_bound), ceiling)
    best = _largest_sum([throughput for _, throughput in sizes], bound)
    reached = 0.0 if result.x is None else -float(result.fun)
    return BestPossible(best * fastest, is_exact=reached >= best - _TOLERANCE)


def _constraints(sizes: Sequence[ServerSize], total_blocks: int) -> tuple[NDArray[np.float64], int]:
    """Give the matrix of the program, and the number of its binary variables; the last variable is the bottleneck.

    Its first `total_blocks` rows are the throughput of each block minus the bottleneck, which must not be negative; the
    others count the places of each server, which must be one.
    """
    places = [(server, start) for server, (blocks, _) in enumerate(sizes) for start in range(total_blocks - blocks + 1)]
    matrix = np.zeros((total_blocks + len(sizes), len(places) + 1))
    for column, (server, start) in enumerate(places):
        blocks, throughput = sizes[server]
        matrix[start : start + blocks, column] = throughput
        matrix[total_blocks + server, column] = 1.0
    matrix[:total_blocks, -1] = -1.0
    return matrix, len(places)


def _largest_sum(throughputs: Sequence[float], limit: float) -> float:
    """Give the largest sum of some of the throughputs that is not above the limit: no block can have another one.

    Where there are too many different sums the limit itself.
    """
    limit += _TOLERANCE
    sums = {0.0}
    for throughput in throughputs:
        sums |= {round(total + throughput, 9) for total in sums if total + throughput <= limit}
        if len(sums) > _MOST_SUMS:
            return limit
    return max(sums)


async def ask_best_possible(servers: Sequence[ServerSize], total_blocks: int, *, seconds: float = 5.0) -> BestPossible:
    """Find the best possible bottleneck in a process of its own, which is killed if the caller is cancelled.

    Raises:
        OSError, ValueError: If that process does not answer as it should.
    """
    sizes = [f"{blocks}:{throughput!r}" for blocks, throughput in servers]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "swarmkeel.demo.optimum", str(total_blocks), *sizes, f"--seconds={seconds}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds + _START_SECONDS):
            output, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    lines = output.decode().splitlines()
    return BestPossible(**json.loads(lines[-1] if lines else ""))


def main(arguments: Sequence[str]) -> None:
    """Print the best possible bottleneck as JSON, on the last line.

    Args:
        arguments: The blocks of the model, then `BLOCKS:THROUGHPUT` for each server; `--seconds=N` limits the search.
    """
    seconds = [float(text.removeprefix("--seconds=")) for text in arguments if text.startswith("--seconds=")]
    total_blocks, *sizes = [text for text in arguments if not text.startswith("--")]
    servers = [(int(blocks), float(throughput)) for blocks, _, throughput in (size.partition(":") for size in sizes)]
    best = find_best_possible(servers, int(total_blocks), seconds=seconds[-1] if seconds else 5.0)
    print(json.dumps(asdict(best)))  # noqa: T201 - this is a command


if __name__ == "__main__":
    main(sys.argv[1:])
