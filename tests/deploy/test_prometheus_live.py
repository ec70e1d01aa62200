"""The rules and the dashboard in a real Prometheus that scrapes the sidecars of a real swarm, which heals and is hurt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession

from swarmkeel.demo.scenario import DHT_PREFIX, ServerPlan, Timing
from swarmkeel.demo.swarm import DemoSwarm
from tests.deploy.monitoring import RULE_FILES, dashboard_queries, metric_names, rules
from tests.support.prometheus import Prometheus, promtool, running_prometheus

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("prometheus"),  # one swarm for all of them
]

PLANS = tuple(ServerPlan(f"server-{number}", 8, 10.0, first) for number, first in enumerate((0, 0, 2), 1))
"""All in front, so that one has to move for the last blocks."""


@dataclass(frozen=True)
class Monitored:
    """A swarm that Prometheus watches.

    Attributes:
        prometheus: The server.
        metrics: What one of the sidecars exports.
    """

    prometheus: Prometheus
    metrics: bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def monitored(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Monitored]:
    """Let a swarm close a hole, and kill a server so that it has another one."""
    folder: Path = tmp_path_factory.mktemp("prometheus")
    async with DemoSwarm(PLANS, Timing(), "coordinated") as swarm:
        await swarm.start_servers()
        await swarm.start_sidecars()
        urls = list(swarm.metrics_urls().values())
        targets = [url.removeprefix("http://").removesuffix("/metrics") for url in urls]
        async with running_prometheus(folder, targets, RULE_FILES) as prometheus:
            await prometheus.wait_for("swarmkeel_move_realised_gain_rps > 0", 120)
            await prometheus.wait_for("model:swarmkeel_swarm_uncovered_blocks:median == 0")
            await swarm.kill(next(iter(swarm.servers)))
            await prometheus.wait_for('max_over_time(ALERTS{alertname="SwarmkeelBlockUncovered"}[10m])')
            async with ClientSession() as client, client.get(urls[0]) as response:
                metrics = await response.read()
            yield Monitored(prometheus, metrics)


async def test_what_a_sidecar_exports_is_as_promtool_wants_it(monitored: Monitored) -> None:
    result = promtool("check", "metrics", text=monitored.metrics)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


async def test_prometheus_knows_every_metric_that_a_rule_or_the_dashboard_names(monitored: Monitored) -> None:
    expressions = [*dashboard_queries(DHT_PREFIX).values(), *(rule["expr"] for rule in rules())]
    named = {name for expression in expressions for name in metric_names(expression)}
    known = set(await monitored.prometheus.get("label/__name__/values"))
    assert "swarmkeel_move_realised_gain_rps" in named
    assert named <= known, sorted(named - known)


async def test_every_query_of_the_dashboard_has_something_to_show(monitored: Monitored) -> None:
    queries = dashboard_queries(DHT_PREFIX)
    assert len(queries) > 30
    for place, expression in queries.items():
        assert await monitored.prometheus.wait_for(expression, 30), place


async def test_every_rule_is_evaluated_without_an_error(monitored: Monitored) -> None:
    groups = (await monitored.prometheus.get("rules"))["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in evaluated} == {
        (rule["name"], "ok", "") for rule in evaluated
    }


async def test_a_killed_server_is_seen_by_its_alerts(monitored: Monitored) -> None:
    waiting = await monitored.prometheus.wait_for('ALERTS{alertname="SwarmkeelServerNotAnswering"}', 30)
    assert len(waiting) == 1
    (hole,) = await monitored.prometheus.wait_for('max_over_time(ALERTS{alertname="SwarmkeelBlockUncovered"}[10m])')
    assert hole["metric"]["model"] == DHT_PREFIX
    assert hole["metric"]["severity"] == "critical"
    assert not await monitored.prometheus.query('ALERTS{alertname=~"SwarmkeelDown|SwarmkeelMissing"}')
