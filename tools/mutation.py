"""Test the tests: `make mutation` breaks the code in small ways, one at a time, and sees whether a test fails.

mutmut makes the mutants, in a copy of the checkout for each module under build/mutation, and `tools/mutant_runner.py` runs
the tests on each. What is found is kept in `measured.json`, so that one module can be measured anew without the others;
`explained.toml`, kept by hand, says of each mutant that no test notices why none needs to. The page docs/mutation.md is written
from both. It ends with exit code 1 if a survivor has no explanation, or an explanation no survivor.

    make mutation                             everything that has tests named below
    make mutation ARGS=daemon/move            one module; several by several words
    make mutation ARGS="--survivors daemon/move"   after tests were added: only what survived when it was measured here last
    make mutation ARGS=--page                 writes the page only
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tools.mutant_runner import ENDS, MUTANTS, End

ROOT: Final = Path(__file__).parents[1]
WORK: Final = ROOT / "build" / "mutation"
PACKAGE: Final = ROOT / "src" / "swarmkeel"
KEPT: Final = ROOT / "tests" / "mutation"
MEASURED: Final = KEPT / "measured.json"
EXPLAINED: Final = KEPT / "explained.toml"
PAGE: Final = ROOT / "docs" / "mutation.md"
BEGIN: Final = "<!-- the results: written by make mutation -->"
END: Final = "<!-- the end of the results -->"

TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    "daemon/move": (
        "tests/daemon/test_move.py",
        # Searches that take seconds, hundreds of times: without them it is the table of ways that has to notice.
        "--deselect=tests/daemon/test_move.py::test_no_interruption_at_any_step_breaks_an_invariant",
        "--deselect=tests/daemon/test_move.py::test_every_move_ends_when_time_passes",
    ),
    "daemon/guard": ("tests/daemon/test_guard.py",),
    "balance/coverage": ("tests/balance/test_coverage.py",),
    "balance/throughput": ("tests/balance/test_throughput.py",),
    "balance/selection": ("tests/balance/test_selection.py", "tests/balance/test_golden.py"),
    # The last shows that the compiled search and the other one agree, and when each is taken.
    "balance/imbalance": (
        "tests/balance/test_imbalance.py",
        "tests/balance/test_golden.py",
        "tests/balance/test_kernel.py",
    ),
    "balance/shapes": ("tests/balance/test_shapes.py",),
    "balance/bound": ("tests/balance/test_bound.py",),
    "balance/policy": ("tests/balance/test_policy.py",),
    "balance/policies": ("tests/balance/test_policy.py", "tests/balance/test_decision.py"),
    "balance/reasons": ("tests/balance/test_decision.py",),
    "balance/plan_server": ("tests/balance/test_arrivals.py",),
    "balance/arrivals": ("tests/balance/test_arrivals.py",),
    "balance/doubts": ("tests/balance/test_doubts.py",),
    "balance/staging": ("tests/balance/test_staging.py",),
    "balance/plan": (
        "tests/balance/test_plan.py",
        # Searches through drawn swarms, hundreds of times: without them it is the swarms made up by hand that have to notice.
        "--deselect=tests/balance/test_plan.py::test_what_a_plan_promises_is_what_comes",
        "--deselect=tests/balance/test_plan.py::test_no_plan_does_harm_on_the_way",
        "--deselect=tests/balance/test_plan.py::test_nor_does_one_that_keeps_to_a_claim",
        "--deselect=tests/balance/test_plan.py::test_following_plans_comes_to_an_end",
        "--deselect=tests/balance/test_plan.py::test_the_unit_of_throughput_does_not_matter",
    ),
    "balance/candidates": ("tests/balance/test_candidates.py",),
    "balance/search": ("tests/balance/test_search.py",),
    "balance/decision": ("tests/balance/test_decision.py",),
    "balance/layout": ("tests/balance/test_layout.py",),
    "balance/petals": ("tests/balance/test_petals_policy.py",),
    "balance/coordination": ("tests/balance/test_coordination.py",),
    "balance/coordinated": ("tests/balance/test_coordinated_policy.py",),
}
"""Which tests each module is measured by: those written for it, quick and without a swarm."""

_MAKE: Final = """
import json, sys
from pathlib import Path
from mutmut.__main__ import create_mutants_for_file
path = Path(sys.argv[1])
made = create_mutants_for_file(path, "mutants" / path)
if made.error:
    raise made.error
print(json.dumps(list(json.loads(Path(f"mutants/{path}.meta").read_text())["exit_code_by_key"])))
"""
"""Puts all mutants of a module into one file of the copy, and gives their names."""

_DIFFS: Final = """
import json, sys
from mutmut.mutation.diff_apply import get_diff_for_mutant
print(json.dumps({name: get_diff_for_mutant(name) for name in sys.argv[1:]}))
"""
"""What each mutant changes."""

_ENDS: Final = "ends.json"
"""What came of each mutant of the copy that it lies in, by mutmut's name."""
_NOT_NEEDED: Final = ("cacheprovider", "xdist", "unraisableexception", "threadexception")
_FUNCTION: Final = re.compile(r"\.x(?:ǁ(?P<owner>\w+)ǁ|_)(?P<name>\w+)__mutmut_\d+$")


