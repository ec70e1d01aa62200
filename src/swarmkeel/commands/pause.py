"""`swarmkeel pause`: keep a running sidecar from moving its server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarmkeel.commands.options import parse_duration_option
from swarmkeel.config import load_config
from swarmkeel.printable import printable


def pause(
    config: Annotated[Path, typer.Option("--config", "-c", help="The YAML configuration of the sidecar.")],
    *,
    duration: Annotated[
        float | None,
        typer.Option("--for", parser=parse_duration_option, metavar="DURATION", help="End by itself after, say, 2h."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks.")] = "",
) -> None:
    """Move the server no more until the pause ends or `resume`; all else goes on. A second pause replaces the first."""
    settings = load_config(config)
    from swarmkeel.daemon.admin import ANSWER_SECONDS, PauseAnswer  # noqa: PLC0415 - a bad configuration needs none
    from swarmkeel.daemon.admin_client import AdminClient  # noqa: PLC0415 - as above
    from swarmkeel.daemon.pause import format_time  # noqa: PLC0415 - as above

    client = AdminClient.of(settings, timeout=ANSWER_SECONDS + 5)
    answer = client.post("/v1/pause", {"for_seconds": duration, "reason": reason}, PauseAnswer)
    until = answer.pause.until
    typer.echo("paused until it is resumed" if until is None else f"paused until {format_time(until)}")
    if answer.move is not None:
        move = answer.move
        typer.echo(f"the move to {move.target} is under way ({printable(move.step)}) and is taken to its end")
