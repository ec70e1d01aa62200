"""`swarmkeel simulate`: policies side by side on the same simulated swarms."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from swarmkeel.errors import SwarmkeelError, UsageError

if TYPE_CHECKING:
    from swarmkeel.simulation.compare import Comparison, Job
    from swarmkeel.simulation.policies import PolicySpec
    from swarmkeel.simulation.scenario import Scenario, Size

_SECONDS_PER_HOUR = 3600.0


def simulate(
    scenario: Annotated[
        str | None, typer.Argument(help="Name of a scenario or a scenario file (YAML); --list names them.")
    ] = None,
    *,
    policies: Annotated[
        str, typer.Option(help="What to compare, with commas; the others are compared with the first.")
    ] = "petals,coordinated,none",
    seeds: Annotated[int, typer.Option(min=1, help="How many swarms are drawn.")] = 12,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed; the others follow it.")] = 0,
    sizes: Annotated[
        str | None, typer.Option(help="Sizes as BLOCKS/SERVERS, with commas; the scenario's own where left out.")
    ] = None,
    hours: Annotated[float | None, typer.Option(min=0.1, help="How long is measured, in hours.")] = None,
    from_snapshot: Annotated[
        Path | None, typer.Option(help="Begin with the swarm of this snapshot file (swarmkeel snapshot --json).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json, curves as PNG and an HTML page.")] = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of tables.")] = False,
    processes: Annotated[int | None, typer.Option(min=1, help="How many processes; all cores where left out.")] = None,
    list_scenarios: Annotated[bool, typer.Option("--list", help="Name the scenarios that there are.")] = False,
) -> None:
    """Compare policies on the same simulated swarms, in simulated time.

    Policies: none, petals, coordinated, petals-sidecar; coordinated@25 lets a quarter of the servers adopt it,
    coordinated:0.1 sets its move cost. The same seeds always give the same results.
    """
    from swarmkeel.simulation.policies import parse_policy, with_adoptions  # noqa: PLC0415 - the command line's help stays quick
    from swarmkeel.simulation.scenario import load_scenario, named_scenarios  # noqa: PLC0415 - as above

    console = Console()
    if list_scenarios:
        abouts = {name: load_scenario(name).about for name in named_scenarios()}
        if json_out:
            typer.echo(json.dumps([{"name": name, "about": about} for name, about in abouts.items()]))
            return
        for name, about in abouts.items():
            console.print(f"[bold]{name}[/bold]  {about}")
        return
    _require("scipy", "bounds")
    if out is not None:
        _require("matplotlib", "curves")
    if scenario is None and from_snapshot is None:
        raise UsageError("no scenario is named", "name one, or give --from-snapshot FILE; --list names what there is")
    world = load_scenario(scenario or "steady-churn")
    if hours is not None:
        world = world.model_copy(update={"duration": hours * _SECONDS_PER_HOUR})
    specs = with_adoptions(tuple(parse_policy(name.strip()) for name in policies.split(",")), world.adoptions)
    world, chosen = _sizes(world, sizes, from_snapshot)
    comparisons = _run(
        world,
        chosen,
        specs,
        seeds=range(first_seed, first_seed + seeds),
        processes=processes,
        console=Console(stderr=True),
    )
    if json_out:
        typer.echo(json.dumps([comparison.to_json() for comparison in comparisons]))
    else:
        _print(console, comparisons)
    if out is not None:
        _write(out, world, comparisons)
        if not json_out:
            console.print(f"written: {out / 'index.html'}", soft_wrap=True, markup=False, highlight=False)


def _require(module: str, purpose: str) -> None:
    if find_spec(module) is None:
        raise SwarmkeelError(
            f"{module}, which simulations need for their {purpose}, is not installed",
            "pip install 'swarmkeel[simulate]'",
        )


def _sizes(world: Scenario, sizes: str | None, from_snapshot: Path | None) -> tuple[Scenario, tuple[Size, ...]]:
    from swarmkeel.simulation.scenario import RecordedPart, Size, parse_size  # noqa: PLC0415 - as above
    from swarmkeel.swarm.recorded import read_snapshot_file  # noqa: PLC0415 - as above

    if from_snapshot is not None:
        world = world.model_copy(update={"recorded": RecordedPart(snapshot=from_snapshot)})
    if world.recorded is not None:
        snapshot = read_snapshot_file(world.recorded.snapshot)
        if sizes is not None:
            raise UsageError("a recorded swarm has its own size", "leave --sizes out")
        return world, (Size(snapshot.total_blocks, len(snapshot.spans())),)
    if sizes is None:
        return world, world.sizes
    try:
        return world, tuple(parse_size(text.strip()) for text in sizes.split(","))
    except ValueError as error:
        raise UsageError(f"--sizes {error}", "such as --sizes 80/30,126/100") from error


def _run(
    world: Scenario,
    sizes: tuple[Size, ...],
    policies: tuple[PolicySpec, ...],
    *,
    seeds: range,
    processes: int | None,
    console: Console,
) -> list[Comparison]:
    from swarmkeel.simulation.compare import Job, compare, run_jobs  # noqa: PLC0415 - as above

    jobs = [Job(world, size, seed, policies) for size in sizes for seed in seeds]
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with progress:
        task = progress.add_task(world.name, total=len(jobs))

        def note(job: Job) -> None:
            progress.update(task, advance=1, description=f"{world.name} {job.size}")

        results = run_jobs(jobs, processes=processes, on_done=note)
    count = len(seeds)
    return [compare(world.name, size, results[n * count : (n + 1) * count]) for n, size in enumerate(sizes)]


def _print(console: Console, comparisons: list[Comparison]) -> None:
    from swarmkeel.simulation.report import comparison_table  # noqa: PLC0415 - as above

    for comparison in comparisons:
        console.print(comparison_table(comparison))


def _write(out: Path, world: Scenario, comparisons: list[Comparison]) -> None:
    from swarmkeel.simulation.charts import write_report  # noqa: PLC0415 - as above

    try:
        write_report(out, world, comparisons)
    except OSError as error:
        raise SwarmkeelError(f"{out}: {error.strerror or error}", "name a folder that can be written to") from error
