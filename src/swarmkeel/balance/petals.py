"""The policy `petals`: what a Petals server does by itself, but with the exact target named before anything stops."""

from __future__ import annotations

import numpy as np

from swarmkeel.balance.bound import measure
from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.balance.doubts import doubts_about_own_record, doubts_about_swarm, without_idle
from swarmkeel.balance.imbalance import ImbalanceCheck, ImbalanceReason, check_imbalance
from swarmkeel.balance.policy import Situation
from swarmkeel.balance.selection import find_best_start
from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.span import Span


class PetalsPolicy:
    """Petals' imbalance check, and Petals' choice of blocks as the target.

    A server without blocks is placed where `choose_best_blocks` puts it. A server with blocks moves if
    `should_choose_other_blocks` says so, to where `choose_best_blocks` puts it once its own records are gone. Unlike a
    Petals server it does neither on a snapshot that is too old, too incomplete or at odds with what the server itself
    says, and does not stop for a place that it has already.
    """

    name = "petals"

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
            too_many = Reason(
                name="too_many_blocks", values={"num_blocks": own.num_blocks, "total_blocks": snapshot.total_blocks}
            )
            return _decision(situation, Verdict.BALANCED, too_many, before=before)

        others = {peer_id: span for peer_id, span in spans.items() if peer_id != own.peer_id}
        start = find_best_start(compute_throughputs(others, total_blocks=snapshot.total_blocks), own.num_blocks)
        target = Span(snapshot.first_block + start, snapshot.first_block + start + own.num_blocks)
        if own.span is None:
            reason = Reason(name="first_placement", values={"target": str(target)})
        else:
            check = check_imbalance(
                own.peer_id,
                spans,
                situation.settings.quality,
                total_blocks=snapshot.total_blocks,
                rng=np.random.RandomState(situation.seed),
            )
            reason = _explain(check, situation, own.span)
            if not check.should_move:
                return _decision(situation, Verdict.BALANCED, reason, before=before)
            if target == own.span:
                at_best_place = Reason(name=ImbalanceReason.ALREADY_AT_BEST_PLACE.value, values={"span": str(own.span)})
                return _decision(situation, Verdict.BALANCED, at_best_place, reason, before=before)
        info = ServerInfo(ServerState.JOINING, own.throughput) if own.span is None else spans[own.peer_id].server_info
        moved = RemoteSpanInfo(own.peer_id, start, start + own.num_blocks, info)
        after = measure({**others, own.peer_id: moved}, snapshot.total_blocks)
        return _decision(situation, Verdict.MOVING, reason, before=before, target=target, after=after)


def _explain(check: ImbalanceCheck, situation: Situation, own_span: Span) -> Reason:
    first_block, limit = situation.snapshot.first_block, situation.settings.quality
    values: dict[str, str | int | float | bool | None]
    match check.reason:
        case ImbalanceReason.FORCED:
            values = {"limit": limit}
        case ImbalanceReason.LEAVING_UNCOVERS_BLOCK:
            values = {"span": str(own_span), "block": first_block + (check.uncovered_block or 0)}
        case ImbalanceReason.ALREADY_AT_BEST_PLACE:
            values = {"span": str(own_span)}
        case ImbalanceReason.NO_STEADY_PLACEMENT:
            values = {"rounds": check.rounds}
        case ImbalanceReason.NO_GAIN:
            values = {"bottleneck_rps": check.initial_rps, "reached_rps": check.reached_rps, "rounds": check.rounds}
        case ImbalanceReason.GAIN_TOO_SMALL | ImbalanceReason.IMBALANCE:
            values = {
                "quality": check.quality,
                "limit": limit,
                "bottleneck_rps": check.initial_rps,
                "reached_rps": check.reached_rps,
                "rounds": check.rounds,
            }
    return Reason(name=check.reason.value, values=values)


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
        policy=PetalsPolicy.name,
        peer_id=situation.own.peer_id,
        own_span=situation.own.span,
        target=target,
        before=before,
        after=after,
        snapshot_digest=situation.snapshot.digest,
        seed=situation.seed,
    )
