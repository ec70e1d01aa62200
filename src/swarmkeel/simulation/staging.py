"""Staging beside a simulated server: the production decision, with plans made once for equal views."""

from __future__ import annotations

from typing import Final

from swarmkeel.balance.decision import Decision
from swarmkeel.balance.policy import OwnServer
from swarmkeel.daemon.staging import StagingSettings, StagingState, find_disturbance, is_due, next_span, result_of
from swarmkeel.simulation.eyes import CoordinatedDecider, Decider, Eyes
from swarmkeel.simulation.server import SimulatedServer
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.span import Span

_SETTINGS: Final = StagingSettings()


class SimulatedStaging:
    """Has one server fetch the blocks that it would most likely be asked for next.

    Args:
        server: The server.
        decider: The policy; only `coordinated` can say what it would do after a departure.
        total_blocks: Blocks of the model.
        enabled: Whether it does.
    """

    def __init__(self, server: SimulatedServer, decider: Decider, total_blocks: int, *, enabled: bool) -> None:
        self._enabled = enabled
        self._server = server
        self._decider = decider
        self._total_blocks = total_blocks
        self._state = StagingState()
        self._asked: tuple[str, Span] | None = None

    def forget(self) -> None:
        """Forget everything, as a sidecar does that is killed."""
        self._state, self._asked = StagingState(), None

    def follow(self, decision: Decision, eyes: Eyes, own: OwnServer, mine: Sidecar) -> None:
        """Do what follows from one check.

        Args:
            decision: What it ended in.
            eyes: What it was made on.
            own: The server.
            mine: What the sidecar tells of it, without a claim.
        """
        status = self._server.status()
        if not self._enabled or status is None or own.span is None or not isinstance(self._decider, CoordinatedDecider):
            return
        room = _SETTINGS.room(status)
        if self._asked is not None and (result := result_of(self._asked[0], status)) is not None:
            if result.has_weights:
                self._state = self._state.with_fetched(self._asked[1], own.span, room)
            self._asked = None
        disturbance = find_disturbance(
            decision,
            status,
            eyes.reading.servers.entries,
            eyes.plausible().entries,
            total_blocks=self._total_blocks,
            now=eyes.now,
        )
        self._state = self._state.after_check(disturbance, eyes.now)
        if not is_due(self._state, _SETTINGS, room=room, now=eyes.now):
            return
        self._state = self._state.with_plans_made(eyes.now)
        span = next_span(self._decider.likely_next(eyes, own, mine), self._state, own.span, room=room)
        if span is not None:
            self._asked = self._server.prefetch(span), span
