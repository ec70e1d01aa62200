"""Shadow mode: what sidecars in a dry run would have done together, held against what happened. Pure.

A move that is not made changes nothing, so the same wish comes back at each check: it counts once. What the swarm would have
looked like after the first wish nobody can know; the wishes after it are what followed from the swarm as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from pydantic import BaseModel, ConfigDict

from swarmkeel.balance.decision import Verdict
from swarmkeel.swarm.span import Span

MISSED_CHECKS: Final = 3
"""What was seen counts for so many usual distances between two checks; after that nobody knows."""
SHORTEST_HOLD: Final = 5.0
_SILENT: Final = frozenset({Verdict.INSUFFICIENT_INFORMATION, Verdict.FAILED, Verdict.PAUSED, Verdict.DISABLED})
"""Checks that say nothing on whether a move is wanted: a wish before and after them is one."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class Look:
    """One check of one sidecar.

    Attributes:
        check_id: Its id in the journal.
        at: When it was made; times are seconds since the epoch.
        verdict: What it ended in.
        own_span: What the server served.
        target: Where the server should be; None where it should stay.
        gain_rps: By how much the bottleneck should rise.
        closes_holes: Whether the move was to give blocks a server that have none.
    """

    check_id: str
    at: float
    verdict: Verdict
    own_span: Span | None
    target: Span | None
    gain_rps: float = 0.0
    closes_holes: bool = False


class Point(_Value):
    """How well the swarm was balanced at one moment, by its ONLINE servers."""

    at: float
    bottleneck_rps: float
    bound_rps: float
    uncovered_blocks: int


class Change(_Value):
    """One server that came, went or moved."""

    at: float
    """When that was first seen."""
    peer_id: str
    origin: Span | None
    """Null if it had no blocks that anybody saw."""
    target: Span | None
    """Null if it was seen no more."""


class MoveMade(_Value):
    """A move that a sidecar did make."""

    at: float
    peer_id: str
    origin: Span | None
    target: Span
    step: str
    gain_rps: float | None
    """By how much the bottleneck had risen; null where that was not measured."""


@dataclass(frozen=True)
class Witness:
    """What one sidecar tells of a time.

    Attributes:
        name: Its journal or its address.
        peer_id: The server beside it; None where it did not say.
        looks: Its checks, oldest first.
        points: What it saw of the swarm, oldest first.
        moves: The moves that it made, oldest first.
        servers: Where it saw each ONLINE server, oldest first, whenever that had changed; empty where it does not tell.
    """

    name: str
    peer_id: str | None
    looks: tuple[Look, ...]
    points: tuple[Point, ...]
    moves: tuple[MoveMade, ...] = ()
    servers: tuple[tuple[float, Mapping[str, Span]], ...] = ()


class Wish(_Value):
    """A move that a sidecar in a dry run would have made."""

    source: str
    peer_id: str | None
    check_id: str
    """The first check that wanted it."""
    origin: Span | None
    target: Span
    first_at: float
    last_at: float
    """The last check that wanted it."""
    checks: int
    """Checks that wanted it."""
    gain_rps: float
    """By how much the bottleneck was to rise, by the whole plan, when it was first wanted."""
    closes_holes: bool
    """Whether it was to give blocks a server that had none."""
    seconds: float | None = None
    """How long the move would have taken; null where that is not known."""


class Conflict(_Value):
    """Wishes that could not all have come true."""

    kind: str
    """`same_hole`: several would have gone to the same blocks; `swap`: two would have changed places."""
    target: Span
    peers: tuple[str, ...]
    since: float
    until: float


class Hole(_Value):
    """A time in which blocks had no server."""

    since: float
    until: float
    is_open: bool
    """Whether it was still there when it was last looked at."""
    blocks: int
    """The most blocks without a server."""
    closers: tuple[Wish, ...]
    """Wishes of that time that were to close it."""


class Balance(_Value):
    """The swarm over the time, weighted by how long it was so."""

    observed_seconds: float
    """How long anybody looked; of the rest nothing is known."""
    bottleneck_rps: float | None
    """The mean; null where nobody looked."""
    lowest_rps: float | None
    highest_rps: float | None
    bound_rps: float | None
    hole_seconds: float


