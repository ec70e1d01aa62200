"""How far a plan follows records that are not true."""

from __future__ import annotations

from swarmkeel.balance.coordination import plan_with_others
from swarmkeel.balance.policy import OwnServer
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, compute_spans
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.span import Span
from tests.hostile.besieged import HONEST, KEYS, OWN, RPS
from tests.support.sidecars import TOTAL_BLOCKS

LIAR = "QmLiar"


def test_a_boaster_draws_away_one_server_at_most_where_two_would_do_harm() -> None:
    """Beside it on 0:4 are two honest servers. One goes, as if the boaster served the median; the other must not."""
    placed = {**HONEST, LIAR: Span(0, 4)}
    left = []
    for _ in range(4):
        records = {peer_id: ServerInfo(ServerState.ONLINE, 1e300 if peer_id == LIAR else RPS) for peer_id in placed}
        modules = [
            RemoteModuleInfo(
                key, {peer_id: records[peer_id] for peer_id, span in placed.items() if span.start <= block < span.end}
            )
            for block, key in enumerate(KEYS)
        ]
        spans = compute_spans(modules, min_state=ServerState.JOINING)
        told = {peer_id: Sidecar(peer_id, 0.0, 1.0) for peer_id in HONEST}
        own = OwnServer(peer_id=OWN, span=placed[OWN], num_blocks=4, throughput=RPS)
        _, plan = plan_with_others(spans, told, own, total_blocks=TOTAL_BLOCKS, now=1e9, move_cost=0.04)
        for move in plan.moves:
            placed[move.peer_id] = move.target
            left.append(move.peer_id)
    assert len(left) <= 1
    assert LIAR not in left
