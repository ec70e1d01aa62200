"""The policy `coordinated`: the few moves that help most, made by those alone whom every sidecar's plan names."""

from __future__ import annotations

import math

from swarmkeel.balance.bound import measure, measure_placed
from swarmkeel.balance.coordination import choose_first_span, missing_partners, plan_with_others, view_servers
from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.balance.doubts import doubts_about_own_record, doubts_about_swarm, without_idle
from swarmkeel.balance.plan import Outlook, Plan
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.policy import Situation
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.snapshot import KeyReading
from swarmkeel.swarm.span import Span


class CoordinatedPolicy:
    """One plan for the whole swarm, made alike by every sidecar that sees the same; a server moves if the plan names it.

    Only servers are planned for whose sidecars say that they may be moved. Claims count as moves already made, so that
    what others are about to do is not done twice.
    """

    name = "coordinated"

    def decide(self, situation: Situation) -> Decision:
        """Decide about one server, see `balance.policy.Policy`."""
        snapshot, own = situation.snapshot, situation.own
        spans = snapshot.spans(ServerState.JOINING)
        doubts = doubts_about_swarm(situation, spans)
        before = None if doubts else measure(without_idle(situation, spans), snapshot.total_blocks)
        doubts += doubts_about_own_record(situation, spans)
        if doubts:
            return _decision(situation, Verdict.INSUFFICIENT_INFORMATION, *doubts, before=before)
        if own.num_blocks > snapshot.total_blocks:
            values = {"num_blocks": own.num_blocks, "total_blocks": snapshot.total_blocks}
            return _decision(situation, Verdict.BALANCED, Reason(name="too_many_blocks", values=values), before=before)
        if own.span is None:
            servers = view_servers(
                spans,
                situation.sidecars,
                own,
                total_blocks=snapshot.total_blocks,
                now=situation.now,
                first_block=snapshot.first_block,
            )
            target = choose_first_span(servers, own, total_blocks=snapshot.total_blocks)
            throughput = next((rps for length, rps in own.shapes if length == len(target)), own.throughput)
            before = _measure(_finals(servers), snapshot.total_blocks)
            after = _measure({**_finals(servers), own.peer_id: (target, throughput)}, snapshot.total_blocks)
            reason = Reason(name="first_placement", values={"target": str(_named(target, situation))})
            return _decision(
                situation, Verdict.MOVING, reason, before=before, target=_named(target, situation), after=after
            )
        servers, plan = plan_in(situation)
        # From here on what counts is where everybody is going to be, as far as it is believed.
        return _follow(plan, servers, situation, _measure(_finals(servers), snapshot.total_blocks))


def plan_in(situation: Situation) -> tuple[tuple[PlanServer, ...], Plan]:
    """Make the plan that a decision about the own server follows, and give the servers that it was made of."""
    snapshot = situation.snapshot
    return plan_with_others(
        snapshot.spans(ServerState.OFFLINE),
        situation.sidecars,
        situation.own,
        total_blocks=snapshot.total_blocks,
        now=situation.now,
        move_cost=situation.settings.move_cost,
        first_block=snapshot.first_block,
        unread=[index for index, block in enumerate(snapshot.blocks) if block.reading is KeyReading.UNKNOWN],
        overdue=snapshot.overdue,
    )


def _follow(plan: Plan, servers: tuple[PlanServer, ...], situation: Situation, before: SwarmNumbers | None) -> Decision:
    """Give the own server's part in a plan."""
    own_move = plan.move_of(situation.own.peer_id)
    if plan.best is None or not plan.moves:
        return _decision(situation, Verdict.BALANCED, *_why_not(plan, servers, situation), before=before)
    others = [move.peer_id for move in plan.moves if move.peer_id != situation.own.peer_id]
    why = _worth(plan, plan.best)
    if own_move is None:
        values = {"peers": ", ".join(peer_id[-7:] for peer_id in others), "moves": len(others)}
        return _decision(situation, Verdict.BALANCED, Reason(name="others_move", values=values), why, before=before)
    reasons = [why]
    if others:
        values = {"peers": ", ".join(peer_id[-7:] for peer_id in others), "moves": len(others)}
        reasons.append(Reason(name="together_with", values=values))
        reasons += _needed(plan, servers, situation)
    placed = _finals(servers)
    placed.update({move.peer_id: (move.target, move.throughput) for move in plan.moves})
    return _decision(
        situation,
        Verdict.MOVING,
        *reasons,
        before=before,
        target=_named(own_move.target, situation),
        after=_measure(placed, situation.snapshot.total_blocks),
    )


