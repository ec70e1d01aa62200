"""The status page of a real sidecar in the demo's swarm: it shows the hole, then its healing, and its sidecar's end."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp import ClientSession
from playwright.async_api import expect

from swarmkeel.daemon.status import Checks, DaemonStatus, Moves, SwarmStatus, Timeline
from swarmkeel.demo.scenario import ServerPlan, Timing
from swarmkeel.demo.swarm import DemoSwarm
from tests.support.chromium import Watched, chromium

HOSTILE = "<script>pwned=1"
PLANS = (ServerPlan(HOSTILE, 8, 10.0, 0), ServerPlan("server-2", 8, 10.0, 0), ServerPlan("server-3", 8, 12.0, 1))
"""All in front, so that one has to move for the last blocks."""


async def first_address(swarm: DemoSwarm) -> str:
    """Wait until the first sidecar listens, and give its address."""
    async with asyncio.timeout(120):
        while not (urls := swarm.metrics_urls()):
            await asyncio.sleep(0.05)
    return next(iter(urls.values())).removesuffix("metrics")


@pytest.mark.xdist_group("page")
async def test_the_page_of_a_sidecar_shows_the_hole_and_its_healing() -> None:
    async with (
        chromium(viewport={"width": 1280, "height": 900}) as browser,
        DemoSwarm(PLANS, Timing(), "coordinated") as swarm,
    ):
        page = await browser.new_page()
        watched = Watched(page)
        await swarm.start_servers()
        starting = asyncio.create_task(swarm.start_sidecars())
        url = await first_address(swarm)
        await page.goto(url)
        holes = page.locator(".block.uncovered, .block.joining")
        await expect(holes.first).to_be_visible(timeout=60_000)
        await expect(page.locator("#figures")).to_contain_text(re.compile(r"Holes[1-8]blocks "))
        await page.evaluate("window.sameDocument = true")
        await starting

        await expect(holes).to_have_count(0, timeout=120_000)
        await expect(page.locator("#figures")).to_contain_text("Holes0every block is served")
        await expect(page.locator("#verdict-sentence")).to_contain_text(re.compile(r"\d"))
        await expect(page.locator("#chart canvas")).to_be_visible()
        await expect(page.locator("#servers .name", has_text=HOSTILE)).to_have_count(1)
        assert await page.evaluate("window.sameDocument")
        assert await page.evaluate("window.pwned") is None
        assert watched.complaints == []
        await look_at_every_answer(url)
        await look_at_the_mover(swarm, watched)

        urls = swarm.metrics_urls()
        sidecar = next(process for process in swarm._sidecars if urls[process.name] == f"{url}metrics")
        assert await sidecar.end() == 0  # with an event stream open
        await expect(page.locator("#live")).to_contain_text("connection lost")


async def look_at_every_answer(url: str) -> None:
    async with ClientSession(url) as client:

        async def get(name: str) -> bytes:
            async with client.get(f"/api/v1/{name}") as response:
                assert response.status == 200
                return await response.read()

        status = DaemonStatus.model_validate_json(await get("status"))
        swarm = SwarmStatus.model_validate_json(await get("swarm"))
        assert status.server is not None
        assert [server.peer_id for server in swarm.servers if server.own] == [status.server.peer_id]
        assert {server.public_name for server in swarm.servers} == {plan.name for plan in PLANS}
        assert Checks.model_validate_json(await get("checks")).checks[0].verdict
        points = Timeline.model_validate_json(await get("timeline")).points
        assert max(point.uncovered_blocks for point in points) > 0
        # Readings that were answered too badly to tell a hole have left no points.
        assert all((point.bottleneck_rps == 0) == (point.uncovered_blocks > 0) for point in points)
        assert points[-1].uncovered_blocks == 0
        Moves.model_validate_json(await get("moves"))


async def look_at_the_mover(swarm: DemoSwarm, watched: Watched) -> None:
    """See at the page of the sidecar whose server moved what the move was to bring and what it brought."""
    page = await watched.page.context.new_page()
    moved = page.locator("#move-list .done")
    for url in swarm.metrics_urls().values():
        await page.goto(url.removesuffix("metrics"))
        await expect(page.locator("#move-list > *").first).to_be_visible()
        if await page.locator("#move-list tbody tr").count():
            break
    await expect(moved.first).to_be_visible(timeout=60_000)
    cells = page.locator("#move-list tbody tr").last.locator("td")
    await expect(cells.nth(0)).to_have_text(re.compile(r"^\d+:\d+ → \d+:\d+$"))
    await expect(cells.nth(2)).to_have_text(re.compile(r"^\+\d"))
    await expect(cells.nth(3)).to_have_text(re.compile(r"\d"))
    await page.close()
