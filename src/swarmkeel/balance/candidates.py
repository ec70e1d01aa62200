"""Every single move that could be made next, rated: the best few of what may be millions of places.

A place is rated by the soft minimum of the coverage that it leads to. That takes a pass over all blocks for every server
and every number of blocks that it can hold; in a large swarm most of them are passed over, since the best that they could
do at all, which is quickly known, is less than what others are known to do. What is found is the same as if all had been
rated. Pure, and the same bits anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from swarmkeel.balance.coverage import SoftMinimum, combine_windows
from swarmkeel.balance.plan_server import PlanServer

_Array = NDArray[np.float64]
_Indices = NDArray[np.int_]

DWELL_SECONDS: Final = 3600.0
"""What a server's outage costs is spread over this time: so long, about, does a placement last in a swarm that lives."""
NOTHING: Final = 1e-9
"""Coverage below this share of the mean is what rounding left of nothing."""
_FIRST: Final = 64
_AT_ONCE: Final = 512
"""Servers, each with one number of blocks, that are rated first and at most at once; more would not fit a cache."""
_WORTH_BOUNDING: Final = 4
"""Bounds are looked for where there are so many times as many options as throughputs to look at."""
_LENGTHS: Final = 8
_LEVELS: Final = 16
"""Numbers of blocks, and throughputs for each, for which it is found out what a server could do at best."""
_ROUNDING: Final = 1e-9
"""By so much may a bound be too low, as its sums are rounded in another way."""


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A state that moves are made from; coverage in units of its mean.

    Attributes:
        coverage: By block when all is done, shape (total_blocks,).
        serving: By block while all movers load, shape (total_blocks,).
        cost: Of the moves made so far.
        moved: Rows of the movers that have been moved.
    """

    coverage: _Array
    serving: _Array
    cost: float
    moved: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pricing:
    """What moves cost, and which are not to be looked at.

    Attributes:
        move_cost: Of every move, beside what its outage costs.
        haste: What an hour until a mover serves again counts for, when moves are compared.
        may_uncover: Whether a move may leave a block without a server that has one.
        within_seconds: No move is looked at whose server would serve again later than this.
    """

    move_cost: float
    haste: float
    may_uncover: bool
    within_seconds: float

    @property
    def asks_when(self) -> bool:
        """Whether it matters when a mover serves again."""
        return self.haste != 0 or self.within_seconds < math.inf


@dataclass(frozen=True, slots=True)
class Candidate:
    """One move.

    Attributes:
        origin: Which of the starts it is made from.
        row: Which of the movers moves.
        start: The first block of its target.
        length: How many blocks that has.
        throughput: What it will serve there.
        cost: Of all moves, with this one.
        score: How good the state is that it leads to, after costs.
    """

    origin: int
    row: int
    start: int
    length: int
    throughput: float
    cost: float
    score: float


class Movers:
    """The servers that may be moved, as arrays; m of them.

    Args:
        servers: They.
        total_blocks: Number of blocks of the model.
        unit: Requests a second that are counted as 1.

    Attributes:
        throughputs: What each serves, shape (m,); this and what follows.
        load_seconds: How long a move takes it out of service.
        fetch_seconds: How long it takes before that to fetch a whole span.
        starts: Its first block.
        ends: The block after its last one.
    """

    def __init__(self, servers: Sequence[PlanServer], total_blocks: int, unit: float) -> None:
        self.throughputs: _Array = np.array([server.throughput / unit for server in servers])
        self.load_seconds: _Array = np.array([server.load_seconds for server in servers])
        self.fetch_seconds: _Array = np.array([server.fetch_seconds for server in servers])
        self.starts = np.array([server.final.start for server in servers], dtype=int)
        self.ends = np.array([server.final.end for server in servers], dtype=int)
        options = sorted(
            (length, row, throughput / unit)
            for row, server in enumerate(servers)
            for length, throughput in ((len(server.final), server.throughput), *server.shapes)
            if 0 < length <= total_blocks
        )
        # One entry for each number of blocks that each can hold, by that number.
        self.option_length = np.array([length for length, _, _ in options], dtype=int)
        self.option_row = np.array([row for _, row, _ in options], dtype=int)
        self.option_throughput: _Array = np.array([throughput for _, _, throughput in options])


def best_candidates(
    movers: Movers, starts: Sequence[Start], soft: SoftMinimum, pricing: Pricing, *, enough: int
) -> list[Candidate]:
    """Give the best moves from any of some states, best first; ties by server, place and length.

    Args:
        movers: The servers that may be moved.
        starts: The states, at least one.
        soft: Rates coverages.
        pricing: What moves cost, and which are allowed.
        enough: How many are wanted, at least 1; fewer if there are no more.
    """
    rating = _Rating(movers, starts, soft, pricing)
    found = _Best(movers, enough)
    for states, options in rating.in_batches(found):
        rating.rate(states, options, found)
    return found.candidates(rating.costs)


def departures(movers: Movers, starts: Sequence[Start], pricing: Pricing) -> tuple[NDArray[np.bool_], _Array]:
    """Give which movers may leave their places, and what all moves cost then, with that of each; shapes (states, m).

    Args:
        movers: The servers that may be moved.
        starts: The states, at least one.
        pricing: What moves cost, and which are allowed.
    """
    serving = np.array([start.serving for start in starts])
    allowed = np.ones((len(starts), len(movers.starts)), dtype=bool)
    for number, start in enumerate(starts):
        allowed[number, list(start.moved)] = False
    # Subtraction rounds the same way for every block, so that the least of the differences is that of the least.
    left = _least_within(serving, movers.starts, movers.ends) - movers.throughputs
    if not pricing.may_uncover:
        served = np.where(serving > NOTHING, serving, np.inf)
        allowed &= _least_within(served, movers.starts, movers.ends) - movers.throughputs > NOTHING
    serving_now = np.maximum(serving.min(axis=1), 0.0)
    lost = np.maximum(serving_now[:, None] - left, 0.0)
    costs = np.array([[start.cost] for start in starts]) + pricing.move_cost
    return allowed, costs + lost * movers.load_seconds / DWELL_SECONDS


class _Best:
    """The best moves found so far.

    Args:
        movers: Whose moves they are.
        enough: How many are kept.

    Attributes:
        enough: As above.
        threshold: The least score that one has to have to be among them.
    """

    def __init__(self, movers: Movers, enough: int) -> None:
        self._movers = movers
        self.enough = enough
        self.threshold = -math.inf
        self._scores: _Array = np.empty(0)
        self._places: _Indices = np.empty((0, 3), dtype=int)  # state, option, start

    def add(self, scores: _Array, states: _Indices, options: _Indices) -> None:
        """Take in what was found: scores by row and first block, for these states and options; -inf is no move."""
        rows, starts = np.nonzero(scores >= self.least_of_interest(scores.max(axis=1)))
        merged = np.concatenate([self._scores, scores[rows, starts]])
        places = np.concatenate([self._places, np.stack([states[rows], options[rows], starts], axis=1)])
        states, options, starts = places.T
        rows, lengths = self._movers.option_row[options], self._movers.option_length[options]
        order = np.lexsort((states, options, lengths, starts, rows, -merged))[: self.enough]
        self._scores, self._places = merged[order], places[order]
        if len(order) == self.enough:
            self.threshold = float(self._scores[-1])

    def least_of_interest(self, best: _Array) -> float:
        """Give a score below which nothing is among the best: `best` are the scores of some moves of different rows."""
        return max(self.threshold, -math.inf if len(best) < self.enough else float(np.sort(best)[-self.enough]))

    def candidates(self, costs: _Array) -> list[Candidate]:
        """Give what was found, best first; `costs` as `_Rating.costs`."""
        movers = self._movers
        return [
            Candidate(
                state,
                row,
                start,
                int(movers.option_length[option]),
                float(movers.option_throughput[option]),
                float(costs[state, row]),
                score,
            )
            for (state, option, start), score in zip(self._places.tolist(), self._scores.tolist(), strict=True)
            for row in [int(movers.option_row[option])]
            if score > -math.inf
        ]


@dataclass(frozen=True, slots=True, eq=False)
class _Levels:
    """A few servers of which one serves as much or more than any option, on as many blocks or more.

    Attributes:
        throughputs: What they serve.
        lengths: On how many blocks, ascending; of the same shape.
        above: For each option that one of them.
    """

    throughputs: _Array
    lengths: _Indices
    above: _Indices

    @classmethod
    def of(cls, movers: Movers) -> _Levels:
        """Choose the levels."""
        throughputs: list[_Array] = []
        lengths: list[_Indices] = []
        above = np.empty(len(movers.option_row), dtype=int)
        done = 0
        options = len(movers.option_row)
        ends = np.array([end for _, end in _runs(movers.option_length)])
        ends = np.unique(ends[np.searchsorted(ends, np.arange(1, _LENGTHS + 1) * options / _LENGTHS)])
        for begin, end in pairwise([0, *ends.tolist()]):
            levels = np.unique(movers.option_throughput[begin:end])
            if len(levels) > _LEVELS:
                levels = levels[np.arange(1, _LEVELS + 1) * len(levels) // _LEVELS - 1]
            above[begin:end] = done + np.searchsorted(levels, movers.option_throughput[begin:end])
            lengths.append(np.full(len(levels), movers.option_length[end - 1]))
            throughputs.append(levels)
            done += len(levels)
        return cls(np.concatenate(throughputs), np.concatenate(lengths), above)


class _Rating:
    """The rating of all moves from some states; throughputs and coverage in units of the mean coverage.

    Attributes:
        costs: Of all moves with that of each mover, shape (states, m).
    """

    def __init__(self, movers: Movers, starts: Sequence[Start], soft: SoftMinimum, pricing: Pricing) -> None:
        self._movers, self._soft, self._pricing = movers, soft, pricing
        self._coverage = np.array([start.coverage for start in starts])
        allowed, self.costs = departures(movers, starts, pricing)
        # One entry for each state and each server that can have a length and may move, by length.
        options, states = np.nonzero(allowed[:, movers.option_row].T)
        self._states, self._options = states, options

    def in_batches(self, found: _Best) -> Iterator[tuple[_Indices, _Indices]]:
        """Give all states and options that may be among the best, those first that may be the very best."""
        states, options = self._states, self._options
        if len(options) == 0:
            return
        levels = _Levels.of(self._movers)
        if len(options) <= _WORTH_BOUNDING * len(levels.throughputs) * len(self._coverage):
            # To find out which of so few may be the best would take as long as to rate all of them.
            for begin in range(0, len(options), _AT_ONCE):
                yield states[begin : begin + _AT_ONCE], options[begin : begin + _AT_ONCE]
            return
        bounds = self._bounds(levels)
        order = np.argsort(-bounds, kind="stable")
        begin, size = 0, _FIRST
        while begin < len(order) and bounds[order[begin]] >= found.threshold:
            batch = np.sort(order[begin : begin + size])
            yield states[batch], options[batch]
            begin, size = begin + size, min(2 * size, _AT_ONCE)

    def _bounds(self, levels: _Levels) -> _Array:
        """Give for each state and option a score that none of its places can exceed.

        Nothing is better for a server being taken from where it is, nor for its serving less, or fewer blocks: the best that
        one could do is at most what one that serves as much or more on as many or more could do that came from outside.
        """
        movers, pricing, number = self._movers, self._pricing, len(self._coverage)
        coverage = np.tile(self._coverage, (len(levels.throughputs), 1))
        sums = self._sums(coverage, np.repeat(levels.throughputs, number), np.repeat(levels.lengths, number))
        by_level = self._soft.of_sums(sums.min(axis=1), coverage.shape[1]).reshape(-1, number)
        rows = movers.option_row[self._options]
        bounds: _Array = by_level[levels.above[self._options], self._states] - self.costs[self._states, rows]
        if pricing.asks_when:
            bounds -= pricing.haste * movers.load_seconds[rows] / DWELL_SECONDS
            bounds[movers.load_seconds[rows] > pricing.within_seconds] = -np.inf
        bounds += _ROUNDING
        return bounds

    def rate(self, states: _Indices, options: _Indices, found: _Best) -> None:
        """Rate every place of some states and options; these are ordered by their length."""
        movers, pricing = self._movers, self._pricing
        rows, lengths = movers.option_row[options], movers.option_length[options]
        coverage = self._coverage[states]
        blocks = np.arange(coverage.shape[1])
        starts, ends = movers.starts[rows], movers.ends[rows]
        here = (blocks >= starts[:, None]) & (blocks < ends[:, None])
        # What is left of a block after its only server is gone is nothing, whatever rounding says.
        without = np.maximum(coverage - here * movers.throughputs[rows][:, None], 0.0)
        costs = self.costs[states, rows]
        sums = self._sums(without, movers.option_throughput[options], lengths)
        stays = ends - starts == lengths
        sums[np.nonzero(stays)[0], starts[stays]] = np.inf
        if not pricing.asks_when:
            # The roots of most rows need not be taken: how good their best place is is known before.
            best = self._soft.of_sums(sums.min(axis=1), len(blocks)) - costs
            (chosen,) = np.nonzero(best >= found.least_of_interest(best))
            states, options, rows, sums, costs = (
                states[chosen],
                options[chosen],
                rows[chosen],
                sums[chosen],
                costs[chosen],
            )
        scores = self._soft.of_sums(sums, len(blocks)) - costs[:, None]
        scores[np.isinf(sums)] = -np.inf
        if pricing.asks_when:
            arrivals = self._arrivals(rows, movers.option_length[options], len(blocks))
            scores -= pricing.haste * arrivals / DWELL_SECONDS
            scores[arrivals > pricing.within_seconds] = -np.inf
        found.add(scores, states, options)

    def _sums(self, without: _Array, incoming: _Array, lengths: _Indices) -> _Array:
        """Give the sums of the soft minimum's terms for every row of a coverage and every place of a window.

        Terms are only ever added: over a hole they are so large that a difference of sums would keep nothing else.

        Args:
            without: Coverage without the server that is placed, shape (n, total_blocks).
            incoming: What it brings to its window, shape (n,).
            lengths: Of the window, shape (n,), ascending.

        Returns:
            By row and first block, shape (n, total_blocks); infinite where the window would end past the last block.
        """
        total_blocks = without.shape[1]
        outside, inside = self._soft.terms(without), self._soft.terms(without + incoming[:, None])
        before, after = np.zeros((len(without), total_blocks + 1)), np.zeros((len(without), total_blocks + 1))
        np.cumsum(outside, axis=1, out=before[:, 1:])
        np.cumsum(outside[:, ::-1], axis=1, out=after[:, 1:])
        after = after[:, ::-1]  # the sum from each block on
        sums = np.full_like(without, np.inf)
        for begin, end in _runs(lengths):
            length = int(lengths[begin])
            windows = slice(0, total_blocks - length + 1)
            within = combine_windows(inside[begin:end], length, np.add)
            sums[begin:end, windows] = before[begin:end, windows] + within + after[begin:end, length:]
        return sums

    def _arrivals(self, rows: _Indices, lengths: _Indices, windows: int) -> _Array:
        """Give when each would serve from each start on, see `PlanServer.seconds_to`; shape (rows, windows)."""
        starts, lengths = np.arange(windows), lengths[:, None]
        ends, begins = self._movers.ends[rows][:, None], self._movers.starts[rows][:, None]
        shared = np.maximum(np.minimum(starts + lengths, ends) - np.maximum(starts, begins), 0)
        missing = (lengths - shared) / lengths
        arrivals: _Array = (
            self._movers.load_seconds[rows][:, None] + self._movers.fetch_seconds[rows][:, None] * missing
        )
        return arrivals


def _runs(values: _Indices) -> Iterator[tuple[int, int]]:
    """Give where each run of equal values begins and ends."""
    edges = [0, *(np.nonzero(np.diff(values))[0] + 1).tolist(), len(values)]
    return ((begin, end) for begin, end in pairwise(edges) if begin < end)


def _least_within(values: _Array, starts: _Indices, ends: _Indices) -> _Array:
    """Give the least value of each row within each span, of which none is empty; shape (rows, spans)."""
    powers = [values]
    while (reach := 1 << len(powers)) <= values.shape[1]:
        powers.append(np.minimum(powers[-1][:, : -reach // 2], powers[-1][:, reach // 2 :]))
    least = np.empty((len(values), len(starts)))
    exponents = np.frexp(ends - starts)[1] - 1  # the largest power of two within each span
    for exponent, power in enumerate(powers):
        (spans,) = np.nonzero(exponents == exponent)
        least[:, spans] = np.minimum(power[:, starts[spans]], power[:, ends[spans] - (1 << exponent)])
    return least
