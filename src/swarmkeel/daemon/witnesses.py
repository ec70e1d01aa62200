"""What sidecars tell of a time, for `daemon.shadow`: read from their journals, or from the sidecars that run."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlencode, urlsplit

from pydantic import BaseModel, ValidationError

from swarmkeel.balance.decision import Decision
from swarmkeel.daemon.journal import Journal
from swarmkeel.daemon.move import Move
from swarmkeel.daemon.queries import MAX_LISTED
from swarmkeel.daemon.shadow import Look, MoveMade, Point, Wish, Witness, find_wishes
from swarmkeel.daemon.state import view_swarm
from swarmkeel.daemon.status import CheckInfo, Checks, DaemonStatus, Moves, Timeline
from swarmkeel.errors import SwarmkeelError
from swarmkeel.printable import printable
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.snapshot import SwarmSnapshot
from swarmkeel.swarm.span import Span

ANSWER_SECONDS: Final = 20.0
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024

_Answer = TypeVar("_Answer", bound=BaseModel)


class SourceError(SwarmkeelError):
    """A sidecar's journal or address tells nothing."""


def read_source(source: str, *, since: float, until: float) -> tuple[Witness, tuple[Wish, ...]]:
    """Read what a sidecar tells of a time, and what it would have done.

    Args:
        source: A journal's file, or the address of a running sidecar such as `http://10.0.0.7:9476`.
        since: Beginning of the time, seconds since the epoch.
        until: Its end.

    Raises:
        SwarmkeelError: If it cannot be read.
    """
    if source.startswith(("http://", "https://")):
        return _read_address(source, since=since, until=until)
    path = Path(source)
    if not path.is_file():
        raise SourceError(f"there is no journal at {source}", "name a journal's file, or a sidecar as http://HOST:PORT")
    with Journal(path, read_only=True) as journal:
        return _read_journal(source, journal, since=since, until=until)


def _read_journal(name: str, journal: Journal, *, since: float, until: float) -> tuple[Witness, tuple[Wish, ...]]:
    looks: list[Look] = []
    points: list[Point] = []
    servers: list[tuple[float, Mapping[str, Span]]] = []
    peers: Counter[str] = Counter()
    seen: dict[str, tuple[Point, Mapping[str, Span]] | None] = {}
    for record in reversed(journal.checks(limit=-1, since=since, before=until)):
        at, decision = record.at, record.decision
        peers.update([decision.peer_id] if decision.peer_id else [])
        looks.append(_look(record.check_id, at, decision))
        digest = decision.snapshot_digest
        if digest and digest not in seen:
            snapshot = journal.snapshot(digest)
            seen[digest] = None if snapshot is None else _see(snapshot)
        sight = seen.get(digest)
        if any(reason.name == "keys_unanswered" for reason in decision.reasons):
            continue  # nobody knows how a swarm does that could not be read
        if sight is not None:
            points.append(sight[0].model_copy(update={"at": at}))
            if not servers or servers[-1][1] != sight[1]:
                servers.append((at, sight[1]))
        elif decision.before is not None:
            points.append(Point(at=at, **decision.before.model_dump()))
    witness = Witness(
        name=name,
        peer_id=max(peers, key=lambda peer: peers[peer], default=None),
        looks=tuple(looks),
        points=tuple(points),
        moves=tuple(_made(move) for move in journal.moves(limit=-1, since=since, before=until)),
        servers=tuple(servers),
    )
    return witness, tuple(_with_duration(journal, wish) for wish in find_wishes(witness))


def _see(snapshot: SwarmSnapshot) -> tuple[Point, Mapping[str, Span]]:
    view = view_swarm(snapshot)
    first = snapshot.first_block
    point = Point(
        at=0.0,
        bottleneck_rps=view.numbers.bottleneck_rps,
        bound_rps=view.numbers.bound_rps,
        uncovered_blocks=len(view.uncovered_blocks),
    )
    online = snapshot.spans(ServerState.ONLINE)
    return point, {
        peer: Span(max(span.start, 0) + first, span.end + first)
        for peer, span in online.items()
        if max(span.start, 0) < span.end
    }


