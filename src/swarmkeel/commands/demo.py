"""`swarmkeel demo`: a whole swarm on this machine that heals before your eyes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from swarmkeel.demo.report import Report

_INTERRUPTED = 128
"""Exit code of a process that a signal ended, less the signal's number."""


class DemoPolicy(StrEnum):
    """The policies that the demo can show."""

    COORDINATED = "coordinated"
    PETALS = "petals"


@dataclass(frozen=True)
class _Options:
    """What the command line asks for."""

    servers: int
    kill: int
    seed: int
    keep: bool
    deadline: float
    policies: tuple[DemoPolicy, ...]
    json_out: Path | None


def demo(
    *,
    servers: Annotated[int, typer.Option(min=8, max=16, help="How many servers.")] = 8,
    kill: Annotated[int, typer.Option(min=2, max=4, help="How many of them are killed half-way.")] = 2,
    policy: Annotated[DemoPolicy, typer.Option(help="The sidecars' policy.")] = DemoPolicy.COORDINATED,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run both policies, one after the other, on the same failures.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides how the servers are placed at first.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up after healing, until Ctrl-C.")] = False,
    deadline: Annotated[float, typer.Option(min=1, help="Fail if it takes longer than this, in seconds.")] = 150.0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the milestones to this file as JSON.")] = None,
) -> None:
    """Show a swarm heal: a real DHT, stand-in GPU servers placed badly, and a real sidecar beside each.

    Half-way some servers are killed without a goodbye. Exits with 0 only if in the end every block is served and the
    bottleneck is at least 80 % of the best that any placement of the surviving servers could reach.
    """
    if compare and keep:
        raise typer.BadParameter("two swarms one after the other cannot both stay", param_hint="'--keep'")
    policies = tuple(DemoPolicy) if compare else (policy,)
    options = _Options(servers, kill, seed, keep, deadline, policies, json_out)
    code = asyncio.run(_run(options))
    if code:
        raise typer.Exit(code)


async def _run(options: _Options) -> int:
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
        await _show(options, healed)
    except asyncio.CancelledError:
        # The kept demo has shown what it is for, and Ctrl-C is how it ends.
        return 0 if healed.is_set() else _INTERRUPTED + signals[0]
    return 0


async def _show(options: _Options, healed: asyncio.Event) -> None:
    # Imported here: the DHT takes time to load, which the command line's help need not cost.
    from swarmkeel.demo.view import comparison_table  # noqa: PLC0415 - see above

    console = Console()
    reports: list[Report] = []
    for policy in options.policies:
        if len(options.policies) > 1:
            console.rule(f"policy {policy.value}")
        reports.append(await _perform(options, policy, reports[0].victims if reports else (), console, healed))
    if len(reports) > 1:
        console.print(comparison_table(reports))
    written = [report.to_json() for report in reports]
    if options.json_out is not None and not options.keep:
        text = json.dumps(written if len(written) > 1 else written[0], indent=2)
        await asyncio.to_thread(options.json_out.write_text, text + "\n")


async def _perform(
    options: _Options, policy: DemoPolicy, victims: Sequence[str], console: Console, healed: asyncio.Event
) -> Report:
    """Run one demo. Of several, only the first has to heal: that another does not is what the comparison shows."""
    from swarmkeel.commands.picture import SwarmPicture  # noqa: PLC0415 - see `_show`
    from swarmkeel.daemon.logs import configure_logging  # noqa: PLC0415 - see `_show`
    from swarmkeel.demo.show import Demo, NotHealedError  # noqa: PLC0415 - see `_show`
    from swarmkeel.demo.view import LiveView, PlainView, milestone_table  # noqa: PLC0415 - see `_show`

    view = LiveView(console, SwarmPicture) if console.is_terminal else PlainView(console)
    performance = Demo(
        servers=options.servers,
        kill=options.kill,
        victims=victims,
        seed=options.seed,
        deadline=options.deadline,
        policy=policy.value,
        audience=view,
    )
    with ExitStack() as when_all_is_over:
        async with performance.swarm as swarm:
            # The swarm's end is logged too; what comes after it has no file any more.
            log = when_all_is_over.enter_context((swarm.folder / "demo.log").open("w"))
            when_all_is_over.callback(configure_logging, "error", "auto")
            configure_logging("info", "json", log)
            try:
                with view:
                    report = await performance.run()
            except NotHealedError as error:
                if not victims:
                    raise
                report = performance.report(missing=str(error))
            finally:
                if performance.milestones:
                    console.print(milestone_table(performance.milestones))
            if options.keep:
                healed.set()
                if options.json_out is not None:
                    text = json.dumps(report.to_json(), indent=2)
                    await asyncio.to_thread(options.json_out.write_text, text + "\n")
                for name, url in swarm.metrics_urls().items():
                    console.print(
                        f"{name}: {url.removesuffix('metrics')}", soft_wrap=True, markup=False, highlight=False
                    )
                console.print(f"configurations, sockets, journals and logs: {swarm.folder}", soft_wrap=True)
                console.print("Ctrl-C ends the swarm.")
                with view:
                    await performance.watch()
            return report
