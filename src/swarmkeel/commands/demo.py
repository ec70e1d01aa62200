"""`swarmkeel demo`: a whole swarm on this machine that heals before your eyes."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

_INTERRUPTED = 128
"""Exit code of a process that a signal ended, less the signal's number."""


def demo(
    *,
    servers: Annotated[int, typer.Option(min=8, max=16, help="How many servers.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Decides how the servers are placed at first.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up after healing, until Ctrl-C.")] = False,
    deadline: Annotated[float, typer.Option(min=1, help="Fail if it takes longer than this, in seconds.")] = 150.0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the milestones to this file as JSON.")] = None,
) -> None:
    """Show a swarm heal: a real DHT, stand-in GPU servers placed badly, and a real sidecar beside each.

    Half-way two servers are killed without a goodbye. Exits with 0 only if in the end every block is served and the
    bottleneck is at least 80 % of the best that any placement of the surviving servers could reach.
    """
    code = asyncio.run(_run(servers=servers, seed=seed, keep=keep, deadline=deadline, json_out=json_out))
    if code:
        raise typer.Exit(code)


async def _run(*, servers: int, seed: int, keep: bool, deadline: float, json_out: Path | None) -> int:
    """Run the demo; SIGINT, SIGTERM and SIGHUP end it, and all that it started. Gives the exit code."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - asyncio.run has made it
    signals: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        # Only once: a second Ctrl-C must not interrupt the cleaning up.
        if not signals:
            task.cancel()
        signals.append(number)

    # SIGHUP comes when its terminal is closed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    healed = asyncio.Event()
    try:
        await _show(servers=servers, seed=seed, keep=keep, deadline=deadline, json_out=json_out, healed=healed)
    except asyncio.CancelledError:
        # The kept demo has shown what it is for, and Ctrl-C is how it ends.
        return 0 if healed.is_set() else _INTERRUPTED + signals[0]
    return 0


async def _show(
    *, servers: int, seed: int, keep: bool, deadline: float, json_out: Path | None, healed: asyncio.Event
) -> None:
    # Imported here: the DHT takes a second and 250 MB, which the command line's help need not cost.
    from swarmkeel.commands.picture import SwarmPicture  # noqa: PLC0415 - see above
    from swarmkeel.daemon.logs import configure_logging  # noqa: PLC0415 - see above
    from swarmkeel.demo.show import Demo  # noqa: PLC0415 - see above
    from swarmkeel.demo.view import LiveView, PlainView, milestone_table  # noqa: PLC0415 - see above

    console = Console()
    view = LiveView(console, SwarmPicture) if console.is_terminal else PlainView(console)
    performance = Demo(servers=servers, seed=seed, deadline=deadline, audience=view)
    async with performance.swarm as swarm:
        with (swarm.folder / "demo.log").open("w") as log:
            configure_logging("info", "json", log)
            try:
                with view:
                    report = await performance.run()
            finally:
                if performance.milestones:
                    console.print(milestone_table(performance.milestones))
            healed.set()
            if json_out is not None:
                await asyncio.to_thread(json_out.write_text, json.dumps(report.to_json(), indent=2) + "\n")
            if keep:
                for name, url in swarm.metrics_urls().items():
                    console.print(f"{name}: {url}", soft_wrap=True, markup=False, highlight=False)
                console.print(f"configurations, sockets, journals and logs: {swarm.folder}", soft_wrap=True)
                console.print("Ctrl-C ends the swarm.")
                with view:
                    await performance.watch()
