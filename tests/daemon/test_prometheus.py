"""A real Prometheus scrapes a real daemon and is asked what it knows."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientError, ClientSession

from swarmkeel.demo.processes import ChildProcess
from swarmkeel.swarm.span import Span
from tests.support.dht import DhtPeers
from tests.support.sidecars import ObedientServer, short_folder, sidecar_process, write_config
from tests.support.sockets import free_port


async def query(client: ClientSession, text: str) -> list[dict[str, Any]]:
    async with client.get("/api/v1/query", params={"query": text}) as response:
        return list((await response.json())["data"]["result"])


async def wait_for_samples(client: ClientSession, text: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(90):
        while True:
            try:
                if samples := await query(client, text):
                    return samples
            except ClientError:
                pass  # it is still starting
            await asyncio.sleep(0.2)


async def test_prometheus_scrapes_the_daemon_and_answers_queries(tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("the Prometheus server is not installed (Debian package prometheus)")
    async with DhtPeers(1) as peers:
        with short_folder() as folder:
            own = ObedientServer(folder / "s", peers.node().peer_id, Span(0, 4))
            config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers)
            with own.listening():
                async with sidecar_process(config) as daemon:
                    target = (await daemon.url()).removeprefix("http://")
                    scrape = {"job_name": "swarmkeel", "static_configs": [{"targets": [target]}]}
                    settings = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
                    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
                    address = f"127.0.0.1:{free_port()}"
                    command = [
                        prometheus,
                        f"--config.file={tmp_path / 'prometheus.yml'}",
                        f"--storage.tsdb.path={tmp_path / 'data'}",
                        f"--web.listen-address={address}",
                    ]
                    server = await ChildProcess.start("prometheus", command, tmp_path / "prometheus.log")
                    try:
                        async with ClientSession(f"http://{address}") as client:
                            (up,) = await wait_for_samples(client, "up == 1")
                            assert up["metric"]["job"] == "swarmkeel"
                            (uncovered,) = await wait_for_samples(client, "swarmkeel_swarm_uncovered_blocks > 0")
                            assert uncovered["value"][1] == "8"
                            (verdict,) = await wait_for_samples(client, "swarmkeel_verdict == 1")
                            assert verdict["metric"]["verdict"] == "insufficient_information"
                            blocks = await wait_for_samples(client, "swarmkeel_block_throughput_rps")
                            assert {sample["metric"]["block"] for sample in blocks} == {str(n) for n in range(8)}
                            (rate,) = await wait_for_samples(client, "increase(swarmkeel_snapshots_total[1m]) > 0")
                            assert float(rate["value"][1]) > 0
                    finally:
                        await server.end()
