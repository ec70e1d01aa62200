"""Test the sidecar with the lowest and with the newest versions that pyproject.toml allows: `make test-bounds`.

Two environments are made under build/bounds, and in each Swarmkeel is installed as users do, with what `simulate` adds:

- `lowest`: every direct dependency at its lower bound. What they draw in themselves has no bound of ours and is the newest
  that fits. A bound that names a version which nobody can install is an error: it promises what was never tried.
- `newest`: everything as new as the bounds allow, whatever constraints.txt says.

In both, torch is the very build that stands in this environment: its bound is hivemind's, another build of it is
gigabytes large, and the sidecar computes nothing with it. Then the tests run that touch what a dependency could break,
and the demo.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).parents[1]
BUILD: Final = ROOT / "build" / "bounds"
RESOLUTIONS: Final = {"lowest": "lowest-direct", "newest": "highest"}
"""How uv calls the two."""
EXTRA: Final = "simulate"
TEST_TOOLS: Final = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist")
"""What the tests below run with, in the versions of this environment: their bounds are no promise to users."""
TESTS: Final = (
    "tests/balance/test_golden.py",  # numpy: Petals' answers, to the bit
    "tests/balance/test_coordinated_policy.py",
    "tests/config",  # pydantic, pydantic-settings and its YAML
    "tests/control/test_both_ends.py",  # aiohttp as a client on a Unix socket
    "tests/control/test_client.py",
    "tests/cli/test_command_line.py",  # typer, rich
    "tests/cli/test_completion.py",
    "tests/cli/test_picture.py",
    "tests/cli/test_reading_commands.py",
    "tests/daemon/test_journal.py",
    "tests/daemon/test_logs.py",  # structlog
    "tests/daemon/test_metrics.py",  # prometheus-client, aiohttp as a server
    "tests/swarm/test_hivemind_dht.py",  # hivemind, msgpack: a real DHT
    "tests/swarm/test_reader.py",
    "tests/swarm/test_record.py",
    "tests/simulation/test_scenario.py",  # scipy, matplotlib
    "tests/simulation/test_results.py",
)


def direct_requirements(project: Mapping[str, object]) -> list[Requirement]:
    """Give what a pyproject.toml's table `project` says that the sidecar and its simulator require."""
    extras = project["optional-dependencies"]
    dependencies = project["dependencies"]
    if not isinstance(extras, dict) or not isinstance(dependencies, list):
        raise TypeError("pyproject.toml: dependencies must be a list, optional-dependencies a table")
    return [Requirement(text) for text in (*dependencies, *extras[EXTRA])]


def lower_bound(requirement: Requirement) -> Version:
    """Give the lowest version that a requirement allows.

    Raises:
        ValueError: If it has no lower bound, or several.
    """
    bounds = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==", "~=")]
    if len(bounds) != 1:
        raise ValueError(f"pyproject.toml: {requirement} must have one lower bound")
    return bounds[0]


def pins(text: str) -> dict[str, Version]:
    """Read `name==version` lines, as uv writes them, by canonical name."""
    found = re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==(\S+)", text, re.MULTILINE)
    return {canonicalize_name(name): Version(number) for name, number in found}


def untried_bounds(requirements: Sequence[Requirement], resolved: Mapping[str, Version]) -> list[str]:
    """Say which lower bounds name another version than the lowest that can be installed."""
    lines = []
    for requirement in requirements:
        bound, found = lower_bound(requirement), resolved[canonicalize_name(requirement.name)]
        if found != bound:
            lines.append(f"pyproject.toml: {requirement}: the lowest that can be installed is {found}; say >={found}")
    return lines


def run(*command: str | Path, **environment: str) -> None:
    """Run a command in the checkout; its failure is the end."""
    subprocess.run(command, check=True, cwd=ROOT, env={**uv_environment(), **environment})  # noqa: S603


def uv_environment() -> dict[str, str]:
    """Tell uv where pip was told to look for packages; what uv itself was told goes first."""
    translated = {"UV_DEFAULT_INDEX": "PIP_INDEX_URL", "UV_FIND_LINKS": "PIP_FIND_LINKS"}
    told = {ours: os.environ[pips] for ours, pips in translated.items() if pips in os.environ}
    return {**told, **os.environ, "UV_NO_PROGRESS": "1"}


def make_environment(name: str) -> Path:
    """Make one of the two environments; gives its Python."""
    BUILD.mkdir(parents=True, exist_ok=True)
    uv = (sys.executable, "-m", "uv")
    constraints, listed, folder = BUILD / "torch.txt", BUILD / f"{name}.txt", BUILD / name
    constraints.write_text(f"torch=={version('torch')}\n")
    compiled = ("--quiet", "--no-header", "--no-annotate", "--extra", EXTRA, "--constraints", constraints)
    which = ("--python", sys.executable, "--resolution", RESOLUTIONS[name], "--output-file", listed)
    listed.unlink(missing_ok=True)  # uv would keep to what it wrote last time
    run(*uv, "pip", "compile", *compiled, *which, "pyproject.toml")
    resolved = pins(listed.read_text())
    requirements = direct_requirements(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
    if name == "lowest" and (untried := untried_bounds(requirements, resolved)):
        raise SystemExit("\n".join(untried))
    said = ", ".join(f"{one.name} {resolved[canonicalize_name(one.name)]}" for one in requirements)
    sys.stdout.write(f"== {name}: {said}\n")
    sys.stdout.flush()
    python = folder / "bin" / "python"
    run(*uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder)
    install = (*uv, "pip", "install", "--quiet", "--python", python)
    run(*install, "--requirements", listed)
    run(*install, "--no-deps", ".")
    run(*install, "--constraints", listed, *(f"{tool}=={version(tool)}" for tool in TEST_TOOLS))
    run(*uv, "pip", "check", "--quiet", "--python", python)
    return python


def try_environment(name: str) -> None:
    """Run the tests and the demo in one of the two environments."""
    python = make_environment(name)
    workers = ("-n", "4", "--dist", "loadgroup", "--quiet", "-p", "no:cacheprovider")
    run(python, "-m", "pytest", *workers, *TESTS, CI="true")
    run(python, "-m", "swarmkeel", "demo")


def main() -> None:
    """Try the environments that are named, or both."""
    for name in sys.argv[1:] or RESOLUTIONS:
        try:
            try_environment(name)
        except subprocess.CalledProcessError as failed:
            command = " ".join(map(str, failed.cmd))
            raise SystemExit(f"with the {name} versions this failed: {command}") from None
    sys.stdout.write("The lowest and the newest versions that pyproject.toml allows work.\n")


if __name__ == "__main__":
    main()
