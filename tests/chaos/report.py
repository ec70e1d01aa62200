"""What a chaos run found: as JSON, and as a short table to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final

from tests.chaos.truth import Judgement, count_reasons
from tests.support.resources import Usage

MEGABYTE: Final = 1024 * 1024
DESCRIPTORS_SLACK: Final = 10
THREADS_SLACK: Final = 6
MEMORY_FACTOR: Final = 1.25
MEMORY_SLACK_MB: Final = 15.0
SOCKETS_A_CRASH: Final = 2
"""Sockets that hivemind's two ends of p2pd leave in /tmp, if both are killed before they can remove them."""


@dataclass(frozen=True)
class Footprint:
    """What the sidecars take, the most of any and the mean.

    Attributes:
        rss_mb: Memory of a daemon.
        p2pd_rss_mb: Memory of its p2pd.
        descriptors: Open descriptors of a daemon.
        threads: Threads of a daemon.
        mean_rss_mb: Memory of a daemon, the mean of all.
    """

    rss_mb: float
    p2pd_rss_mb: float
    descriptors: int
    threads: int
    mean_rss_mb: float

    @classmethod
    def of(cls, daemons: Sequence[Usage], p2pds: Sequence[Usage]) -> Footprint:
        return cls(
            rss_mb=round(max(usage.rss_bytes for usage in daemons) / MEGABYTE, 1),
            p2pd_rss_mb=round(max(usage.rss_bytes for usage in p2pds) / MEGABYTE, 1),
            descriptors=max(usage.descriptors for usage in daemons),
            threads=max(usage.threads for usage in daemons),
            mean_rss_mb=round(fmean(usage.rss_bytes for usage in daemons) / MEGABYTE, 1),
        )

    def leaks_since(self, before: Footprint) -> list[str]:
        """Say what has grown by more than it may."""
        found = []
        if self.descriptors > before.descriptors + DESCRIPTORS_SLACK:
            found.append(f"a sidecar has {self.descriptors} descriptors open, before the faults {before.descriptors}")
        if self.threads > before.threads + THREADS_SLACK:
            found.append(f"a sidecar has {self.threads} threads, before the faults {before.threads}")
        if self.rss_mb > before.rss_mb * MEMORY_FACTOR + MEMORY_SLACK_MB:
            found.append(f"a sidecar takes {self.rss_mb} MB, before the faults {before.rss_mb}")
        return found


@dataclass(frozen=True)
class Leftovers:
    """What is there when all has been ended.

    Attributes:
        processes: Processes of the swarm that still run.
        files: Temporary files.
        sockets_seen: Sockets of hivemind's that there were in /tmp.
        sockets: Those of them that are still there.
        crashes: Processes that were killed with no chance to clean up; each may leave `SOCKETS_A_CRASH`.
    """

    processes: int
    files: tuple[str, ...]
    sockets_seen: int
    sockets: int
    crashes: int

    def leaks(self) -> list[str]:
        found = []
        if self.processes:
            found.append(f"{self.processes} processes are left")
        if self.files:
            found.append(f"temporary files are left: {', '.join(self.files[:5])}")
        if self.sockets > SOCKETS_A_CRASH * self.crashes:
            found.append(f"{self.sockets} sockets are left in /tmp by {self.crashes} crashes")
        return found


@dataclass(frozen=True)
class End:
    """The swarm after the faults.

    Attributes:
        seconds: How long it took to come to rest.
        share: The bottleneck, as a share of the best that any placement could reach.
        bottleneck_rps: The bottleneck.
        uncovered: Blocks that nobody serves.
        verdicts: What the sidecars say last, and how many of them.
        checks: The fewest checks that a sidecar has made since the faults ended.
        missing: What it lacked when time was over; None if it came to rest.
    """

    seconds: float
    share: float
    bottleneck_rps: float
    uncovered: int
    verdicts: Mapping[str, int]
    checks: int
    missing: str | None


@dataclass(frozen=True)
class Report:
    """All of it."""

    seed: int
    minutes: float
    servers: int
    repeat: str
    faults: Mapping[str, int]
    judgement: Judgement
    checks: int
    end: End
    before: Footprint
    after: Footprint
    leftovers: Leftovers
    violations: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "uncovered_because": count_reasons(self.judgement.uncoverings),
            "passed": not self.violations,
        }

    def lines(self) -> Iterable[str]:
        """Give it as a short table."""
        end, judgement = self.end, self.judgement
        yield f"{'faults injected':32}{sum(self.faults.values())} of {len(self.faults)} kinds"
        yield f"{'checks':32}{self.checks:,}"
        most = max(judgement.moves.values(), default=0)
        yield f"{'moves':32}{sum(judgement.moves.values())}, of one server at most {most}; {judgement.failed} failed, {judgement.fallbacks} ways back"
        yield f"{'moves that uncovered blocks':32}{len(judgement.uncoverings)}"
        for why, count in count_reasons(judgement.uncoverings).items():
            yield f"  {count:3} {why}"
        yield f"{'at rest':32}after {end.seconds:.0f} s: {end.missing or 'balanced and covered'}"
        yield f"{'bottleneck':32}{end.bottleneck_rps:.4g} RPS, {end.share:.0%} of the best possible"
        yield f"{'last verdicts':32}{', '.join(f'{count} {name}' for name, count in sorted(end.verdicts.items()))}"
        yield f"{'checks since, of each':32}{end.checks} or more"
        for name, unit in (("rss_mb", "MB"), ("p2pd_rss_mb", "MB"), ("descriptors", ""), ("threads", "")):
            label = f"most {name.removesuffix('_mb').replace('_', ' ')} of a sidecar"
            yield f"{label:32}{getattr(self.before, name)} {unit} before, {getattr(self.after, name)} {unit} after"
        left = self.leftovers
        yield f"{'left behind':32}{left.processes} processes, {len(left.files)} files, {left.sockets} of {left.sockets_seen} sockets after {left.crashes} crashes"
        for violation in self.violations:
            yield f"VIOLATED: {violation}"
        yield f"repeat with: {self.repeat}"
