"""The inner loop of `make mutation`: what a test notices, what none does, and what never ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_TEST: Final = """
import os

def answer():
    mutant = os.environ.get("MUTANT_UNDER_TEST")
    while mutant == "never_ends":
        pass
    return {"wrong": 41, "raises": None}.get(mutant, 42)

def test_answer():
    assert answer() + 0 == 42

def test_nothing():
    assert True
"""


def run_mutants(folder: Path, test: str, mutants: list[str]) -> tuple[subprocess.CompletedProcess[str], Path]:
    (folder / "test_it.py").write_text(test)
    (folder / "mutants.json").write_text(json.dumps(mutants))
    ends = folder / "ends.json"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tools.mutant_runner", "-p", "no:xdist", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "SWARMKEEL_MUTANTS": str(folder / "mutants.json"),
            "SWARMKEEL_MUTANT_ENDS": str(ends),
        },
    )
    return run, ends


def test_each_mutant_ends_as_the_tests_say(tmp_path: Path) -> None:
    run, ends = run_mutants(tmp_path, _TEST, ["wrong", "harmless", "raises", "never_ends"])
    assert run.returncode == 0, run.stdout
    assert json.loads(ends.read_text()) == {
        "wrong": "killed",
        "harmless": "survived",
        "raises": "killed",
        "never_ends": "timed_out",
    }


def test_where_the_code_as_it_is_fails_nothing_is_measured(tmp_path: Path) -> None:
    run, ends = run_mutants(tmp_path, _TEST.replace("== 42", "== 43"), ["harmless"])
    assert run.returncode != 0
    assert "fails on the code as it is" in run.stdout + run.stderr
    assert not ends.exists()
