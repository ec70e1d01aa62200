"""Petals' own loop, as its server runs it: waits, checks, says goodbye, shuts down, waits, reads again, chooses again.

The decisions are made by the production functions, `check_imbalance` and `find_best_start`. A full check of a hundred
servers takes milliseconds and a day has a hundred thousand of them, nearly all of which say no. So, unless the scenario
turns it off, two shortcuts are taken. The first is exact: whether a check ends before its search (leaving would uncover
a block, or the place is the best already) does not depend on chance and is found without setting up the search. The
second is not: where full checks on one view have come out clearly on one side of the limit, further servers whose checks
would search the same view get the same answer. docs/simulation.md says how rarely that differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.imbalance import EPSILON, OwnSpanMissingError, check_imbalance
from swarmkeel.balance.selection import find_best_start
from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.simulation.dht import Dht, View, ordered_spans
from swarmkeel.simulation.events import EventQueue
from swarmkeel.simulation.scenario import PetalsPart, Scenario
from swarmkeel.simulation.server import Phase, SimulatedServer
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.span import Span

_CLEAR: Final = ((1, 1.10), (3, 1.05))
"""So many full checks on one view, all on the same side of the limit by this factor, stand for all others. On one view
they differ by 1 % (standard deviation, in the median of views; 3.5 % at most) for the shuffle and the server."""

ServersView = View[RemoteSpanInfo[str]]


@dataclass(frozen=True, slots=True)
class PetalsCheck:
    """One check, for whoever looks over the loop's shoulder.

    Attributes:
        peer_id: The server.
        view: What it read.
        seed: Of the shuffle.
        should_move: The answer.
        is_sampled: Whether the answer was taken from other servers' checks on the same view.
    """

    peer_id: str
    view: ServersView
    seed: int
    should_move: bool
    is_sampled: bool = False


def view_throughputs(view: ServersView, total_blocks: int) -> NDArray[np.float64]:
    """Give the announced throughput of every block; not to be changed."""
    return view.compute("throughputs", lambda: compute_throughputs(view.entries, total_blocks=total_blocks))


def place_like_petals(view: ServersView, num_blocks: int, total_blocks: int) -> Span:
    """Choose blocks as Petals' `choose_best_blocks` does."""
    start = find_best_start(view_throughputs(view, total_blocks), num_blocks)
    return Span(start, start + num_blocks)


def _ends_before_search(peer_id: str, view: ServersView, total_blocks: int) -> bool:
    """Tell whether a check says no without searching; the same steps as in `check_imbalance`, on a shared sum."""
    span = view.entries[peer_id]
    throughputs = view_throughputs(view, total_blocks)
    initial = view.compute("bottleneck", lambda: float(throughputs.min()))
    rest = throughputs.copy()
    rest[span.start : span.end] -= np.array(span.throughput * (1 + EPSILON))
    if initial > EPSILON and rest.min() <= 0:
        return True
    return find_best_start(rest, span.length) == span.start


def _clear_answer(samples: Sequence[float], limit: float) -> bool | None:
    """Give the answer that full checks on a view have all given clearly; None where there is none.

    Args:
        samples: The balance qualities that they found; infinite where the search gained nothing.
        limit: Below it a server moves.
    """
    for count, factor in _CLEAR:
        if len(samples) >= count:
            if min(samples) >= limit * factor:
                return False
            if max(samples) <= limit / factor:
                return True
    return None


def check_like_petals(peer_id: str, view: ServersView, world: PetalsPart, total_blocks: int, seed: int) -> PetalsCheck:
    """Check as Petals' `should_choose_other_blocks` does.

    Where the server's own record is missing, Petals fails an assertion and its server ends; here it stays.
    """
    if peer_id not in view.entries:
        return PetalsCheck(peer_id, view, seed, should_move=False)
    samples: list[float] = view.compute("samples", list)
    if world.screening and world.balance_quality <= 1:
        if _ends_before_search(peer_id, view, total_blocks):
            return PetalsCheck(peer_id, view, seed, should_move=False)
        answer = _clear_answer(samples, world.balance_quality)
        if answer is not None:
            return PetalsCheck(peer_id, view, seed, should_move=answer, is_sampled=True)
    try:
        check = check_imbalance(
            peer_id,
            ordered_spans(view),
            world.balance_quality,
            total_blocks=total_blocks,
            rng=np.random.RandomState(seed),
        )
    except OwnSpanMissingError:
        return PetalsCheck(peer_id, view, seed, should_move=False)
    samples.append(math.inf if check.quality is None else check.quality)
    return PetalsCheck(peer_id, view, seed, should_move=check.should_move)


class PetalsLoop:
    """Runs one server as Petals does.

    Args:
        server: The server.
        scenario: The world.
        total_blocks: Blocks of the model.
        queue: Simulated time.
        dht: What it reads.
        draw: Its own source of randomness.
        rebalances: Whether it ever gives up its place; without, only the first choice is made.
        audit: Is told of every check.
    """

    def __init__(
        self,
        server: SimulatedServer,
        scenario: Scenario,
        total_blocks: int,
        *,
        queue: EventQueue,
        dht: Dht,
        draw: Random,
        rebalances: bool,
        audit: Callable[[PetalsCheck], None] | None = None,
    ) -> None:
        self._server = server
        self._world = scenario.petals
        self._shutdown = scenario.loads.shutdown
        self._total_blocks = total_blocks
        self._queue = queue
        self._dht = dht
        self._draw = draw
        self._rebalances = rebalances
        self._audit = audit
        server.on_change = self._server_changed

    def start(self) -> None:
        """Begin: choose blocks, or go on from those that the server has."""
        if self._server.is_serving:
            self._wait_for_check()
        else:
            self._choose_soon()

    def _server_changed(self) -> None:
        if self._server.is_serving:
            self._wait_for_check()
        elif self._server.phase is Phase.IDLE:
            self._choose_soon()

    def _choose_soon(self) -> None:
        # Petals waits so that servers started together do not all choose the same blocks.
        self._queue.after(self._draw.uniform(0.0, 2 * self._world.mean_block_selection_delay), self._choose)

    def _choose(self) -> None:
        if self._server.phase not in (Phase.IDLE, Phase.STOPPING):
            return
        view = self._dht.read(self._draw).servers
        self._server.load(place_like_petals(view, self._server.fate.num_blocks, self._total_blocks))

    def _wait_for_check(self) -> None:
        if self._rebalances:
            wait = self._draw.random() * 2 * self._world.mean_balance_check_period
            self._queue.after(wait, self._check)

    def _check(self) -> None:
        if not self._server.is_serving:
            return
        view = self._dht.read(self._draw).servers
        seed = self._draw.getrandbits(32)
        check = check_like_petals(self._server.peer_id, view, self._world, self._total_blocks, seed)
        if self._audit is not None:
            self._audit(check)
        if not check.should_move:
            self._wait_for_check()
            return
        self._server.stop()
        self._queue.after(self._shutdown, self._choose_soon)
