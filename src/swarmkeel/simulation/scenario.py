"""The world of a simulation, as a scenario file describes it: every part is a parameter with a unit and a default.

Durations are written like `90s`, `15m`, `8h`. Everything random is drawn from the run's seed, so that two policies meet
the same servers, lives, crashes and loads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from swarmkeel.config_errors import complete_error
from swarmkeel.durations import Duration, PositiveDuration
from swarmkeel.errors import UsageError
from swarmkeel.printable import printable
from swarmkeel.yaml_file import NotYaml, parse_yaml

Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_SIZE: Final = re.compile(r"([1-9]\d{0,3})/([1-9]\d{0,3})")


class Size(NamedTuple):
    """How large a swarm is; written `80/30`.

    Attributes:
        blocks: Blocks of the model.
        servers: Servers that it has in the mean.
    """

    blocks: int
    servers: int

    def __str__(self) -> str:
        return f"{self.blocks}/{self.servers}"


def parse_size(text: object) -> Size:
    """Read a size such as `80/30`: blocks of the model, then servers.

    Raises:
        ValueError: If it is none.
    """
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must be a size like 80/30: blocks of the model, then servers")
    return Size(int(match[1]), int(match[2]))


def _read_size(value: object) -> object:
    return value if isinstance(value, Size) else parse_size(value)


_ReadSize = Annotated[Size, BeforeValidator(_read_size), PlainSerializer(str, return_type=str)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Range(_Part):
    """A number that is drawn anew for every server, log-uniformly between two ends."""

    low: _Positive
    """Least value."""
    high: _Positive
    """Largest value."""

    @model_validator(mode="after")
    def _check_order(self) -> Range:
        if self.high < self.low:
            raise complete_error(f"high must be at least low, which is {self.low:g}, not {self.high:g}")
        return self


class MemoryClass(_Part):
    """Servers with the same amount of memory."""

    blocks: Annotated[int, Field(ge=1, le=10_000)]
    """How many blocks they hold."""
    weight: _Positive
    """How frequent they are, relative to the other classes."""
    compute_rps: _Positive
    """Requests a second that such a server computes through ONE block, in the median."""


class PopulationPart(_Part):
    """What servers there are."""

    classes: Annotated[tuple[MemoryClass, ...], Field(min_length=1)] = (
        MemoryClass(blocks=6, weight=0.25, compute_rps=900),
        MemoryClass(blocks=10, weight=0.30, compute_rps=2000),
        MemoryClass(blocks=14, weight=0.25, compute_rps=3000),
        MemoryClass(blocks=20, weight=0.12, compute_rps=5000),
        MemoryClass(blocks=32, weight=0.08, compute_rps=12000),
    )
    """Memory classes; blocks are cut to the model's."""
    compute_spread: Annotated[float, Field(ge=0, le=3)] = 0.35
    """Standard deviation of the logarithm of a server's compute rate around its class's."""
    network_rps: Range = Range(low=100, high=2000)
    """Requests a second that a server's network carries."""
    relay_share: Share = 0.2
    """Share of servers behind a relay."""
    relay_penalty: Share = 0.2
    """Share of its network rate that a relay costs, as in Petals."""
    coverage: _Positive | None = None
    """How many times the servers' memory holds the model, in the mean; blocks of the classes are scaled to it. Left out,
    the classes stay as they are."""
    min_blocks_share: Share = 1.0
    """The fewest blocks that a sidecar may have its server hold, as a share of the most; 1: always the same number.
    Petals' own loop always holds the most."""
    growth: bool = False
    """With true the swarm starts from nothing and grows; without, it is there from the beginning."""
    arrive_over: Duration = 600.0
    """Within this time the first servers arrive, before anything is measured."""


class ChurnPart(_Part):
    """How servers come and go."""

    mean_life: PositiveDuration = 8 * 3600.0
    """Mean life of a server, exponentially distributed; as many arrive as leave."""
    crash_share: Share = 0.5
    """Share of the lives that end without a goodbye: their records linger."""
    enabled: bool = True
    """With false nobody comes or goes but by bursts and failures."""


class Failure(_Part):
    """Many servers lost at the same moment."""

    at: Duration
    """When, from the beginning of what is measured."""
    share: Share
    """Share of the servers then alive."""
    announced: bool = False
    """Whether they say goodbye."""


class Burst(_Part):
    """Many servers that come at once."""

    at: Duration
    """When, from the beginning of what is measured."""
    share: _Positive
    """How many, as a share of the swarm's mean number of servers."""
    over: Duration = 600.0
    """Within this time they arrive."""
    mean_life: PositiveDuration = 2 * 3600.0
    """Their mean life."""


