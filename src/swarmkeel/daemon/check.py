"""One check of the balance: from what was read to the decision, as a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.balance.petals import PetalsPolicy
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.config import Config
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.claiming import (
    ClaimAction,
    ClaimInputs,
    ClaimSettings,
    ClaimState,
    ClaimStep,
    Prefetch,
    apply_claim,
    count_moving,
    next_step,
    step_back,
)
from swarmkeel.daemon.guard import GuardSettings, GuardView, apply_guards, movable_at
from swarmkeel.daemon.journal import CheckInputs
from swarmkeel.daemon.move import Move, MoveLimits
from swarmkeel.daemon.own_server import PREFETCH, own_server
from swarmkeel.daemon.patience import Patience, named_others
from swarmkeel.daemon.pause import Pause, apply_pause
from swarmkeel.daemon.state import ClaimsView
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.sidecar_check import MAX_CLAIM_REST, check_sidecars
from swarmkeel.swarm.sidecar_record import MAX_LOAD_SECONDS, BoardReading
from swarmkeel.swarm.snapshot import SwarmSnapshot
from swarmkeel.swarm.span import Span

MAX_CLAIM_LIFETIME: Final = MAX_CLAIM_REST - 60.0
"""Others disbelieve a claim with more than `MAX_CLAIM_REST` to live; their clocks may be a little behind."""


@dataclass(frozen=True)
class Reading:
    """What a check read.

    Attributes:
        snapshot: The swarm; None if it could not be read.
        snapshot_error: Why not.
        status: The own server; None if it did not answer.
        status_error: Why not.
        board: What the sidecars tell; None if it was not read.
        asked_at: When the reading began, seconds since the epoch.
    """

    snapshot: SwarmSnapshot | None
    snapshot_error: str | None
    status: ServerStatus | None
    status_error: str | None
    board: BoardReading | None = None
    asked_at: float | None = None


@dataclass(frozen=True)
class Past:
    """What came before a check.

    Attributes:
        moves: Moves in the journal, oldest first.
        move_under_way: The move that is not over; None without one.
        span_since: Since when the present span is served, seconds since the epoch.
        wishes: Checks in a row before this one that led to a wanted move.
        claim: What is known of the own claim.
        patience: Who is not waited for any more.
        pause: The pause that holds; None without one.
    """

    moves: tuple[Move, ...]
    move_under_way: Move | None
    span_since: float | None
    wishes: int
    claim: ClaimState = ClaimState()  # noqa: RUF009 - frozen
    patience: Patience = Patience()  # noqa: RUF009 - frozen
    pause: Pause | None = None


@dataclass(frozen=True)
class Outcome:
    """What a check ended in, and what it followed from.

    Attributes:
        decision: What it ended in.
        inputs: What it followed from; None where there was nothing to decide on.
        step: What follows for the own claim; None where the policy makes none or there was nothing to decide on.
        told: What to tell the other sidecars, but for the claim; None as above.
        doubts: Claims of others that cannot be true, by `ClaimDoubt`.
        named: Other servers that the plan behind the decision moves.
    """

    decision: Decision
    inputs: CheckInputs | None
    step: ClaimStep | None = None
    told: Sidecar | None = None
    doubts: Mapping[str, int] = field(default_factory=dict)
    named: tuple[str, ...] = ()


def policy_settings(config: Config) -> PolicySettings:
    """Give the part of the configuration that policies look at."""
    balance = config.balance
    return PolicySettings(
        quality=balance.quality,
        min_answered_ratio=balance.min_answered_ratio,
        max_rejected_ratio=balance.max_rejected_ratio,
        move_cost=balance.move_cost,
    )


def uses_claims(config: Config) -> bool:
    """Tell whether the policy in force makes claims; Petals' own rule knows of none."""
    return config.balance.enabled and config.balance.policy != PetalsPolicy.name


def claim_settings(config: Config) -> ClaimSettings:
    """Give how claims are made: one lives long enough to be extended by checks, a late one too."""
    claims = config.claims
    return ClaimSettings(
        settle=claims.settle,
        lifetime=min(max(claims.lifetime, 3 * config.balance.check_period), MAX_CLAIM_LIFETIME),
        prefetch_timeout=claims.prefetch_timeout,
        prefetch_poll=claims.prefetch_poll,
        prefetch_retry=claims.prefetch_retry,
    )


