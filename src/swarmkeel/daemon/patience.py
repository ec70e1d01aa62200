"""Who is not waited for any more: servers that the plan names again and again, and that do not move. Pure.

A sidecar that has died, that holds back for a reason of its own, or a record that somebody forged can make a server look
movable that never moves. While the plan names it everybody else waits for it, with a hole open. So each sidecar remembers
for how long the plan has named a server; after a while it plans as if that server could not be moved. Sidecars come to
that at different moments, and so plan differently for a short while, which their claims sort out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from pydantic import BaseModel, ConfigDict

from swarmkeel.balance.coordinated import plan_in
from swarmkeel.balance.decision import Decision
from swarmkeel.balance.policy import Situation
from swarmkeel.swarm.sidecar import Sidecar

PASSED_OVER_SECONDS: Final = 1800.0
"""So long is a server that did not move when it was named not planned for."""
_NAMES_OTHERS: Final = frozenset({"others_move", "together_with"})


class Patience(BaseModel):
    """What one sidecar remembers of the others' promises to move; times are seconds since the epoch.

    Attributes:
        named_since: Since when each check has named these servers.
        passed_over_until: Until when these servers are not planned for.
    """

    model_config = ConfigDict(frozen=True)

    named_since: Mapping[str, float] = {}
    passed_over_until: Mapping[str, float] = {}

    def after(self, named: Collection[str], sidecars: Mapping[str, Sidecar], *, now: float, limit: float) -> Patience:
        """Note what a check has named.

        Args:
            named: Servers that its plan moves, the own one left out.
            sidecars: What their sidecars tell; one that claims a move is on its way and begins afresh.
            now: Seconds since the epoch.
            limit: Seconds that a server may be named without moving.
        """
        claimed = {peer_id for peer_id, sidecar in sidecars.items() if sidecar.claim is not None}
        # Times ahead of the clock (it was set back) begin afresh.
        since = {peer_id: min(self.named_since.get(peer_id, now), now) for peer_id in named if peer_id not in claimed}
        over = {
            peer_id: until
            for peer_id, until in self.passed_over_until.items()
            if now < until <= now + PASSED_OVER_SECONDS and peer_id not in claimed
        }
        for peer_id, start in list(since.items()):
            if now - start > limit:
                over[peer_id] = now + PASSED_OVER_SECONDS
                del since[peer_id]
        return Patience(named_since=since, passed_over_until=over)

    def apply(self, sidecars: Mapping[str, Sidecar], *, now: float) -> dict[str, Sidecar]:
        """Give what sidecars tell, with those servers not movable that are not waited for any more."""
        return {
            peer_id: replace(sidecar, movable_at=None) if self.passed_over_until.get(peer_id, 0.0) > now else sidecar
            for peer_id, sidecar in sidecars.items()
        }


def named_others(decision: Decision, situation: Situation) -> tuple[str, ...]:
    """Give the servers beside the own one that the plan behind a decision moves; none if it names nobody else."""
    if not any(reason.name in _NAMES_OTHERS for reason in decision.reasons):
        return ()
    _, plan = plan_in(situation)
    return tuple(move.peer_id for move in plan.moves if move.peer_id != situation.own.peer_id)
