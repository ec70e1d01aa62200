"""Promises about the project itself that no type checker sees: what is pure, what stays light, what is pinned."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_ROOT = Path(__file__).parents[1]
_BALANCE = sorted((_ROOT / "src" / "swarmkeel" / "balance").glob("**/*.py"))

_PURE_IMPORTS = (
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "numpy",
    "operator",
    "pydantic",
    "re",
    "sys",  # for the limits of numbers; its functions are found as calls
    "typing",
    "swarmkeel.balance",
    "swarmkeel.errors",
    "swarmkeel.swarm.record",
    "swarmkeel.swarm.remote",
    "swarmkeel.swarm.sidecar",
    "swarmkeel.swarm.snapshot",
    "swarmkeel.swarm.span",
)
_KNOWN_IMPURITIES = {
    # The public function is called as Petals' own, which is without a generator; policies always give it one.
    "imbalance.py": ["draws from the machine's randomness by np.random.RandomState"],
}
_IMPURE_CALLS = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}


def _imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def _impurities(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [
        f"imports {module}"
        for module in _imported_modules(tree)
        if not any(module == pure or module.startswith(f"{pure}.") for pure in _PURE_IMPORTS)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found.append("writes a global")
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in _IMPURE_CALLS or name.startswith("sys."):
            found.append(f"calls {name}")
        if ".random." in f".{name}." and (not name.endswith(("RandomState", "Generator", "PCG64")) or not node.args):
            found.append(f"draws from the machine's randomness by {name}")
    return found


@pytest.mark.parametrize("path", _BALANCE, ids=lambda path: path.name)
def test_decisions_are_pure(path: Path) -> None:
    assert _impurities(path.read_text()) == _KNOWN_IMPURITIES.get(path.name, [])


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from random import shuffle",
        "from swarmkeel.config import Config",
        "from swarmkeel.swarm.reader import SwarmReader",
        "def f():\n    from pathlib import Path",
        "print(1)",
        "open('x')",
        "sys.exit()",
        "np.random.shuffle([])",
        "np.random.RandomState()",
        "def f():\n    global x",
    ],
)
def test_the_check_of_purity_finds_what_is_impure(source: str) -> None:
    assert len(_impurities(source)) == 1


def _modules_after(statement: str) -> set[str]:
    """Names of the top-level modules, other than the standard library's, that a statement leaves imported."""
    code = f"import sys; before = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in run.stdout.split()}
    return names - set(sys.stdlib_module_names) - {"__mp_main__"}


def test_a_server_needs_nothing_but_the_standard_library_for_its_end_of_the_protocol() -> None:
    assert _modules_after("from swarmkeel.control.server import ControlServer") == {"swarmkeel"}


@pytest.mark.parametrize(
    "statement",
    [
        "import swarmkeel",
        "import swarmkeel.balance",
        "import swarmkeel.swarm.snapshot",
        "from swarmkeel import cli; cli._make_app([])",  # all commands
    ],
)
def test_only_the_dht_costs_what_the_dht_costs(statement: str) -> None:
    assert not _modules_after(statement) & {"hivemind", "torch", "scipy", "grpc"}


_PIN = re.compile(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!-]*")


def _pins() -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (_ROOT / "constraints.txt").read_text().splitlines()]
    return dict(line.split("==") for line in lines if line)


def test_constraints_hold_exact_versions_and_no_addresses() -> None:
    for line in (_ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or _PIN.fullmatch(line), line
    assert _pins()["torch"] == "2.13.0"


def _required(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """Names of the installed distributions that one needs, directly or not."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    yield name
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield from _required(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


def test_constraints_name_all_that_gets_installed_in_the_version_that_is_tested() -> None:
    pins = {canonicalize_name(name): Version(version) for name, version in _pins().items()}
    try:
        # pip-audit needs pip, which is the one that does the installing.
        needed = set(_required("swarmkeel", frozenset({"dev"}), set())) - {"swarmkeel", "pip"}
    except PackageNotFoundError as error:
        pytest.fail(f"{error} is needed and not installed")
    assert needed <= set(pins)
    for name in needed:
        assert Version(Version(distribution(name).version).public) == pins[canonicalize_name(name)], name
