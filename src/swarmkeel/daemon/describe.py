"""Puts what the daemon knows into what it tells (`daemon.status`). Pure: the time is given.

Every text that comes from the DHT or from the server is made `printable` here; it stays hostile in all other respects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers
from swarmkeel.config import Config
from swarmkeel.control.protocol import ServerStatus
from swarmkeel.daemon.guard import look_at_guards
from swarmkeel.daemon.move import Move
from swarmkeel.daemon.pause import Pause
from swarmkeel.daemon.state import DaemonState, SwarmView, serving_numbers
from swarmkeel.daemon.status import (
    BlockInfo,
    BlockState,
    CheckInfo,
    ClaimInfo,
    ClaimsInfo,
    DaemonStatus,
    GuardInfo,
    MoveInfo,
    Numbers,
    OwnServer,
    PauseInfo,
    Readiness,
    ReasonInfo,
    SidecarInfo,
    SnapshotInfo,
    SwarmServer,
    SwarmStatus,
    TimelinePoint,
    VerdictInfo,
)
from swarmkeel.printable import printable
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.snapshot import KeyReading
from swarmkeel.swarm.span import Span

_TEXT_LIMIT: Final = 300


def describe_daemon(
    state: DaemonState, config: Config, moves: Sequence[Move], *, version: str, now: float
) -> DaemonStatus:
    """Say what the daemon knows and does.

    Args:
        state: What it knows.
        config: The configuration in force.
        moves: The last moves of the journal, oldest first.
        version: Version of Swarmkeel.
        now: Seconds since the epoch.
    """
    moves = _with_newest(moves, state.move)
    return DaemonStatus(
        version=version,
        model=config.swarm.dht_prefix,
        total_blocks=config.swarm.total_blocks,
        policy=config.balance.policy,
        enabled=config.balance.enabled,
        dry_run=config.balance.dry_run,
        now=now,
        started_at=state.started_at,
        readiness=Readiness(
            ready=state.ready,
            snapshot_is_good=state.snapshot_is_good,
            server_answers=state.server is not None,
            config_is_current=state.config_is_current,
            dht_peers=state.dht_peers,
            last_check_at=state.last_check_at,
            last_turn_at=state.last_turn_at,
            check_period=config.balance.check_period,
        ),
        snapshot=_snapshot(state, now),
        server=_own_server(state),
        numbers=_numbers(serving_numbers(state.swarm)) if state.swarm else None,
        verdict=describe_verdict(state.decision) if state.decision else None,
        guards=_guards(state, moves, now),
        pause=describe_pause(state.pause) if state.pause is not None and state.pause.holds(now) else None,
        claims=_claims(state, now),
        move=describe_move(state.move) if state.move is not None and not state.move.is_final else None,
        moves=tuple(describe_move(move) for move in reversed(moves)),
    )


def describe_swarm(state: DaemonState, config: Config) -> SwarmStatus | None:
    """Give the servers and blocks of the newest snapshot; None until the first."""
    view = state.swarm
    if view is None:
        return None
    own = own_peer_id(state, config)
    first = view.snapshot.first_block
    spans = view.snapshot.spans(ServerState.OFFLINE).values()
    servers = sorted(spans, key=lambda span: (span.start, span.end, span.peer_id))
    return SwarmStatus(
        read_at=view.snapshot.read_at,
        first_block=first,
        numbers=_numbers(serving_numbers(view)),
        servers=tuple(_server(span, first, own, state.sidecars) for span in servers),
        blocks=tuple(_blocks(view)),
    )


def describe_timeline(state: DaemonState, *, since: float = -math.inf) -> tuple[TimelinePoint, ...]:
    """Give the numbers of the newest snapshots, those read later than `since`, the oldest first."""
    return tuple(
        TimelinePoint(
            at=at,
            bottleneck_rps=numbers.bottleneck_rps,
            bound_rps=numbers.bound_rps,
            uncovered_blocks=numbers.uncovered_blocks,
        )
        for at, numbers in state.timeline
        if at > since
    )


def describe_verdict(decision: Decision) -> VerdictInfo:
    """Say what a check ended in."""
    return VerdictInfo(**_verdict(decision))


def describe_pause(pause: Pause) -> PauseInfo:
    """Say what the operator has asked for."""
    return PauseInfo(since=pause.since, until=pause.until, reason=printable(pause.reason, _TEXT_LIMIT), uid=pause.uid)


def describe_check(check_id: str, at: float, decision: Decision) -> CheckInfo:
    """Say what a check of the journal ended in."""
    return CheckInfo(check_id=check_id, at=at, **_verdict(decision))


def describe_move(move: Move) -> MoveInfo:
    """Say how far a move has come."""
    return MoveInfo(
        id=move.id,
        origin=move.origin,
        target=move.target,
        reason=printable(move.reason, _TEXT_LIMIT),
        step=move.step,
        is_final=move.is_final,
        started_at=move.started_at,
        step_since=move.step_since,
        predicted_gain_rps=move.predicted_gain_rps,
        realised_gain_rps=move.realised_gain_rps,
        bottleneck_before_rps=move.bottleneck_before_rps,
        staged=move.staged,
        outage_seconds=move.outage_seconds,
        error=None if move.error is None else printable(move.error, _TEXT_LIMIT),
    )


def own_peer_id(state: DaemonState, config: Config) -> str | None:
    """Give the peer id of the server beside this sidecar, as far as it is known."""
    return (state.server.peer_id if state.server else None) or config.server.peer_id


def _with_newest(moves: Sequence[Move], newest: Move | None) -> tuple[Move, ...]:
    """Give the journal's moves with the newest as the daemon knows it, which may be a step ahead."""
    if newest is None:
        return tuple(moves)
    return (*(move for move in moves if move.id != newest.id), newest)


