"""`swarmkeel run`: the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarmkeel.config import Config, load_config

if TYPE_CHECKING:
    from swarmkeel.daemon.loop_watch import LoopWatch


def run(
    config: Annotated[Path, typer.Option("--config", "-c", help="The YAML configuration.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide everything, tell the server nothing.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Make one check, print what it ended in, and exit.")] = False,
) -> None:
    """Watch the swarm and keep the server beside it on the blocks where it is needed most."""
    settings = load_config(config)
    # Imported here: the DHT takes time to load, which a bad configuration need not cost.
    from swarmkeel.daemon.logs import configure_logging  # noqa: PLC0415 - see above
    from swarmkeel.daemon.loop_watch import LoopWatch  # noqa: PLC0415 - see above

    configure_logging(settings.log.level, settings.log.format)
    watch = LoopWatch()
    with asyncio.Runner(loop_factory=watch.new_loop) as runner:
        runner.run(_run(settings, config, watch, dry_run=dry_run, once=once))


async def _run(settings: Config, path: Path, watch: LoopWatch, *, dry_run: bool, once: bool) -> None:
    from swarmkeel.daemon.loop_watch import tame_collector  # noqa: PLC0415 - see `run`
    from swarmkeel.daemon.service import Sidecar  # noqa: PLC0415 - see `run`

    sidecar = Sidecar(settings, config_path=path, dry_run=dry_run, loop_watch=watch)
    tame_collector()
    if once:
        decision = await sidecar.run_once()
        typer.echo(decision.sentence)
    else:
        await sidecar.run()
