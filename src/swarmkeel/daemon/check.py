"""One check of the balance: from what was read to the decision, as a pure function."""

from __future__ import annotations

from dataclasses import dataclass

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.config import Config
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.guard import GuardSettings, GuardView, apply_guards
from swarmkeel.daemon.journal import CheckInputs
from swarmkeel.daemon.move import Move, MoveLimits
from swarmkeel.swarm.snapshot import SwarmSnapshot
from swarmkeel.swarm.span import Span


@dataclass(frozen=True)
class Reading:
    """What a check read.

    Attributes:
        snapshot: The swarm; None if it could not be read.
        snapshot_error: Why not.
        status: The own server; None if it did not answer.
        status_error: Why not.
    """

    snapshot: SwarmSnapshot | None
    snapshot_error: str | None
    status: ServerStatus | None
    status_error: str | None


@dataclass(frozen=True)
class Past:
    """What came before a check.

    Attributes:
        moves: Moves in the journal, oldest first.
        move_under_way: The move that is not over; None without one.
        span_since: Since when the present span is served, seconds since the epoch.
        wishes: Checks in a row before this one that led to a wanted move.
    """

    moves: tuple[Move, ...]
    move_under_way: Move | None
    span_since: float | None
    wishes: int


@dataclass(frozen=True)
class Outcome:
    """What a check ended in, and what it followed from; without inputs there was nothing to decide on."""

    decision: Decision
    inputs: CheckInputs | None


def policy_settings(config: Config) -> PolicySettings:
    """Give the part of the configuration that policies look at."""
    balance = config.balance
    return PolicySettings(
        quality=balance.quality,
        min_answered_ratio=balance.min_answered_ratio,
        max_rejected_ratio=balance.max_rejected_ratio,
    )


def guard_settings(config: Config) -> GuardSettings:
    """Give the limits of the guards."""
    guards = config.guards
    return GuardSettings(
        cooldown=guards.cooldown,
        minimum_uptime=guards.minimum_uptime,
        moves_per_day=guards.moves_per_day,
        confirmations=guards.confirmations,
        breaker_base=guards.breaker_base,
        breaker_max=guards.breaker_max,
    )


def move_limits(config: Config) -> MoveLimits:
    """Give the deadlines of a move's steps."""
    return MoveLimits(
        request_timeout=config.move.request_timeout,
        restart_timeout=config.move.restart_timeout,
        verify_timeout=config.move.verify_timeout,
    )


def decide_check(
    config: Config, reading: Reading, past: Past, *, now: float, seed: int, numbers: SwarmNumbers | None
) -> Outcome:
    """Decide what a check ends in.

    Args:
        config: The configuration in force.
        reading: What was read.
        past: What came before.
        now: Seconds since the epoch.
        seed: Seed of the policy's randomness.
        numbers: The swarm in numbers, for decisions that no policy makes.
    """
    status, snapshot = reading.status, reading.snapshot

    def without_policy(verdict: Verdict, name: str, **values: str | float | None) -> Outcome:
        return Outcome(
            Decision(
                verdict=verdict,
                reasons=(Reason(name=name, values=values),),
                policy=config.balance.policy,
                peer_id=(status.peer_id if status else None) or config.server.peer_id or "",
                own_span=status.span if status else None,
                target=None,
                before=numbers,
                after=None,
                snapshot_digest=snapshot.digest if snapshot else "",
                seed=seed,
            ),
            None,
        )

    if past.move_under_way is not None:
        move = past.move_under_way
        return without_policy(Verdict.MOVING, "move_under_way", target=str(move.target), step=move.step.value)
    if not config.balance.enabled:
        return without_policy(Verdict.DISABLED, "disabled")
    if status is None:
        return without_policy(
            Verdict.INSUFFICIENT_INFORMATION, "server_unreachable", error=reading.status_error or "no answer"
        )
    mismatch = find_mismatch(config, status)
    if mismatch is not None:
        return without_policy(Verdict.INSUFFICIENT_INFORMATION, "server_mismatch", detail=mismatch)
    if status.peer_id is None or (status.span is None and status.state is not ServerPhase.IDLE):
        return without_policy(Verdict.INSUFFICIENT_INFORMATION, "server_not_serving", state=status.state.value)
    if snapshot is None:
        return without_policy(
            Verdict.INSUFFICIENT_INFORMATION, "snapshot_unavailable", error=reading.snapshot_error or "no answer"
        )
    return _decide_by_policy(config, snapshot, status, past, now=now, seed=seed)


def _decide_by_policy(
    config: Config, snapshot: SwarmSnapshot, status: ServerStatus, past: Past, *, now: float, seed: int
) -> Outcome:
    own = OwnServer(
        peer_id=status.peer_id or "",
        span=None if status.state is ServerPhase.IDLE else status.span,
        num_blocks=status.num_blocks,
        throughput=status.throughput,
    )
    situation = Situation(snapshot=snapshot, own=own, settings=policy_settings(config), now=now, seed=seed)
    wanted = get_policy(config.balance.policy).decide(situation)
    running = status.restart is not None and not status.restart.phase.is_final
    view = GuardView(
        now=now,
        server_state=status.state.value,
        running_restart=status.restart.id if status.restart is not None and running else None,
        pinned=status.pinned,
        span_since=past.span_since,
        moves=tuple(move for move in past.moves if move.peer_id == own.peer_id),
        confirmations=past.wishes + 1 if wanted.verdict is Verdict.MOVING else 0,
    )
    inputs = CheckInputs(situation, view, guard_settings(config), config.balance.dry_run)
    return Outcome(apply_guards(wanted, view, inputs.guards, dry_run=inputs.dry_run), inputs)


def find_mismatch(config: Config, status: ServerStatus) -> str | None:
    """Say how a server differs from the configured one; None if it does not."""
    if status.dht_prefix != config.swarm.dht_prefix:
        return f"it serves {status.dht_prefix[:100]!r}, swarm.dht_prefix is {config.swarm.dht_prefix!r}"
    if status.total_blocks != config.swarm.total_blocks:
        return f"its model has {status.total_blocks} blocks, swarm.total_blocks is {config.swarm.total_blocks}"
    if config.server.peer_id is not None and status.peer_id not in (None, config.server.peer_id):
        return f"its peer id is {str(status.peer_id)[:100]!r}, server.peer_id is {config.server.peer_id!r}"
    return None


def plan_move(decision: Decision, *, move_id: str, drain_seconds: float, now: float) -> Move:
    """Turn a decision to move into a planned move.

    Raises:
        ValueError: If the decision has no target, or one that is the present span.
    """
    target: Span | None = decision.target
    if target is None or target == decision.own_span:
        raise ValueError(f"a move needs a target other than {decision.own_span}, not {target}")
    before = decision.before.bottleneck_rps if decision.before else 0.0
    after = decision.after.bottleneck_rps if decision.after else before
    return Move(
        id=move_id,
        peer_id=decision.peer_id,
        origin=decision.own_span,
        target=target,
        reason=decision.sentence[:500],
        drain_seconds=drain_seconds,
        predicted_gain_rps=after - before,
        bottleneck_before_rps=before,
        started_at=now,
        step_since=now,
    )
