"""`swarmkeel explain`: what would be decided about one server and why, without acting."""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarmkeel.balance.decision import Decision, SwarmNumbers
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.commands.reading import describe_quality, patience, read_swarm
from swarmkeel.config import Config, load_config
from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.check import find_mismatch, policy_settings
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.errors import SwarmkeelError, UsageError
from swarmkeel.printable import printable
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.recorded import read_snapshot_file
from swarmkeel.swarm.snapshot import SnapshotQuality, SwarmSnapshot
from swarmkeel.swarm.span import Span

_DEFAULT_POLICY = "petals"


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

    The guards of the daemon (cooldown, confirmation, budget and so on) come on top and are not asked here.
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
        view = _View(taken, find_server(taken, peer), PolicySettings(), _DEFAULT_POLICY, taken.read_at)
    else:
        raise typer.BadParameter("give one of the two", param_hint="'--config' / '--snapshot'")
    decision = view.decide(policy=policy, quality=quality, seed=seed)
    found = view.taken.quality(view.now, view.own.peer_id)
    if as_json:
        typer.echo(json.dumps(_to_json(decision, found)))
    else:
        print_decision(decision, found, Console(highlight=False))


@dataclass(frozen=True)
class _View:
    """What there is to decide on."""

    taken: SwarmSnapshot
    own: OwnServer
    settings: PolicySettings
    policy: str
    now: float

    def decide(self, *, policy: str | None, quality: float | None, seed: int) -> Decision:
        settings = self.settings if quality is None else self.settings.model_copy(update={"quality": quality})
        situation = Situation(snapshot=self.taken, own=self.own, settings=settings, now=self.now, seed=seed)
        return get_policy(policy or self.policy).decide(situation)


async def _look(config: Config, peer: str | None) -> _View:
    if peer is None:
        async with asyncio.TaskGroup() as readings:
            status = readings.create_task(_ask_server(config))
            reading = readings.create_task(read_swarm(config))
        taken, own = reading.result(), _own_server(config, status.result())
    else:
        taken = await read_swarm(config)
        own = find_server(taken, peer)
    return _View(taken, own, policy_settings(config), config.balance.policy, time.time())


async def _ask_server(config: Config) -> ServerStatus:
    server = config.server
    client = ControlClient(server.socket, request_timeout=server.request_timeout, allowed_uids=server.uids)
    try:
        return await client.status()
    finally:
        await client.close()


def _own_server(config: Config, status: ServerStatus) -> OwnServer:
    mismatch = find_mismatch(config, status)
    if mismatch is not None:
        raise SwarmkeelError(
            f"the server is not the configured one: {mismatch}", "mend swarm and server, or the server"
        )
    if status.peer_id is None or (status.span is None and status.state is not ServerPhase.IDLE):
        raise SwarmkeelError(f"the server is {status.state.value} and has no blocks", "try again when it is online")
    return OwnServer(
        peer_id=status.peer_id,
        span=None if status.state is ServerPhase.IDLE else status.span,
        num_blocks=status.num_blocks,
        throughput=status.throughput,
    )


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


def _to_json(decision: Decision, quality: SnapshotQuality) -> dict[str, object]:
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
    }
