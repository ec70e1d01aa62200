"""Why a snapshot is not good enough to decide on: what every policy asks before it looks at the balance."""

from __future__ import annotations

import math
from collections.abc import Mapping

from swarmkeel.balance.decision import Reason
from swarmkeel.balance.policy import Situation
from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.snapshot import KeyReading

Spans = Mapping[str, RemoteSpanInfo[str]]


def doubts_about_swarm(situation: Situation, spans: Spans) -> tuple[Reason, ...]:
    """Say why the snapshot is not good enough to decide on."""
    snapshot, settings = situation.snapshot, situation.settings
    quality = snapshot.quality(situation.now)
    doubts: list[Reason] = []
    if quality.keys_answered_ratio < settings.min_answered_ratio or not snapshot.blocks:
        doubts.append(
            Reason(
                name="keys_unanswered",
                values={
                    "answered": quality.keys_answered,
                    "asked": quality.keys_asked,
                    "floor": settings.min_answered_ratio,
                },
            )
        )
    if quality.records_rejected_ratio > settings.max_rejected_ratio:
        doubts.append(
            Reason(
                name="records_rejected",
                values={
                    "rejected": quality.records_rejected,
                    "total": quality.records_accepted + quality.records_rejected,
                    "ceiling": settings.max_rejected_ratio,
                },
            )
        )
    if quality.age_seconds > settings.max_snapshot_age:
        values = {"age_seconds": quality.age_seconds, "limit_seconds": settings.max_snapshot_age}
        doubts.append(Reason(name="snapshot_stale", values=values))
    if not math.isfinite(2 * sum(span.throughput for span in spans.values())):
        doubts.append(Reason(name="throughput_overflow"))
    if situation.own.span is None:
        # A server without blocks serves nobody while it waits. In a swarm that has just begun some key is always unread, and
        # if that kept everybody waiting it would never begin.
        return tuple(doubts)
    throughputs = compute_throughputs(spans, total_blocks=snapshot.total_blocks)
    for index, block in enumerate(snapshot.blocks, snapshot.first_block):
        if block.reading is KeyReading.UNKNOWN and throughputs[index - snapshot.first_block] <= 0:
            doubts.append(Reason(name="unread_block_looks_uncovered", values={"block": index}))
            break
    return tuple(doubts)


def doubts_about_own_record(situation: Situation, spans: Spans) -> tuple[Reason, ...]:
    """Say how the snapshot is at odds with what the server itself says; a server without blocks needs no record."""
    snapshot, own = situation.snapshot, situation.own
    if own.span is None:
        return ()
    announced = spans.get(own.peer_id)
    if announced is None:
        found = snapshot.quality(situation.now, own.peer_id).own_record_found
        return (Reason(name="own_record_offline" if found else "own_record_missing"),)
    start, end = announced.start + snapshot.first_block, announced.end + snapshot.first_block
    if (start, end) != (own.span.start, own.span.end):
        values = {"announced": f"{start}:{end}", "actual": str(own.span)}
        return (Reason(name="own_span_differs", values=values),)
    return ()


def without_idle(situation: Situation, spans: Spans) -> Spans:
    """Leave out a server without blocks: records that the DHT still holds of it are those of its last life."""
    if situation.own.span is not None:
        return spans
    return {peer_id: span for peer_id, span in spans.items() if peer_id != situation.own.peer_id}