def guard_settings(config: Config) -> GuardSettings:
    """Give the limits of the guards; a settled claim is the confirmation of a policy that makes claims."""
    guards = config.guards
    return GuardSettings(
        cooldown=guards.cooldown,
        minimum_uptime=guards.minimum_uptime,
        moves_per_day=guards.moves_per_day,
        confirmations=1 if uses_claims(config) else guards.confirmations,
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
    return _decide_by_policy(config, reading, snapshot, status, past, now=now, seed=seed)


def _decide_by_policy(
    config: Config,
    reading: Reading,
    snapshot: SwarmSnapshot,
    status: ServerStatus,
    past: Past,
    *,
    now: float,
    seed: int,
) -> Outcome:
    with_claims = uses_claims(config)
    moves = tuple(move for move in past.moves if move.peer_id == status.peer_id)
    own = own_server(
        status,
        moves,
        claim=past.claim.standing(claim_settings(config)) if with_claims else None,
        assumed_load_seconds=config.balance.load_seconds,
    )
    spans = snapshot.spans(ServerState.JOINING)
    others = {}
    if with_claims and reading.board is not None:
        # Of the own server this sidecar knows better, and what stands there may be a former process's.
        others = {peer: told for peer, told in reading.board.sidecars.items() if peer != own.peer_id}
    checked = check_sidecars(
        others,
        snapshot.spans(ServerState.OFFLINE),
        total_blocks=snapshot.total_blocks,
        now=now,
        first_block=snapshot.first_block,
    )
    sidecars = past.patience.apply(checked.sidecars, now=now)
    if config.balance.dry_run:
        sidecars = as_without_dry_run(sidecars)
    situation = Situation(
        snapshot=snapshot, own=own, settings=policy_settings(config), now=now, seed=seed, sidecars=sidecars
    )
    wanted = get_policy(config.balance.policy).decide(situation)
    running = status.restart is not None and not status.restart.phase.is_final
    view = GuardView(
        now=now,
        server_state=status.state.value,
        running_restart=status.restart.id if status.restart is not None and running else None,
        pinned=status.pinned,
        span_since=past.span_since,
        moves=moves,
        confirmations=past.wishes + 1 if wanted.verdict is Verdict.MOVING else 0,
        servers=len(spans),
        others_moving=count_moving(spans, sidecars, own, now=now) if with_claims else 0,
    )
    claim = None
    if with_claims:
        can_prefetch = config.claims.prefetch and PREFETCH in status.capabilities
        claim = ClaimInputs(
            state=past.claim, settings=claim_settings(config), can_prefetch=can_prefetch, asked_at=reading.asked_at
        )
    inputs = CheckInputs(situation, view, guard_settings(config), config.balance.dry_run, claim, past.pause)
    decision, step = guard_wish(wanted, inputs)
    told = None
    if with_claims:
        movable = None if inputs.pause else movable_at(view, inputs.guards)
        told = Sidecar(
            own.peer_id,
            None if inputs.dry_run else movable,
            min(own.load_seconds, MAX_LOAD_SECONDS),
            own.shapes,
            fetch_seconds=min(own.fetch_seconds, MAX_LOAD_SECONDS),
            arrives_at=None if step is None else _arrives_at(own, step, situation.now),
            dry_run_movable_at=movable if inputs.dry_run else None,
        )
    return Outcome(decision, inputs, step, told, checked.doubts, named_others(wanted, situation))


def as_without_dry_run(sidecars: Mapping[str, Sidecar]) -> dict[str, Sidecar]:
    """Give what sidecars tell, with those in a dry run as if they were none."""
    return {
        peer_id: sidecar
        if sidecar.dry_run_movable_at is None
        else replace(sidecar, movable_at=sidecar.dry_run_movable_at)
        for peer_id, sidecar in sidecars.items()
    }


def guard_wish(wanted: Decision, inputs: CheckInputs) -> tuple[Decision, ClaimStep | None]:
    """Let the guards, the pause if there is one, and the claim if the policy makes any, look at what a policy has decided.

    Returns:
        The decision as it stands then, and what follows for the own claim.
    """
    guarded = apply_guards(wanted, inputs.view, inputs.guards, dry_run=inputs.dry_run)
    guarded = apply_pause(guarded, inputs.pause)
    if inputs.claim is None:
        return guarded, None
    if inputs.pause is not None:
        return guarded, step_back(inputs.claim.state)
    step = next_step(
        guarded,
        inputs.claim.state,
        own=inputs.situation.own,
        now=inputs.situation.now,
        can_prefetch=inputs.claim.can_prefetch,
        settings=inputs.claim.settings,
        asked_at=inputs.claim.asked_at,
    )
    return apply_claim(guarded, step), step


def decide_again(inputs: CheckInputs, policy: str) -> Decision:
    """Decide what a check of the journal has decided, from what it followed from; the same bits come out.

    Raises:
        UsageError: If there is no such policy.
    """
    return guard_wish(get_policy(policy).decide(inputs.situation), inputs)[0]


def view_claims(reading: Reading, outcome: Outcome) -> ClaimsView:
    """Count what a check saw of the other sidecars."""
    board = reading.board
    counted = outcome.inputs.situation.sidecars if outcome.inputs else {}
    return ClaimsView(
        sidecars=len(counted),
        claims=sum(sidecar.claim is not None for sidecar in counted.values()),
        implausible=sum(outcome.doubts.values()),
        rejected=sum(board.rejected.values()) if board else 0,
        readable=board is not None and board.readable,
    )


def find_mismatch(config: Config, status: ServerStatus) -> str | None:
    """Say how a server differs from the configured one; None if it does not."""
    if status.dht_prefix != config.swarm.dht_prefix:
        return f"it serves {status.dht_prefix[:100]!r}, swarm.dht_prefix is {config.swarm.dht_prefix!r}"
    if status.total_blocks != config.swarm.total_blocks:
        return f"its model has {status.total_blocks} blocks, swarm.total_blocks is {config.swarm.total_blocks}"
    if config.server.peer_id is not None and status.peer_id not in (None, config.server.peer_id):
        return f"its peer id is {str(status.peer_id)[:100]!r}, server.peer_id is {config.server.peer_id!r}"
    return None


def plan_move(decision: Decision, *, move_id: str, drain_seconds: float, now: float, staged: bool = False) -> Move:
    """Turn a decision to move into a planned move; `staged` if the weights have been fetched.

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
        staged=staged,
    )


def _arrives_at(own: OwnServer, step: ClaimStep, now: float) -> float | None:
    """Say when the own server will serve on the blocks that it claims, seconds since the epoch; None without a claim."""
    claim = step.state.claim
    if claim is None:
        return None
    if step.action is ClaimAction.GO:
        return now + own.seconds_to(claim.target, has_weights=step.state.prefetch is Prefetch.DONE)
    return claim.made_at + own.seconds_to(claim.target)
