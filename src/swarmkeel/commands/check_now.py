"""`swarmkeel check-now`: have a running sidecar check the balance at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swarmkeel.commands.reading import patience
from swarmkeel.config import load_config
from swarmkeel.printable import printable


def check_now(
    config: Annotated[Path, typer.Option("--config", "-c", help="The YAML configuration of the sidecar.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the check as JSON.")] = False,
) -> None:
    """Check the balance at once, as the sidecar does by itself at each check period, and show what it ended in."""
    settings = load_config(config)
    from swarmkeel.daemon.admin_client import AdminClient  # noqa: PLC0415 - a bad configuration needs none
    from swarmkeel.daemon.loop import longest_answer  # noqa: PLC0415 - as above
    from swarmkeel.daemon.status import CheckInfo  # noqa: PLC0415 - as above

    with patience("the sidecar reads the swarm and decides"):
        client = AdminClient.of(settings, timeout=longest_answer(settings) + 5)
        check = client.post("/v1/check-now", {}, CheckInfo)
    typer.echo(check.model_dump_json() if as_json else printable(check.sentence, 1000))
