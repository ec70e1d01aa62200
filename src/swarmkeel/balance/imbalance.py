"""Whether a server should leave its blocks for others: Petals' imbalance check, with its randomness as a parameter.

The search for a steady placement is written twice: here with numpy, and in `kernel.c`, which is some twenty times as fast.
Both give the same bits; where the compiled one is not installed, or a swarm is not for it, this one goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.selection import find_best_start
from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import ModuleServers, Peer, RemoteSpanInfo, compute_spans, peer_text

compiled: Callable[..., int] | None
try:
    from swarmkeel.balance._kernel import move_in_turn
except ImportError:  # installed where there was no compiler
    compiled = None
else:
    compiled = move_in_turn

EPSILON: Final = 1e-3
"""Petals' one tolerance: in RPS for "covered at all", as a share of a server's own throughput for "its place is as
good", and in balance quality for "below the limit"."""

MAX_ROUNDS: Final = 200
"""Rounds after which the search for a steady placement is given up.

Nothing proves that Petals' search ends: where throughputs differ by many orders of magnitude, rounding moves servers
about for thousands of rounds. In random swarms of up to 1,000 servers and 126 blocks that announce 0.001 to 1,000,000
RPS it ended after 2 to 4 rounds as a rule and after 30 at most (`benchmarks/search_rounds.py`); 200 leave room, and
end the check of such a swarm after about a second.
"""


_LARGEST_SUM: Final = 1e300
"""RPS of a whole swarm up to which no sum of it overflows; infinities and what follows from them are numpy's business."""


class OwnSpanMissingError(SwarmkeelError, AssertionError):
    """The server to decide about is not in the records; Petals fails an assertion there."""

    def __init__(self, peer_id: object) -> None:
        super().__init__(
            f"no JOINING or ONLINE record of server {peer_text(peer_id)} is among the swarm's records",
            "read the DHT again after the server has announced its blocks",
        )


class ImbalanceReason(StrEnum):
    """Why an imbalance check ended as it did; each is a name of `balance.reasons.SENTENCES`."""

    FORCED = "forced"
    """A balance quality over 1 forces a move."""
    LEAVING_UNCOVERS_BLOCK = "leaving_uncovers_block"
    """Some block has no other server."""
    ALREADY_AT_BEST_PLACE = "already_at_best_place"
    """The server's own best place is the one that it has."""
    NO_STEADY_PLACEMENT = "no_steady_placement"
    """The search for a steady placement did not end within `MAX_ROUNDS`."""
    NO_GAIN = "no_gain"
    """The steady placement is no better than the present one, or leaves a block uncovered."""
    GAIN_TOO_SMALL = "gain_too_small"
    """The present bottleneck is close enough to the one of the steady placement."""
    IMBALANCE = "imbalance"
    """The present bottleneck is too far below the one of the steady placement."""


@dataclass(frozen=True, slots=True)
class ImbalanceCheck:
    """Outcome of one imbalance check.

    Attributes:
        reason: Why it ended as it did.
        initial_rps: The present bottleneck; None where the check was not made because the move is forced.
        reached_rps: The bottleneck once all servers had moved in turn; None where the check ended before that.
        rounds: Rounds in which all servers moved in turn, the last of which moved none.
        uncovered_block: The first block that would be without a server, counted from the first block read.
    """

    reason: ImbalanceReason
    initial_rps: float | None = None
    reached_rps: float | None = None
    rounds: int = 0
    uncovered_block: int | None = None

    @property
    def should_move(self) -> bool:
        """Petals' answer."""
        return self.reason in (ImbalanceReason.FORCED, ImbalanceReason.IMBALANCE)

    @property
    def quality(self) -> float | None:
        """The present bottleneck as a share of the one that was reached; None where that is not known or 0."""
        if self.initial_rps is None or not self.reached_rps:
            return None
        return self.initial_rps / self.reached_rps


