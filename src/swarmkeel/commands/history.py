"""`swarmkeel history`: what the sidecar decided and did, from its journal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarmkeel.balance.decision import Verdict
from swarmkeel.commands.options import parse_moment, parse_span
from swarmkeel.config import load_config
from swarmkeel.daemon.journal import CheckRecord, Journal
from swarmkeel.daemon.move import Move, MoveStep
from swarmkeel.errors import SwarmkeelError
from swarmkeel.printable import printable
from swarmkeel.swarm.span import Span


def history(
    config: Annotated[Path, typer.Option("--config", "-c", help="The YAML configuration; names the journal.")],
    *,
    moves: Annotated[bool, typer.Option("--moves", help="Show moves instead of checks.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most this many, the newest.")] = 20,
    since: Annotated[
        float | None,
        typer.Option(parser=parse_moment, metavar="WHEN", help="Only since, say, 2h ago or 2026-03-01T14:00 (UTC)."),
    ] = None,
    until: Annotated[float | None, typer.Option(parser=parse_moment, metavar="WHEN", help="Only before then.")] = None,
    target: Annotated[
        Span | None, typer.Option(parser=parse_span, metavar="A:B", help="Only what wanted the server on these blocks.")
    ] = None,
    verdict: Annotated[Verdict | None, typer.Option(help="Only checks with this verdict.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Show what the sidecar decided and did, newest last; it may be running or not."""
    path = load_config(config).journal.path
    if not path.is_file():
        raise SwarmkeelError(f"there is no journal at {path}", "start the sidecar once, or mend journal.path")
    if moves and verdict is not None:
        raise typer.BadParameter("moves have no verdict; leave out --moves or --verdict", param_hint="--verdict")
    with Journal(path, read_only=True) as journal:
        if moves:
            recent_moves = journal.moves(limit=limit, since=since, before=until, target=target)
            lines: Iterable[str] = (move.model_dump_json() for move in recent_moves)
            table = _move_table(recent_moves)
        else:
            checks = journal.checks(limit=limit, since=since, before=until, verdict=verdict, target=target)[::-1]
            lines = (_check_json(check) for check in checks)
            table = _check_table(checks)
    if as_json:
        for line in lines:
            typer.echo(line)
        return
    Console().print(table)
    if table.row_count == limit:
        typer.echo(f"the newest {limit}; -n shows more", err=True)


def _check_json(check: CheckRecord) -> str:
    decision = check.decision
    return json.dumps(
        {
            "check_id": check.check_id,
            "at": check.at,
            "sentence": decision.sentence,
            **decision.model_dump(mode="json"),
        }
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _check_table(checks: Iterable[CheckRecord]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("time (UTC)", "check", "verdict", "span", "target", "bottleneck", "why"):
        table.add_column(heading, overflow="fold" if heading == "why" else "ellipsis")
    for check in checks:
        decision = check.decision
        table.add_row(
            _time(check.at),
            check.check_id,
            decision.verdict.value,
            str(decision.own_span or "-"),
            str(decision.target or "-"),
            f"{decision.before.bottleneck_rps:.4g}" if decision.before else "-",
            Text(printable("; ".join(reason.sentence for reason in decision.reasons), 500)),
        )
    return table


def _move_table(moves: Iterable[Move]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("time (UTC)", "move", "from", "to", "step", "seconds", "predicted", "realised", "error"):
        table.add_column(heading, overflow="fold" if heading == "error" else "ellipsis")
    for move in moves:
        table.add_row(
            _time(move.started_at),
            move.id[:8],
            str(move.origin or "-"),
            str(move.target),
            Text(move.step.value, style="" if move.step is MoveStep.DONE else "bold"),
            f"{move.step_since - move.started_at:.1f}",
            f"{move.predicted_gain_rps:+.4g}",
            "-" if move.realised_gain_rps is None else f"{move.realised_gain_rps:+.4g}",
            Text(printable(move.error or "", 500)),
        )
    return table
