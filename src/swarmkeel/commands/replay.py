"""`swarmkeel replay`: decide again what the journal says was decided, and compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from swarmkeel import __version__
from swarmkeel.commands.options import parse_moment
from swarmkeel.daemon.journal import Journal, JournalError
from swarmkeel.daemon.pause import format_time
from swarmkeel.daemon.replay import Replay, ReplayResult, replay_check, unreadable
from swarmkeel.errors import SwarmkeelError
from swarmkeel.printable import printable

_FAULTS: Final = (ReplayResult.DIFFERENT, ReplayResult.UNREADABLE, ReplayResult.UNKNOWN_POLICY)
_SHOWN_DIFFERENCES: Final = 20


def replay(
    journal: Annotated[Path, typer.Argument(help="The journal's file; the sidecar may be using it.")],
    check_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One check; all where left out.")] = None,
    *,
    since: Annotated[
        float | None, typer.Option(parser=parse_moment, metavar="WHEN", help="Only checks since, say, 2h ago.")
    ] = None,
    until: Annotated[
        float | None, typer.Option(parser=parse_moment, metavar="WHEN", help="Only checks before then.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Only so many, the newest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a check.")] = False,
) -> None:
    """Decide again from what the journal kept, and say whether the same comes out, bit for bit; exit code 1 if not."""
    if not journal.is_file():
        raise SwarmkeelError(f"there is no journal at {journal}", "name the file of journal.path")
    if check_id is not None and not since is until is limit is None:
        raise typer.BadParameter("one check is named already", param_hint="--since / --until / --limit")
    with Journal(journal, read_only=True) as opened:
        ids = (check_id,) if check_id else opened.check_ids(limit=limit or -1, since=since, before=until)
        replays = list(_replay(opened, ids, as_json=as_json))
    if not as_json and check_id is not None:
        _show_one(replays[0])
    elif not as_json:
        _show_all(replays)
    if any(each.result in _FAULTS for each in replays):
        raise typer.Exit(1)


def _replay(journal: Journal, ids: tuple[str, ...], *, as_json: bool) -> Iterator[Replay]:
    progress = Console(stderr=True)
    quiet = not progress.is_terminal or len(ids) == 1
    for check_id in track(ids, "deciding again", console=progress, transient=True, disable=quiet):
        found = _replay_one(journal, check_id)
        if as_json:
            typer.echo(found.model_dump_json())
        yield found


def _replay_one(journal: Journal, check_id: str) -> Replay:
    try:
        record = journal.check(check_id)
    except JournalError as error:
        return unreadable(check_id, error.problem)
    if record is None:
        raise SwarmkeelError(f"there is no check {check_id!r} in the journal", "swarmkeel history names those that are")
    try:
        return replay_check(record)
    except Exception as error:  # noqa: BLE001 - inputs that were tampered with may break anything; the others go on
        return unreadable(check_id, printable(f"deciding again failed: {type(error).__name__}: {error}", 300))


def _show_one(found: Replay) -> None:
    at = "" if found.at is None else f" of {format_time(found.at)}"
    typer.echo(f"check {printable(found.check_id)}{at}: {_words(found)}")
    _show_differences([found])


def _words(found: Replay) -> str:
    verdict = found.verdict or ""
    match found.result:
        case ReplayResult.SAME:
            return f"{verdict}; deciding again gives the same, bit for bit"
        case ReplayResult.DIFFERENT:
            then = f"version {found.version}" if found.version else "a version that did not note itself"
            return f"{verdict}, decided by {then}; version {__version__} decides otherwise:"
        case ReplayResult.NOTHING_DECIDED:
            return f"{verdict} ({printable(found.detail)}); nothing was known to decide on, so nothing can be replayed"
        case _:
            return f"cannot be replayed: {printable(found.detail, 500)}"


def _show_all(replays: list[Replay]) -> None:
    counts = Counter(each.result for each in replays)
    typer.echo(f"{len(replays)} checks: {counts[ReplayResult.SAME]} decided again the same, bit for bit")
    nothing = Counter(each.detail for each in replays if each.result is ReplayResult.NOTHING_DECIDED)
    if nothing:
        causes = ", ".join(f"{printable(cause)} {count}" for cause, count in nothing.most_common())
        typer.echo(f"{nothing.total()} had nothing to decide on, so nothing can be replayed: {causes}")
    for result, words in (
        (ReplayResult.UNREADABLE, "cannot be read"),
        (ReplayResult.UNKNOWN_POLICY, "were decided by a policy that this version does not have"),
        (ReplayResult.DIFFERENT, "come out otherwise"),
    ):
        found = [each for each in replays if each.result is result]
        if found:
            typer.echo(f"{len(found)} {words}: {', '.join(printable(each.check_id) for each in found[:10])}")
            if result is not ReplayResult.DIFFERENT:
                typer.echo(f"  {printable(found[0].detail, 300)}")
    _show_differences([each for each in replays if each.differences])


def _show_differences(replays: list[Replay]) -> None:
    rows = [(each.check_id, difference) for each in replays for difference in each.differences]
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "place", "recorded", "replayed"):
        table.add_column(heading, overflow="fold")
    for check_id, difference in rows[:_SHOWN_DIFFERENCES]:
        texts = (check_id, difference.place, difference.recorded, difference.replayed)
        table.add_row(*(Text(printable(text, 200)) for text in texts))
    Console(highlight=False).print(table)
    if len(rows) > _SHOWN_DIFFERENCES:
        typer.echo(f"... and {len(rows) - _SHOWN_DIFFERENCES} more: --json shows all")