class _Placement:
    """Where one server stands during the search; takes its throughput out of the blocks and puts it in.

    What is taken out is larger than what the server brings by EPSILON of it, and the surplus is given back at once: so
    float noise causes no moves and, among nearly equal places, the present one wins.
    """

    __slots__ = ("_blocks", "_share", "_surplus", "_throughputs", "_with_surplus", "length", "start")

    def __init__(self, span: RemoteSpanInfo[Peer], throughputs: NDArray[np.float64]) -> None:
        self.start = span.start
        self.length = span.length
        self._throughputs = throughputs
        self._blocks = throughputs[span.start : span.end]
        # Arrays without axes, since numpy converts a float anew at every addition.
        self._share = np.array(span.throughput)
        self._surplus = np.array(span.throughput * EPSILON)
        self._with_surplus = np.array(span.throughput * (1 + EPSILON))

    def take_out(self) -> None:
        np.subtract(self._blocks, self._with_surplus, self._blocks)

    def put_in(self, start: int) -> bool:
        """Give the surplus back and put the server to `start`; says whether that is another place."""
        np.add(self._blocks, self._surplus, self._blocks)
        moved = start != self.start
        if moved:
            self.start = start
            self._blocks = self._throughputs[start : start + self.length]
        np.add(self._blocks, self._share, self._blocks)
        return moved


class _Placements:
    """All servers during the search."""

    def __init__(self, spans: Sequence[RemoteSpanInfo[Peer]], throughputs: NDArray[np.float64]) -> None:
        self._placements = [_Placement(span, throughputs) for span in spans]
        self._throughputs = throughputs

    def move_in_turn(self, order: NDArray[np.int64]) -> bool:
        """Let all take their best places in this order; says whether any has moved."""
        moved = False
        for index in order.tolist():
            placement = self._placements[index]
            placement.take_out()
            if placement.put_in(find_best_start(self._throughputs, placement.length)):
                moved = True
        return moved


def _is_for_kernel(spans: Sequence[RemoteSpanInfo[Peer]], total_blocks: int) -> bool:
    """Whether all spans are within the blocks, as those of hostile records need not be, and no sum can overflow."""
    within = all(0 <= span.start < span.end <= total_blocks for span in spans)
    return within and sum(span.throughput for span in spans) < _LARGEST_SUM


class _CompiledPlacements:
    """The same by the kernel, for swarms that are for it."""

    def __init__(
        self, move: Callable[..., int], spans: Sequence[RemoteSpanInfo[Peer]], throughputs: NDArray[np.float64]
    ) -> None:
        self._move = move
        self._throughputs = throughputs
        self._shares = np.fromiter((span.throughput for span in spans), np.float64)
        self._starts = np.fromiter((span.start for span in spans), np.int64)
        self._lengths = np.fromiter((span.length for span in spans), np.int64)

    def move_in_turn(self, order: NDArray[np.int64]) -> bool:
        """See `_Placements.move_in_turn`."""
        return self._move(self._throughputs, self._starts, self._lengths, self._shares, order, EPSILON) > 0


def _place(
    spans: Sequence[RemoteSpanInfo[Peer]], throughputs: NDArray[np.float64]
) -> _Placements | _CompiledPlacements:
    if compiled is not None and _is_for_kernel(spans, len(throughputs)):
        return _CompiledPlacements(compiled, spans, throughputs)
    return _Placements(spans, throughputs)


def _settle(
    spans: Sequence[RemoteSpanInfo[Peer]], throughputs: NDArray[np.float64], rng: np.random.RandomState
) -> int | None:
    """Let all servers take their best places in turn, until a whole round moves nobody.

    Returns:
        The number of rounds; None where the bound on them was hit.
    """
    placements = _place(spans, throughputs)
    for rounds in range(1, MAX_ROUNDS + 1):
        order = np.arange(len(spans))
        rng.shuffle(order)  # draws as Petals does when it shuffles the list of peer ids
        if not placements.move_in_turn(order):
            return rounds
    return None


