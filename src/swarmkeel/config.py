"""The configuration: one YAML file, overridden by environment variables such as SWARMKEEL_BALANCE__DRY_RUN=true."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

from swarmkeel.durations import Duration, PositiveDuration
from swarmkeel.errors import UsageError

Ratio = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SwarmSection(_Section):
    """The swarm to look at."""

    dht_prefix: Annotated[str, Field(min_length=1, pattern=r"^[^.\s]+$")]
    """Name of the model in the DHT, without a dot."""
    total_blocks: Annotated[int, Field(ge=1, le=10_000)]
    """Number of transformer blocks of the model."""
    initial_peers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Multiaddresses of DHT peers to join through, each ending in /p2p/PEER_ID."""
    identity_path: Path | None = None
    """The sidecar's own key file, made when missing; without one it is a new peer at every start. Never the server's."""
    read_timeout: PositiveDuration = 15.0
    """How long one reading of all blocks may take."""

    @field_validator("initial_peers")
    @classmethod
    def _check_multiaddresses(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        for peer in peers:
            if not peer.startswith("/") or "/p2p/" not in peer:
                raise ValueError(f"{peer!r} is no multiaddress like /ip4/1.2.3.4/tcp/31337/p2p/QmPeerId")
        return peers


class ServerSection(_Section):
    """The GPU server beside this sidecar."""

    socket: Path
    """Its control socket."""
    peer_id: str | None = None
    """The peer id that it must have; any where left out."""
    uids: tuple[int, ...] | None = None
    """User ids that may own the other end of the socket; the sidecar's own and root where left out."""
    request_timeout: PositiveDuration = 10.0
    """How long one request to it may take."""


class BalanceSection(_Section):
    """When and how the balance is checked."""

    enabled: bool = True
    """With false the swarm is read and exported, and nothing is decided."""
    dry_run: bool = False
    """With true everything is done but telling the server."""
    policy: Literal["petals"] = "petals"
    """The rule that decides."""
    quality: Annotated[float, Field(ge=0)] = 0.75
    """Petals' balance_quality: move if the bottleneck is below this share of what can be reached; over 1 always moves."""
    check_period: PositiveDuration = 60.0
    """Time between two checks."""
    check_jitter: Ratio = 0.2
    """Each wait is drawn from check_period times 1 minus to 1 plus this, so that sidecars do not act in step."""
    min_answered_ratio: Ratio = 0.9
    """Share of block keys that must have been answered for a decision."""
    max_rejected_ratio: Ratio = 0.5
    """Share of records that may have been rejected for a decision."""


class GuardsSection(_Section):
    """What must hold before a wanted move is made."""

    cooldown: Duration = 1200.0
    """Time after the end of a move before the next."""
    minimum_uptime: Duration = 600.0
    """How long the present span must have been served."""
    moves_per_day: Annotated[int, Field(ge=0)] = 12
    """Moves in any 24 hours."""
    confirmations: Annotated[int, Field(ge=1, le=100)] = 2
    """Snapshots in a row that must lead to a move."""
    breaker_base: PositiveDuration = 1800.0
    """Hold after a failed move; doubles with every further failure in a row."""
    breaker_max: PositiveDuration = 86400.0
    """The longest hold."""


class MoveSection(_Section):
    """How long the steps of a move may take."""

    drain: Duration = 30.0
    """How long the server lets open sessions go on."""
    request_timeout: PositiveDuration = 120.0
    """How long the server may be unreachable before a move is given up."""
    restart_timeout: PositiveDuration = 1800.0
    """How long the server may take from the request to serving."""
    verify_timeout: PositiveDuration = 300.0
    """How long the DHT may take to show the new span ONLINE after that."""
    poll_period: PositiveDuration = 2.0
    """How often a move under way is looked at."""


class JournalSection(_Section):
    """The local record of decisions and moves."""

    path: Path
    """The SQLite file."""
    keep: PositiveDuration = 30 * 86400.0
    """Older decisions are removed; moves are kept ten times as long."""
    max_decisions: Annotated[int, Field(ge=100)] = 50_000
    """At most this many decisions are kept."""


class HttpSection(_Section):
    """Metrics and health."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9476
    """Port to listen on; 0 takes a free one, which the log names."""


class LogSection(_Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Events below this are left out."""
    format: Literal["auto", "json", "console"] = "auto"
    """auto is console on a terminal and json elsewhere."""


class Config(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="SWARMKEEL_",
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
    )

    swarm: SwarmSection
    server: ServerSection
    balance: BalanceSection = BalanceSection()
    guards: GuardsSection = GuardsSection()
    move: MoveSection = MoveSection()
    journal: JournalSection
    http: HttpSection = HttpSection()
    log: LogSection = LogSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file; nothing else counts."""
        return env_settings, init_settings


class ConfigError(UsageError):
    """The configuration cannot be used.

    Attributes:
        findings: Every error found: where it is, and what is wrong and allowed there.
    """

    def __init__(self, path: Path, findings: tuple[tuple[str, str], ...]) -> None:
        count = len(findings)
        where, what = findings[0]
        more = f" (and {count - 1} more)" if count > 1 else ""
        super().__init__(f"{path}: {where}: {what}{more}", f"mend it; swarmkeel check-config {path} shows all errors")
        self.path = path
        self.findings = findings


def _describe(error: Any) -> tuple[str, str]:
    where = ".".join(str(part) for part in error["loc"]) or "(top level)"
    what = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        what = "unknown key"
    elif error["type"] == "missing":
        what = "missing"
    elif not isinstance(error["input"], dict | list | tuple):
        what = f"{what}, not {str(error['input'])[:80]!r}"
    return where, what


def load_config(path: Path) -> Config:
    """Read a configuration file and the environment.

    Raises:
        ConfigError: If the file cannot be read or anything in it is wrong; names every error.
    """
    try:
        values = YamlConfigSettingsSource(Config, yaml_file=path)() if path.is_file() else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(whole file)"
        raise ConfigError(path, ((where, f"not YAML: {getattr(error, 'problem', None) or error}"),)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, (("(whole file)", f"cannot be read: {error}"),)) from error
    if values is None:
        raise ConfigError(path, (("(whole file)", "no such file"),))
    try:
        return Config(**values)
    except ValidationError as error:
        raise ConfigError(path, tuple(_describe(item) for item in error.errors())) from error
