"""Ask for known vulnerabilities of everything that is installed here: `make audit`.

What is asked about are the versions in this environment, which are those of constraints.txt: first what a sidecar runs
on, then what `swarmkeel simulate` adds, then what only developing takes. pip-audit does the asking. By itself it ends well
and says "no known vulnerabilities" also where the service knew none of the packages, as a mirror of the package index
does; here a package that was not looked up makes the audit fail, and is counted.

Exit codes: 0 all were looked up and nothing is known of them; 1 a vulnerability is known; 2 nothing is known of some,
since the service could not be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT: Final = "swarmkeel"


class Verdict(IntEnum):
    """How an audit ends, as the exit code."""

    CLEAN = 0
    VULNERABLE = 1
    NOT_AUDITED = 2


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        verdict: How it ends.
        lines: What it says, the last line being its end in one sentence.
    """

    verdict: Verdict
    lines: tuple[str, ...]


def requirements_of(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Give what an installed package requires here, each by its canonical name and with the extras that are asked for."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def closure(name: str, extras: frozenset[str] = frozenset()) -> frozenset[str]:
    """Name all that comes with a package, at whatever remove, without the package itself."""
    known: set[tuple[str, frozenset[str]]] = set()
    open_ends: list[tuple[str, frozenset[str]]] = [(canonicalize_name(name), extras)]
    while open_ends:
        end = open_ends.pop()
        if end not in known:
            known.add(end)
            open_ends.extend(requirements_of(*end))
    return frozenset(found for found, _ in known) - {canonicalize_name(name)}


def groups() -> Mapping[str, frozenset[str]]:
    """Part the packages installed here by what they are there for; each is in one group."""
    everything = {canonicalize_name(found.name) for found in distributions()} - {PROJECT}
    sidecar = closure(PROJECT)
    simulate = closure(PROJECT, frozenset({"simulate"})) - sidecar
    return {
        "what a sidecar runs on": sidecar,
        "what simulate adds": simulate,
        "what developing adds": frozenset(everything) - sidecar - simulate,
    }


def public_version(name: str) -> str:
    """Give the version of an installed package without its local part: an index knows torch 2.13.0, and no 2.13.0+cpu."""
    return Version(distribution(name).version).public


def judge(parts: Mapping[str, frozenset[str]], report: Mapping[str, Any]) -> Audit:
    """Say what pip-audit's report means for each group; a package that it does not speak of was not looked up."""
    told: dict[str, Any] = {canonicalize_name(entry["name"]): entry for entry in report["dependencies"]}
    lines: list[str] = []
    known = 0
    missing: list[str] = []
    for part, names in parts.items():
        unasked = sorted(name for name in names if "vulns" not in told.get(name, {}))
        hit = {name: told[name] for name in sorted(names) if told.get(name, {}).get("vulns")}
        lines.append(
            f"{part}: {len(names)} packages, {len(names) - len(unasked)} looked up, {len(hit)} with known vulnerabilities"
        )
        for name, entry in hit.items():
            for found in entry["vulns"]:
                known += 1
                mended = ", ".join(found.get("fix_versions") or ()) or "no version"
                lines.append(f"  {name} {entry['version']}: {found['id']}, mended in {mended}")
        missing += unasked
    if known:
        beside = f"; {len(missing)} packages were not looked up" if missing else ""
        lines.append(
            f"VULNERABLE: {known} known vulnerabilities{beside}. Raise the versions in constraints.txt, then audit again"
        )
        return Audit(Verdict.VULNERABLE, tuple(lines))
    if missing:
        reason = told.get(missing[0], {}).get("skip_reason", "it was left out")
        lines.append(
            f"NOT AUDITED: {len(missing)} packages could not be looked up, so nothing is known of them; "
            f"the first is {missing[0]}: {reason}. {_REMEDY}"
        )
        return Audit(Verdict.NOT_AUDITED, tuple(lines))
    lines.append("CLEAN: all were looked up, and no vulnerability of them is known")
    return Audit(Verdict.CLEAN, tuple(lines))


_REMEDY: Final = (
    "Audit where the package index itself can be reached (a mirror does not tell vulnerabilities), "
    'or ask another service: make audit ARGS="--vulnerability-service osv"'
)


def ask(names: frozenset[str], arguments: Sequence[str]) -> Mapping[str, Any] | str:
    """Have pip-audit ask about packages; gives its report, or in one line why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "packages.txt"
        listed.write_text("".join(f"{name}=={public_version(name)}\n" for name in sorted(names)))
        # Nothing is resolved or installed, and nothing remembered: an answer of last week is none.
        command = [
            "--requirement",
            str(listed),
            "--no-deps",
            "--disable-pip",
            "--cache-dir",
            str(Path(folder) / "cache"),
        ]
        run = subprocess.run(  # noqa: S603 - the one program is named here
            [sys.executable, "-m", "pip_audit", *command, "--format", "json", "--progress-spinner", "off", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        report: Mapping[str, Any] = json.loads(run.stdout)
    except ValueError:
        said = run.stderr.strip().splitlines() or ["it said nothing"]
        return said[-1]
    return report


def audit(arguments: Sequence[str]) -> Audit:
    """Look up all that is installed here; `arguments` go to pip-audit."""
    parts = groups()
    everything = frozenset[str]().union(*parts.values())
    report = ask(everything, arguments)
    if isinstance(report, str):
        line = (
            f"NOT AUDITED: none of {len(everything)} packages could be looked up, so nothing is known of them: "
            f"{report}. {_REMEDY}"
        )
        return Audit(Verdict.NOT_AUDITED, (line,))
    return judge(parts, report)


def main() -> int:
    """Audit, say what was found, and give the exit code."""
    found = audit(sys.argv[1:])
    sys.stdout.write("\n".join(found.lines) + "\n")
    return found.verdict


if __name__ == "__main__":
    sys.exit(main())