def check_imbalance(
    local_peer_id: Peer,
    spans: Mapping[Peer, RemoteSpanInfo[Peer]],
    balance_quality: float,
    *,
    total_blocks: int,
    rng: np.random.RandomState,
) -> ImbalanceCheck:
    """Check whether the bottleneck would rise enough if this server, and then all others, took better places.

    This is Petals' `should_choose_other_blocks` (src/petals/server/block_selection.py), bit for bit, but for the bound
    on its rounds.

    Args:
        local_peer_id: The server to decide about.
        spans: The servers' spans in the order of `compute_spans`, which the shuffling starts from.
        balance_quality: Move if the bottleneck is below this share of what can be reached; over 1 always move.
        total_blocks: Number of blocks that were read.
        rng: Shuffles the servers before each round.

    Raises:
        OwnSpanMissingError: If the server has no span.
    """
    if balance_quality > 1.0:
        return ImbalanceCheck(ImbalanceReason.FORCED)
    if local_peer_id not in spans:
        raise OwnSpanMissingError(local_peer_id)
    with np.errstate(over="ignore", invalid="ignore"):  # hostile throughputs may add up to infinity
        return _search(local_peer_id, spans, balance_quality, total_blocks, rng)


def _search(
    local_peer_id: Peer,
    spans: Mapping[Peer, RemoteSpanInfo[Peer]],
    balance_quality: float,
    total_blocks: int,
    rng: np.random.RandomState,
) -> ImbalanceCheck:
    throughputs = compute_throughputs(spans, total_blocks=total_blocks)
    initial = float(throughputs.min())
    own_span = spans[local_peer_id]
    own = _Placement(own_span, throughputs)
    own.take_out()
    if initial > EPSILON and throughputs.min() <= 0:
        uncovered = int(np.argmax(throughputs <= 0))
        return ImbalanceCheck(ImbalanceReason.LEAVING_UNCOVERS_BLOCK, initial, uncovered_block=uncovered)
    if not own.put_in(find_best_start(throughputs, own.length)):
        return ImbalanceCheck(ImbalanceReason.ALREADY_AT_BEST_PLACE, initial)

    moved = replace(own_span, start=own.start, end=own.start + own.length)
    rounds = _settle([*{**spans, local_peer_id: moved}.values()], throughputs, rng)
    if rounds is None:
        return ImbalanceCheck(ImbalanceReason.NO_STEADY_PLACEMENT, initial, rounds=MAX_ROUNDS)
    reached = float(throughputs.min())
    if reached < initial or reached < EPSILON:
        reason = ImbalanceReason.NO_GAIN
    elif initial / reached < balance_quality - EPSILON:
        reason = ImbalanceReason.IMBALANCE
    else:
        reason = ImbalanceReason.GAIN_TOO_SMALL
    return ImbalanceCheck(reason, initial, reached, rounds)


def should_choose_other_blocks(
    local_peer_id: Peer,
    module_infos: Sequence[ModuleServers[Peer]],
    balance_quality: float,
    *,
    rng: np.random.RandomState | None = None,
) -> bool:
    """Say whether a server should choose other blocks (Petals' `should_choose_other_blocks`).

    Args:
        local_peer_id: The server to decide about, as it is named in the records.
        module_infos: The blocks read, in order, without gaps.
        balance_quality: Move if the bottleneck is below this share of what can be reached; over 1 always move.
        rng: Shuffles the servers. `RandomState(seed)` gives what Petals gives after `numpy.random.seed(seed)`; without
            one a fresh generator is taken. numpy's global generator is never touched.

    Returns:
        Petals' answer; False where its search would go on for more than `MAX_ROUNDS` rounds.

    Raises:
        OwnSpanMissingError: If the server has no JOINING or ONLINE record; it is an AssertionError, as in Petals.
    """
    return check_imbalance(
        local_peer_id,
        compute_spans(module_infos, min_state=ServerState.JOINING),
        balance_quality,
        total_blocks=len(module_infos),
        rng=np.random.RandomState() if rng is None else rng,
    ).should_move
