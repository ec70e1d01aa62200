"""`swarmkeel report`: what several sidecars in a dry run would have done together, and what happened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarmkeel.commands.options import parse_moment
from swarmkeel.commands.reading import patience
from swarmkeel.daemon.pause import format_time
from swarmkeel.daemon.shadow import Hole, ShadowReport, Wish, Witness, make_report
from swarmkeel.daemon.witnesses import read_source
from swarmkeel.printable import printable

_USUAL_SECONDS: Final = 86_400.0
_ROWS: Final = 50

UNKNOWABLE: Final = (
    "A wish is counted once for the checks in a row that had it: a move that is not made is wanted again at each check.",
    "What the swarm would have been after the first such move nobody can know: later wishes follow from what was.",
)


def report(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Journals' files, or sidecars as http://HOST:PORT.")
    ],
    *,
    since: Annotated[
        float | None,
        typer.Option(
            parser=parse_moment, metavar="WHEN", help="From when on, say 2h; the last day at most where left out."
        ),
    ] = None,
    until: Annotated[float | None, typer.Option(parser=parse_moment, metavar="WHEN", help="Until when.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Say what several sidecars in a dry run would have done together, and hold it against what happened."""
    end = time.time() if until is None else until
    start = end - _USUAL_SECONDS if since is None else since
    if start >= end:
        raise typer.BadParameter("must be before --until", param_hint="--since")
    with patience("reading what the sidecars tell"):
        told = [read_source(source, since=start, until=end) for source in dict.fromkeys(sources)]
        witnesses: list[Witness] = [witness for witness, _ in told]
        wishes: list[Wish] = [wish for _, theirs in told for wish in theirs]
        if since is None:  # of the time before anybody looked there is nothing to say
            start = min((look.at for witness in witnesses for look in witness.looks), default=start)
        made = make_report(witnesses, wishes, since=start, until=end)
    if as_json:
        typer.echo(made.model_dump_json())
    else:
        _show(made)


def _show(made: ShadowReport) -> None:
    console = Console(highlight=False)
    for line in summarize(made):
        console.print(Text(line), soft_wrap=True)
    for title, table in _tables(made):
        if table.row_count:
            console.print(f"\n[bold]{title}[/bold]")
            console.print(table)
    console.print()
    for line in UNKNOWABLE:
        console.print(Text(line), soft_wrap=True)


def summarize(made: ShadowReport) -> Iterator[str]:
    """Say in plain sentences what a report holds."""
    sidecars = [part for part in made.sidecars if part.first_at is not None]
    silent = len(made.sidecars) - len(sidecars)
    yield (
        f"From {format_time(made.since)} to {format_time(made.until)} ({_lasting(made.until - made.since)}), "
        f"{_count(len(sidecars), 'sidecar')} would have made {_count(len(made.wishes), 'move')} in a dry run"
        f" and made {_count(len(made.moves), 'move')}." + (f" {silent} tell nothing of that time." if silent else "")
    )
    balance = made.balance
    if balance.bottleneck_rps is None or balance.bound_rps is None:
        yield "Nobody saw the swarm in that time."
    else:
        share = f", {balance.bottleneck_rps / balance.bound_rps:.0%} of the bound" if balance.bound_rps > 0 else ""
        unseen = made.until - made.since - balance.observed_seconds
        unknown = f"; of {_lasting(unseen)} nothing is known" if unseen >= 1 else ""
        yield (
            f"The bottleneck was {balance.bottleneck_rps:.4g} RPS in the mean{share}, and between {balance.lowest_rps:.4g} "
            f"and {balance.highest_rps:.4g}, over the {_lasting(balance.observed_seconds)} that were seen{unknown}."
        )
    holes = _count(len(made.holes), "hole")
    yield f"{holes}, open for {_lasting(balance.hole_seconds)} altogether." if made.holes else "No block was unserved."
    for hole in made.holes[:_ROWS]:
        yield describe_hole(hole)
    for conflict in made.conflicts[:_ROWS]:
        peers = " and ".join(_peer(peer) for peer in conflict.peers)
        what = (
            f"would all have gone to {conflict.target}" if conflict.kind == "same_hole" else "would have changed places"
        )
        yield f"Against each other at {_clock(conflict.since)}: {peers} {what}; with claims, one goes."


def describe_hole(hole: Hole) -> str:
    """Say of one hole how long it was there, and who would have closed it."""
    end = "and still is" if hole.is_open else f"until {_clock(hole.until)}"
    was = f"From {_clock(hole.since)} {end} ({_lasting(hole.until - hole.since)}) {_count(hole.blocks, 'block')} had no server"
    if not hole.closers:
        return f"{was}: no sidecar would have moved to close it."
    return f"{was}: it would have been closed by {'; '.join(_closer(wish) for wish in hole.closers[:5])}."


def _closer(wish: Wish) -> str:
    arrival = "" if wish.seconds is None else f", serving about {_lasting(wish.seconds)} later"
    return f"{_peer(wish.peer_id or wish.source)} to {wish.target}, decided at {_clock(wish.first_at)}{arrival}"


def _tables(made: ShadowReport) -> Iterator[tuple[str, Table]]:
    table = _table("sidecar", "server", "first check", "last check", "checks by verdict")
    for part in made.sidecars:
        moments = ("-" if at is None else _clock(at) for at in (part.first_at, part.last_at))
        verdicts = ", ".join(f"{verdict} {count}" for verdict, count in part.verdicts.items())
        _add(table, part.source, _peer(part.peer_id or "-"), *moments, verdicts or "none")
    yield "Sidecars", table
    table = _table("wanted", "until", "checks", "server", "from", "to", "gain RPS", "hole")
    for wish in made.wishes[:_ROWS]:
        hole = "closes it" if wish.closes_holes else ""
        times = (_clock(wish.first_at), _clock(wish.last_at), str(wish.checks), _peer(wish.peer_id or wish.source))
        _add(table, *times, str(wish.origin or "-"), str(wish.target), f"{wish.gain_rps:+.4g}", hole)
    yield f"Would have moved{_newest(len(made.wishes))}", table
    table = _table("began", "server", "from", "to", "step", "gain RPS")
    for move in made.moves[:_ROWS]:
        gain = "-" if move.gain_rps is None else f"{move.gain_rps:+.4g}"
        _add(table, _clock(move.at), _peer(move.peer_id), str(move.origin or "-"), str(move.target), move.step, gain)
    yield f"Moves that were made{_newest(len(made.moves))}", table
    table = _table("seen", "server", "from", "to")
    for change in made.changes[:_ROWS]:
        _add(table, _clock(change.at), _peer(change.peer_id), str(change.origin or "-"), str(change.target or "-"))
    yield f"What servers did{_newest(len(made.changes))}", table


def _newest(count: int) -> str:
    return f" (the first {_ROWS} of {count}: --json has all)" if count > _ROWS else ""


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _add(table: Table, *texts: str) -> None:
    table.add_row(*(Text(printable(text, 200)) for text in texts))


def _peer(peer_id: str) -> str:
    return printable(peer_id if "/" in peer_id else peer_id[-7:])


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M:%S")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _lasting(seconds: float) -> str:
    """Write a duration roughly."""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"
