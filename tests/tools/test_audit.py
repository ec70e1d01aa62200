"""`make audit`: a vulnerability is told, and what could not be asked about is never taken for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from tools.audit import Verdict, closure, groups, judge

_ROOT: Final = Path(__file__).parents[2]

HOLE: Final = {
    "id": "EXAMPLE-1",
    "affected": [
        {
            "package": {"name": "aiohttp", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "99"}]}],
        }
    ],
}


@contextmanager
def vulnerability_service(known: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A service that speaks as OSV does and knows this of packages; gives its address and what it was asked about."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = question["package"]["name"]
            asked.append((name, question["version"]))
            answer = json.dumps({"vulns": [known[name]]} if name in known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
        finally:
            server.shutdown()
            thread.join()


def audit(*arguments: str, **environment: str) -> tuple[int, list[str]]:
    run = subprocess.run(
        [sys.executable, "-m", "tools.audit", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
    )
    assert run.stderr == ""
    return run.returncode, run.stdout.splitlines()


@pytest.mark.parametrize(("known", "verdict"), [({}, Verdict.CLEAN), ({"aiohttp": HOLE}, Verdict.VULNERABLE)])
def test_a_service_that_answers_is_asked_about_everything(known: Mapping[str, Any], verdict: Verdict) -> None:
    with vulnerability_service(known) as (address, asked):
        code, lines = audit("--vulnerability-service", "osv", "--osv-url", address)
    assert code == verdict
    assert lines[-1].startswith(f"{verdict.name}: ")
    assert {name for name, _ in asked} == frozenset[str]().union(*groups().values())
    assert all("+" not in version for _, version in asked), "no service knows a local version"
    assert [line for line in lines if "EXAMPLE-1, mended in 99" in line] == [
        line for line in lines if line.startswith("  aiohttp ")
    ]
    assert len(lines) == len(groups()) + 1 + len(known)


def test_a_service_out_of_reach_is_a_failure_that_says_so() -> None:
    code, lines = audit(HTTPS_PROXY="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    assert code == Verdict.NOT_AUDITED
    assert len(lines) == 1
    assert lines[0].startswith("NOT AUDITED: none of ")
    assert "make audit ARGS=" in lines[0]


def test_a_package_that_was_not_looked_up_is_a_failure_that_says_so() -> None:
    # So a mirror answers for every package, and pip-audit ends well.
    skipped = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
    parts = {"part": frozenset({"torch", "numpy"})}
    asked = {"name": "numpy", "version": "2", "vulns": []}
    found = judge(parts, {"dependencies": [asked, skipped]})
    assert found.verdict is Verdict.NOT_AUDITED
    assert found.lines[0] == "part: 2 packages, 1 looked up, 0 with known vulnerabilities"
    assert "the first is torch: Dependency not found on PyPI" in found.lines[1]
    assert judge(parts, {"dependencies": [asked]}).verdict is Verdict.NOT_AUDITED
    assert judge(parts, {"dependencies": [asked, {**asked, "name": "torch"}]}).verdict is Verdict.CLEAN


def test_a_known_vulnerability_is_not_hidden_by_what_was_not_looked_up() -> None:
    hit = {"name": "numpy", "version": "2", "vulns": [{"id": "EXAMPLE-2", "fix_versions": []}]}
    found = judge({"part": frozenset({"torch", "numpy"})}, {"dependencies": [hit]})
    assert found.verdict is Verdict.VULNERABLE
    assert found.lines[1] == "  numpy 2: EXAMPLE-2, mended in no version"
    assert "1 packages were not looked up" in found.lines[-1]


def test_the_sidecar_is_audited_with_all_that_comes_with_it() -> None:
    parts = groups()
    sidecar = parts["what a sidecar runs on"]
    assert {"hivemind", "torch", "aiohttp", "pydantic-core", "pyyaml"} <= sidecar  # YAML comes by an extra
    assert "matplotlib" in parts["what simulate adds"]
    assert {"pytest", "pip-audit", "pip"} <= parts["what developing adds"]
    assert sum(map(len, parts.values())) == len(frozenset[str]().union(*parts.values()))
    assert closure("swarmkeel") == sidecar
