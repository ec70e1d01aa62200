"""The configuration: what it accepts, and that it names every mistake where it stands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkeel.config import Config, ConfigError, load_config

_PEER = "/ip4/127.0.0.1/tcp/31337/p2p/QmPeer"
_SMALLEST: dict[str, dict[str, Any]] = {
    "swarm": {"dht_prefix": "llama", "total_blocks": 8, "initial_peers": [_PEER]},
    "server": {"socket": "/run/server.sock"},
    "journal": {"path": "/var/lib/journal.sqlite3"},
}
_EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


@pytest.fixture(autouse=True)
def _no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("SWARMKEEL_"):
            monkeypatch.delenv(name)


def _load(tmp_path: Path, source: object) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(source if isinstance(source, str) else yaml.safe_dump(source))
    return load_config(path)


def _with(**sections: object) -> dict[str, object]:
    merged: dict[str, object] = {**_SMALLEST}
    for name, section in sections.items():
        merged[name] = {**_SMALLEST.get(name, {}), **section} if isinstance(section, Mapping) else section
    return merged


def _findings(tmp_path: Path, source: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as raised:
        _load(tmp_path, source)
    return dict(raised.value.findings)


def test_the_smallest_configuration_has_all_defaults(tmp_path: Path) -> None:
    config = _load(tmp_path, _SMALLEST)
    assert config.balance.check_period == 60.0
    assert config.guards.breaker_max == 86400.0
    assert config.swarm.initial_peers == (_PEER,)


def test_the_example_is_valid_and_shows_every_key_with_its_default() -> None:
    config = load_config(_EXAMPLE)
    source = yaml.safe_load(_EXAMPLE.read_text())
    assert list(source) == list(Config.model_fields)
    for name, section in Config.model_fields.items():
        fields = section.annotation.model_fields  # type: ignore[union-attr] # every section is a model
        assert list(source[name]) == list(fields)
        for key, field in fields.items():
            if not field.is_required():
                assert getattr(getattr(config, name), key) == field.default, f"{name}.{key}"


def test_what_is_printed_reads_back_the_same(tmp_path: Path) -> None:
    config = _load(tmp_path, _with(guards={"cooldown": "1h30m"}, swarm={"read_timeout": 0.25}))
    printed = config.model_dump(mode="json")
    assert printed["guards"]["cooldown"] == "90m"
    assert _load(tmp_path, printed) == config


def test_all_mistakes_are_named_at_once_each_where_it_stands(tmp_path: Path) -> None:
    source = {
        "swarm": {"dht_prefix": "a.b", "total_blocks": 0, "initial_peers": ["127.0.0.1:31337"]},
        "server": {"socket": 7, "uids": [0, -1]},
        "balance": {"quality": "good", "check_jitter": 2, "dry_run": "perhaps", "policy": "best", "nope": 1},
        "guards": {"cooldown": "soon", "moves_per_day": 1.5, "confirmations": None},
        "move": 7,
        "http": {"port": 65536},
        "extra": {},
        1: {},
    }
    findings = _findings(tmp_path, source)
    assert findings == {
        "extra": "unknown section; there are swarm, server, balance, guards, claims, staging, move, journal, http, admin, log",
        "1": "unknown section; there are swarm, server, balance, guards, claims, staging, move, journal, http, admin, log",
        "swarm.dht_prefix": 'must be a name without dots and white space, not "a.b"',
        "swarm.total_blocks": "must be from 1 to 10000, not 0",
        "swarm.initial_peers.0": (
            'must be a multiaddress like /ip4/1.2.3.4/tcp/31337/p2p/QmPeerId, not "127.0.0.1:31337"'
        ),
        "server.socket": "must be a path, not 7",
        "server.uids.1": "must be at least 0, not -1",
        "balance.quality": 'must be a number, not "good"',
        "balance.check_jitter": "must be from 0 to 1, not 2",
        "balance.dry_run": 'must be true or false, not "perhaps"',
        "balance.policy": "must be 'coordinated' or 'petals', not \"best\"",
        "balance.nope": (
            "unknown key; there are enabled, dry_run, policy, quality, move_cost, load_seconds, check_period, check_jitter, "
            "min_answered_ratio, max_rejected_ratio"
        ),
        "guards.cooldown": 'must be a duration: a number of seconds, or text like 90s, 15m, 2h, 1d, not "soon"',
        "guards.moves_per_day": "must be a whole number, not 1.5",
        "guards.confirmations": "must be a whole number, not empty",
        "move": "must be a mapping, not 7",
        "journal.path": "missing",
        "http.port": "must be from 0 to 65535, not 65536",
    }


@pytest.mark.parametrize(
    ("sections", "where", "what"),
    [
        ({"guards": {"breaker_base": "2d"}}, "guards.breaker_max", "at least guards.breaker_base, which is 2d, not 1d"),
        ({"move": {"verify_timeout": 1}}, "move.poll_period", "at most move.verify_timeout, which is 1s, not 2s"),
        ({"journal": {"path": "/run/server.sock"}}, "journal.path", "another path than server.socket"),
        ({"swarm": {"identity_path": "/run/server.sock"}}, "swarm.identity_path", "another path than server.socket"),
        ({"server": {"socket": "/" + "é" * 54}}, "server.socket", "at most 107 bytes"),
        ({"server": {"uids": []}}, "server.uids", "at least one entry"),
        ({"admin": {"uids": []}}, "admin.uids", "at least one entry"),
        ({"admin": {"socket": "/" + "é" * 54}}, "admin.socket", "at most 107 bytes"),
        ({"admin": {"socket": "/run/server.sock"}}, "admin.socket", "another path than server.socket"),
        ({"journal": {"path": "/run/server.sqlite"}}, "admin.socket", "another path than server.socket"),
        ({"journal": {"path": f"/{'a' * 110}/j.db"}}, "admin.socket", "must be set to a shorter path: the one beside"),
        ({"server": {"peer_id": ""}}, "server.peer_id", "must not be empty"),
        ({"swarm": {"dht_prefix": 405}}, "swarm.dht_prefix", "in quotes"),
        ({"swarm": {"read_timeout": 0}}, "swarm.read_timeout", "more than 0"),
        ({"balance": {"check_period": float("inf")}}, "balance.check_period", "finite"),
    ],
)
def test_values_that_cannot_be_are_refused(
    tmp_path: Path, sections: dict[str, dict[str, object]], where: str, what: str
) -> None:
    findings = _findings(tmp_path, _with(**sections))
    assert list(findings) == [where]
    assert what in findings[where]


def test_empty_sections_are_as_good_as_missing_ones(tmp_path: Path) -> None:
    assert _load(tmp_path, _with(guards=None)) == _load(tmp_path, _SMALLEST)
    missing = {"swarm.dht_prefix", "swarm.total_blocks", "swarm.initial_peers", "server.socket", "journal.path"}
    assert _findings(tmp_path, "") == dict.fromkeys(missing, "missing")


def test_a_key_given_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    findings = _findings(tmp_path, yaml.safe_dump(_SMALLEST) + "balance:\n  quality: 1\n  quality: 2\n")
    lines = yaml.safe_dump(_SMALLEST).count("\n")
    assert findings == {f"line {lines + 3}": f'the key "quality" stands on line {lines + 2} already'}


@pytest.mark.parametrize(
    ("source", "where", "what"),
    [
        ("[1, 2]", "(whole file)", "must be a mapping of sections"),
        ("just text", "(whole file)", "must be a mapping of sections"),
        ("swarm: [", "line 1, column 9", "not YAML"),
        ("swarm: {}\n--- {}", "line 2, column 1", "another document"),
        ("swarm: !!python/object:os.system {}", "line 1, column 8", "tag"),
        ("swarm: !!bool maybe", "(whole file)", "does not fit its tag"),
        ("[" * 3_000, "(whole file)", "nested too deeply"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused(tmp_path: Path, source: str, where: str, what: str) -> None:
    findings = _findings(tmp_path, source)
    assert list(findings) == [where]
    assert what in findings[where]


def test_a_file_that_cannot_be_read_is_an_error_of_usage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory: mend the configuration") as raised:
        load_config(tmp_path / "nowhere.yaml")
    assert raised.value.exit_code == 2
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMKEEL_BALANCE__DRY_RUN", "true")
    monkeypatch.setenv("swarmkeel_balance__check_period", "5m")
    monkeypatch.setenv("SWARMKEEL_SWARM__INITIAL_PEERS", f'["{_PEER}2", "{_PEER}3"]')
    monkeypatch.setenv("SWARMKEEL_SERVER__UIDS", "[1000]")
    monkeypatch.setenv("SWARMKEEL_PORT", "tcp://10.0.0.1:80")  # what Kubernetes sets for a service of that name
    config = _load(tmp_path, _with(balance={"dry_run": False, "quality": 0.5}))
    assert config.balance.dry_run
    assert config.balance.check_period == 300.0
    assert config.balance.quality == 0.5
    assert config.swarm.initial_peers == (f"{_PEER}2", f"{_PEER}3")
    assert config.server.uids == (1000,)


def test_mistakes_in_the_environment_name_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWARMKEEL_BALANCE__DRY_RUN", "perhaps")
    monkeypatch.setenv("SWARMKEEL_BALANCE__DRYRUN", "true")
    monkeypatch.setenv("SWARMKEEL_BALANSE__DRY_RUN", "true")
    monkeypatch.setenv("SWARMKEEL_SERVER__UIDS", "1000,1001")
    monkeypatch.setenv("SWARMKEEL_LOG", "debug")
    findings = _findings(tmp_path, _SMALLEST)
    assert set(findings) == {"balance.dry_run", "balance.dryrun", "SWARMKEEL_BALANSE__DRY_RUN", "server.uids", "log"}
    for where, variable in (
        ("balance.dry_run", "SWARMKEEL_BALANCE__DRY_RUN"),
        ("balance.dryrun", "SWARMKEEL_BALANCE__DRYRUN"),
        ("server.uids", "SWARMKEEL_SERVER__UIDS"),
        ("log", "SWARMKEEL_LOG"),
    ):
        assert findings[where].endswith(f"(environment variable {variable})")


def test_settings_of_the_settings_library_cannot_be_reached_from_the_file(tmp_path: Path) -> None:
    findings = _findings(tmp_path, _with(_cli_parse_args=True, _env_file="/etc/passwd"))
    assert set(findings) == {"_cli_parse_args", "_env_file"}


def test_hostile_text_reaches_no_terminal(tmp_path: Path) -> None:
    findings = _findings(tmp_path, 'swarm: {dht_prefix: "\\e[2J.\\n", "\\e[31m": 1}\n"\\e[0m": {}')
    text = "".join(f"{where}{what}" for where, what in findings.items())
    assert text.isprintable()


_yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=10,
)
_section_values = st.fixed_dictionaries(
    {},
    optional={
        name: st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(section.annotation.model_fields, _yaml_values),  # type: ignore[union-attr] # every section is a model
        )
        for name, section in Config.model_fields.items()
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(alphabet="swarm: {}[]!&*<>|-?\"'\n\t#%@0.e", max_size=60).map(str.encode)
    | _yaml_values.map(lambda value: yaml.safe_dump(value).encode())
    | _section_values.map(lambda value: yaml.safe_dump(value).encode())
)
def test_no_bytes_lead_to_anything_but_a_config_or_its_error(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text)
    findings: tuple[tuple[str, str], ...] = ()
    try:
        load_config(path)
    except ConfigError as error:
        findings = error.findings
    assert all(where and what and f"{where}{what}".isprintable() for where, what in findings)
