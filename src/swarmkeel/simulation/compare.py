"""Many runs side by side: every policy meets the same seeds, and is compared with the first one seed by seed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any, Final

from swarmkeel.simulation.bounds import bound_steps
from swarmkeel.simulation.measures import RunResult
from swarmkeel.simulation.policies import PolicySpec
from swarmkeel.simulation.population import draw_population
from swarmkeel.simulation.scenario import Scenario, Size
from swarmkeel.simulation.world import simulate


@dataclass(frozen=True, slots=True)
class Job:
    """All policies on one population: bounds are computed once for them.

    Attributes:
        scenario: The world.
        size: Blocks and servers.
        seed: Of the run.
        policies: The policies.
    """

    scenario: Scenario
    size: Size
    seed: int
    policies: tuple[PolicySpec, ...]


def run_job(job: Job) -> tuple[RunResult, ...]:
    """Make the runs of one job, in the order of its policies."""
    population = draw_population(job.scenario, job.size, job.seed)
    bounds = bound_steps(population, job.scenario.ends_at)
    return tuple(
        simulate(job.scenario, job.size, policy, job.seed, population=population, bounds=bounds)
        for policy in job.policies
    )


def run_jobs(
    jobs: Sequence[Job], *, processes: int | None = None, on_done: Callable[[Job], None] | None = None
) -> tuple[tuple[RunResult, ...], ...]:
    """Make many runs, on all cores.

    Results do not depend on the number of processes: each run draws from its seed alone.

    Args:
        jobs: What to run.
        processes: How many processes; all cores where left out, none but this one for 1.
        on_done: Called after each job, in the order in which they end.

    Returns:
        The results of each job, in the order of the jobs.
    """
    count = min(processes or os.cpu_count() or 1, len(jobs))
    results: dict[int, tuple[RunResult, ...]] = {}
    for index, result in _in_this_process(jobs) if count <= 1 else _in_processes(jobs, count):
        results[index] = result
        if on_done is not None:
            on_done(jobs[index])
    return tuple(results[index] for index in range(len(jobs)))


def _in_this_process(jobs: Sequence[Job]) -> Iterator[tuple[int, tuple[RunResult, ...]]]:
    for index, job in enumerate(jobs):
        yield index, run_job(job)


def _in_processes(jobs: Sequence[Job], count: int) -> Iterator[tuple[int, tuple[RunResult, ...]]]:
    # Spawned, not forked: numpy's and the solver's threads do not survive a fork.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        # The largest first, so that no process is left alone with one at the end.
        order = sorted(range(len(jobs)), key=lambda index: -jobs[index].size.servers)
        futures = {pool.submit(run_job, jobs[index]): index for index in order}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of a run, as comparisons show it.

    Attributes:
        field: Name in `RunResult`.
        title: Short name for tables.
        unit: Of the value; `%` shows a share.
        higher_is_better: Which way is better.
    """

    field: str
    title: str
    unit: str
    higher_is_better: bool

    def value(self, result: RunResult) -> float | None:
        """Give the measure of one run."""
        value = getattr(result, self.field)
        return None if value is None else float(value)


MEASURES: Final = (
    Measure("ratio", "of the bound", "%", higher_is_better=True),
    Measure("uncovered_share", "time with a hole", "%", higher_is_better=False),
    Measure("moves_per_server_day", "moves a server-day", "", higher_is_better=False),
    Measure("unhelpful_share", "moves that helped nobody", "%", higher_is_better=False),
    Measure("offline_minutes_per_server_day", "minutes offline a server-day", "min", higher_is_better=False),
    Measure("hole_seconds", "time to close a hole", "s", higher_is_better=False),
    Measure("recovery_seconds", "time back to 90 %", "s", higher_is_better=False),
    Measure("claims_lost", "claims withdrawn", "", higher_is_better=False),
)


@dataclass(frozen=True, slots=True)
class Summary:
    """One measure of one policy over the seeds, and against the first policy on the same seeds.

    Attributes:
        median: Over the seeds that have the measure; None if none has.
        low: Its lower quartile.
        high: Its upper quartile.
        better: Seeds on which it is better than the first policy; None for the first policy itself.
        worse: Seeds on which it is worse.
        paired: Seeds on which both have the measure.
        factor: Median of this policy's value over the first one's, seed by seed; None where it cannot be formed.
    """

    median: float | None
    low: float | None
    high: float | None
    better: int | None = None
    worse: int | None = None
    paired: int | None = None
    factor: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All policies on one scenario at one size.

    Attributes:
        scenario: Its name.
        size: Blocks and servers.
        seeds: The seeds.
        policies: Names of the policies; the others are compared with the first.
        results: The runs, by policy and seed in these orders.
        summaries: By policy, then by the measure's field.
    """

    scenario: str
    size: Size
    seeds: tuple[int, ...]
    policies: tuple[str, ...]
    results: tuple[tuple[RunResult, ...], ...]
    summaries: tuple[dict[str, Summary], ...]

    def to_json(self) -> dict[str, Any]:
        """Give the comparison as what `json.dumps` takes."""
        return {
            "scenario": self.scenario,
            "size": str(self.size),
            "seeds": list(self.seeds),
            "policies": list(self.policies),
            "summaries": {
                policy: {field: asdict(summary) for field, summary in summaries.items()}
                for policy, summaries in zip(self.policies, self.summaries, strict=True)
            },
            "runs": [result.to_json() for row in self.results for result in row],
        }


def compare(scenario: str, size: Size, results: Sequence[Sequence[RunResult]]) -> Comparison:
    """Compare policies on one scenario at one size.

    Args:
        scenario: Its name.
        size: Blocks and servers.
        results: For each seed the runs of all policies, in the same order.
    """
    by_policy = tuple(zip(*results, strict=True))
    first = by_policy[0]
    summaries = tuple(
        {measure.field: _summarise(measure, row, None if number == 0 else first) for measure in MEASURES}
        for number, row in enumerate(by_policy)
    )
    return Comparison(
        scenario,
        size,
        tuple(result.seed for result in first),
        tuple(row[0].policy for row in by_policy),
        by_policy,
        summaries,
    )


def _summarise(measure: Measure, row: Sequence[RunResult], first: Sequence[RunResult] | None) -> Summary:
    values = [value for value in map(measure.value, row) if value is not None]
    if not values:
        return Summary(None, None, None)
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    if first is None:
        return Summary(median(values), low, high)
    pairs = [
        (own, other)
        for own, other in zip(map(measure.value, row), map(measure.value, first), strict=True)
        if own is not None and other is not None
    ]
    sign = 1 if measure.higher_is_better else -1
    factors = [own / other for own, other in pairs if other]
    return Summary(
        median(values),
        low,
        high,
        better=sum(sign * (own - other) > 0 for own, other in pairs),
        worse=sum(sign * (own - other) < 0 for own, other in pairs),
        paired=len(pairs),
        factor=median(factors) if factors else None,
    )