class LoadPart(_Part):
    """How long servers take to come up."""

    cold_seconds: Range = Range(low=60, high=1200)
    """Seconds that a server takes to download and load all its blocks; a property of the server."""
    disk_share: Share = 0.2
    """Share of that which is left for a block that is on disk already."""
    start: Duration = 5.0
    """Time that a load takes beyond its blocks."""
    shutdown: Duration = 5.0
    """Time from its goodbye until a server begins to load again."""
    disk_factor: Annotated[float, Field(ge=1)] = 2.0
    """How many times its own number of blocks a server keeps on disk; the least recently used go first."""
    failure_share: Share = 0.0
    """Share of loads that fail at their end."""


class DhtPart(_Part):
    """How the DHT lags and forgets."""

    update_period: PositiveDuration = 120.0
    """Time between two announcements of a server."""
    expiration: PositiveDuration = 240.0
    """Time after which a record expires."""
    store_delay: Duration = 2.0
    """Mean time, exponentially distributed, until others can see what was announced."""
    read_delay: Duration = 3.0
    """Time that a reading takes: what a decision rests on is as old."""
    lost_write_share: Share = 0.01
    """Share of announcements that nobody ever sees."""
    lost_key_share: Share = 0.01
    """Share of block keys that a reading misses."""
    bad_read_share: Share = 0.02
    """Share of readings that miss many keys."""
    bad_read_loss: Share = 0.3
    """Share of keys that these miss."""
    stale_read_share: Share = 0.05
    """Share of readings that show an older state."""
    stale_seconds: Duration = 120.0
    """How much older at most."""


class PetalsPart(_Part):
    """Petals' own loop, as on its command line."""

    mean_balance_check_period: PositiveDuration = 60.0
    """Mean time between two checks; each wait is uniform from 0 to twice this."""
    balance_quality: _Positive = 0.75
    """Move if the bottleneck is below this share of what can be reached."""
    mean_block_selection_delay: Duration = 5.0
    """Mean time before blocks are chosen; uniform from 0 to twice this."""
    screening: bool = True
    """With true a view on which several full checks came out far from the limit is not searched again for each further
    server; with false every check is made in full, which takes many times as long. See docs/simulation.md."""


class SidecarPart(_Part):
    """The sidecars beside the servers."""

    adoption: Share = 1.0
    """Share of servers that have one. The others run Petals' own loop."""
    check_period: PositiveDuration = 60.0
    """Time between two checks."""
    check_jitter: Share = 0.2
    """Each wait is drawn from check_period times 1 minus to 1 plus this."""
    update_period: PositiveDuration = 60.0
    """Time between two announcements of a sidecar's record while its server moves; otherwise every check ends in one."""
    expiration: PositiveDuration = 260.0
    """Time after which that record expires: the daemon has it hold for three checks."""
    lost_claim_share: Share = 0.02
    """Share of sidecar records (claims among them) that nobody ever sees."""
    late_claim_share: Share = 0.02
    """Share that others see late."""
    late_seconds: Duration = 30.0
    """How late."""
    clock_skew: Duration = 1.0
    """Standard deviation of a host's clock against true time."""
    crashes_per_day: Annotated[float, Field(ge=0)] = 0.5
    """How often a sidecar is killed, at any step."""
    restart_after: Duration = 30.0
    """How long it is away then."""
    crash_at_step_share: Share = 0.005
    """Share of a move's steps after which it is killed, when the step is written down and before it is acted on."""
    claim_lifetime: PositiveDuration = 180.0
    """How long a claim counts if it is not extended, as `claims.lifetime`."""
    cooldown: Duration = 1200.0
    """As `guards.cooldown` of the configuration."""
    minimum_uptime: Duration = 600.0
    """As `guards.minimum_uptime`."""
    moves_per_day: Annotated[int, Field(ge=0)] = 12
    """As `guards.moves_per_day`."""
    confirmations: Annotated[int, Field(ge=1)] = 2
    """As `guards.confirmations`; a policy that makes claims needs but one, its claim settles instead."""
    assumed_load: Duration = 600.0
    """As `balance.load_seconds`: how long a move takes, until a server's own moves have shown."""
    move_cost: Annotated[float, Field(ge=0)] = 0.04
    """What a move must bring beyond its own outage, as a share of the bottleneck."""
    poll_period: PositiveDuration = 10.0
    """How often a move under way is looked at."""
    prefetch: bool = True
    """Whether servers can fetch blocks while they serve."""
    staging: bool = True
    """Whether sidecars have their servers fetch, in quiet hours, what they would most likely be asked to serve next."""


