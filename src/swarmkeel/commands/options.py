"""Options that several commands take alike: durations, moments and spans, as people write them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import typer

from swarmkeel.daemon.pause import LONGEST_SECONDS
from swarmkeel.durations import parse_duration
from swarmkeel.swarm.span import Span


def parse_duration_option(text: str) -> float:
    """Read a duration such as `2h`, in seconds.

    Raises:
        typer.BadParameter: If it is none, or none above 0 and below ten years.
    """
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, not {text!r}") from None
    if not isinstance(seconds, float) or not 0 < seconds <= LONGEST_SECONDS:
        raise typer.BadParameter(f"must be more than 0 s and at most ten years, not {text!r}")
    return seconds


def parse_moment(text: str) -> float:
    """Read a moment: so long ago (`2h`), or a time such as `2026-03-01 14:00` in UTC unless it names a zone.

    Returns:
        Seconds since the epoch.

    Raises:
        typer.BadParameter: If it is neither.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            return time.time() - parse_duration_option(text)
        except typer.BadParameter:
            allowed = "must be a duration like 2h, which counts back from now, or a time like 2026-03-01T14:00 (UTC)"
            raise typer.BadParameter(f"{allowed}, not {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parse_span(text: str) -> Span:
    """Read blocks such as `24:40`, the end excluded.

    Raises:
        typer.BadParameter: If it is none.
    """
    start, colon, end = text.partition(":")
    if colon and start.isdecimal() and end.isdecimal() and int(start) < int(end):
        return Span(int(start), int(end))
    raise typer.BadParameter(f"must be blocks like 24:40, the end excluded, not {text!r}")
