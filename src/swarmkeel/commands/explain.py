"""`swarmkeel explain`: what would be decided about one server and why, without acting."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarmkeel.balance.coordinated import CoordinatedPolicy
from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.commands.plan_view import SharedPlan, print_plan, share_plan
from swarmkeel.commands.reading import describe_quality, patience, read_swarm_and_board
from swarmkeel.config import Config, load_config
from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.check import as_without_dry_run, find_mismatch, guard_settings, policy_settings
from swarmkeel.daemon.claiming import count_moving
from swarmkeel.daemon.guard import GuardSettings, GuardView, apply_guards
from swarmkeel.daemon.journal import Journal, JournalError
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.daemon.move import Move
from swarmkeel.daemon.own_server import own_server
from swarmkeel.errors import SwarmkeelError, UsageError
from swarmkeel.printable import printable
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.recorded import read_snapshot_file
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.sidecar_check import check_sidecars
from swarmkeel.swarm.sidecar_record import BoardReading
from swarmkeel.swarm.snapshot import SnapshotQuality, SwarmSnapshot
from swarmkeel.swarm.span import Span

_DEFAULT_POLICY = "coordinated"


def explain(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Read the swarm and the server that this YAML file names.")
    ] = None,
    *,
    snapshot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take the swarm from a file that `snapshot --json` wrote.")
    ] = None,
    peer: Annotated[
        str | None, typer.Option(metavar="ID", help="Decide about this server: its peer id, or how that ends.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Decide by this policy instead of the configured one.")] = None,
    quality: Annotated[float | None, typer.Option(min=0, help="Use this balance quality.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the policy's randomness.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the decision as JSON.")] = False,
) -> None:
    """Say what would be decided and why, without acting.

    With a configuration it also tells what the other sidecars say, the plan that they share, and which of the daemon's
    guards would hold a move back, as far as the journal shows; how long the server has been up only the daemon knows.
    """
    if quality is not None and not math.isfinite(quality):
        raise typer.BadParameter("must be a number", param_hint="'--quality'")
    if config is not None and snapshot is None:
        settings = load_config(config)
        configure_logging("error", "console")
        with patience("reading the swarm ..."):
            view = asyncio.run(_look(settings, peer))
    elif snapshot is not None and config is None:
        if peer is None:
            raise typer.BadParameter("a file has no server of its own: name one", param_hint="'--peer'")
        taken = read_snapshot_file(snapshot)
        # A file is judged as of the time it was read at, however old it is.
        view = View(taken, find_server(taken, peer), PolicySettings(), _DEFAULT_POLICY, taken.read_at)
    else:
        raise typer.BadParameter("give one of the two", param_hint="'--config' / '--snapshot'")
    name = policy or view.policy
    situation = view.situation(quality=quality, seed=seed)
    decision = get_policy(name).decide(situation)
    held = view.held_by(decision)
    shared = None
    if name == CoordinatedPolicy.name and decision.before is not None and situation.own.span is not None:
        shared = share_plan(situation, view.doubts, readable=view.board_readable)
    found = view.taken.quality(view.now, view.own.peer_id)
    if as_json:
        typer.echo(json.dumps(_to_json(decision, found, held, shared)))
    else:
        console = Console(highlight=False)
        print_decision(decision, found, console)
        for reason in held:
            console.print(Text(f"held by: {reason.name}: {printable(reason.sentence, 300)}"))
        if shared is not None:
            console.print()
            print_plan(shared, decision, console)


@dataclass(frozen=True)
class View:
    """What there is to decide on.

    Attributes:
        taken: The swarm.
        own: The server to decide about.
        settings: The policies' part of the configuration.
        policy: The configured policy.
        now: Seconds since the epoch.
        sidecars: What other sidecars tell, with plausible claims alone.
        doubts: Claims that were not plausible, by `ClaimDoubt`.
        board_readable: Whether what sidecars tell could be read.
        guards: What the daemon's guards look at, and their limits; None where there is no daemon to ask for.
    """

    taken: SwarmSnapshot
    own: OwnServer
    settings: PolicySettings
    policy: str
    now: float
    sidecars: Mapping[str, Sidecar] = field(default_factory=dict)
    doubts: Mapping[str, int] = field(default_factory=dict)
    board_readable: bool = False
    guards: tuple[GuardView, GuardSettings] | None = None

    def situation(self, *, quality: float | None, seed: int) -> Situation:
        """Give what a policy is told."""
        settings = self.settings if quality is None else self.settings.model_copy(update={"quality": quality})
        return Situation(
            snapshot=self.taken, own=self.own, settings=settings, now=self.now, seed=seed, sidecars=self.sidecars
        )

    def held_by(self, decision: Decision) -> tuple[Reason, ...]:
        """Give the reasons of the guards that would hold a wanted move back."""
        if self.guards is None or decision.verdict is not Verdict.MOVING:
            return ()
        guarded = apply_guards(decision, *self.guards, dry_run=False)
        return guarded.reasons[: len(guarded.reasons) - len(decision.reasons)]


async def _look(config: Config, peer: str | None) -> View:
    # One after the other: loading the DHT's libraries holds the event loop up, on a busy machine for seconds.
    status = await _ask_server(config) if peer is None else None
    taken, board = await read_swarm_and_board(config)
    now = time.time()
    spans = taken.spans()
    moves: tuple[Move, ...] = ()
    if status is None:
        own = _as_told(find_server(taken, peer or ""), board)
    else:
        moves = _moves_of(config.journal.path, status.peer_id)
        own = _own_server(config, status, moves)
    others = {told: sidecar for told, sidecar in board.sidecars.items() if told != own.peer_id}
    checked = check_sidecars(
        others,
        taken.spans(ServerState.OFFLINE),
        total_blocks=taken.total_blocks,
        now=now,
        first_block=taken.first_block,
    )
    guards = None
    if status is not None:
        running = status.restart is not None and not status.restart.phase.is_final
        seen = GuardView(
            now=now,
            server_state=status.state.value,
            running_restart=status.restart.id if status.restart and running else None,
            pinned=status.pinned,
            span_since=0.0,  # only the daemon knows
            moves=moves,
            confirmations=config.guards.confirmations,
            servers=len(spans),
            others_moving=count_moving(spans, checked.sidecars, own, now=now),
        )
        guards = (seen, guard_settings(config))
    return View(
        taken,
        own,
        policy_settings(config),
        config.balance.policy,
        now,
        as_without_dry_run(checked.sidecars) if config.balance.dry_run else checked.sidecars,
        checked.doubts,
        board.readable,
        guards,
    )


def _moves_of(path: Path, peer_id: str | None) -> tuple[Move, ...]:
    """Give the server's moves that its daemon has written down; none where there was no daemon yet."""
    try:
        with Journal(path, read_only=True) as journal:
            return tuple(move for move in journal.moves(limit=200) if move.peer_id == peer_id)
    except JournalError:
        return ()


