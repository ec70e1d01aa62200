"""The configuration: one YAML file, overridden by environment variables such as SWARMKEEL_BALANCE__DRY_RUN=true."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from swarmkeel.config_errors import (
    WHOLE_FILE,
    complete_error,
    describe_error,
    known_keys,
    text_of,
    unknown_variables,
)
from swarmkeel.durations import Duration, PositiveDuration, format_duration
from swarmkeel.errors import UsageError
from swarmkeel.printable import printable
from swarmkeel.private_path import open_to_everyone
from swarmkeel.yaml_file import NotYaml, parse_yaml

_MAX_SOCKET_PATH: Final = 107  # bytes, unix(7)

_Entry = TypeVar("_Entry")

Ratio = Annotated[float, Field(ge=0, le=1)]


def _check_multiaddress(peer: str) -> str:
    address, _, peer_id = peer.rpartition("/p2p/")
    if not address.startswith("/") or not peer_id:
        raise ValueError("must be a multiaddress like /ip4/1.2.3.4/tcp/31337/p2p/QmPeerId")
    return peer


def _check_not_empty(entries: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    if not entries:
        raise complete_error("must have at least one entry")
    return entries


def _check_socket(socket: Path) -> Path:
    if len(os.fsencode(socket)) > _MAX_SOCKET_PATH:
        raise ValueError(f"must be a path of at most {_MAX_SOCKET_PATH} bytes, as for every Unix socket")
    return socket


_Multiaddress = Annotated[str, AfterValidator(_check_multiaddress)]


_Socket = Annotated[Path, AfterValidator(_check_socket)]
_Uids = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_check_not_empty)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SwarmSection(_Section):
    """The swarm to look at."""

    dht_prefix: str
    """Name of the model in the DHT, without a dot."""
    total_blocks: Annotated[int, Field(ge=1, le=10_000)]
    """Number of transformer blocks of the model."""
    initial_peers: Annotated[tuple[_Multiaddress, ...], AfterValidator(_check_not_empty)]
    """Multiaddresses of DHT peers to join through, each ending in /p2p/PEER_ID. Name several: any that is up will do."""
    identity_path: Path | None = None
    """The sidecar's own key file, made when missing; without one it is a new peer at every start. Never the server's."""
    read_timeout: PositiveDuration = 15.0
    """How long one reading of all blocks may take."""

    @field_validator("dht_prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        if not prefix or "." in prefix or any(character.isspace() for character in prefix):
            raise ValueError("must be a name without dots and white space")
        return prefix


class ServerSection(_Section):
    """The GPU server beside this sidecar."""

    socket: _Socket
    """Its control socket."""
    peer_id: Annotated[str, Field(min_length=1)] | None = None
    """The peer id that it must have; any where left out."""
    uids: _Uids | None = None
    """User ids that may own the other end of the socket, such as [990]; the sidecar's own and root where left out."""
    request_timeout: PositiveDuration = 10.0
    """How long one request to it may take."""


class BalanceSection(_Section):
    """When and how the balance is checked."""

    enabled: bool = True
    """With false the swarm is read and exported, and nothing is decided."""
    dry_run: bool = False
    """With true everything is done but telling the server."""
    policy: Literal["coordinated", "petals"] = "coordinated"
    """The rule that decides: coordinated plans with all other sidecars, petals is what a Petals server does by itself."""
    quality: Annotated[float, Field(ge=0)] = 0.75
    """Policy petals, its balance_quality: move if the bottleneck is below this share of what can be reached; over 1 always
    moves."""
    move_cost: Annotated[float, Field(ge=0, le=10)] = 0.04
    """Policy coordinated: a move must raise the bottleneck by this share of itself beyond what its outage costs."""
    load_seconds: Annotated[Duration, Field(le=86400)] = 600.0
    """Policy coordinated: how long a move takes this server out of service, until its own moves have shown."""
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
    """Policy petals: snapshots in a row that must lead to a move. Policy coordinated decides again on a fresh snapshot when
    its claim has settled, and needs no other confirmation."""
    breaker_base: PositiveDuration = 1800.0
    """Hold after a failed move; doubles with every further failure in a row."""
    breaker_max: Annotated[PositiveDuration, Field(validate_default=True)] = 86400.0
    """The longest hold."""

    @field_validator("breaker_max")
    @classmethod
    def _check_breaker(cls, longest: float, info: ValidationInfo) -> float:
        first = info.data.get("breaker_base", 0.0)
        if longest < first:
            raise complete_error(
                f"must be at least guards.breaker_base, which is {format_duration(first)}, not {format_duration(longest)}"
            )
        return longest


