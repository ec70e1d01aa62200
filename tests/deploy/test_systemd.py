"""The systemd units: what systemd itself says of them, and that the sidecar can live with what they forbid."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swarmkeel.config import load_config
from swarmkeel.demo.processes import ChildProcess
from tests.support.dht import DhtPeers
from tests.support.servers import stand_in
from tests.support.sidecars import SidecarProcess, short_folder, write_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "systemd"
SIDECAR = FOLDER / "swarmkeel.service"
NOTIFY_RELOAD = FOLDER / "swarmkeel.service.d" / "notify-reload.conf"
SERVER_DROP_IN = FOLDER / "petals.service.d" / "swarmkeel.conf"

WORST_EXPOSURE = 1.5
KNOWS_NOTIFY_RELOAD = 253
PROGRAM = re.compile(r"/opt/\w+/bin/\w+")


def _analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian package systemd)")
    command = [program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _version() -> int:
    return int(_analyze("--version").stdout.split()[1])


def _install(folder: Path, *files: Path) -> None:
    """Copy units into a folder, with a program that is there in place of those that they start."""
    for path in files:
        copy = folder / path.relative_to(FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(PROGRAM.sub(sys.executable, path.read_text()))


def _verify(unit: Path) -> str:
    """Give what systemd finds wrong."""
    result = _analyze("verify", "--man=no", unit)
    said = result.stdout + result.stderr
    assert bool(result.returncode) <= bool(said), "it failed without a word"
    return said


def test_systemd_says_nothing_about_the_sidecars_unit(tmp_path: Path) -> None:
    _install(tmp_path, SIDECAR)
    assert not _verify(tmp_path / SIDECAR.name)


def test_reload_waits_where_systemd_can(tmp_path: Path) -> None:
    _install(tmp_path, SIDECAR, NOTIFY_RELOAD)
    said = _verify(tmp_path / SIDECAR.name)
    if _version() >= KNOWS_NOTIFY_RELOAD:
        assert not said
    else:  # the reason why it is a drop-in of its own
        assert said.endswith("Failed to parse service type, ignoring: notify-reload\n")
        assert len(said.splitlines()) == 1


def test_systemd_says_nothing_about_the_servers_drop_in(tmp_path: Path) -> None:
    _install(tmp_path, SIDECAR, SERVER_DROP_IN)
    (tmp_path / "petals.service").write_text(f"[Service]\nUser=petals\nExecStart={sys.executable} -m petals\n")
    assert not _verify(tmp_path / "petals.service")


def test_systemd_sees_what_is_wrong(tmp_path: Path) -> None:
    _install(tmp_path, SIDECAR)
    unit = tmp_path / SIDECAR.name
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    assert "Failed to parse protect home value" in _verify(unit)


def test_the_sidecar_is_hardly_exposed(tmp_path: Path) -> None:
    _install(tmp_path, SIDECAR)
    command = ("security", "--offline=true", "--no-pager", f"--threshold={WORST_EXPOSURE * 10:.0f}")
    result = _analyze(*command, tmp_path / SIDECAR.name)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"exposure level for swarmkeel\.service: \d\.\d", result.stdout)


def test_the_unit_and_the_example_configuration_fit() -> None:
    unit = configparser.RawConfigParser(strict=False, allow_no_value=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # its documented use
    unit.read(SIDECAR)
    service = unit["Service"]
    config = load_config(ROOT / "config.example.yaml")
    assert config.journal.path.parent == Path("/var/lib") / service["StateDirectory"]
    assert service["ExecStart"].endswith(f" --config /etc/{service['ConfigurationDirectory']}/config.yaml")
    longest = config.swarm.read_timeout + config.server.request_timeout
    assert service["WatchdogSec"] == "2min"
    assert longest < 2 * 60 / 2, "one check must not look like a loop that is stuck"


async def test_a_sidecar_moves_its_server_with_no_more_system_calls_than_the_unit_allows() -> None:
    _analyze("--version")  # skips where there is none
    with short_folder() as folder:
        async with DhtPeers(2) as peers, stand_in(peers.initial_peers) as own, stand_in(peers.initial_peers):
            config = write_config(folder / "c.yaml", own.settings.socket, peers.initial_peers)
            sidecar = [sys.executable, "-m", "swarmkeel", "run", "-c", str(config)]
            confined = [sys.executable, str(ROOT / "tests" / "support" / "confined.py"), str(SIDECAR), *sidecar]
            process = await ChildProcess.start("sidecar", confined, folder / "log")
            try:
                done = await SidecarProcess(process).wait_for("move_done")
                seccomp = re.search(r"^Seccomp:\t(\d)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
            finally:
                await process.end()
    assert done["target"] == "4:8"
    assert seccomp is not None
    assert seccomp[1] == "2", "no filter was there"
