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


def test_only_tests_that_call_the_function_are_run_on_its_mutant(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    test = f"""
import os

from mutmut.mutation.trampoline import wrap_in_trampoline

def x_answer__mutmut_1():
    return 41

mutants = {{"x_answer__mutmut_1": x_answer__mutmut_1}}

@wrap_in_trampoline(mutants)
def answer():
    raise AssertionError

def x_answer__mutmut_orig():
    return 42

mutants["_mutmut_orig"] = x_answer__mutmut_orig

def note(name):
    with open({str(tmp_path / "notes")!r}, "a") as notes:
        notes.write(os.environ["MUTANT_UNDER_TEST"] + " " + name + "; ")

def test_answer():
    note("test_answer")
    assert answer() == 42

def test_something_else():
    note("test_something_else")
"""
    run, ends = run_mutants(tmp_path, test, ["test_it.x_answer__mutmut_1", "test_it.x_other__mutmut_1"])
    assert run.returncode == 0, run.stdout
    assert list(json.loads(ends.read_text()).values()) == ["killed", "survived"]
    notes = (tmp_path / "notes").read_text().split("; ")
    of = [note.split() for note in notes if note]
    assert [name for mutant, name in of if mutant == "test_it.x_answer__mutmut_1"] == ["test_answer"]
    # What no test is seen to call is tried on all of them.
    other = {name for mutant, name in of if mutant == "test_it.x_other__mutmut_1"}
    assert other == {"test_answer", "test_something_else"}


def test_where_the_code_as_it_is_fails_nothing_is_measured(tmp_path: Path) -> None:
    run, ends = run_mutants(tmp_path, _TEST.replace("== 42", "== 43"), ["harmless"])
    assert run.returncode != 0
    assert "fails on the code as it is" in run.stdout + run.stderr
    assert not ends.exists()
