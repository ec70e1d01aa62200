"""The loop: read, decide, write down, move. All I/O of a check happens here."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from swarmkeel.balance.bound import measure
from swarmkeel.balance.decision import Decision, Reason, Verdict
from swarmkeel.config import Config
from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.check import (
    Outcome,
    Past,
    Reading,
    claim_settings,
    decide_check,
    guard_settings,
    move_limits,
    plan_move,
    uses_claims,
    view_claims,
)
from swarmkeel.daemon.claimant import Claimant
from swarmkeel.daemon.guard import view_breaker
from swarmkeel.daemon.journal import CheckRecord, Journal, JournalError
from swarmkeel.daemon.metrics import Metrics
from swarmkeel.daemon.move import Move, MoveStep, resume
from swarmkeel.daemon.mover import Mover
from swarmkeel.daemon.notify import ServiceNotifier
from swarmkeel.daemon.patience import Patience
from swarmkeel.daemon.pause import Pause
from swarmkeel.daemon.stager import Stager, staging_settings
from swarmkeel.daemon.state import DaemonState, view_swarm
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.rejection_log import RejectionLog
from swarmkeel.swarm.sidecar_record import BoardReading
from swarmkeel.swarm.snapshot import SwarmSnapshot

_log = structlog.get_logger(__name__)

MOVES_LOOKED_AT: Final = 200
"""Guards look at this many of the newest moves; no sane limit of moves a day is above it."""
WISHES_LAST_PERIODS: Final = 5
"""A wanted move confirms a later one only within this many check periods."""
PRUNE_EVERY_SECONDS: Final = 3600.0
PRUNE_EVERY_CHECKS: Final = 200
"""Whichever comes first, so that the journal keeps to its size however often the balance is checked."""
BYTES_PER_MEGABYTE: Final = 1024 * 1024
CHECK_SECONDS: Final = 60.0
"""What a check does beside reading takes no longer, in a large swarm on a slow machine."""
CALM: Final = frozenset({Verdict.BALANCED, Verdict.DISABLED, Verdict.PAUSED})
"""After these no move is begun without another check between."""
SHORTEST_SLEEP_SECONDS: Final = 0.02
MAX_PRESENCE_SECONDS: Final = 1800.0
"""Others plan for a server no longer than this after its sidecar died."""


def presence_lifetime(config: Config) -> float:
    """Give the seconds that what is told to other sidecars holds: for three checks, late ones too."""
    check = config.balance.check_period * (1 + config.balance.check_jitter) + longest_reading(config)
    return min(3 * check, MAX_PRESENCE_SECONDS)


def longest_promise(config: Config) -> float:
    """Give the seconds within which another sidecar must have claimed the move that the plan wants of it: two checks."""
    return 2 * (config.balance.check_period * (1 + config.balance.check_jitter) + config.claims.settle)


def longest_answer(config: Config) -> float:
    """Give the seconds that a check which is asked for may take: one may be under way before it."""
    return 2 * (longest_reading(config) + CHECK_SECONDS)


def longest_reading(config: Config) -> float:
    """Give the seconds that the readings of one check may take."""
    return max(config.swarm.read_timeout, config.server.request_timeout)


class BalanceLoop:
    """Checks the balance again and again, and moves the server.

    Args:
        config: The configuration in force.
        reader: Reads the swarm.
        server: The own server.
        claimant: Its place among the other sidecars.
        stager: Has it fetch what it may serve next.
        journal: Where checks and moves are written down.
        state: What the daemon knows; changed here alone.
        metrics: What the daemon counts.
        notifier: Tells the service manager.
        clock: Seconds since the epoch.

    Attributes:
        config: The configuration in force; a reload sets another.
        move_task: The move under way, or the last one; None before the first.
    """

    def __init__(
        self,
        config: Config,
        *,
        reader: SwarmReader,
        server: ControlClient,
        claimant: Claimant,
        stager: Stager,
        journal: Journal,
        state: DaemonState,
        metrics: Metrics,
        notifier: ServiceNotifier,
        clock: Callable[[], float],
    ) -> None:
        self.config = config
        self.move_task: asyncio.Task[None] | None = None
        self._reader = reader
        self._server = server
        self._claimant = claimant
        self._stager = stager
        self._wake = asyncio.Event()
        self._asked: list[asyncio.Future[CheckRecord]] = []
        self._deciding = asyncio.Lock()
        self._board: BoardReading | None = None
        self._patience = Patience()
        self._journal = journal
        self._state = state
        self._metrics = metrics
        self._notifier = notifier
        self._clock = clock
        self._mover = Mover(server=server, read_swarm=self._read_swarm, save=self._save_move, clock=clock)
        # Not for secrets: jitter and seeds only need to differ between sidecars.
        self._random = random.SystemRandom()
        self._last_prune = -PRUNE_EVERY_SECONDS
        self._checks_since_prune = 0
        self._implausible = RejectionLog("claims_not_believed")
        # A pause outlives the process that was told of it.
        state.pause = journal.pause()

    async def turn(self, tasks: asyncio.TaskGroup) -> None:
        """Check and wait, for ever; moves that follow become tasks of the group."""
        asked: list[asyncio.Future[CheckRecord]] = []
        try:
            while True:
                self._wake.clear()
                asked, self._asked = self._asked, []
                record = await self.check(tasks)
                for answer in asked:
                    if not answer.done():
                        answer.set_result(record)
                await self._wait()
        finally:
            for answer in (*asked, *self._asked):
                answer.cancel()

    async def check_now(self) -> CheckRecord:
        """Have the balance checked at once, and give the check, which begins after this call."""
        answer: asyncio.Future[CheckRecord] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._wake.set()
        return await answer

    async def pause(self, pause: Pause) -> None:
        """Begin no move any more until the pause is over; one that is under way is taken to its end.

        Raises:
            JournalError: If it cannot be written down; then nothing has changed.
        """
        # What is being decided right now may still begin; nothing does once this has returned.
        async with self._deciding:
            await asyncio.to_thread(self._journal.save_pause, pause)
            self._state.pause = pause
        _log.info("paused", until=pause.until, reason=pause.reason, uid=pause.uid)
        self._wake.set()

    async def resume(self, uid: int) -> Pause | None:
        """End the pause that holds.

        Args:
            uid: The user who wants that, for the log.

        Returns:
            The pause that held; None if none did.

        Raises:
            JournalError: If it cannot be written down; then nothing has changed.
        """
        async with self._deciding:
            pause = await self._present_pause(self._clock())
            if pause is None:
                return None
            await asyncio.to_thread(self._journal.save_pause, None)
            self._state.pause = None
        _log.info("resumed", uid=uid)
        self._wake.set()
        return pause

    async def _present_pause(self, now: float) -> Pause | None:
        pause = self._state.pause
        if pause is None or pause.holds(now):
            return pause
        self._state.pause = None
        _log.info("pause_ended", since=pause.since, until=pause.until)
        await self._try_to_record("pause_not_recorded", asyncio.to_thread(self._journal.save_pause, None))
        return None

    async def settle(self, tasks: asyncio.TaskGroup) -> None:
        """Check once, and again as soon as it is due, until no claim waits for its move to begin."""
        await self.check(tasks)
        while self._claimant.is_pending:
            await self._wait()
            await self.check(tasks)

    async def _wait(self) -> None:
        """Wait until the next check is due: the period or a pause is over, the own claim has changed, or one is asked for."""
        balance = self.config.balance
        period = balance.check_period * self._random.uniform(1 - balance.check_jitter, 1 + balance.check_jitter)
        wake_at = time.monotonic() + period
        watchdog = self._notifier.watchdog_seconds
        while (remaining := wake_at - time.monotonic()) > 0:
            self._notifier.alive()
            former, now = self._state.pause, self._clock()
            async with self._deciding:  # so that a new pause cannot be written down before the old one is taken back
                pause = await self._present_pause(now)
            if pause is not former or await self._claimant.look(claim_settings(self.config)):
                return
            dues = (self._claimant.look_again_at, pause.until if pause is not None else None)
            until_due = [max(due - now, SHORTEST_SLEEP_SECONDS) for due in dues if due is not None]
            if await self._is_woken(min(remaining, *until_due, watchdog / 3 if watchdog else remaining)):
                return

    async def _is_woken(self, seconds: float) -> bool:
        """Wait for so long at most, and tell whether somebody wants a check."""
        try:
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        except TimeoutError:
            return False

    async def check(self, tasks: asyncio.TaskGroup) -> CheckRecord:
        """Make one check; whatever it runs into ends in a verdict.

        Returns:
            The check without its inputs.
        """
        check_id = uuid.uuid4().hex[:12]
        self._state.check_period_seconds = self.config.balance.check_period
        with structlog.contextvars.bound_contextvars(check_id=check_id), self._metrics.check_duration.time():
            try:
                reading = await self._read()
                async with self._deciding:
                    outcome = await self._decide(check_id, reading)
                    self._show(outcome.decision)
                    if outcome.decision.verdict is Verdict.MOVING and outcome.inputs is not None:
                        await self._begin_move(outcome.decision, outcome.inputs.situation.now, tasks)
            except Exception as error:  # noqa: BLE001 - the loop outlives whatever one check runs into
                (_log.error if isinstance(error, SwarmkeelError) else _log.exception)("check_failed", error=str(error))
                self._show(self._failure("check_failed", error=str(error)[:300]))
            self._state.last_turn_at = self._clock()
            self._notifier.alive()
            decision = self._state.decision
            assert decision is not None  # noqa: S101 - one was shown
            return CheckRecord(check_id, self._clock(), decision, None)

    async def _decide(self, check_id: str, reading: Reading) -> Outcome:
        now = self._clock()
        past = await self._past(now)
        self._state.breaker = view_breaker(past.moves, guard_settings(self.config), now)
        numbers = self._state.swarm.numbers if reading.snapshot and self._state.swarm else None
        seed = self._random.getrandbits(32)
        # A check of a large swarm takes a while: it must not hold up the metrics.
        outcome = await asyncio.to_thread(decide_check, self.config, reading, past, now=now, seed=seed, numbers=numbers)
        await asyncio.to_thread(self._journal.save_check, CheckRecord(check_id, now, outcome.decision, outcome.inputs))
        if outcome.inputs is not None:
            self._state.sidecars = outcome.inputs.situation.sidecars
            self._state.guards = (outcome.inputs.view, outcome.inputs.guards)
        await self._follow_claim(reading, past, outcome)
        await self._stager.follow(reading, outcome, staging_settings(self.config))
        await self._prune(now)
        return outcome

    async def _follow_claim(self, reading: Reading, past: Past, outcome: Outcome) -> None:
        """Do what follows for the own claim, and show what was seen of the others'."""
        self._implausible.note(outcome.doubts)
        lifetime = presence_lifetime(self.config)
        if past.move_under_way is not None:
            await self._claimant.follow_move(
                reading.snapshot, past.move_under_way, claim_settings(self.config), lifetime_seconds=lifetime
            )
            if past.pause is not None:
                await self._claimant.step_back(lifetime_seconds=lifetime)
        elif uses_claims(self.config):
            if past.pause is not None and outcome.step is None:
                await self._claimant.step_back(lifetime_seconds=lifetime)
            await self._claimant.follow(outcome, lifetime_seconds=lifetime)
            # In a dry run nobody moves, however long one waits.
            if outcome.inputs is not None and not self.config.balance.dry_run:
                situation = outcome.inputs.situation
                self._patience = self._patience.after(
                    outcome.named, situation.sidecars, now=situation.now, limit=longest_promise(self.config)
                )
        else:
            await self._claimant.withdraw()
        self._state.own_claim = self._claimant.state.claim
        self._state.claims = view_claims(reading, outcome) if uses_claims(self.config) else None

    async def _read(self) -> Reading:
        asked_at = self._clock()
        snapshot: SwarmSnapshot | None = None
        status: ServerStatus | None = None
        snapshot_error: str | None = None
        status_error: str | None = None

        async def read_snapshot() -> None:
            nonlocal snapshot, snapshot_error
            try:
                snapshot = await self._read_swarm()
            except SwarmkeelError as error:
                snapshot_error = str(error)[:300]

        async def read_status() -> None:
            nonlocal status, status_error
            try:
                status = await self._server.status()
            except SwarmkeelError as error:
                status_error = str(error)[:300]
            self._note_server(status)

        async with asyncio.TaskGroup() as readings:
            readings.create_task(read_snapshot())
            readings.create_task(read_status())
        board = self._board if snapshot else None
        return Reading(snapshot, snapshot_error, status, status_error, board, asked_at)

    async def _read_swarm(self) -> SwarmSnapshot:
        """Take a snapshot and show it in the metrics; SwarmkeelError if that fails."""
        started = time.monotonic()
        try:
            snapshot = await (self._read_with_board() if uses_claims(self.config) else self._read_blocks())
        except SwarmkeelError:
            self._metrics.snapshot_failures.inc()
            self._state.snapshot_is_good = False
            self._state.dht_peers = self._reader.dht_peers
            raise
        self._metrics.snapshots.inc()
        self._metrics.count_rejections(snapshot.rejected)
        self._state.snapshot_seconds = time.monotonic() - started
        self._state.dht_peers = self._reader.dht_peers
        view = await asyncio.to_thread(view_swarm, snapshot)
        answered = snapshot.quality(self._clock()).keys_answered_ratio
        self._state.show_swarm(view, is_good=answered >= self.config.balance.min_answered_ratio)
        return snapshot

    async def _read_blocks(self) -> SwarmSnapshot:
        return await self._reader.read(thorough=not self._is_calm())

    async def _read_with_board(self) -> SwarmSnapshot:
        board = self._claimant.board
        snapshot, found = await self._reader.read_beside((board.key,), thorough=not self._is_calm())
        # Of a large swarm this takes a while; the snapshot remembers it.
        servers = await asyncio.to_thread(snapshot.spans, ServerState.OFFLINE)
        self._board = await board.read(found[board.key], servers)
        return snapshot

    def _is_calm(self) -> bool:
        """Tell whether no move is near, so that a record seen a little later does no harm.

        A move is never begun on a reading of a calm time: first it is claimed, or wanted again by another check.
        """
        decision = self._state.decision
        wants_twice = uses_claims(self.config) or self.config.guards.confirmations > 1
        return wants_twice and decision is not None and decision.verdict in CALM

    def _note_server(self, status: ServerStatus | None) -> None:
        former, self._state.server = self._state.server, status
        if former != status:
            self._state.changes.note()
        if status is None:
            return
        if status.state is not ServerPhase.ONLINE:
            self._state.span_since = None
        elif self._state.span_since is None or (former is not None and former.span != status.span):
            self._state.span_since = self._clock()

    async def _past(self, now: float) -> Past:
        config = self.config
        wishes = await asyncio.to_thread(
            self._journal.wishes_in_a_row,
            since=now - WISHES_LAST_PERIODS * (config.balance.check_period + longest_reading(self.config)),
            limit=config.guards.confirmations,
        )
        moves = await asyncio.to_thread(self._journal.moves, limit=MOVES_LOOKED_AT)
        under_way = self._state.move if self.move_task is not None and not self.move_task.done() else None
        return Past(
            moves=moves,
            move_under_way=under_way,
            span_since=self._state.span_since,
            wishes=wishes,
            claim=self._claimant.state,
            patience=self._patience,
            pause=await self._present_pause(now),
        )

    def _show(self, decision: Decision) -> None:
        self._state.decision = decision
        self._state.last_check_at = self._clock()
        self._state.changes.note()
        self._metrics.decisions.labels(decision.verdict.value).inc()
        self._notifier.status(decision.sentence[:200])
        _log.info(
            "check",
            verdict=decision.verdict.value,
            sentence=decision.sentence,
            own_span=str(decision.own_span) if decision.own_span else None,
            target=str(decision.target) if decision.target else None,
            bottleneck_rps=decision.before.bottleneck_rps if decision.before else None,
            bound_rps=decision.before.bound_rps if decision.before else None,
            uncovered_blocks=decision.before.uncovered_blocks if decision.before else None,
            snapshot_digest=decision.snapshot_digest[:12],
        )

    def _failure(self, name: str, **values: str) -> Decision:
        server = self._state.server
        return Decision(
            verdict=Verdict.FAILED,
            reasons=(Reason(name=name, values=values),),
            policy=self.config.balance.policy,
            peer_id=(server.peer_id if server else None) or "",
            own_span=server.span if server else None,
            target=None,
            before=None,
            after=None,
            snapshot_digest="",
            seed=0,
        )

    async def _begin_move(self, decision: Decision, decided_at: float, tasks: asyncio.TaskGroup) -> None:
        move = plan_move(
            decision,
            move_id=str(uuid.uuid4()),
            drain_seconds=self.config.move.drain,
            # Since then, and not since now, it grows old: this process may have been stopped, or the machine asleep.
            now=decided_at,
            staged=self._claimant.has_weights,
        )
        try:
            await self._save_move(move)
        except JournalError as error:
            _log.error("move_not_recorded", error=str(error))
            self._show(self._failure("move_failed", target=str(move.target), error=str(error)[:300]))
            return
        _log.info("move_planned", move_id=move.id, origin=str(move.origin), target=str(move.target))
        self.move_task = tasks.create_task(self._drive(move))

    def unfinished_moves(self) -> tuple[Move, ...]:
        """Give what a former process left unfinished, for `resume_moves`; JournalError if the journal cannot be read."""
        return self._journal.unfinished_moves()

    def resume_moves(self, unfinished: tuple[Move, ...], tasks: asyncio.TaskGroup) -> None:
        """Take up what a former process left unfinished."""
        for move in unfinished:
            _log.warning("move_resumed", move_id=move.id, step=move.step.value, target=str(move.target))
        # There is never more than one: a move begins only when no other is under way.
        if unfinished:
            self._state.move = unfinished[-1]
            self.move_task = tasks.create_task(self._resume(unfinished))

    async def _resume(self, unfinished: tuple[Move, ...]) -> None:
        for move in unfinished:
            await self._drive(resume(move, self._clock()))

    async def _drive(self, move: Move) -> None:
        """Take a move to its end, whatever happens on the way, and report it."""
        try:
            await self._save_move(move)
            final = await self._mover.run(move, move_limits(self.config), self.config.move.poll_period)
        except Exception as error:  # noqa: BLE001 - a fault here must end neither the daemon nor the move in silence
            _log.exception("move_broken", move_id=move.id, error=str(error))
            update = {"step": MoveStep.FAILED, "step_since": self._clock(), "error": f"a fault: {error}"[:300]}
            final = (self._state.move or move).model_copy(update=update)
            await self._try_to_record("move_not_recorded", self._save_move(final))
        await self._claimant.move_over(
            claim_settings(self.config),
            lifetime_seconds=presence_lifetime(self.config),
            cooldown=self.config.guards.cooldown,
        )
        self._state.own_claim = self._claimant.state.claim
        self._metrics.move_duration.observe(max(final.step_since - final.started_at, 0.0))
        if final.step is MoveStep.DONE:
            self._metrics.moves.inc()
            final = await self._with_realised_gain(final)
            _log.info("move_done", move_id=final.id, target=str(final.target), gain_rps=final.realised_gain_rps)
            return
        self._metrics.move_failures.inc()
        failure = self._failure("move_failed", target=str(final.target), error=final.error or "no reason given")
        self._show(failure)
        record = CheckRecord(uuid.uuid4().hex[:12], self._clock(), failure, None)
        await self._try_to_record("check_not_recorded", asyncio.to_thread(self._journal.save_check, record))

    @staticmethod
    async def _try_to_record(event: str, recording: Awaitable[None]) -> None:
        try:
            await recording
        except JournalError as error:
            _log.error(event, error=str(error))

    async def _with_realised_gain(self, move: Move) -> Move:
        view = self._state.swarm
        if view is None:
            return move
        # Counted like the prediction: servers that still load count as serving.
        spans = view.snapshot.spans(ServerState.JOINING)
        bottleneck = measure(spans, total_blocks=view.snapshot.total_blocks).bottleneck_rps
        measured = move.model_copy(update={"realised_gain_rps": bottleneck - move.bottleneck_before_rps})
        await self._try_to_record("move_not_recorded", self._save_move(measured))
        return measured

    async def _save_move(self, move: Move) -> None:
        await asyncio.to_thread(self._journal.save_move, move)
        self._state.move = move
        self._state.changes.note()

    async def _prune(self, now: float) -> None:
        self._checks_since_prune += 1
        if now - self._last_prune < PRUNE_EVERY_SECONDS and self._checks_since_prune < PRUNE_EVERY_CHECKS:
            return
        self._last_prune, self._checks_since_prune = now, 0
        journal = self.config.journal
        removed = await asyncio.to_thread(
            self._journal.prune,
            now=now,
            keep_seconds=journal.keep,
            max_decisions=journal.max_decisions,
            max_bytes=journal.max_megabytes * BYTES_PER_MEGABYTE,
        )
        if removed:
            _log.info("journal_pruned", decisions=removed)