def _needed(plan: Plan, servers: tuple[PlanServer, ...], situation: Situation) -> list[Reason]:
    missing = missing_partners(
        plan,
        servers,
        situation.sidecars,
        situation.own,
        total_blocks=situation.snapshot.total_blocks,
        now=situation.now,
        first_block=situation.snapshot.first_block,
    )
    values = {"peers": ", ".join(peer_id[-7:] for peer_id in missing), "moves": len(missing)}
    return [Reason(name="needs_others", values=values)] if missing else []


def _worth(plan: Plan, outlook: Outlook) -> Reason:
    if plan.is_emergency and plan.covered_in_seconds_before < math.inf:
        values = {
            "seconds": plan.covered_in_seconds_before,
            "reached_seconds": outlook.covered_in_seconds,
            "moves": len(outlook.moves),
        }
        return Reason(name="closes_holes_sooner", values=values)
    if plan.is_emergency:
        return Reason(name="closes_holes", values={"uncovered": plan.uncovered_before, "moves": len(outlook.moves)})
    return Reason(
        name="raises_bottleneck",
        values={
            "bottleneck_rps": plan.bottleneck_before_rps,
            "reached_rps": outlook.bottleneck_rps,
            "cost_rps": outlook.cost_rps,
            "moves": len(outlook.moves),
        },
    )


def _why_not(plan: Plan, servers: tuple[PlanServer, ...], situation: Situation) -> list[Reason]:
    """Say why nobody moves, and what would have to change."""
    best = plan.best
    own = next((server for server in servers if server.peer_id == situation.own.peer_id), None)
    reasons: list[Reason] = []
    if best is None:
        reasons.append(Reason(name="nobody_can_move", values={"movable": plan.movable, "servers": len(servers)}))
    elif plan.is_emergency:
        values = {"uncovered": plan.uncovered_before, "left": best.uncovered_blocks, "moves": len(best.moves)}
        reasons.append(Reason(name="holes_stay", values=values))
    elif best.gain_rps <= 0:
        reasons.append(Reason(name="no_gain", values={"bottleneck_rps": plan.bottleneck_before_rps}))
    else:
        values_of_gain = {"gain_rps": best.gain_rps, "cost_rps": best.cost_rps, "moves": len(best.moves)}
        reasons.append(Reason(name="not_worth_it", values=values_of_gain))
    if own is not None and not own.movable:
        reasons.append(Reason(name="not_movable"))
    return reasons


def _finals(servers: tuple[PlanServer, ...]) -> dict[str, tuple[Span, float]]:
    return {server.peer_id: (server.final, server.throughput) for server in servers}


def _measure(placed: dict[str, tuple[Span, float]], total_blocks: int) -> SwarmNumbers:
    return measure_placed([placed[peer_id] for peer_id in sorted(placed)], total_blocks)


def _named(span: Span, situation: Situation) -> Span:
    """Count a span from the model's first block instead of from the first one read."""
    offset = situation.snapshot.first_block
    return Span(span.start + offset, span.end + offset)


def _decision(
    situation: Situation,
    verdict: Verdict,
    *reasons: Reason,
    before: SwarmNumbers | None,
    target: Span | None = None,
    after: SwarmNumbers | None = None,
) -> Decision:
    return Decision(
        verdict=verdict,
        reasons=reasons,
        policy=CoordinatedPolicy.name,
        peer_id=situation.own.peer_id,
        own_span=situation.own.span,
        target=target,
        before=before,
        after=after,
        snapshot_digest=situation.snapshot.digest,
        seed=situation.seed,
    )
