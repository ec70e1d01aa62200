"""How to lay a swarm out anew so that every block has a server, with few moves: what a search by small steps cannot find.

Where memory hardly suffices, closing a hole takes a row of servers that all shift a little, and nothing is gained before
the last one has. A row is found exactly, by dynamic programming over the servers in the order of their blocks; beside it
one server may be taken out of its place in the order. Pure, and the same bits anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.candidates import DWELL_SECONDS
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span

_Array = NDArray[np.float64]

_OUT_OF_ORDER_UP_TO: Final = 40
"""Servers; in larger swarms there are so many ways to close a hole that none has to be looked for among all orders."""
_UNREACHED: Final = np.inf
_NOBODY: Final = -1
"""Stands for a server, and for its shape, where none has moved."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One server of a layout that moves.

    Attributes:
        server: Its index.
        target: The blocks that it goes to.
        throughput: Requests a second that it will serve there.
    """

    server: int
    target: Span
    throughput: float


def lay_out(servers: Sequence[PlanServer], total_blocks: int) -> tuple[Placement, ...] | None:
    """Give the moves of a layout that covers every block, with the fewest moves that this way finds.

    Args:
        servers: All servers; those that may not be moved in an emergency stay.
        total_blocks: Number of blocks of the model, at least 1.

    Returns:
        The moves in the order of their targets; None if no layout of this kind covers every block.
    """
    order = sorted(range(len(servers)), key=lambda index: (servers[index].final, index))
    free: list[int | None] = [None]
    if len(servers) <= _OUT_OF_ORDER_UP_TO:
        free += [index for index in order if servers[index].movable_in_emergency]
    best: tuple[float, tuple[Placement, ...]] | None = None
    for joker in free:
        found = _in_order(servers, order, joker, total_blocks)
        if found is not None and (best is None or found[0] < best[0] - 1e-9):
            best = found
    return None if best is None else best[1]


def _cost(server: PlanServer) -> float:
    """Give what one move counts for: moves first, then how long they take."""
    return 1.0 + (server.load_seconds + server.fetch_seconds) / DWELL_SECONDS


def _shapes(server: PlanServer, total_blocks: int) -> list[tuple[int, float]]:
    shapes = ((len(server.final), server.throughput), *server.shapes)
    return [(length, throughput) for length, throughput in shapes if 0 < length <= total_blocks and throughput > 0]


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """What is known after some of the servers: the least cost of covering all blocks before each one.

    Attributes:
        costs: Shape (2, total_blocks + 1): the joker not yet used, and used.
        came_from: For each entry the frontier and the layer that it was reached from, and by which shape of which server, or
            `_NOBODY`. Shape (2, total_blocks + 1, 4).
    """

    costs: _Array
    came_from: NDArray[np.int64]


def _in_order(
    servers: Sequence[PlanServer], order: Sequence[int], joker: int | None, total_blocks: int
) -> tuple[float, tuple[Placement, ...]] | None:
    costs = np.full((2, total_blocks + 1), _UNREACHED)
    costs[0, 0] = 0.0
    rows: list[_Row] = []
    for index in order:
        if joker is not None:
            rows.append(_place_joker(servers, joker, costs, total_blocks))
            costs = rows[-1].costs
        if index != joker:
            rows.append(_place_next(servers, index, costs, total_blocks))
            costs = rows[-1].costs
    if joker is not None:
        rows.append(_place_joker(servers, joker, costs, total_blocks))
        costs = rows[-1].costs
    layer = 0 if joker is None else 1
    if costs[layer, total_blocks] == _UNREACHED:
        return None
    cost, placements, frontier = float(costs[layer, total_blocks]), [], total_blocks
    for row in reversed(rows):
        former, former_layer, server, shape = row.came_from[layer, frontier].tolist()
        if server != _NOBODY:
            length, throughput = _shapes(servers[server], total_blocks)[shape]
            start = min(former, total_blocks - length)
            placements.append(Placement(server, Span(start, start + length), throughput))
        frontier, layer = former, former_layer
    moved = [each for each in reversed(placements) if each.target != servers[each.server].final]
    return cost, tuple(moved)


def _unchanged(costs: _Array) -> _Row:
    """Give the row in which nothing more has been placed."""
    layers, frontiers = costs.shape
    came_from = np.empty((layers, frontiers, 4), dtype=np.int64)
    came_from[:, :, 0] = np.arange(frontiers)
    came_from[:, :, 1] = np.arange(layers)[:, None]
    came_from[:, :, 2:] = _NOBODY
    return _Row(costs.copy(), came_from)


def _place_joker(servers: Sequence[PlanServer], joker: int, costs: _Array, total_blocks: int) -> _Row:
    row = _unchanged(costs)
    _move(row, servers[joker], joker, costs, total_blocks, from_layer=0, to_layer=1)
    return row


def _place_next(servers: Sequence[PlanServer], index: int, costs: _Array, total_blocks: int) -> _Row:
    server = servers[index]
    row = _unchanged(costs)
    start, end = server.final.start, min(server.final.end, total_blocks)
    for layer in (0, 1):
        # It stays: if all before it is covered, all up to its end is. Where it stays out of reach it changes nothing.
        if server.throughput > 0:
            reach = start + int(np.argmin(costs[layer, start : end + 1]))
            row.costs[layer, start:end] = _UNREACHED
            row.costs[layer, end] = costs[layer, reach]
            row.came_from[layer, end] = (reach, layer, _NOBODY, _NOBODY)
        if server.movable_in_emergency:
            _move(row, server, index, costs, total_blocks, from_layer=layer, to_layer=layer)
    return row


def _move(
    row: _Row,
    server: PlanServer,
    index: int,
    costs: _Array,
    total_blocks: int,
    *,
    from_layer: int,
    to_layer: int,
) -> None:
    """Let a server move to where the blocks covered so far end."""
    reached_from = costs[from_layer, :total_blocks] + _cost(server)
    for shape, (length, _) in enumerate(_shapes(server, total_blocks)):
        # Those from where it reaches the last block all lead there; of these the first one with the least cost counts.
        to_the_end = total_blocks - length
        last = to_the_end + int(np.argmin(reached_from[to_the_end:]))
        frontiers = np.append(np.arange(to_the_end), last)
        reached = np.append(np.arange(length, total_blocks), total_blocks)
        cheaper = reached_from[frontiers] < row.costs[to_layer, reached]
        frontiers, reached = frontiers[cheaper], reached[cheaper]
        row.costs[to_layer, reached] = reached_from[frontiers]
        row.came_from[to_layer, reached, 0] = frontiers
        row.came_from[to_layer, reached, 1:] = (from_layer, index, shape)
