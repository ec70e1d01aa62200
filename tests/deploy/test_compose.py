"""The compose file: the specification's own schema, and that what is mounted is there and valid."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

import swarmkeel
from swarmkeel.config import load_config
from tests.support.prometheus import promtool

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
COMPOSE = FOLDER / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]


def _check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _mounts(service: str) -> dict[str, str]:
    """Give what is mounted into a service, by the path inside."""
    return {target: source for source, target in (volume.split(":")[:2] for volume in SERVICES[service]["volumes"])}


def test_it_is_what_the_specification_allows(tmp_path: Path) -> None:
    result = _check(COMPOSE)
    assert result.returncode == 0, result.stdout

    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("cap_drop:", "cap_dorp:"))
    assert _check(wrong).returncode == 1


def test_what_is_mounted_from_here_is_here() -> None:
    for service in SERVICES:
        for source in _mounts(service).values():
            assert not source.startswith(".") or (FOLDER / source).exists(), source


def test_the_sidecars_configuration_is_valid_and_fits() -> None:
    mounts = _mounts("swarmkeel")
    config = load_config(FOLDER / mounts["/etc/swarmkeel/config.yaml"])
    assert str(config.server.socket.parent) in mounts
    assert str(config.journal.path.parent) in mounts
    assert mounts[str(config.server.socket.parent)] == _mounts("server")[str(config.server.socket.parent)]
    assert f"--control-socket={config.server.socket}" in SERVICES["server"]["command"]
    assert SERVICES["swarmkeel"]["image"] == f"swarmkeel:{swarmkeel.__version__}"


def test_prometheus_finds_its_rules(tmp_path: Path) -> None:
    for target, source in _mounts("prometheus").items():
        if source.startswith("."):
            inside = tmp_path / Path(target).relative_to("/etc/prometheus")
            origin = FOLDER / source
            shutil.copytree(origin, inside) if origin.is_dir() else shutil.copy(origin, inside)
    result = promtool("check", "config", tmp_path / "prometheus.yml")
    assert result.returncode == 0, (result.stdout + result.stderr).decode()
    assert b"rules found" in result.stdout