def _with_duration(journal: Journal, wish: Wish) -> Wish:
    record = journal.check(wish.check_id)
    if record is None or record.inputs is None:
        return wish
    return wish.model_copy(update={"seconds": record.inputs.situation.own.seconds_to(wish.target)})


def _look(check_id: str, at: float, ended_in: Decision | CheckInfo) -> Look:
    before, after, target = ended_in.before, ended_in.after, ended_in.target
    gain, closes = 0.0, any(reason.name == "closes_holes_sooner" for reason in ended_in.reasons)
    if before is not None and after is not None:
        gain = after.bottleneck_rps - before.bottleneck_rps
        closes |= after.uncovered_blocks < before.uncovered_blocks
    return Look(
        check_id, at, ended_in.verdict, ended_in.own_span, target, gain, closes_holes=closes and target is not None
    )


def _made(move: Move) -> MoveMade:
    return MoveMade(
        at=move.started_at,
        peer_id=move.peer_id,
        origin=move.origin,
        target=move.target,
        step=move.step.value,
        gain_rps=move.realised_gain_rps,
    )


def _read_address(source: str, *, since: float, until: float) -> tuple[Witness, tuple[Wish, ...]]:
    address = urlsplit(source)
    status = _get(address, "status", DaemonStatus)
    peer_id = status.server.peer_id if status.server is not None else None
    checks: list[CheckInfo] = []
    before = until
    while True:
        page = _get(address, "checks", Checks, limit=MAX_LISTED, before=before).checks
        checks += (check for check in page if check.at >= since)
        # One that tells the same again and again must not keep us for ever.
        if not page or page[-1].at < since or page[-1].at >= before:
            break
        before = page[-1].at
    checks.sort(key=lambda check: check.at)
    points = [
        Point(**point.model_dump())
        for point in _get(address, "timeline", Timeline, since=since).points
        if since <= point.at < until
    ]
    # A sidecar remembers the swarm's balance for a while only; before that its decisions tell.
    known_from = min((point.at for point in points), default=until)
    points += (
        Point(at=check.at, **check.before.model_dump(exclude={"balance_ratio"}))
        for check in checks
        if check.before is not None and check.at < known_from
    )
    moves = _get(address, "moves", Moves, limit=MAX_LISTED).moves
    witness = Witness(
        name=source,
        peer_id=peer_id,
        looks=tuple(_look(check.check_id, check.at, check) for check in checks),
        points=tuple(sorted(points, key=lambda point: point.at)),
        moves=tuple(
            MoveMade(
                at=move.started_at,
                peer_id=peer_id or source,
                origin=move.origin,
                target=move.target,
                step=move.step.value,
                gain_rps=move.realised_gain_rps,
            )
            for move in reversed(moves)
            if since <= move.started_at < until
        ),
    )
    return witness, tuple(find_wishes(witness))


def _get(address: SplitResult, what: str, answer: type[_Answer], **query: float) -> _Answer:
    place = f"{address.scheme}://{address.netloc}"
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    path = f"{address.path.rstrip('/')}/api/v1/{what}" + (f"?{urlencode(query)}" if query else "")
    try:
        connection = kind(address.netloc.rpartition("@")[2], timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = printable(str(said), 200)
        raise SourceError(f"no sidecar answers at {place} ({reason})", "name its http.host and http.port") from error
    if response.status != HTTPStatus.OK:
        raise SourceError(
            f"{place} answered {response.status} to {printable(path, 100)}", "see that it is a sidecar of this version"
        )
    try:
        return answer.model_validate_json(content)
    except ValidationError as error:
        raise SourceError(
            f"{place} does not answer like a sidecar of this version: {printable(str(error), 200)}",
            "see that it is a sidecar of this version",
        ) from error
