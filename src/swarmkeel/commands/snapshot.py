"""`swarmkeel snapshot`: one reading of the swarm, as numbers and a picture, or as JSON."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from swarmkeel.commands.picture import SwarmPicture, summarize
from swarmkeel.commands.reading import describe_quality, patience, read_swarm
from swarmkeel.config import load_config
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.daemon.state import view_swarm
from swarmkeel.printable import printable
from swarmkeel.swarm.recorded import snapshot_to_json, write_snapshot_file
from swarmkeel.swarm.snapshot import SwarmSnapshot


def snapshot(
    config: Annotated[Path, typer.Option("--config", "-c", help="The YAML configuration.")],
    *,
    json_path: Annotated[
        str | None, typer.Option("--json", metavar="OUT", help="Write the snapshot to a file; - prints it instead.")
    ] = None,
) -> None:
    """Read the swarm once: its numbers, and a picture of blocks by servers."""
    settings = load_config(config)
    configure_logging("error", "console")
    with patience("reading the swarm ..."):
        taken = asyncio.run(read_swarm(settings))
    if json_path is not None:
        if json_path == "-":
            typer.echo(json.dumps(snapshot_to_json(taken)))
            return
        write_snapshot_file(taken, Path(json_path))
    print_snapshot(taken, Console(highlight=False), own_peer_id=settings.server.peer_id)


def print_snapshot(taken: SwarmSnapshot, console: Console, *, own_peer_id: str | None = None) -> None:
    """Print a snapshot as a person wants to see it."""
    numbers = view_swarm(taken).numbers
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in (
        ("swarm", f"{printable(taken.dht_prefix)}: {summarize(taken)}"),
        ("bottleneck", f"{numbers.bottleneck_rps:.4g} RPS, {numbers.balance_ratio:.1%} of the bound"),
        ("bound", f"{numbers.bound_rps:.4g} RPS, which no placement of these servers exceeds"),
        ("reading", describe_quality(taken.quality(time.time(), own_peer_id))),
        ("digest", taken.digest[:16]),
    ):
        table.add_row(name, value)
    console.print(table)
    console.print()
    console.print(SwarmPicture(taken, own_peer_id=own_peer_id))
