"""Prometheus' own programs for tests: the server, asked over HTTP, and promtool."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientError, ClientSession

from swarmkeel.demo.processes import ChildProcess
from tests.support.sockets import free_port


def find_program(name: str) -> str:
    """Find one of Prometheus' programs, or skip the test."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package prometheus)")
    return path


def promtool(*arguments: str | Path, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run promtool with some text at its standard input."""
    command = [find_program("promtool"), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, check=False, timeout=240)


class Prometheus:
    """A Prometheus server that runs; what it is asked before it is up is asked again."""

    def __init__(self, client: ClientSession) -> None:
        self._client = client

    async def get(self, path: str, **parameters: str) -> Any:
        """Ask its API; AssertionError if it answers with an error."""
        async with self._client.get(f"/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
            assert answer["status"] == "success", (path, parameters, answer)
            return answer["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now."""
        return list((await self.get("query", query=expression))["result"])

    async def wait_for(self, expression: str, seconds: float = 90) -> list[dict[str, Any]]:
        """Wait until an expression gives something."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    if samples := await self.query(expression):
                        return samples
                except ClientError:
                    pass  # it is still starting
                await asyncio.sleep(0.2)


@asynccontextmanager
async def running_prometheus(
    folder: Path, targets: Sequence[str], rules: Sequence[Path] = ()
) -> AsyncIterator[Prometheus]:
    """Run a server that scrapes these addresses every second, as the job swarmkeel, and evaluates these rules as often."""
    settings: Mapping[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [{"job_name": "swarmkeel", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{free_port()}"
    command = [
        find_program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    server = await ChildProcess.start("prometheus", command, folder / "prometheus.log")
    try:
        async with ClientSession(f"http://{address}") as client:
            yield Prometheus(client)
    finally:
        await server.end()
