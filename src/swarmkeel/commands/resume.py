"""`swarmkeel resume`: end the pause of a running sidecar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarmkeel.config import load_config
from swarmkeel.printable import printable


def resume(
    config: Annotated[Path, typer.Option("--config", "-c", help="The YAML configuration of the sidecar.")],
) -> None:
    """End the pause before its time; where nothing is paused it says so."""
    settings = load_config(config)
    from swarmkeel.daemon.admin import ANSWER_SECONDS, ResumeAnswer  # noqa: PLC0415 - a bad configuration needs none
    from swarmkeel.daemon.admin_client import AdminClient  # noqa: PLC0415 - as above
    from swarmkeel.daemon.pause import format_time  # noqa: PLC0415 - as above

    answer = AdminClient.of(settings, timeout=ANSWER_SECONDS + 5).post("/v1/resume", {}, ResumeAnswer)
    ended = answer.resumed
    if ended is None:
        typer.echo("nothing to resume: it was not paused")
        return
    reason = f" ({printable(ended.reason, 300)})" if ended.reason else ""
    typer.echo(f"resumed: it was paused since {format_time(ended.since)}{reason}")
