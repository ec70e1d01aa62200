"""A real Prometheus scrapes a real daemon and is asked what it knows."""

from __future__ import annotations

from pathlib import Path

from swarmkeel.swarm.span import Span
from tests.support.dht import DhtPeers
from tests.support.prometheus import running_prometheus
from tests.support.sidecars import ObedientServer, short_folder, sidecar_process, write_config


async def test_prometheus_scrapes_the_daemon_and_answers_queries(tmp_path: Path) -> None:
    async with DhtPeers(1) as peers:
        with short_folder() as folder:
            own = ObedientServer(folder / "s", peers.node().peer_id, Span(0, 4))
            config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers)
            with own.listening():
                async with sidecar_process(config) as daemon:
                    target = (await daemon.url()).removeprefix("http://")
                    async with running_prometheus(tmp_path, [target]) as prometheus:
                        (up,) = await prometheus.wait_for("up == 1")
                        assert up["metric"]["job"] == "swarmkeel"
                        (uncovered,) = await prometheus.wait_for("swarmkeel_swarm_uncovered_blocks > 0")
                        assert uncovered["value"][1] == "8"
                        (verdict,) = await prometheus.wait_for("swarmkeel_verdict == 1")
                        assert verdict["metric"]["verdict"] == "insufficient_information"
                        blocks = await prometheus.wait_for("swarmkeel_block_throughput_rps")
                        assert {sample["metric"]["block"] for sample in blocks} == {str(n) for n in range(8)}
                        (rate,) = await prometheus.wait_for("increase(swarmkeel_snapshots_total[1m]) > 0")
                        assert float(rate["value"][1]) > 0
                        (longest,) = await prometheus.wait_for("swarmkeel_event_loop_longest_turn_seconds > 0")
                        (turns,) = await prometheus.wait_for("swarmkeel_event_loop_turn_seconds_count > 0")
                        assert float(longest["value"][1]) < 60 < float(turns["value"][1])