class SidecarPart(_Value):
    """What one sidecar contributed."""

    source: str
    peer_id: str | None
    first_at: float | None
    last_at: float | None
    verdicts: dict[str, int]
    """Its checks by verdict."""


class ShadowReport(_Value):
    """What several sidecars would have done together, and what happened."""

    since: float
    until: float
    sidecars: tuple[SidecarPart, ...]
    wishes: tuple[Wish, ...]
    conflicts: tuple[Conflict, ...]
    moves: tuple[MoveMade, ...]
    changes: tuple[Change, ...]
    holes: tuple[Hole, ...]
    balance: Balance


def make_report(witnesses: Sequence[Witness], wishes: Iterable[Wish], *, since: float, until: float) -> ShadowReport:
    """Put together what several sidecars tell of a time.

    Args:
        witnesses: The sidecars.
        wishes: Their wishes, see `find_wishes`.
        since: Beginning of the time, seconds since the epoch.
        until: Its end.
    """
    ordered = tuple(sorted(wishes, key=lambda wish: (wish.first_at, wish.source)))
    stretches = tuple(_stretches(witnesses, hold=hold_seconds(witnesses), until=until))
    return ShadowReport(
        since=since,
        until=until,
        sidecars=tuple(_part(witness) for witness in witnesses),
        wishes=ordered,
        conflicts=tuple(find_conflicts(ordered)),
        moves=tuple(sorted((move for each in witnesses for move in each.moves), key=lambda move: move.at)),
        changes=tuple(find_changes(witnesses)),
        holes=tuple(_holes(stretches, ordered, until=until)),
        balance=_balance(stretches),
    )


def find_wishes(witness: Witness) -> Iterator[Wish]:
    """Give the moves that a sidecar would have made, each once for the checks in a row that wanted it."""
    present: Wish | None = None
    for look in witness.looks:
        if look.verdict in _SILENT:
            continue
        wanted = look.target if look.verdict in (Verdict.WOULD_MOVE, Verdict.HOLDING) else None
        if present is not None and (wanted, look.own_span) == (present.target, present.origin):
            if look.verdict is Verdict.WOULD_MOVE:
                present = present.model_copy(update={"last_at": look.at, "checks": present.checks + 1})
            continue
        if present is not None:
            yield present
            present = None
        if look.verdict is Verdict.WOULD_MOVE and look.target is not None:
            present = Wish(
                source=witness.name,
                peer_id=witness.peer_id,
                check_id=look.check_id,
                origin=look.own_span,
                target=look.target,
                first_at=look.at,
                last_at=look.at,
                checks=1,
                gain_rps=look.gain_rps,
                closes_holes=look.closes_holes,
            )
    if present is not None:
        yield present


def find_conflicts(wishes: Sequence[Wish]) -> Iterator[Conflict]:
    """Give what several wishes of the same time could not have done together."""
    by_target: dict[Span, list[Wish]] = {}
    for wish in wishes:
        if wish.closes_holes:
            by_target.setdefault(wish.target, []).append(wish)
    for target, rivals in by_target.items():
        group: list[Wish] = []
        for wish in sorted(rivals, key=lambda rival: rival.first_at):
            if group and wish.first_at > max(one.last_at for one in group):
                yield from _rivals(target, group)
                group = []
            group.append(wish)
        yield from _rivals(target, group)
    for index, one in enumerate(wishes):
        for other in wishes[index + 1 :]:
            swaps = one.target == other.origin and other.target == one.origin
            if swaps and _name(one) != _name(other) and other.first_at <= one.last_at:
                yield _conflict("swap", one.target, [one, other])


def _rivals(target: Span, wishes: Sequence[Wish]) -> Iterator[Conflict]:
    if len({_name(wish) for wish in wishes}) > 1:
        yield _conflict("same_hole", target, wishes)


def _conflict(kind: str, target: Span, wishes: Sequence[Wish]) -> Conflict:
    return Conflict(
        kind=kind,
        target=target,
        peers=tuple(dict.fromkeys(_name(wish) for wish in wishes)),
        since=min(wish.first_at for wish in wishes),
        until=max(wish.last_at for wish in wishes),
    )


def _name(wish: Wish) -> str:
    return wish.peer_id or wish.source


