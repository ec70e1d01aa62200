"""The daemon: wires the parts together and turns the loop. All I/O of a check happens here."""

from __future__ import annotations

import asyncio
import random
import signal
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from swarmkeel import __version__
from swarmkeel.balance.bound import measure
from swarmkeel.balance.decision import Decision, Reason, Verdict
from swarmkeel.config import Config, ConfigError, load_config
from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.check import Outcome, Past, Reading, decide_check, move_limits, plan_move
from swarmkeel.daemon.http import HttpServer
from swarmkeel.daemon.journal import CheckRecord, Journal, JournalError
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.daemon.metrics import Metrics
from swarmkeel.daemon.move import Move, MoveStep, resume
from swarmkeel.daemon.mover import Mover
from swarmkeel.daemon.notify import ServiceNotifier
from swarmkeel.daemon.state import DaemonState, view_swarm
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.snapshot import SwarmSnapshot

_log = structlog.get_logger(__name__)

MOVES_LOOKED_AT: Final = 200
"""Guards look at this many of the newest moves; no sane limit of moves a day is above it."""
WISHES_LAST_PERIODS: Final = 5
"""A wanted move confirms a later one only within this many check periods."""
PRUNE_EVERY_SECONDS: Final = 3600.0


class Sidecar:
    """One running daemon beside one server.

    Args:
        config: The configuration to start with.
        config_path: Where a reload reads it again.
        dry_run: Tell the server nothing, whatever the configuration says.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        config: Config,
        *,
        config_path: Path,
        dry_run: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config_path = config_path
        self._dry_run = dry_run
        self._config = self._with_overrides(config)
        self._clock = clock
        self._stop = asyncio.Event()
        self._move_task: asyncio.Task[None] | None = None
        self._last_prune = -PRUNE_EVERY_SECONDS
        # Not for secrets: jitter and seeds only need to differ between sidecars.
        self._random = random.SystemRandom()
        self._notifier = ServiceNotifier()
        self.state = DaemonState(started_at=clock(), last_turn_at=clock())
        self.metrics = Metrics(
            self.state,
            version=__version__,
            dht_prefix=config.swarm.dht_prefix,
            policy=lambda: self._config.balance.policy,
            clock=clock,
        )
        self._http = HttpServer(
            self.metrics.registry, self.state, stalled_after=lambda: self._stalled_after, clock=clock
        )
        self._journal = Journal(config.journal.path)
        self._reader = SwarmReader(
            config.swarm.initial_peers,
            config.swarm.dht_prefix,
            config.swarm.total_blocks,
            identity_path=config.swarm.identity_path,
            read_timeout=config.swarm.read_timeout,
            clock=clock,
        )
        self._server = ControlClient(
            config.server.socket, request_timeout=config.server.request_timeout, allowed_uids=config.server.uids
        )
        self._mover = Mover(server=self._server, read_swarm=self._read_swarm, save=self._save_move, clock=clock)

    @property
    def _stalled_after(self) -> float:
        return 60.0 + 3 * (self._config.balance.check_period + self._longest_reading)

    @property
    def _longest_reading(self) -> float:
        return max(self._config.swarm.read_timeout, self._config.server.request_timeout)

    async def run(self) -> None:
        """Run until SIGTERM, SIGINT or `stop`; SIGHUP reads the configuration again.

        Raises:
            SwarmkeelError: If it cannot start.
        """
        loop = asyncio.get_running_loop()
        try:
            port = await self._http.start(self._config.http.host, self._config.http.port)
            _log.info("started", version=__version__, http=f"http://{self._config.http.host}:{port}")
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            loop.add_signal_handler(signal.SIGHUP, self.reload)
            self._notifier.ready()
            async with asyncio.TaskGroup() as tasks:
                self._resume_moves(tasks)
                turning = tasks.create_task(self._turn(tasks))
                await self._stop.wait()
                self._notifier.stopping()
                turning.cancel()
                if self._move_task is not None:
                    # Its state is on disk: the next start of the sidecar goes on with it.
                    self._move_task.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)
            await self._close()
        _log.info("stopped")

    async def run_once(self) -> Decision:
        """Make one check, and the move that it leads to if any, and give what it ended in."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._resume_moves(tasks)
                if self._move_task is not None:
                    await self._move_task
                await self._check(tasks)
            decision = self.state.decision
            assert decision is not None  # noqa: S101 - every check leaves one
            return decision
        finally:
            await self._close()

    def stop(self) -> None:
        """Make `run` end soon."""
        self._stop.set()

    def reload(self) -> None:
        """Read the configuration again; a bad file changes nothing."""
        self._notifier.reloading()
        try:
            new = self._with_overrides(load_config(self._config_path))
        except ConfigError as error:
            self.state.config_is_current = False
            for where, what in error.findings:
                _log.error("config_rejected", file=str(error.path), where=where, what=what)
        else:
            self._apply(new)
        self._notifier.ready()

    def _apply(self, new: Config) -> None:
        old = self._config
        fixed = {
            "swarm": old.swarm,
            "server": old.server,
            "http": old.http,
            "journal": new.journal.model_copy(update={"path": old.journal.path}),
        }
        needs_restart = sorted(name for name, section in fixed.items() if section != getattr(new, name))
        self._config = new.model_copy(update=fixed)
        self.state.config_is_current = True
        configure_logging(new.log.level, new.log.format)
        _log.info("config_reloaded")
        if needs_restart:
            _log.warning("config_needs_restart", sections=needs_restart)

    def _with_overrides(self, config: Config) -> Config:
        if not self._dry_run:
            return config
        return config.model_copy(update={"balance": config.balance.model_copy(update={"dry_run": True})})

    async def _close(self) -> None:
        for close in (self._http.close, self._server.close, self._reader.close):
            try:
                await close()
            except Exception:  # noqa: BLE001 - what cannot be closed must not keep the rest open
                _log.exception("close_failed")
        self._journal.close()

    async def _turn(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._check(tasks)
            await self._pause()

    async def _pause(self) -> None:
        balance = self._config.balance
        period = balance.check_period * self._random.uniform(1 - balance.check_jitter, 1 + balance.check_jitter)
        wake_at = time.monotonic() + period
        watchdog = self._notifier.watchdog_seconds
        while (remaining := wake_at - time.monotonic()) > 0:
            self._notifier.alive()
            await asyncio.sleep(min(remaining, watchdog / 3) if watchdog else remaining)

    async def _check(self, tasks: asyncio.TaskGroup) -> None:
        check_id = uuid.uuid4().hex[:12]
        with structlog.contextvars.bound_contextvars(check_id=check_id), self.metrics.check_duration.time():
            try:
                outcome = await self._decide(check_id)
            except Exception as error:  # noqa: BLE001 - the loop outlives whatever one check runs into
                (_log.error if isinstance(error, SwarmkeelError) else _log.exception)("check_failed", error=str(error))
                self._show(self._failure("check_failed", error=str(error)[:300]))
            else:
                self._show(outcome.decision)
                if outcome.decision.verdict is Verdict.MOVING and outcome.inputs is not None:
                    await self._begin_move(outcome.decision, tasks)
            self.state.last_turn_at = self._clock()
            self._notifier.alive()

    async def _decide(self, check_id: str) -> Outcome:
        reading = await self._read()
        now = self._clock()
        past = await self._past(now)
        numbers = self.state.swarm.numbers if reading.snapshot and self.state.swarm else None
        seed = self._random.getrandbits(32)
        # A check of a large swarm takes a while: it must not hold up the metrics.
        outcome = await asyncio.to_thread(
            decide_check, self._config, reading, past, now=now, seed=seed, numbers=numbers
        )
        await asyncio.to_thread(self._journal.save_check, CheckRecord(check_id, now, outcome.decision, outcome.inputs))
        await self._prune(now)
        return outcome

    async def _read(self) -> Reading:
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
        return Reading(snapshot, snapshot_error, status, status_error)

    async def _read_swarm(self) -> SwarmSnapshot:
        """Take a snapshot and show it in the metrics; SwarmkeelError if that fails."""
        started = time.monotonic()
        try:
            snapshot = await self._reader.read()
        except SwarmkeelError:
            self.metrics.snapshot_failures.inc()
            self.state.snapshot_is_good = False
            self.state.dht_peers = self._reader.dht_peers
            raise
        self.metrics.snapshots.inc()
        self.metrics.count_rejections(snapshot.rejected)
        self.state.snapshot_seconds = time.monotonic() - started
        self.state.dht_peers = self._reader.dht_peers
        self.state.swarm = await asyncio.to_thread(view_swarm, snapshot)
        answered = snapshot.quality(self._clock()).keys_answered_ratio
        self.state.snapshot_is_good = answered >= self._config.balance.min_answered_ratio
        self.state.ready |= self.state.snapshot_is_good
        return snapshot

    def _note_server(self, status: ServerStatus | None) -> None:
        former, self.state.server = self.state.server, status
        if status is None:
            return
        if status.state is not ServerPhase.ONLINE:
            self.state.span_since = None
        elif self.state.span_since is None or (former is not None and former.span != status.span):
            self.state.span_since = self._clock()

    async def _past(self, now: float) -> Past:
        config = self._config
        wishes = await asyncio.to_thread(
            self._journal.wishes_in_a_row,
            since=now - WISHES_LAST_PERIODS * (config.balance.check_period + self._longest_reading),
            limit=config.guards.confirmations,
        )
        moves = await asyncio.to_thread(self._journal.moves, limit=MOVES_LOOKED_AT)
        under_way = self.state.move if self._move_task is not None and not self._move_task.done() else None
        return Past(moves=moves, move_under_way=under_way, span_since=self.state.span_since, wishes=wishes)

    def _show(self, decision: Decision) -> None:
        self.state.decision = decision
        self.state.last_check_at = self._clock()
        self.metrics.decisions.labels(decision.verdict.value).inc()
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
        server = self.state.server
        return Decision(
            verdict=Verdict.FAILED,
            reasons=(Reason(name=name, values=values),),
            policy=self._config.balance.policy,
            peer_id=(server.peer_id if server else None) or "",
            own_span=server.span if server else None,
            target=None,
            before=None,
            after=None,
            snapshot_digest="",
            seed=0,
        )

    async def _begin_move(self, decision: Decision, tasks: asyncio.TaskGroup) -> None:
        move = plan_move(decision, move_id=str(uuid.uuid4()), drain_seconds=self._config.move.drain, now=self._clock())
        try:
            await self._save_move(move)
        except JournalError as error:
            _log.error("move_not_recorded", error=str(error))
            self._show(self._failure("move_failed", target=str(move.target), error=str(error)[:300]))
            return
        _log.info("move_planned", move_id=move.id, origin=str(move.origin), target=str(move.target))
        self._move_task = tasks.create_task(self._drive(move))

    def _resume_moves(self, tasks: asyncio.TaskGroup) -> None:
        unfinished = self._journal.unfinished_moves()
        for move in unfinished:
            _log.warning("move_resumed", move_id=move.id, step=move.step.value, target=str(move.target))
        # There is never more than one: a move begins only when no other is under way.
        if unfinished:
            self.state.move = unfinished[-1]
            self._move_task = tasks.create_task(self._resume(unfinished))

    async def _resume(self, unfinished: tuple[Move, ...]) -> None:
        for move in unfinished:
            await self._drive(resume(move, self._clock()))

    async def _drive(self, move: Move) -> None:
        """Take a move to its end, whatever happens on the way, and report it."""
        try:
            await self._save_move(move)
            final = await self._mover.run(move, move_limits(self._config), self._config.move.poll_period)
        except Exception as error:  # noqa: BLE001 - a fault here must end neither the daemon nor the move in silence
            _log.exception("move_broken", move_id=move.id, error=str(error))
            update = {"step": MoveStep.FAILED, "step_since": self._clock(), "error": f"a fault: {error}"[:300]}
            final = (self.state.move or move).model_copy(update=update)
            await self._try_to_record("move_not_recorded", self._save_move(final))
        self.metrics.move_duration.observe(max(final.step_since - final.started_at, 0.0))
        if final.step is MoveStep.DONE:
            self.metrics.moves.inc()
            final = await self._with_realised_gain(final)
            _log.info("move_done", move_id=final.id, target=str(final.target), gain_rps=final.realised_gain_rps)
            return
        self.metrics.move_failures.inc()
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
        view = self.state.swarm
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
        self.state.move = move

    async def _prune(self, now: float) -> None:
        if now - self._last_prune < PRUNE_EVERY_SECONDS:
            return
        self._last_prune = now
        journal = self._config.journal
        removed = await asyncio.to_thread(
            self._journal.prune, now=now, keep_seconds=journal.keep, max_decisions=journal.max_decisions
        )
        if removed:
            _log.info("journal_pruned", decisions=removed)