def _as_told(own: OwnServer, board: BoardReading) -> OwnServer:
    """Complete what a server's record shows by what its sidecar tells."""
    told = board.sidecars.get(own.peer_id)
    if told is None:
        return own
    taken_over = ("load_seconds", "fetch_seconds", "shapes", "claim")
    return own.model_copy(update={name: getattr(told, name) for name in taken_over})


async def _ask_server(config: Config) -> ServerStatus:
    server = config.server
    client = ControlClient(server.socket, request_timeout=server.request_timeout, allowed_uids=server.uids)
    try:
        return await client.status()
    finally:
        await client.close()


def _own_server(config: Config, status: ServerStatus, moves: tuple[Move, ...]) -> OwnServer:
    mismatch = find_mismatch(config, status)
    if mismatch is not None:
        raise SwarmkeelError(
            f"the server is not the configured one: {mismatch}", "mend swarm and server, or the server"
        )
    if status.peer_id is None or (status.span is None and status.state is not ServerPhase.IDLE):
        raise SwarmkeelError(f"the server is {status.state.value} and has no blocks", "try again when it is online")
    return own_server(status, moves, claim=None, assumed_load_seconds=config.balance.load_seconds)


def find_server(taken: SwarmSnapshot, peer: str) -> OwnServer:
    """Take a server as its records in a snapshot show it.

    Args:
        taken: The snapshot.
        peer: The server's peer id, or an ending that no other server's has.

    Raises:
        UsageError: If the snapshot shows no such server, or several.
    """
    spans = taken.spans(min_state=ServerState.OFFLINE)
    matching = [peer] if peer in spans else [known for known in spans if peer and known.endswith(peer)]
    if len(matching) != 1:
        found = "several servers" if matching else "no server"
        known = ", ".join(printable(peer_id[-7:]) for peer_id in sorted(matching or spans)[:8]) or "none at all"
        raise UsageError(f"the snapshot has {found} whose peer id ends in {peer!r}", f"there are {known}")
    span = spans[matching[0]]
    if span.length <= 0:
        raise UsageError(f"server {peer!r} announces no blocks that are there", "choose another one")
    return OwnServer(
        peer_id=matching[0],
        span=Span(span.start, span.end) if span.state is not ServerState.OFFLINE else None,
        num_blocks=span.length,
        throughput=span.throughput,
    )


def print_decision(decision: Decision, quality: SnapshotQuality, console: Console) -> None:
    """Print a decision: the verdict as a sentence, then the numbers."""
    console.print(Text(printable(decision.sentence, 1000), style="bold"))
    console.print()
    table = Table(box=None, pad_edge=False)
    for heading in ("", "now", "after"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("blocks", str(decision.own_span or "none yet"), str(decision.target or "-"))
    before, after = _numbers(decision.before, "?"), _numbers(decision.after, "-")
    for row in zip(("bottleneck, RPS", "bound, RPS", "balance", "uncovered blocks"), before, after, strict=True):
        table.add_row(*row)
    console.print(table)
    console.print()
    console.print(Text(f"server:  {printable(decision.peer_id)}"))
    console.print(Text(f"reading: {describe_quality(quality)}, {quality.age_seconds:.1f} s old"))
    own = "found" if quality.own_record_found else "not found"
    console.print(Text(f"         own record {own}, digest {decision.snapshot_digest[:16]}"))
    console.print(Text(f"policy:  {decision.policy}, seed {decision.seed}"))


def _numbers(numbers: SwarmNumbers | None, unknown: str) -> tuple[str, str, str, str]:
    if numbers is None:
        return unknown, unknown, unknown, unknown
    return (
        f"{numbers.bottleneck_rps:.4g}",
        f"{numbers.bound_rps:.4g}",
        f"{numbers.balance_ratio:.1%}",
        str(numbers.uncovered_blocks),
    )


def _to_json(
    decision: Decision, quality: SnapshotQuality, held: tuple[Reason, ...], shared: SharedPlan | None
) -> dict[str, object]:
    return {
        "sentence": decision.sentence,
        **decision.model_dump(mode="json"),
        "quality": {
            "keys_asked": quality.keys_asked,
            "keys_answered": quality.keys_answered,
            "records_accepted": quality.records_accepted,
            "rejected": dict(quality.rejected),
            "age_seconds": quality.age_seconds,
            "own_record_found": quality.own_record_found,
        },
        "held_by": [reason.name for reason in held],
        "plan": None if shared is None else shared.to_json(),
    }