def _numbers(numbers: SwarmNumbers) -> Numbers:
    ratio = numbers.balance_ratio
    return Numbers(**numbers.model_dump(), balance_ratio=ratio if math.isfinite(ratio) else 0.0)


def _snapshot(state: DaemonState, now: float) -> SnapshotInfo | None:
    if state.swarm is None:
        return None
    quality = state.swarm.snapshot.quality(now)
    return SnapshotInfo(
        read_at=state.swarm.snapshot.read_at,
        age_seconds=quality.age_seconds,
        duration_seconds=state.snapshot_seconds,
        keys_asked=quality.keys_asked,
        keys_answered=quality.keys_answered,
        records_accepted=quality.records_accepted,
        rejected=dict(quality.rejected),
    )


def _own_server(state: DaemonState) -> OwnServer | None:
    server = state.server
    if server is None:
        return None
    restart = server.restart
    return OwnServer(
        peer_id=_text(server.peer_id),
        implementation=printable(server.implementation),
        state=server.state.value,
        span=server.span,
        span_since=state.span_since,
        throughput_rps=server.throughput,
        num_blocks=server.num_blocks,
        pinned=server.pinned,
        sessions=server.sessions,
        capabilities=tuple(printable(name) for name in server.capabilities),
        restart=_restart(server),
        restart_error=_text(restart.error if restart else None),
        staged_blocks=state.staged_blocks,
    )


def _restart(server: ServerStatus) -> str | None:
    restart = server.restart
    if restart is None:
        return None
    progress = "" if restart.progress is None else f" ({restart.progress:.0%})"
    return f"to {restart.span}: {restart.phase.value}{progress}"


def _verdict(decision: Decision) -> dict[str, object]:
    return {
        "verdict": decision.verdict,
        "sentence": printable(decision.sentence, 1000),
        "reasons": tuple(_reason(reason) for reason in decision.reasons),
        "policy": decision.policy,
        "own_span": decision.own_span,
        "target": decision.target,
        "before": _numbers(decision.before) if decision.before else None,
        "after": _numbers(decision.after) if decision.after else None,
        "snapshot_digest": decision.snapshot_digest,
    }


