"""How a demo ended: the swarm at its milestones, and whether that is good enough. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from swarmkeel.demo.optimum import BestPossible
from swarmkeel.demo.scenario import GOAL
from swarmkeel.demo.sight import Sight


@dataclass(frozen=True)
class Milestone:
    """The swarm at one moment.

    Attributes:
        name: Which moment.
        seconds: When, since the start of the demo.
        servers: Servers alive.
        bottleneck_rps: Throughput of the weakest block.
        best: The best bottleneck that these servers could have.
        uncovered_blocks: Blocks that nobody serves.
        moves: Moves up to now.
    """

    name: str
    seconds: float
    servers: int
    bottleneck_rps: float
    best: BestPossible
    uncovered_blocks: int
    moves: int

    @property
    def share(self) -> float:
        """The bottleneck as a share of the best possible."""
        return share_of(self.bottleneck_rps, self.best)


@dataclass(frozen=True)
class Report:
    """How one demo went.

    Attributes:
        seed: Decided how the servers were placed at first.
        policy: The sidecars' policy.
        victims: Names of the servers that were killed.
        milestones: What was reached, in order.
        missing: What it did not reach in time; None if it healed.
    """

    seed: int
    policy: str
    victims: tuple[str, ...]
    milestones: tuple[Milestone, ...]
    missing: str | None = None

    def to_json(self) -> dict[str, object]:
        """Give the report as plain JSON values."""
        milestones = [{**asdict(milestone), "share": milestone.share} for milestone in self.milestones]
        return {
            "seed": self.seed,
            "policy": self.policy,
            "goal": GOAL,
            "victims": list(self.victims),
            "missing": self.missing,
            "milestones": milestones,
        }

    def healing(self) -> tuple[Healing | None, Healing | None]:
        """Give how the swarm got balanced at first, and how it healed after the loss; None for what it did not reach."""
        steps = (*self.milestones, None, None, None, None)[:4]
        bad, balanced, killed, healed = steps
        return _healing(bad, balanced), _healing(killed, healed)


@dataclass(frozen=True)
class Healing:
    """How a swarm got from a bad state to a good one.

    Attributes:
        seconds: How long that took.
        moves: Moves that it took.
        share: The bottleneck reached, as a share of the best possible.
    """

    seconds: float
    moves: int
    share: float


def _healing(before: Milestone | None, after: Milestone | None) -> Healing | None:
    if before is None or after is None:
        return None
    return Healing(after.seconds - before.seconds, after.moves - before.moves, after.share)


def share_of(bottleneck_rps: float, best: BestPossible) -> float:
    """Give a bottleneck as a share of the best possible, 0 where nothing is possible."""
    return bottleneck_rps / best.bound_rps if best.bound_rps > 0 else 0.0


def what_is_missing(sight: Sight, best: BestPossible) -> str | None:
    """Say in one line why a swarm is not good enough; None if it is."""
    if sight.uncovered_blocks:
        return f"{sight.uncovered_blocks} of {sight.snapshot.total_blocks} blocks are served by nobody"
    share = share_of(sight.bottleneck_rps, best)
    if share < GOAL:
        return (
            f"the bottleneck is {sight.bottleneck_rps:.4g} RPS, {share:.1%} of the {best.bound_rps:.4g} RPS that are "
            f"possible; {GOAL:.0%} are needed"
        )
    return None
