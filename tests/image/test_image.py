"""The container image, built for real: `make image-test`. Takes minutes, and 2 GB of disk until it is done."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import swarmkeel
from tests.support.sockets import free_port

pytestmark = pytest.mark.timeout(2400)

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "deploy" / "image"
IMAGE = "localhost/swarmkeel:test"
UID = 10001

MOST_BYTES = 320e6
"""What Swarmkeel may add to its base: 280 MB, of which 110 are scipy for the demo. Torch would be another 700."""
LONGEST_START = 120


class Buildah:
    """Debian's buildah with a store of its own: no daemon, and nothing is left where other images are."""

    def __init__(self, folder: Path) -> None:
        settings = folder / "storage.conf"
        store = {"driver": "vfs", "graphroot": str(folder / "images"), "runroot": str(folder / "run")}
        settings.write_text("[storage]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in store.items()))
        self.environment = {
            **os.environ,
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_STORAGE_CONF": str(settings),
            "TMPDIR": str(folder),
        }

    def do(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command that finds this store."""
        words = list(map(str, command))
        done = subprocess.run(words, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{words}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
        return done


class Container:
    """A container of the image."""

    def __init__(self, buildah: Buildah, name: str) -> None:
        self._buildah = buildah
        self._name = name
        inspected = json.loads(buildah.do("buildah", "inspect", name).stdout)
        self.settings: dict[str, Any] = inspected["Docker"]["config"]
        self.root = Path(buildah.do("buildah", "mount", name).stdout.strip())

    def run(self, command: Sequence[str], *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in place of the entry point."""
        return self._buildah.do("buildah", "run", *options, self._name, "--", *command, check=check)

    def swarmkeel(self, *arguments: str) -> str:
        """Run the entry point with these arguments, and give what it prints."""
        return self.run([*self.settings["Entrypoint"], *arguments]).stdout

    @contextmanager
    def running(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run what the image runs by itself, until the end of the block."""
        ours = [*self.settings["Entrypoint"], *self.settings["Cmd"]]
        command = ["buildah", "run", *options, self._name, "--", *ours]
        with subprocess.Popen(
            command,
            env=self._buildah.environment,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.communicate(timeout=60)


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    for program in ("buildah", "mmdebstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian package {program}): make setup-image")
    with tempfile.TemporaryDirectory(prefix="swarmkeel-image-", dir="/var/tmp") as folder:
        yield Buildah(Path(folder))


@pytest.fixture(scope="module")
def base(buildah: Buildah) -> str:
    buildah.do("sh", SCRIPTS / "base.sh", "localhost/swarmkeel-base")
    return "localhost/swarmkeel-base"


@pytest.fixture(scope="module")
def container(buildah: Buildah, base: str) -> Iterator[Container]:
    buildah.do("sh", SCRIPTS / "build.sh", IMAGE, base)
    name = buildah.do("buildah", "from", "--pull-never", IMAGE).stdout.strip()
    yield Container(buildah, name)
    buildah.do("buildah", "umount", name)
    buildah.do("buildah", "rm", "--all")


def test_it_runs_as_nobody_who_could_change_it(container: Container) -> None:
    assert container.settings["User"] == f"{UID}:{UID}"
    assert container.run(["id", "-u"]).stdout.split() == [str(UID)]
    writable = "find / -xdev -writable -not -type l -not -path '/proc/*' -not -path '/dev/*' -not -path '/sys/*'"
    found = container.run(["sh", "-c", f"{writable} 2>/dev/null"], check=False).stdout.split()
    allowed = ("/tmp", "/var/tmp", "/run/lock", "/var/lib/swarmkeel")
    assert "/var/lib/swarmkeel" in found
    assert not [path for path in found if not path.startswith(allowed)]


def test_it_holds_what_runs_and_nothing_that_builds(container: Container) -> None:
    (packages,) = (container.root / "opt" / "swarmkeel" / "lib").glob("python3*/site-packages")
    installed = {path.name for path in packages.iterdir()}
    assert {"hivemind", "swarmkeel"} <= installed
    assert not {"grpc_tools", "pip", "setuptools", "torch"} & installed
    size = sum(path.lstat().st_size for path in (container.root / "opt").rglob("*"))
    assert size < MOST_BYTES, f"{size / 1e6:.0f} MB"
    assert not (container.root / "source").exists()


def test_it_knows_its_version(container: Container) -> None:
    assert container.swarmkeel("--version") == f"swarmkeel {swarmkeel.__version__}\n"


def test_its_health_check_tells_a_sidecar_that_runs_from_one_that_does_not(
    container: Container, tmp_path: Path
) -> None:
    port = free_port()
    peer = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
    sections = {
        "swarm": {"dht_prefix": "tiny", "total_blocks": 8, "initial_peers": [peer]},
        "server": {"socket": "/tmp/none/server.sock"},
        "journal": {"path": "/var/lib/swarmkeel/journal.sqlite3"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(sections))
    tmp_path.chmod(0o755)
    options = (f"--env=SWARMKEEL_HTTP__PORT={port}", f"--volume={tmp_path}:/etc/swarmkeel:ro")
    check = container.settings["Healthcheck"]["Test"]
    assert check[0] == "CMD"

    assert container.run(check[1:], *options, check=False).returncode != 0
    with container.running(*options) as process:
        deadline = time.monotonic() + LONGEST_START
        while container.run(check[1:], *options, check=False).returncode != 0:
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline, "it does not become healthy"


def test_the_demo_heals_in_it(container: Container) -> None:
    told = container.swarmkeel("demo", "--deadline", "400")
    assert re.search(r"healed: bottleneck \d+ RPS, \d+% of the best possible \d+; uncovered blocks: 0", told), told
