"""Does what `daemon.claiming` says: puts the own claim on the board, and has the server fetch weights."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Final, Protocol

import structlog

from swarmkeel.control.client import ServerRefused
from swarmkeel.control.protocol import PrefetchPhase, PrefetchRequest, ServerStatus
from swarmkeel.daemon.check import Outcome
from swarmkeel.daemon.claiming import (
    ClaimAction,
    ClaimSettings,
    ClaimState,
    ClaimStep,
    Prefetch,
    step_back,
    step_under_way,
)
from swarmkeel.daemon.move import Move
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.sidecar_board import SidecarBoard
from swarmkeel.swarm.snapshot import SwarmSnapshot
from swarmkeel.swarm.span import Span

_log = structlog.get_logger(__name__)

_GOODBYE_SECONDS: Final = 3.0


class PrefetchingServer(Protocol):
    """The own server, as far as claims need it; `control.client.ControlClient` is one."""

    async def status(self) -> ServerStatus:
        """Ask what it does; SwarmkeelError if it does not answer."""
        ...

    async def prefetch(self, request: PrefetchRequest) -> ServerStatus:
        """Tell it to fetch weights while it serves; ServerRefused if it will not."""
        ...


class Claimant:
    """The own sidecar's place on the board.

    Args:
        board: The board.
        node: Gives the node to write through; None while there is none.
        server: The own server.
        clock: Seconds since the epoch.

    Attributes:
        board: The board.
        state: What is known of the own claim.
        has_weights: Whether the server has said that it fetched the weights of the claimed target.
    """

    def __init__(
        self,
        *,
        board: SidecarBoard,
        node: Callable[[], DhtNode | None],
        server: PrefetchingServer,
        clock: Callable[[], float],
    ) -> None:
        self.board = board
        self.state = ClaimState()
        self.has_weights = False
        self._node = node
        self._server = server
        self._clock = clock
        self._told: Sidecar | None = None
        self._look_again_at: float | None = None
        self._prefetch_id: str | None = None
        self._waits_for_another = False

    @property
    def is_pending(self) -> bool:
        """Whether a claim waits for its move to begin."""
        return self.state.claim is not None and not self.state.under_way

    @property
    def look_again_at(self) -> float | None:
        """When the next look at the own claim is due, seconds since the epoch; None leaves it to the usual period."""
        return self._look_again_at if self.is_pending else None

    async def follow(self, outcome: Outcome, *, lifetime_seconds: float) -> None:
        """Do what a check says of the own claim, and tell the others what is new or due to be told again.

        Args:
            outcome: What the check ended in.
            lifetime_seconds: How long what is told holds if it is not renewed.
        """
        step = outcome.step
        if step is None or outcome.told is None:
            return
        former, self.state = self.state, step.state
        self._told = outcome.told
        self._look_again_at = step.look_again_at
        self._report(former, step)
        await self._tell(lifetime_seconds)
        match step.action:
            case ClaimAction.PUBLISH:
                self.has_weights = False
                self.state = self.state.published(self._clock())
                if step.look_again_at is not None:
                    # It settles from when it was out.
                    self._look_again_at = step.look_again_at + self._clock() - outcome_time(outcome)
            case ClaimAction.PREFETCH if self.state.claim is not None:
                await self._prefetch(self.state.claim.target)
            case ClaimAction.GO:
                self.state = self.state.begun()

    async def follow_move(
        self, snapshot: SwarmSnapshot | None, move: Move, settings: ClaimSettings, *, lifetime_seconds: float
    ) -> None:
        """Keep the claim of a move under way until the DHT shows the server on its target."""
        span = snapshot.spans(ServerState.JOINING).get(move.peer_id) if snapshot else None
        visible = (
            span is not None
            and snapshot is not None
            and (span.start + snapshot.first_block, span.end + snapshot.first_block)
            == (move.target.start, move.target.end)
        )
        await self._step_under_way(settings, lifetime_seconds, is_visible=visible, is_over=False)

    async def move_over(self, settings: ClaimSettings, *, lifetime_seconds: float, cooldown: float) -> None:
        """Withdraw the claim of a move that has ended, however it did."""
        if self._told is not None and self._told.movable_at is not None:
            self._told = replace(self._told, movable_at=self._clock() + cooldown, arrives_at=None)
        await self._step_under_way(settings, lifetime_seconds, is_visible=False, is_over=True)

    async def _step_under_way(
        self, settings: ClaimSettings, lifetime_seconds: float, *, is_visible: bool, is_over: bool
    ) -> None:
        step = step_under_way(self.state, is_visible=is_visible, is_over=is_over, now=self._clock(), settings=settings)
        self._report(self.state, step)
        self.state = step.state
        if step.action is not ClaimAction.NOTHING:
            await self._tell(lifetime_seconds)

    async def step_back(self, *, lifetime_seconds: float) -> None:
        """Withdraw a claim whose move has not begun, and tell the others that the server may not be moved."""
        if not self.state.under_way:
            step = step_back(self.state)
            self._report(self.state, step)
            self.state = step.state
        if self._told is not None:
            arrives_at = self._told.arrives_at if self.state.under_way else None
            self._told = replace(self._told, movable_at=None, arrives_at=arrives_at)
            await self._tell(lifetime_seconds)

    async def look(self, settings: ClaimSettings) -> bool:
        """Do what is due about a pending claim between two checks.

        Returns:
            Whether it is time for a check: the claim has settled, or the server has fetched the weights or failed to.
        """
        due, claim = self.look_again_at, self.state.claim
        if due is None or claim is None or self._clock() < due:
            return False
        if self.state.prefetch is not Prefetch.FETCHING:
            self._look_again_at = None
            return True
        self._look_again_at = self._clock() + settings.prefetch_poll
        try:
            await self._follow_prefetch(claim, await self._server.status())
        except SwarmkeelError as error:
            _log.warning("server_unreachable", error=str(error))
        return self.state.prefetch is not Prefetch.FETCHING

    async def withdraw(self) -> None:
        """Take everything off the board, as at the end of the sidecar, or when the policy makes no claims any more."""
        told, self._told, self.state = self._told, None, ClaimState()
        if told is not None:
            await self.board.withdraw(self._node(), told.peer_id)

    async def close(self) -> None:
        """Leave the board; the claim of a move under way stays, since the move goes on."""
        if not self.state.under_way:
            # A DHT that hangs must not hold up the end: what is left there runs out.
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await self.withdraw()

    async def _tell(self, lifetime_seconds: float) -> None:
        if self._told is None:
            return
        claim = self.state.claim
        # A record must outlive the claim in it.
        rest = 0.0 if claim is None else claim.expires_at - self._clock()
        await self.board.publish(self._node(), replace(self._told, claim=claim), max(lifetime_seconds, rest))

    async def _prefetch(self, target: Span, *, may_wait: bool = True) -> None:
        self._prefetch_id, self.has_weights, self._waits_for_another = str(uuid.uuid4()), False, False
        try:
            status = await self._server.prefetch(PrefetchRequest(self._prefetch_id, target))
        except SwarmkeelError as error:
            if may_wait and isinstance(error, ServerRefused) and error.status == HTTPStatus.CONFLICT:
                # It should have left what it was asked to stage; one that does not is asked again after that.
                self._waits_for_another = True
                return
            _log.warning("prefetch_not_begun", target=str(target), error=str(error))
            self.state = self.state.with_prefetch(Prefetch.FAILED)
            return
        self._note_prefetch(status)

    async def _follow_prefetch(self, claim: Claim, status: ServerStatus) -> None:
        if not self._waits_for_another:
            self._note_prefetch(status)
        elif status.prefetch is None or status.prefetch.phase is not PrefetchPhase.FETCHING:
            await self._prefetch(claim.target, may_wait=False)

    def _note_prefetch(self, status: ServerStatus) -> None:
        shown = status.prefetch
        if shown is None or shown.id != self._prefetch_id:
            # It does not tell how far it is, or has lost it in a restart: the move itself will fetch what is missing.
            self.state = self.state.with_prefetch(Prefetch.DONE)
        elif shown.phase is PrefetchPhase.DONE:
            _log.info("prefetch_done", target=str(shown.span))
            self.has_weights = True
            self.state = self.state.with_prefetch(Prefetch.DONE)
        elif shown.phase is PrefetchPhase.FAILED:
            _log.warning("prefetch_failed", target=str(shown.span), error=shown.error)
            self.state = self.state.with_prefetch(Prefetch.FAILED)

    def _report(self, former: ClaimState, step: ClaimStep) -> None:
        if step.action in (ClaimAction.NOTHING, ClaimAction.WAIT, ClaimAction.EXTEND):
            return
        claim = step.state.claim or former.claim
        _log.info(
            "claim_step",
            action=step.action.value,
            origin=str(claim.origin) if claim and claim.origin else None,
            target=str(claim.target) if claim else None,
        )


def outcome_time(outcome: Outcome) -> float:
    """Give when a check was decided, seconds since the epoch; 0 if there was nothing to decide on."""
    return outcome.inputs.situation.now if outcome.inputs else 0.0
