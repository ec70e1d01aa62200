"""What no placement of the servers alive can exceed, over the time of a run: what achieved bottlenecks are divided by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from swarmkeel.demo.optimum import find_best_possible
from swarmkeel.simulation.population import Fate, Population


@dataclass(frozen=True, slots=True)
class BoundStep:
    """The bound from a time on, until the next step.

    Attributes:
        since: Seconds from the beginning of the run.
        bound_rps: Bottleneck that no placement of the servers alive exceeds.
        is_coverable: Whether they hold as many blocks as the model has; if not, no placement is without a hole.
    """

    since: float
    bound_rps: float
    is_coverable: bool


def lp_bound(servers: Iterable[tuple[int, float]], total_blocks: int) -> float:
    """Give the best bottleneck when a server may be split between places.

    Servers of the same length are interchangeable then, so that the program has one variable for each length and start:
    how much throughput of that length stands there. It maximises the least block. Every placement of whole servers is one
    of its solutions, so none has a better bottleneck.

    Args:
        servers: (blocks, requests a second) of each; lengths from 1 to total_blocks.
        total_blocks: Blocks of the model.

    Returns:
        Requests a second; the solver keeps to about 1e-7 of it.
    """
    mass: dict[int, float] = {}
    for length, throughput in sorted(servers):
        mass[length] = mass.get(length, 0.0) + throughput
    return _solve(tuple(sorted(mass.items())), total_blocks)


def frozen_optimum(servers: Sequence[tuple[int, float]], total_blocks: int, *, seconds: float = 5.0) -> float:
    """Give the bottleneck of the best placement of whole servers, by an integer program: for small frozen swarms.

    Args:
        servers: As for `lp_bound`, which this never exceeds.
        total_blocks: Blocks of the model.
        seconds: How long to search; where that is too short, the best bound found stands in.

    Returns:
        Requests a second.
    """
    return find_best_possible(servers, total_blocks, seconds=seconds).bound_rps


@lru_cache(maxsize=4096)
def _solve(masses: tuple[tuple[int, float], ...], total_blocks: int) -> float:
    from scipy.optimize import linprog  # noqa: PLC0415 - only simulations need scipy, which is an extra
    from scipy.sparse import csc_array  # noqa: PLC0415 - as above

    unit = sum(length * throughput for length, throughput in masses) / total_blocks
    if not unit:
        return 0.0
    rows: list[int] = []
    columns: list[int] = []
    group: list[int] = []
    count = 0
    for number, (length, _) in enumerate(masses):
        for start in range(total_blocks - length + 1):
            rows.extend(range(start, start + length))
            columns.extend([count] * length)
            group.append(number)
            count += 1
    # The last variable is the bottleneck: coverage of every block - bottleneck >= 0.
    rows.extend(range(total_blocks))
    columns.extend([count] * total_blocks)
    values = np.concatenate([-np.ones(len(rows) - total_blocks), np.ones(total_blocks)])
    coverage = csc_array((values, (rows, columns)), shape=(total_blocks, count + 1))
    totals = csc_array((np.ones(count), (group, np.arange(count))), shape=(len(masses), count + 1))
    cost = np.zeros(count + 1)
    cost[-1] = -1.0
    result = linprog(
        cost,
        A_ub=coverage,
        b_ub=np.zeros(total_blocks),
        A_eq=totals,
        b_eq=[throughput / unit for _, throughput in masses],
        bounds=(0, None),
        method="highs",
    )
    # By the mean where the solver gives up: no placement exceeds it either.
    return unit * min(-float(result.fun), 1.0) if result.status == 0 else unit


def bound_steps(population: Population, end: float) -> tuple[BoundStep, ...]:
    """Give the bound over a run; who is alive does not depend on the policy.

    Args:
        population: The servers.
        end: Seconds from the beginning of the run.
    """
    changes: list[tuple[float, int, Fate]] = []
    for fate in population.fates:
        if fate.arrives_at < min(fate.leaves_at, end):
            changes.append((fate.arrives_at, 1, fate))
            changes.append((fate.leaves_at, -1, fate))
    changes.sort(key=lambda change: (change[0], change[1], change[2].index))
    alive: dict[int, Fate] = {}
    steps = [BoundStep(0.0, 0.0, is_coverable=False)]
    for position, (time, sign, fate) in enumerate(changes):
        if time >= end:
            break
        if sign > 0:
            alive[fate.index] = fate
        else:
            alive.pop(fate.index, None)
        if position + 1 < len(changes) and changes[position + 1][0] == time:
            continue
        steps.append(_step(time, list(alive.values()), population.total_blocks))
    return tuple(steps)


def _step(time: float, alive: Sequence[Fate], total_blocks: int) -> BoundStep:
    is_coverable = sum(fate.num_blocks for fate in alive) >= total_blocks
    if not is_coverable:
        return BoundStep(time, 0.0, is_coverable)
    if any(fate.min_blocks < fate.num_blocks and fate.rates is not None for fate in alive):
        # Whatever lengths are chosen: blocks times throughput is largest with all blocks, by Petals' formula.
        return BoundStep(time, sum(fate.num_blocks * fate.throughput for fate in alive) / total_blocks, is_coverable)
    return BoundStep(time, lp_bound(((fate.num_blocks, fate.throughput) for fate in alive), total_blocks), is_coverable)