@dataclass(frozen=True, order=True)
class Mutant:
    """A change that was made to a module, known by what it changes and not by its place.

    Attributes:
        module: The module, as `balance/coverage`.
        function: Its function, or its class and method.
        before: The lines that it takes away, without their indentation.
        after: The lines that it puts there.
    """

    module: str
    function: str
    before: str
    after: str


@dataclass(frozen=True)
class Measured:
    """What came of the mutants of one module.

    Attributes:
        source: Digest of the module when it was measured.
        mutants: How many there were.
        killed: How many made a test fail.
        timed_out: How many made the tests run without an end.
        survivors: Those that no test noticed; two that change equal lines of one function alike are one.
    """

    source: str
    mutants: int
    killed: int
    timed_out: int
    survivors: tuple[Mutant, ...]

    @property
    def score(self) -> float:
        """Share of the mutants that were noticed, between 0 and 1."""
        return (self.killed + self.timed_out) / self.mutants if self.mutants else 1.0


def digest(module: str) -> str:
    """Give a digest of a module's source."""
    return hashlib.sha256((PACKAGE / f"{module}.py").read_bytes()).hexdigest()[:16]


def mutant_of(module: str, name: str, diff: str) -> Mutant:
    """Read what a mutant changes from mutmut's name and diff of it.

    Raises:
        ValueError: If the name is not one of mutmut's.
    """
    found = _FUNCTION.search(name)
    if found is None:
        raise ValueError(f"mutmut names a mutant in a new way: {name}")
    function = f"{found['owner']}.{found['name']}" if found["owner"] else found["name"]
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    before, after = ("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Mutant(module, function, before, after)


def _python(copy: Path, *arguments: str, **environment: str) -> str:
    """Run Python in a copy of the checkout; gives what it printed.

    Raises:
        SystemExit: If it failed.
    """
    run = subprocess.run(  # noqa: S603 - the one program is named here
        [sys.executable, *arguments],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
        # The copy stands first on the path, before what is installed.
        env={**os.environ, "PYTHONPATH": str(copy / "mutants" / "src"), **environment},
    )
    if run.returncode != 0:
        lines = (run.stdout + run.stderr).splitlines()
        raise SystemExit("\n".join([f"this failed in {copy.relative_to(ROOT)}:", *lines[-40:]]))
    return run.stdout


def measure(module: str) -> Measured:
    """Make every mutant of a module and run its tests on each."""
    copy = WORK / module.replace("/", "-")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for place, folder in (("src", "src"), ("mutants/src", "src"), ("tests", "tests"), ("tools", "tools")):
        shutil.copytree(ROOT / folder, copy / place, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, copy / name)
    source = digest(module)
    path = f"src/swarmkeel/{module}.py"
    (copy / "mutants" / path).unlink()
    names: list[str] = json.loads(_python(copy, "-c", _MAKE, path).splitlines()[-1])
    return _measured(copy, module, source, _run_tests(copy, module, names))


def measure_survivors(module: str) -> Measured:
    """Run the tests as they are now on what survived when the module was measured last: enough where some were added.

    Raises:
        SystemExit: If it was not measured here, or is no longer what was measured.
    """
    copy = WORK / module.replace("/", "-")
    ends, source, measured = copy / _ENDS, digest(module), copy / "src" / "swarmkeel" / f"{module}.py"
    if not ends.exists() or measured.read_bytes() != (PACKAGE / f"{module}.py").read_bytes():
        raise SystemExit(f"{module} was not measured here as it is now: make mutation ARGS={module}")
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    before: dict[str, str] = json.loads(ends.read_text())
    survivors = [name for name, end in before.items() if end == End.SURVIVED]
    return _measured(copy, module, source, before | _run_tests(copy, module, survivors))


def _run_tests(copy: Path, module: str, names: Sequence[str]) -> dict[str, str]:
    """Run a module's tests on some of its mutants; gives the end of each."""
    mutants, ends = copy / "mutants.json", copy / "ends_of_this_run.json"
    mutants.write_text(json.dumps(names))
    plugins = ("tools.mutant_runner", *(f"no:{name}" for name in _NOT_NEEDED))
    # Nobody reads why a test failed, hundreds of times.
    quiet = ("-q", "--tb=native", *(word for plugin in plugins for word in ("-p", plugin)))
    where = {MUTANTS: str(mutants), ENDS: str(ends)}
    _python(copy, "-m", "pytest", *quiet, "--hypothesis-profile=mutation", *TESTS[module], **where)
    end_by_name: dict[str, str] = json.loads(ends.read_text())
    return end_by_name


def _measured(copy: Path, module: str, source: str, end_by_name: Mapping[str, str]) -> Measured:
    (copy / _ENDS).write_text(json.dumps(end_by_name))
    counts = Counter(end_by_name.values())
    alive = [name for name, end in end_by_name.items() if end == End.SURVIVED]
    diffs: dict[str, str] = json.loads(_python(copy, "-c", _DIFFS, *alive).splitlines()[-1]) if alive else {}
    survivors = {mutant_of(module, name, diff) for name, diff in diffs.items()}
    return Measured(source, len(end_by_name), counts[End.KILLED], counts[End.TIMED_OUT], tuple(sorted(survivors)))


def read_measured() -> dict[str, Measured]:
    """Read what was measured so far, by module."""
    found: dict[str, dict[str, Any]] = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    return {
        module: Measured(**{**fields, "survivors": tuple(Mutant(**mutant) for mutant in fields["survivors"])})
        for module, fields in found.items()
    }


def write_measured(measured: Mapping[str, Measured]) -> None:
    """Keep what was measured."""
    MEASURED.parent.mkdir(exist_ok=True)
    kept = {module: asdict(measured[module]) for module in sorted(measured)}
    MEASURED.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def read_explained() -> dict[Mutant, str]:
    """Read why each survivor may survive."""
    entries = tomllib.loads(EXPLAINED.read_text()).get("survivor", []) if EXPLAINED.exists() else []
    return {Mutant(one["module"], one["function"], one["before"], one["after"]): one["why"] for one in entries}


def complaints(measured: Mapping[str, Measured], explained: Mapping[Mutant, str]) -> list[str]:
    """Name the survivors that nobody has explained, and the explanations of what does not survive, or of nothing."""
    survivors = {mutant for module in measured.values() for mutant in module.survivors}
    return [
        *(f"no test notices, and nobody explains: {_told(mutant)}" for mutant in sorted(survivors - set(explained))),
        *(f"explained, but does not survive: {_told(mutant)}" for mutant in sorted(set(explained) - survivors)),
        *(f"explained by nothing: {_told(mutant)}" for mutant, why in explained.items() if not why.strip()),
    ]


def _told(mutant: Mutant) -> str:
    return f"{mutant.module}: {mutant.function}: {mutant.before!r} -> {mutant.after!r}"


def modules() -> list[str]:
    """Name every module that is to be measured: all that decide, the guards, and the move's state machine."""
    decisions = sorted(f"balance/{path.stem}" for path in (PACKAGE / "balance").glob("*.py") if path.stem != "__init__")
    return [*decisions, "daemon/guard", "daemon/move"]


def results(measured: Mapping[str, Measured], explained: Mapping[Mutant, str]) -> str:
    """Write the part of the page that follows from what was measured."""
    heads = ("Module", "Mutants", "Killed", "Timed out", "Survived", "Score")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for module in modules():
        found = measured.get(module)
        if found is None:
            lines.append(f"| `{module}` | not measured | | | | |")
            continue
        stale = "" if found.source == digest(module) else ", before its last change"
        survived = found.mutants - found.killed - found.timed_out
        score = f"{found.score:.1%}{stale}"
        lines.append(f"| `{module}` | {found.mutants} | {found.killed} | {found.timed_out} | {survived} | {score} |")
    survivors = sorted({mutant for found in measured.values() for mutant in found.survivors})
    lines += ["", "## Survivors", "", *([] if survivors else ["None in what was measured."])]
    for mutant in survivors:
        lines += [
            f"**`{mutant.module}`, `{mutant.function}`**",
            "",
            "```diff",
            *(f"- {line}" for line in mutant.before.splitlines()),
            *(f"+ {line}" for line in mutant.after.splitlines()),
            "```",
            "",
            explained.get(mutant, "**Not explained.**").strip(),
            "",
        ]
    return "\n".join(lines).rstrip()


def with_results(page: str, written: str) -> str:
    """Give the page with other results."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Measure the modules that are named, or all; write the page; complain about what is not explained."""
    measured = read_measured()
    run = measure_survivors if "--survivors" in arguments else measure
    named = [argument for argument in arguments if argument not in ("--page", "--survivors")]
    for module in [] if "--page" in arguments else named or TESTS:
        if module not in TESTS:
            raise SystemExit(f"no tests are named for {module}: one of {', '.join(TESTS)}")
        found = run(module)
        measured = {**read_measured(), module: found}
        write_measured(measured)
        sys.stdout.write(f"{module}: {found.score:.1%} of {found.mutants} mutants noticed\n")
        sys.stdout.flush()
    explained = read_explained()
    PAGE.write_text(with_results(PAGE.read_text(), results(measured, explained)))
    complained = complaints(measured, explained)
    sys.stdout.write("".join(f"{line}\n" for line in complained))
    return 1 if complained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