def find_changes(witnesses: Sequence[Witness]) -> tuple[Change, ...]:
    """Give the servers that came, went or moved.

    A server with a sidecar has moved when it told that sidecar so; that one came or went, and where those without a
    sidecar are, is as the sidecar saw it that tells the most.
    """
    told = {witness.peer_id: witness for witness in witnesses if witness.peer_id is not None and witness.looks}
    best = max(witnesses, key=lambda witness: len(witness.servers), default=None)
    seen = best.servers if best is not None else ()
    changes: list[Change] = []
    for peer_id, witness in told.items():
        spans = [(look.at, look.own_span) for look in witness.looks if look.verdict not in _SILENT]
        changes += [
            Change(at=at, peer_id=peer_id, origin=before, target=after)
            for (_, before), (at, after) in pairwise(spans)
            if before != after and (not seen or (before is not None and after is not None))
        ]
    for (_, before_all), (at, after_all) in pairwise(seen):
        for peer_id in sorted(before_all.keys() | after_all.keys()):
            before, after = before_all.get(peer_id), after_all.get(peer_id)
            came_or_went = before is None or after is None
            if before != after and (came_or_went or peer_id not in told):
                changes.append(Change(at=at, peer_id=peer_id, origin=before, target=after))
    return tuple(sorted(changes, key=lambda change: (change.at, change.peer_id)))


def hold_seconds(witnesses: Iterable[Witness]) -> float:
    """Give how long what a sidecar saw counts."""
    distances = [
        median(later.at - earlier.at for earlier, later in pairwise(witness.points))
        for witness in witnesses
        if len(witness.points) > 1
    ]
    return max(MISSED_CHECKS * max(distances, default=0.0), SHORTEST_HOLD)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A time in which the newest sight of the swarm was the same one."""

    since: float
    until: float
    point: Point

    @property
    def seconds(self) -> float:
        return self.until - self.since


def _stretches(witnesses: Iterable[Witness], *, hold: float, until: float) -> Iterator[_Stretch]:
    points = sorted((point for witness in witnesses for point in witness.points), key=lambda point: point.at)
    for index, point in enumerate(points):
        following = points[index + 1].at if index + 1 < len(points) else until
        end = min(following, point.at + hold, until)
        if end > point.at:
            yield _Stretch(point.at, end, point)


def _holes(stretches: Iterable[_Stretch], wishes: Sequence[Wish], *, until: float) -> Iterator[Hole]:
    found: list[tuple[float, float, int]] = []
    for stretch in stretches:
        if not stretch.point.uncovered_blocks:
            continue
        # Sidecars that look one after the other see a hole open and close at different moments.
        if found and stretch.since - found[-1][1] < SHORTEST_HOLD:
            start, _, blocks = found.pop()
            found.append((start, stretch.until, max(blocks, stretch.point.uncovered_blocks)))
        else:
            found.append((stretch.since, stretch.until, stretch.point.uncovered_blocks))
    for start, end, blocks in found:
        closers = tuple(wish for wish in wishes if wish.closes_holes and wish.first_at <= end and wish.last_at >= start)
        yield Hole(since=start, until=end, is_open=end >= until, blocks=blocks, closers=closers)


def _balance(stretches: Sequence[_Stretch]) -> Balance:
    observed = sum(stretch.seconds for stretch in stretches)
    lowest = highest = bottleneck = bound = None
    if observed > 0:
        lowest = min(stretch.point.bottleneck_rps for stretch in stretches)
        highest = max(stretch.point.bottleneck_rps for stretch in stretches)
        # Weighted before they are added: announced numbers may be as large as numbers get.
        bottleneck = sum(stretch.point.bottleneck_rps * (stretch.seconds / observed) for stretch in stretches)
        bound = sum(stretch.point.bound_rps * (stretch.seconds / observed) for stretch in stretches)
    return Balance(
        observed_seconds=observed,
        bottleneck_rps=bottleneck,
        lowest_rps=lowest,
        highest_rps=highest,
        bound_rps=bound,
        hole_seconds=sum(stretch.seconds for stretch in stretches if stretch.point.uncovered_blocks),
    )


def _part(witness: Witness) -> SidecarPart:
    return SidecarPart(
        source=witness.name,
        peer_id=witness.peer_id,
        first_at=witness.looks[0].at if witness.looks else None,
        last_at=witness.looks[-1].at if witness.looks else None,
        verdicts=dict(sorted(Counter(look.verdict.value for look in witness.looks).items())),
    )
