"""Drives a move: looks, takes the next step of `daemon.move`, writes it down, then acts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from swarmkeel.control.client import ServerRefused
from swarmkeel.control.protocol import RestartRequest, ServerStatus
from swarmkeel.daemon.move import (
    Announcement,
    Move,
    MoveLimits,
    MoveStep,
    Observation,
    Refusal,
    Transition,
    advance,
    by_the_clock,
)
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.snapshot import KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

_log = structlog.get_logger(__name__)


class Server(Protocol):
    """The own server, as far as a move needs it; `control.client.ControlClient` is one."""

    async def status(self) -> ServerStatus:
        """Ask what it does; SwarmkeelError if it does not answer."""
        ...

    async def restart(self, request: RestartRequest) -> ServerStatus:
        """Tell it to serve other blocks; ServerRefused if it will not."""
        ...


def find_announcement(snapshot: SwarmSnapshot, peer_id: str, span: Span) -> Announcement:
    """Say whether a snapshot shows a server ONLINE on exactly this span.

    Blocks of the span that could not be read are no evidence against it.
    """
    remote = snapshot.spans(ServerState.ONLINE).get(peer_id)
    if remote is not None and (remote.start, remote.end) == (span.start, span.end):
        return Announcement.ONLINE
    blocks = snapshot.blocks[span.start : span.end]
    if any(block.reading is KeyReading.UNKNOWN for block in blocks):
        return Announcement.NOT_READ
    return Announcement.MISSING


class Mover:
    """Takes one move at a time through its steps.

    Args:
        server: The own server.
        read_swarm: Takes a fresh snapshot; SwarmkeelError if the DHT cannot be read.
        save: Writes a move's state down, durably, before anything is done about it.
        clock: Seconds since the epoch.
        steady: Seconds on a clock that nobody sets: whoever sets the time must not make a move miss its deadlines.
        wait: Waits between two looks.
    """

    def __init__(
        self,
        *,
        server: Server,
        read_swarm: Callable[[], Awaitable[SwarmSnapshot]],
        save: Callable[[Move], Awaitable[None]],
        clock: Callable[[], float],
        steady: Callable[[], float] = time.monotonic,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._server = server
        self._read_swarm = read_swarm
        self._save = save
        self._clock = clock
        self._steady = steady
        self._wait = wait

    async def run(self, move: Move, limits: MoveLimits, poll_period: float) -> Move:
        """Take a move from where it is to its end.

        Args:
            move: A move whose state is already written down.
            limits: How long its steps may take.
            poll_period: Seconds between two looks.

        Returns:
            The move in one of its final steps.
        """
        refusal: Refusal | None = None
        # Of what a former process has waited only the time of day tells.
        step_began = self._steady() - by_the_clock(move, self._clock())
        while not move.is_final:
            seen = await self._observe(move, refusal, step_began)
            transition = advance(move, seen, limits)
            if transition.move != move:
                if not await self._write_down(transition.move):
                    await self._wait(poll_period)
                    continue
                if transition.move.step is not move.step:
                    refusal, step_began = None, self._steady()
                    self._report(transition.move)
                move = transition.move
            if transition.request is not None:
                refusal = await self._send(transition)
            elif not move.is_final:
                await self._wait(poll_period)
            if refusal is not None and not move.is_final:
                await self._wait(poll_period)
        return move

    async def _observe(self, move: Move, refusal: Refusal | None, step_began: float) -> Observation:
        try:
            status = await self._server.status()
        except SwarmkeelError as error:
            _log.warning("server_unreachable", move_id=move.id, error=str(error))
            status = None
        announcement = Announcement.NOT_READ
        if move.step is MoveStep.VERIFYING:
            announcement = await self._announcement(move.peer_id, move.target)
        elif move.step is MoveStep.VERIFYING_FALLBACK and move.origin is not None:
            announcement = await self._announcement(move.peer_id, move.origin)
        waited = self._steady() - step_began
        return Observation(now=self._clock(), status=status, refusal=refusal, announcement=announcement, waited=waited)

    async def _announcement(self, peer_id: str, span: Span) -> Announcement:
        try:
            return find_announcement(await self._read_swarm(), peer_id, span)
        except SwarmkeelError as error:
            _log.warning("snapshot_unavailable", error=str(error))
            return Announcement.NOT_READ

    async def _write_down(self, move: Move) -> bool:
        try:
            await self._save(move)
        except SwarmkeelError as error:
            # Without a record of the step a crash now would lose it, so the step is not taken.
            _log.error("move_not_recorded", move_id=move.id, step=move.step.value, error=str(error))
            return False
        return True

    async def _send(self, transition: Transition) -> Refusal | None:
        request = transition.request
        assert request is not None  # noqa: S101 - the caller has looked
        try:
            await self._server.restart(request)
        except ServerRefused as error:
            _log.warning("restart_refused", move_id=request.id, status=error.status, detail=error.detail)
            return Refusal(error.status, error.detail)
        except SwarmkeelError as error:
            _log.warning("restart_not_sent", move_id=request.id, error=str(error))
            await self._wait(1.0)
        return None

    def _report(self, move: Move) -> None:
        failed = move.step in (MoveStep.FAILED, MoveStep.FELL_BACK, MoveStep.FALLING_BACK, MoveStep.ABANDONED)
        (_log.warning if failed else _log.info)(
            "move_step",
            move_id=move.id,
            step=move.step.value,
            origin=str(move.origin) if move.origin else None,
            target=str(move.target),
            error=move.error,
        )
