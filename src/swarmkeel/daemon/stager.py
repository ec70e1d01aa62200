"""Does what `daemon.staging` says: has the server fetch, in quiet hours, the blocks that it would most likely serve next."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from swarmkeel.balance.coordination import view_servers
from swarmkeel.balance.plan import Plan, Standing, make_plan
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.policy import Situation
from swarmkeel.balance.staging import LikelySpan, likely_next_spans
from swarmkeel.config import Config
from swarmkeel.control.protocol import PrefetchRequest, ServerStatus
from swarmkeel.daemon.check import Outcome, Reading, uses_claims
from swarmkeel.daemon.claimant import PrefetchingServer
from swarmkeel.daemon.metrics import Metrics
from swarmkeel.daemon.staging import (
    StagingResult,
    StagingSettings,
    StagingState,
    blocks_beside,
    find_disturbance,
    is_due,
    next_span,
    result_of,
)
from swarmkeel.daemon.state import DaemonState
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.span import Span

_log = structlog.get_logger(__name__)


class _UnwantedError(Exception):
    """Nobody wants the plans any more that are being made."""


@dataclass(frozen=True)
class _Asked:
    request: PrefetchRequest
    at: float
    present: Span
    room: int


def staging_settings(config: Config) -> StagingSettings | None:
    """Give how staging is done; None where it is not: switched off, in a dry run, or for a policy that makes no plans."""
    staging = config.staging
    if not staging.enabled or staging.blocks == 0 or config.balance.dry_run or not uses_claims(config):
        return None
    return StagingSettings(blocks=staging.blocks, period=staging.period, quiet_for=staging.quiet_for)


class Stager:
    """Makes the plans beside the loop, and asks the server.

    Args:
        server: The own server.
        metrics: Counts what was asked for.
        daemon: Is shown how many blocks are staged.
        is_free: Tells at any moment whether the own server has no claim.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        server: PrefetchingServer,
        metrics: Metrics,
        daemon: DaemonState,
        is_free: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._server = server
        self._metrics = metrics
        self._daemon = daemon
        self._is_free = is_free
        self._clock = clock
        self._state = StagingState()
        self._asked: _Asked | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = threading.Event()

    async def follow(self, reading: Reading, outcome: Outcome, settings: StagingSettings | None) -> None:
        """Do what follows from a check; what takes long goes on beside the next ones.

        Args:
            reading: What the check read.
            outcome: What it ended in.
            settings: How staging is done; None where it is not.
        """
        if settings is None:
            await self.close()
            return
        status = reading.status
        if status is not None and self._asked is not None and (reading.asked_at or 0.0) >= self._asked.at:
            self._note_asked(self._asked, status)
        situation = outcome.inputs.situation if outcome.inputs is not None else None
        if situation is None or status is None or status.span is None:
            await self._give_way()
            return
        now, snapshot = self._clock(), situation.snapshot
        disturbance = find_disturbance(
            outcome.decision,
            status,
            snapshot.spans(ServerState.JOINING),
            situation.sidecars,
            total_blocks=snapshot.total_blocks,
            now=now,
        )
        room = settings.room(status)
        self._daemon.staged_blocks = len(blocks_beside(status.span, self._state.fetched))
        if disturbance is not None:
            await self._give_way()
            return
        self._state = self._state.after_check(None, now)
        if self._task is None and is_due(self._state, settings, room=room, now=now):
            self._stopped = threading.Event()
            self._task = asyncio.create_task(self._stage(situation, status.span, room))

    async def close(self) -> None:
        """End what goes on, and forget what was staged."""
        await self._give_way()
        self._state, self._asked = StagingState(), None
        self._daemon.staged_blocks = None

    async def _give_way(self) -> None:
        """Let what has happened come first; from here on no request of this kind is under way."""
        self._state = self._state.disturbed()
        self._stopped.set()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _stage(self, situation: Situation, present: Span, room: int) -> None:
        try:
            likely = await asyncio.to_thread(_likely_spans, situation, self._stopped)
            self._state = self._state.with_plans_made(self._clock())
            span = next_span(likely, self._state, present, room=room)
            # A claim asks for its own weights, which this request must not come after and replace.
            if span is not None and self._is_free():
                await self._ask(span, present, room)
        except Exception as error:  # noqa: BLE001 - a fault here must not pass in silence, and ends nothing else
            _log.exception("staging_broken", error=str(error))
        finally:
            if self._task is asyncio.current_task():
                self._task = None

    async def _ask(self, span: Span, present: Span, room: int) -> None:
        request = PrefetchRequest(str(uuid.uuid4()), span)
        try:
            status = await self._server.prefetch(request)
        except SwarmkeelError as error:
            _log.warning("staging_refused", span=str(span), error=str(error))
            self._metrics.staging_requests.labels(StagingResult.REFUSED.value).inc()
            return
        _log.info("staging_begun", span=str(span))
        self._asked = _Asked(request, self._clock(), present, room)
        self._note_asked(self._asked, status)

    def _note_asked(self, asked: _Asked, status: ServerStatus) -> None:
        result = result_of(asked.request.id, status)
        if result is None:
            return
        self._asked = None
        self._metrics.staging_requests.labels(result.value).inc()
        span = asked.request.span
        if result.has_weights:
            self._state = self._state.with_fetched(span, asked.present, asked.room)
        _log.info("staging_over", span=str(span), result=result.value)


def _likely_spans(situation: Situation, stopped: threading.Event) -> tuple[LikelySpan, ...]:
    """Make the plans; takes seconds in a large swarm, and ends between two of them when nobody wants them any more."""

    def plan(
        servers: tuple[PlanServer, ...],
        *,
        total_blocks: int,
        move_cost: float,
        unread: frozenset[int] = frozenset(),
        standing: Standing | None = None,
    ) -> Plan:
        if stopped.is_set():
            raise _UnwantedError
        return make_plan(servers, total_blocks=total_blocks, move_cost=move_cost, unread=unread, standing=standing)

    snapshot, own = situation.snapshot, situation.own
    first_block = snapshot.first_block
    servers = view_servers(
        snapshot.spans(ServerState.JOINING),
        situation.sidecars,
        own,
        total_blocks=snapshot.total_blocks,
        now=situation.now,
        first_block=first_block,
    )
    likely = likely_next_spans(
        servers,
        own.peer_id,
        total_blocks=snapshot.total_blocks,
        move_cost=situation.settings.move_cost,
        planner=plan,
    )
    return tuple(
        LikelySpan(Span(each.span.start + first_block, each.span.end + first_block), each.departures) for each in likely
    )