class HostilePart(_Part):
    """Who does not play by the rules."""

    fixed_share: Share = 0.0
    """Share of servers without a sidecar whose operators named their blocks: they never move by themselves."""
    liar_share: Share = 0.0
    """Share of servers that announce a false throughput."""
    liar_factor: _Positive = 10.0
    """How many times their true throughput they announce."""
    phantom_claims: Annotated[int, Field(ge=0, le=1000)] = 0
    """False claims in the DHT at any time, under made-up peer ids: moves that nobody makes."""
    forged_share: Share = 0.0
    """Share of servers whose sidecars' records somebody overwrites, again and again, with a false claim."""


class RecordedPart(_Part):
    """A swarm as it was recorded: its servers are there from the beginning, on the blocks recorded."""

    snapshot: Path
    """The snapshot file (JSON, format 1); relative to the scenario file."""


class Scenario(_Part):
    """A world to compare policies in."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    """Short name."""
    about: str = ""
    """One sentence on what it shows."""
    sizes: Annotated[tuple[_ReadSize, ...], Field(min_length=1)] = (Size(80, 30),)
    """Sizes that it makes sense at."""
    duration: PositiveDuration = 24 * 3600.0
    """How long is measured."""
    warm_up: Duration = 3600.0
    """How long the swarm lives before that."""
    population: PopulationPart = PopulationPart()
    churn: ChurnPart = ChurnPart()
    failures: tuple[Failure, ...] = ()
    bursts: tuple[Burst, ...] = ()
    loads: LoadPart = LoadPart()
    dht: DhtPart = DhtPart()
    petals: PetalsPart = PetalsPart()
    sidecars: SidecarPart = SidecarPart()
    hostile: HostilePart = HostilePart()
    recorded: RecordedPart | None = None
    adoptions: tuple[Share, ...] = ()
    """Shares of adoption to compare every coordinated policy at, such as 0.25; none: `sidecars.adoption` alone."""

    @property
    def ends_at(self) -> float:
        """When the run ends, in seconds from its beginning; measuring starts at `warm_up`."""
        return self.warm_up + self.duration


class ScenarioError(UsageError):
    """A scenario cannot be used: names the file, the first wrong place and what is allowed there."""


def named_scenarios() -> tuple[str, ...]:
    """Name the scenarios that ship with the program."""
    folder = resources.files("swarmkeel.simulation") / "scenarios"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_scenario(name_or_path: str) -> Scenario:
    """Read a scenario that ships with the program, or a file.

    Args:
        name_or_path: A name of `named_scenarios`; anything with a dot or a slash is a path.

    Raises:
        ScenarioError: If there is no such scenario or anything in it is wrong.
    """
    if name_or_path in named_scenarios():
        resource = resources.files("swarmkeel.simulation") / "scenarios" / f"{name_or_path}.yaml"
        with resources.as_file(resource) as path:
            return _parse(resource.read_bytes(), name_or_path, path.parent)
    path = Path(name_or_path)
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        names = ", ".join(named_scenarios())
        raise ScenarioError(
            f"{printable(name_or_path, 200)}: {reason}", f"name a scenario file or one of {names}"
        ) from error
    return _parse(text, str(path), path.parent)


def _parse(text: bytes, name: str, folder: Path) -> Scenario:
    def wrong(place: str, what: str) -> ScenarioError:
        return ScenarioError(f"{printable(name, 200)}: {printable(place)}: {printable(what, 300)}", "mend the scenario")

    try:
        source, duplicates = parse_yaml(text)
    except NotYaml as error:
        raise wrong(error.where, f"not YAML: {error.what}") from error
    for duplicate in duplicates:
        raise wrong(f"line {duplicate.line}", f"the key {duplicate.key} stands on line {duplicate.first_line} already")
    if not isinstance(source, Mapping):
        raise wrong("(whole file)", f"must be a mapping; there are {', '.join(Scenario.model_fields)}")
    try:
        scenario = Scenario.model_validate(source)
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in finding["loc"]) or "(whole file)"
        what = "unknown key" if finding["type"] == "extra_forbidden" else finding["msg"].removeprefix("Value error, ")
        raise wrong(place, what) from error
    if scenario.recorded is not None:
        recorded = RecordedPart(snapshot=folder / scenario.recorded.snapshot)
        scenario = scenario.model_copy(update={"recorded": recorded})
    return scenario
