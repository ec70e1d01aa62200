"""`swarmkeel status`: what a running sidecar sees and does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from swarmkeel.config import load_config
from swarmkeel.daemon.pause import format_time
from swarmkeel.durations import format_duration
from swarmkeel.printable import printable

if TYPE_CHECKING:
    from swarmkeel.daemon.status import DaemonStatus, MoveInfo

_WATCH_SECONDS: Final = 2.0


def status(
    config: Annotated[Path, typer.Option("--config", "-c", help="The YAML configuration of the sidecar.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every 2 s until Ctrl-C.")] = False,
) -> None:
    """Show what a running sidecar sees and does: verdict, server, swarm, guards, pause, claims, moves."""
    if as_json and watch:
        raise typer.BadParameter("give one of --json and --watch", param_hint="--watch")
    settings = load_config(config)
    from swarmkeel.daemon.admin import ANSWER_SECONDS  # noqa: PLC0415 - a bad configuration needs none
    from swarmkeel.daemon.admin_client import AdminClient  # noqa: PLC0415 - as above
    from swarmkeel.daemon.status import DaemonStatus  # noqa: PLC0415 - as above

    client = AdminClient.of(settings, timeout=ANSWER_SECONDS + 5)
    told = client.get("/v1/status", DaemonStatus)
    if as_json:
        typer.echo(told.model_dump_json())
        return
    console = Console(highlight=False)
    if not watch:
        console.print(_table(told))
        return
    with Live(_table(told), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_SECONDS)
            live.update(_table(client.get("/v1/status", DaemonStatus)), refresh=True)


def _table(told: DaemonStatus) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(told):
        table.add_row(name, Text(printable(value, 1000)))
    return table


def _rows(told: DaemonStatus) -> Iterator[tuple[str, str]]:
    since = _ago(told.now - told.started_at)
    switches = ", dry run" if told.dry_run else "" if told.enabled else ", balancing disabled"
    yield "sidecar", f"{told.version}, running for {since}, policy {told.policy}{switches}"
    yield "verdict", told.verdict.sentence if told.verdict else "no check yet"
    if told.pause is not None:
        until = "it is resumed" if told.pause.until is None else format_time(told.pause.until)
        reason = f": {told.pause.reason}" if told.pause.reason else ""
        yield "paused", f"by user {told.pause.uid} until {until}{reason}"
    if told.readiness.last_check_at is not None:
        every = format_duration(told.readiness.check_period)
        yield "checked", f"{_ago(told.now - told.readiness.last_check_at)} ago, every {every} or so"
    yield from _server_rows(told)
    yield from _swarm_rows(told)
    for guard in told.guards:
        if guard.holds:
            release = "" if guard.releases_at is None else f", for {_ago(guard.releases_at - told.now)} more"
            yield "guard", f"{guard.name}: {guard.sentence}{release}"
    if told.claims is not None:
        readable = "" if told.claims.readable else " (could not be read)"
        own = f", own claim on {told.claims.own.target}" if told.claims.own else ""
        yield (
            "claims",
            f"other sidecars: {told.claims.sidecars}{readable}, their claims: {len(told.claims.others)}{own}",
        )
    if told.move is not None:
        yield "moving", _move(told.move, told.now)
    elif told.moves:
        yield "last move", _move(told.moves[0], told.now)


def _server_rows(told: DaemonStatus) -> Iterator[tuple[str, str]]:
    server = told.server
    if server is None:
        yield "server", "its control socket does not answer"
        return
    place = f"serves {server.span}" if server.span else "has no blocks"
    pinned = ", pinned" if server.pinned else ""
    yield (
        "server",
        f"{server.peer_id or 'without a peer id'}, {server.state}, {place}, {server.throughput_rps:.4g} RPS{pinned}",
    )
    if server.restart is not None:
        yield "restart", server.restart


def _swarm_rows(told: DaemonStatus) -> Iterator[tuple[str, str]]:
    snapshot, numbers = told.snapshot, told.numbers
    if snapshot is None or numbers is None:
        yield "swarm", f"{told.model}: not read yet, {told.readiness.dht_peers} DHT peers"
        return
    stale = "" if told.readiness.snapshot_is_good else "; the newest reading failed or is below the floor"
    share = f"{numbers.balance_ratio:.0%} of the bound, {numbers.uncovered_blocks} uncovered blocks"
    yield "swarm", f"{told.model}: bottleneck {numbers.bottleneck_rps:.4g} RPS, {share}"
    yield (
        "snapshot",
        f"{_ago(snapshot.age_seconds)} old, {snapshot.keys_answered} of {snapshot.keys_asked} keys answered{stale}",
    )


def _move(move: MoveInfo, now: float) -> str:
    error = f" ({move.error})" if move.error else ""
    origin = "no blocks" if move.origin is None else str(move.origin)
    return f"{origin} to {move.target}: {move.step} for {_ago(now - move.step_since)}{error}"


def _ago(seconds: float) -> str:
    """Write a duration roughly."""
    seconds = max(seconds, 0.0)
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