def _reason(reason: Reason) -> ReasonInfo:
    values = {
        name: printable(value, _TEXT_LIMIT) if isinstance(value, str) else value
        for name, value in reason.values.items()
    }
    return ReasonInfo(name=reason.name, sentence=printable(reason.sentence, _TEXT_LIMIT), values=values)


def _guards(state: DaemonState, moves: Sequence[Move], now: float) -> tuple[GuardInfo, ...]:
    if state.guards is None or state.server is None:
        return ()
    view, settings = state.guards
    moves = tuple(move for move in moves if move.peer_id == state.server.peer_id)
    # What is asked is whether a move that the next check wants would be held; that check itself confirms it once.
    update = {"now": now, "moves": moves, "confirmations": max(view.confirmations, 1), "span_since": state.span_since}
    readings = look_at_guards(view.model_copy(update=update), settings)
    return tuple(
        GuardInfo(
            name=reading.name,
            kind=reading.kind,
            holds=reading.reason is not None,
            sentence=printable(reading.reason.sentence, _TEXT_LIMIT) if reading.reason else None,
            releases_at=reading.releases_at,
        )
        for reading in readings
    )


def _claims(state: DaemonState, now: float) -> ClaimsInfo | None:
    view = state.claims
    if view is None:
        return None
    spans = state.swarm.snapshot.spans(ServerState.OFFLINE) if state.swarm else {}
    own_id = (state.server.peer_id if state.server else None) or ""
    others = [
        _claim(peer_id, sidecar.claim, spans)
        for peer_id, sidecar in state.sidecars.items()
        if sidecar.claim is not None and sidecar.claim.expires_at > now
    ]
    return ClaimsInfo(
        readable=view.readable,
        sidecars=view.sidecars,
        implausible=view.implausible,
        rejected=view.rejected,
        own=_claim(own_id, state.own_claim, spans) if state.own_claim else None,
        others=tuple(sorted(others, key=lambda claim: (claim.made_at, claim.peer_id))),
    )


def _claim(peer_id: str, claim: Claim, spans: Mapping[str, RemoteSpanInfo[str]]) -> ClaimInfo:
    span = spans.get(peer_id)
    return ClaimInfo(
        peer_id=printable(peer_id, 128),
        public_name=_text(span.server_info.public_name) if span else None,
        origin=claim.origin,
        target=claim.target,
        made_at=claim.made_at,
        expires_at=claim.expires_at,
        throughput_rps=claim.throughput,
        gain_rps=claim.gain_rps,
    )


def _server(
    span: RemoteSpanInfo[str], first_block: int, own: str | None, sidecars: Mapping[str, Sidecar]
) -> SwarmServer:
    sidecar = sidecars.get(span.peer_id)
    start, end = max(span.start, 0), span.end
    return SwarmServer(
        peer_id=printable(span.peer_id, 128),
        public_name=_text(span.server_info.public_name),
        version=_text(span.server_info.version),
        state=span.state.name.lower(),
        span=Span(start + first_block, end + first_block) if start < end else None,
        throughput_rps=span.throughput,
        own=span.peer_id == own,
        sidecar=SidecarInfo(movable_at=sidecar.movable_at, arrives_at=sidecar.arrives_at) if sidecar else None,
    )


def _blocks(view: SwarmView) -> Iterable[BlockInfo]:
    throughputs = [float(rps) for rps in view.block_throughput_rps]
    weakest = min((rps for rps in throughputs if rps > 0), default=math.inf)
    for index, (reading, rps) in enumerate(zip(view.snapshot.blocks, throughputs, strict=True)):
        joining = view.block_servers.get((index, ServerState.JOINING), 0)
        if rps > 0:
            state = BlockState.SERVED
        elif joining:
            state = BlockState.JOINING
        else:
            state = BlockState.UNREAD if reading.reading is KeyReading.UNKNOWN else BlockState.UNCOVERED
        yield BlockInfo(
            index=view.snapshot.first_block + index,
            state=state,
            throughput_rps=rps,
            online=view.block_servers.get((index, ServerState.ONLINE), 0),
            joining=joining,
            weakest=rps == weakest,
        )


def _text(text: str | None) -> str | None:
    return None if text is None else printable(text)