class ClaimsSection(_Section):
    """How the policy coordinated tells other sidecars of a move before it is made."""

    settle: Annotated[Duration, Field(le=300)] = 8.0
    """How long others have to see a claim before it is decided again; about what a reading of the DHT takes."""
    lifetime: Annotated[PositiveDuration, Field(le=840)] = 180.0
    """How long a claim counts if it is not extended, as when this sidecar dies; at least 3 check periods are taken."""
    prefetch: bool = True
    """Let a server that can fetch weights do so while it still serves, before the move."""
    prefetch_timeout: Annotated[PositiveDuration, Field(le=1500)] = 900.0
    """How long the server may take for that; others believe a claim for half an hour altogether."""
    prefetch_poll: PositiveDuration = 2.0
    """How often it is asked whether it has."""
    prefetch_retry: Duration = 600.0
    """How long no move is claimed after the weights could not be fetched."""


class StagingSection(_Section):
    """What the policy coordinated has a server that can fetch weights keep on disk before they are needed."""

    enabled: bool = True
    """With false nothing is fetched before it is needed."""
    blocks: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """How many blocks to have on disk beside those that are served; as many as the server holds where left out."""
    period: PositiveDuration = 3600.0
    """How often at most the server is asked for any."""
    quiet_for: Duration = 300.0
    """How long nothing must have happened in the swarm before: nobody loads or claims a move, and no block is unserved."""


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
    poll_period: Annotated[PositiveDuration, Field(validate_default=True)] = 2.0
    """How often a move under way is looked at."""

    @field_validator("poll_period")
    @classmethod
    def _check_poll_period(cls, period: float, info: ValidationInfo) -> float:
        for name in ("request_timeout", "restart_timeout", "verify_timeout"):
            limit = info.data.get(name, period)
            if period > limit:
                raise complete_error(
                    f"must be at most move.{name}, which is {format_duration(limit)}, not {format_duration(period)}"
                )
        return period


class JournalSection(_Section):
    """The local record of decisions and moves."""

    path: Path
    """The SQLite file; made when missing, its folder too."""
    keep: PositiveDuration = 30 * 86400.0
    """Older decisions are removed; moves are kept ten times as long."""
    max_decisions: Annotated[int, Field(ge=100)] = 50_000
    """At most this many decisions are kept."""
    max_megabytes: Annotated[int, Field(ge=1)] = 512
    """Beyond this size the oldest decisions are removed: in a swarm that changes all the time each takes a snapshot more."""


