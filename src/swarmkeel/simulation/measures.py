"""What one run is judged by."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Final

from swarmkeel.simulation.bounds import BoundStep
from swarmkeel.simulation.population import Population
from swarmkeel.simulation.scenario import Scenario
from swarmkeel.simulation.truth import Trace, Truth

SECONDS_PER_DAY: Final = 86_400.0
RECOVERED: Final = 0.9
"""Share of the former ratio at which a swarm counts as back after a failure."""
CURVE_POINTS: Final = 144
_FORMER_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class RunResult:
    """The measures of one run; all over the measured time, without the warm-up.

    Attributes:
        policy: As it was named.
        seed: Of the run.
        blocks: Blocks of the model.
        servers: Servers that the size names.
        ratio: Time-mean of the serving bottleneck over the bound; serving means ONLINE, and what servers truly serve.
            Times at which the servers alive hold fewer blocks than the model has are left out.
        bottleneck_rps: Time-mean of the serving bottleneck.
        bound_rps: Time-mean of the bound.
        uncovered_share: Share of the same time with a block that nobody serves.
        moves: Moves that began.
        moves_per_server_day: The same for each server and day alive.
        unhelpful_share: Share of the moves after which the swarm was no better off than if this move alone had not been
            made, everybody else being where it is going; None without finished moves.
        offline_minutes_per_server_day: Minutes between leaving a place and serving at the next.
        hole_seconds: How long it took to close a hole, in the median; None without holes.
        holes: How many there were.
        recovery_seconds: Time from a failure until the ratio was back at 90 % of its mean over the hour before, in the
            median; the time to the end where it never was; None without failures.
        claims: Claims made.
        claims_lost: Claims withdrawn because others went first, or the gain was gone.
        server_days: Days that servers were alive, together.
        curve: The ratio over time, as time-means of equal pieces.
        uncovered_curve: Share of time with an uncovered block, in the same pieces.
    """

    policy: str
    seed: int
    blocks: int
    servers: int
    ratio: float
    bottleneck_rps: float
    bound_rps: float
    uncovered_share: float
    moves: int
    moves_per_server_day: float
    unhelpful_share: float | None
    offline_minutes_per_server_day: float
    hole_seconds: float | None
    holes: int
    recovery_seconds: float | None
    claims: int
    claims_lost: int
    server_days: float
    curve: tuple[float, ...]
    uncovered_curve: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the result as what `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of time in which nothing changes."""

    begin: float
    end: float
    bottleneck: float
    is_uncovered: bool
    bound: BoundStep

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def ratio(self) -> float:
        return self.bottleneck / self.bound.bound_rps if self.bound.bound_rps else 0.0


def _pieces(trace: Trace, bounds: Sequence[BoundStep], begin: float, end: float) -> Iterator[_Piece]:
    cuts = sorted(
        {begin, end, *(t for t in trace.times if begin < t < end), *(b.since for b in bounds if begin < b.since < end)}
    )
    since = [step.since for step in bounds]
    for left, right in pairwise(cuts):
        index = max(bisect_right(trace.times, left) - 1, 0)
        bound = bounds[max(bisect_right(since, left) - 1, 0)]
        yield _Piece(left, right, trace.bottlenecks[index], trace.uncovered[index] > 0, bound)


def measure_run(
    scenario: Scenario,
    population: Population,
    truth: Truth,
    bounds: Sequence[BoundStep],
    *,
    policy: str,
    seed: int,
    servers: int,
    claims: int,
    claims_lost: int,
) -> RunResult:
    """Put a finished run into numbers."""
    begin, end = scenario.warm_up, scenario.ends_at
    pieces = [piece for piece in _pieces(truth.trace, bounds, begin, end) if piece.bound.is_coverable]
    counted = sum(piece.seconds for piece in pieces) or 1.0
    server_days = (
        sum(max(min(fate.leaves_at, end) - max(fate.arrives_at, begin), 0.0) for fate in population.fates)
        / SECONDS_PER_DAY
    )
    judged = [move.helped for move in truth.moves if move.helped is not None]
    holes = _hole_seconds(pieces)
    recoveries = [
        _recovery_seconds(pieces, scenario.warm_up + failure.at, end)
        for failure in scenario.failures
        if failure.share and failure.at < scenario.duration
    ]
    ratio_curve, uncovered_curve = _curves(pieces, begin, end)
    return RunResult(
        policy=policy,
        seed=seed,
        blocks=population.total_blocks,
        servers=servers,
        ratio=sum(piece.ratio * piece.seconds for piece in pieces) / counted,
        bottleneck_rps=sum(piece.bottleneck * piece.seconds for piece in pieces) / counted,
        bound_rps=sum(piece.bound.bound_rps * piece.seconds for piece in pieces) / counted,
        uncovered_share=sum(piece.seconds for piece in pieces if piece.is_uncovered) / counted,
        moves=len(truth.moves),
        moves_per_server_day=len(truth.moves) / server_days if server_days else 0.0,
        unhelpful_share=judged.count(False) / len(judged) if judged else None,
        offline_minutes_per_server_day=truth.offline_seconds / 60 / server_days if server_days else 0.0,
        hole_seconds=median(holes) if holes else None,
        holes=len(holes),
        recovery_seconds=median(recoveries) if recoveries else None,
        claims=claims,
        claims_lost=claims_lost,
        server_days=server_days,
        curve=ratio_curve,
        uncovered_curve=uncovered_curve,
    )


def _hole_seconds(pieces: Sequence[_Piece]) -> list[float]:
    """Give how long each hole lasted; a time that is not counted ends one, as the end of the run does."""
    lengths: list[float] = []
    open_since: float | None = None
    last_end = 0.0
    for piece in pieces:
        if open_since is not None and (not piece.is_uncovered or piece.begin != last_end):
            lengths.append(last_end - open_since)
            open_since = None
        if piece.is_uncovered and open_since is None:
            open_since = piece.begin
        last_end = piece.end
    if open_since is not None:
        lengths.append(last_end - open_since)
    return lengths


def _recovery_seconds(pieces: Sequence[_Piece], failed_at: float, end: float) -> float:
    before = [(p.ratio, min(p.end, failed_at) - max(p.begin, failed_at - _FORMER_SECONDS)) for p in pieces]
    before = [(ratio, seconds) for ratio, seconds in before if seconds > 0]
    seconds = sum(seconds for _, seconds in before)
    former = sum(ratio * seconds for ratio, seconds in before) / seconds if seconds else 0.0
    for piece in pieces:
        if piece.begin >= failed_at and piece.ratio >= RECOVERED * former:
            return piece.begin - failed_at
    return end - failed_at


def _curves(pieces: Sequence[_Piece], begin: float, end: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    step = (end - begin) / CURVE_POINTS
    ratio, uncovered, seconds = [0.0] * CURVE_POINTS, [0.0] * CURVE_POINTS, [0.0] * CURVE_POINTS
    for piece in pieces:
        first = int((piece.begin - begin) / step)
        for index in range(first, CURVE_POINTS):
            left, right = begin + index * step, begin + (index + 1) * step
            if left >= piece.end:
                break
            overlap = max(min(right, piece.end) - max(left, piece.begin), 0.0)
            seconds[index] += overlap
            ratio[index] += overlap * piece.ratio
            uncovered[index] += overlap * piece.is_uncovered
    return (
        tuple(value / time if time else 0.0 for value, time in zip(ratio, seconds, strict=True)),
        tuple(value / time if time else 0.0 for value, time in zip(uncovered, seconds, strict=True)),
    )
