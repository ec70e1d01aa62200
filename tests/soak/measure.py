"""What a soak measures, and what counts as bounded. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

MEGABYTE: Final = 1024 * 1024
QUARTERS: Final = 4


@dataclass(frozen=True)
class Sample:
    """One look at one sidecar.

    Attributes:
        at: Seconds since the start of the soak.
        sidecar: Which one.
        checks: Checks that it has made since its start.
        rss_mb: Memory of the daemon.
        p2pd_rss_mb: Memory of its p2pd.
        descriptors: Open descriptors of the daemon.
        p2pd_descriptors: Those of its p2pd.
        threads: Threads of the daemon.
        journal_mb: The journal with its neighbours.
        moves: Moves in the journal.
    """

    at: float
    sidecar: str
    checks: int
    rss_mb: float
    p2pd_rss_mb: float
    descriptors: int
    p2pd_descriptors: int
    threads: int
    journal_mb: float
    moves: int


@dataclass(frozen=True)
class Measure:
    """One of the things that must stay bounded.

    Attributes:
        name: What it is.
        unit: In what.
        of: Takes it from a sample.
        growth: From the second quarter to the last its mean may grow by this share of itself,
        slack: and by this much more.
        limit: It may never be above this; None without such a limit.
    """

    name: str
    unit: str
    of: Callable[[Sample], float]
    growth: float
    slack: float
    limit: float | None = None


def measures(journal_limit_mb: float) -> tuple[Measure, ...]:
    """Give all that is measured; the journal may never be larger than this, in megabytes."""
    return (
        Measure("memory of the daemon", "MB", lambda sample: sample.rss_mb, 0.05, 3.0),
        Measure("memory of its p2pd", "MB", lambda sample: sample.p2pd_rss_mb, 0.10, 5.0),
        Measure("descriptors of the daemon", "", lambda sample: sample.descriptors, 0.0, 4.0),
        Measure("descriptors of its p2pd", "", lambda sample: sample.p2pd_descriptors, 0.0, 8.0),
        Measure("threads of the daemon", "", lambda sample: sample.threads, 0.0, 2.0),
        Measure("journal", "MB", lambda sample: sample.journal_mb, 0.10, 1.0, journal_limit_mb),
    )


@dataclass(frozen=True)
class Course:
    """How one thing went, over all sidecars.

    Attributes:
        measure: Which.
        unit: In what.
        quarters: Means of each quarter of the time.
        largest: The most that any sidecar ever had.
        per_thousand_checks: Slope of the line that fits the second half best, for each thousand checks of one sidecar.
        allowed: What the mean of the last quarter may be at most.
        bounded: Whether it and the limit were kept.
    """

    measure: str
    unit: str
    quarters: tuple[float, ...]
    largest: float
    per_thousand_checks: float
    allowed: float
    bounded: bool


def follow(samples: Sequence[Sample], measure: Measure) -> Course:
    """Say how something went.

    Raises:
        ValueError: If there are too few samples to say anything.
    """
    if len({sample.at for sample in samples}) < 2 * QUARTERS:
        raise ValueError(f"{len(samples)} samples are too few: let it run for longer")
    start = min(sample.at for sample in samples)
    length = max(sample.at for sample in samples) - start
    quarters: list[list[float]] = [[] for _ in range(QUARTERS)]
    for sample in samples:
        quarters[min(int((sample.at - start) / length * QUARTERS), QUARTERS - 1)].append(measure.of(sample))
    means = tuple(fmean(values) for values in quarters)
    allowed = means[1] * (1 + measure.growth) + measure.slack
    largest = max(measure.of(sample) for sample in samples)
    return Course(
        measure=measure.name,
        unit=measure.unit,
        quarters=means,
        largest=largest,
        per_thousand_checks=_slope([sample for sample in samples if sample.at - start >= length / 2], measure) * 1000,
        allowed=allowed,
        bounded=means[-1] <= allowed and (measure.limit is None or largest <= measure.limit),
    )


def _slope(samples: Sequence[Sample], measure: Measure) -> float:
    """Fit one line a sidecar, all with the same slope, and give that for one check."""
    by_sidecar: dict[str, list[Sample]] = {}
    for sample in samples:
        by_sidecar.setdefault(sample.sidecar, []).append(sample)
    products = squares = 0.0
    for own in by_sidecar.values():
        checks = fmean(sample.checks for sample in own)
        value = fmean(measure.of(sample) for sample in own)
        products += sum((sample.checks - checks) * (measure.of(sample) - value) for sample in own)
        squares += sum((sample.checks - checks) ** 2 for sample in own)
    return products / squares if squares else 0.0
