"""When every block of the model has a server: at once, when those that load have loaded, or never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from swarmkeel.balance.candidates import NOTHING
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.swarm.span import Span


class Arrivals:
    """When which servers serve which blocks.

    Args:
        servers: The servers.
        total_blocks: Number of blocks of the model, at least 1.
        unit: Requests a second that are counted as 1.
    """

    def __init__(self, servers: Sequence[PlanServer], total_blocks: int, unit: float) -> None:
        self._servers, self._unit = servers, unit
        present = [(span, since) for server in servers for span, since in self._serves(server)]
        self._times = np.append(np.unique([since for _, since in present]), np.inf)
        # How many servers begin to serve each block at each time: they change by one move at a time, and are never inexact.
        rows = np.searchsorted(self._times, [since for _, since in present]) * (total_blocks + 1)
        size, shape = len(self._times) * (total_blocks + 1), (len(self._times), total_blocks + 1)
        begin = np.bincount(rows + np.array([span.start for span, _ in present], dtype=int), minlength=size)
        end = np.bincount(rows + np.array([span.end for span, _ in present], dtype=int), minlength=size)
        self._beginning = np.cumsum((begin - end).reshape(shape), axis=1)[:, :-1]
        self._beginning[-1] = 1  # at the end of time, so that every block has one at some time

    def covered_in(self, moves: Mapping[int, Span]) -> float:
        """Give how many seconds it is after some moves until every block has a server; infinite if one never has.

        Args:
            moves: By the index of the server that moves, where it goes.
        """
        beginning = self._beginning.copy()
        for index in moves:
            for span, since in self._serves(self._servers[index]):
                beginning[np.searchsorted(self._times, since), span.start : span.end] -= 1
        seconds = self._times[np.argmax(beginning > 0, axis=0)]
        for index, target in moves.items():
            arrival = self._servers[index].seconds_to(target)
            seconds[target.start : target.end] = np.minimum(seconds[target.start : target.end], arrival)
        return float(seconds.max())

    def _serves(self, server: PlanServer) -> list[tuple[Span, float]]:
        if server.throughput / self._unit <= NOTHING:
            return []
        serves = [(server.final, server.arrives_in)]
        if server.unless_claimed is not None:
            # It has not left yet, and will not if that would uncover a block.
            serves.append((server.unless_claimed[0], 0.0))
        return serves