class HttpSection(_Section):
    """Metrics, health, `/api/v1/` and the status page."""

    host: str = "127.0.0.1"
    """Address to listen on; nothing there can change anything, but all of it can be read."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9476
    """Port to listen on; 0 takes a free one, which the log names."""


class AdminSection(_Section):
    """The Unix socket through which the operator's commands (status, pause, resume, check-now) reach the sidecar."""

    socket: _Socket | None = None
    """Its file, in a directory that not everyone may write to; beside the journal, with the ending .sock, where left out."""
    uids: _Uids | None = None
    """User ids that may use it, if its directory lets them in; the sidecar's own and root where left out."""


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
    claims: ClaimsSection = ClaimsSection()
    staging: StagingSection = StagingSection()
    move: MoveSection = MoveSection()
    journal: JournalSection
    http: HttpSection = HttpSection()
    admin: AdminSection = AdminSection()
    log: LogSection = LogSection()

    @property
    def admin_socket(self) -> Path:
        """Where the operator's commands reach the sidecar."""
        return self.admin.socket or self.journal.path.parent / f"{self.journal.path.stem}.sock"

    @model_validator(mode="after")
    def _check_paths(self) -> Config:
        known: dict[Path, str] = {}
        for where, path in (
            ("server.socket", self.server.socket),
            ("journal.path", self.journal.path),
            ("swarm.identity_path", self.swarm.identity_path),
            ("admin.socket", self.admin_socket),
        ):
            if path is not None and known.setdefault(path, where) != where:
                raise complete_error(f"must be another path than {known[path]}", where)
        size = len(os.fsencode(self.admin_socket))
        if size > _MAX_SOCKET_PATH:
            beside = f"the one beside the journal has {size} bytes, a Unix socket at most {_MAX_SOCKET_PATH}"
            raise complete_error(f"must be set to a shorter path: {beside}", "admin.socket")
        return self

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
        del env_settings, dotenv_settings, file_secret_settings
        return _Environment(settings_cls), init_settings


class _Environment(EnvSettingsSource):
    """Environment variables; what is no JSON where JSON is due is left to the validation, which knows where it is."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401 - as in the base
        try:
            return super().decode_complex_value(field_name, field, value)
        except (ValueError, RecursionError):
            return value


class ConfigError(UsageError):
    """The configuration cannot be used.

    Attributes:
        path: The file.
        findings: Every error found: where it is, and what is wrong and allowed there.
    """

    def __init__(self, path: Path, findings: tuple[tuple[str, str], ...]) -> None:
        where, what = findings[0]
        place = "" if where == WHOLE_FILE else f"{where}: "
        others = len(findings) - 1
        more = f" (and {others} more)" if others else ""
        remedy = f"swarmkeel check-config {path} shows all errors" if others else "mend the configuration"
        super().__init__(f"{path}: {place}{what}{more}", remedy)
        self.path = path
        self.findings = findings


def load_config(path: Path) -> Config:
    """Read a configuration file and the environment.

    Raises:
        ConfigError: If the file cannot be read, everyone may change it, or anything in it is wrong; names every error.
    """
    try:
        text = path.read_bytes()
        open_how = open_to_everyone(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(path, ((WHOLE_FILE, f"cannot be read: {reason}"),)) from error
    if open_how is not None:
        raise ConfigError(path, ((WHOLE_FILE, printable(open_how, 300)),))
    try:
        source, duplicates = parse_yaml(text)
    except NotYaml as error:
        raise ConfigError(path, ((error.where, printable(f"not YAML: {error.what}", 200)),)) from error
    findings = [
        (f"line {duplicate.line}", f"the key {text_of(duplicate.key)} stands on line {duplicate.first_line} already")
        for duplicate in duplicates
    ]
    if not isinstance(source, Mapping | None):
        findings.append((WHOLE_FILE, f"must be a mapping of sections ({known_keys(Config)}), not {text_of(source)}"))
        raise ConfigError(path, tuple(findings))
    findings += unknown_variables(Config)
    sections = Config.model_fields
    findings += [
        (printable(str(key)) or '""', f"unknown section; there are {known_keys(Config)}")
        for key in source or ()
        if key not in sections
    ]
    # A section that is empty or missing is one without keys, so that each key that must stand in it is named.
    given = {name: (source or {}).get(name) for name in sections}
    values: dict[str, Any] = {name: {} if section is None else section for name, section in given.items()}
    try:
        config = Config(**values)
    except ValidationError as error:
        findings += [describe_error(item, Config) for item in error.errors(include_url=False)]
        raise ConfigError(path, tuple(findings)) from error
    if findings:
        raise ConfigError(path, tuple(findings))
    return config
