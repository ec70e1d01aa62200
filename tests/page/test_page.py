"""The status page in a real browser, beside a daemon whose state the test sets."""

from __future__ import annotations

import io
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from PIL import Image
from playwright.async_api import BrowserContext, Error, expect

from swarmkeel.balance.decision import Reason, Verdict
from swarmkeel.daemon.pause import Pause
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.span import Span
from tests.page.sidecars import (
    OWN,
    Placed,
    StillDaemon,
    decision,
    example_servers,
    fill,
    remember,
    still_daemon,
)
from tests.support.chromium import Watched, chromium

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("page")]

expect.set_options(timeout=30_000)
HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[BrowserContext]:
    async with chromium(viewport={"width": 1280, "height": 900}) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def watched(browser: BrowserContext) -> AsyncIterator[Watched]:
    page = await browser.new_page()
    yield Watched(page)
    await page.close()


@pytest_asyncio.fixture(loop_scope="module")
async def daemon(tmp_path: Path) -> AsyncIterator[StillDaemon]:
    async with still_daemon(tmp_path) as running:
        fill(running, example_servers(), 80)
        yield running


async def test_what_the_dht_tells_is_text_and_never_more(daemon: StillDaemon, watched: Watched) -> None:
    page = watched.page
    servers = [
        Placed(OWN, Span(0, 16), name=HOSTILE),
        Placed("12D3KooWOther", Span(16, 80), name=f'" autofocus onfocus="window.pwned=3 {HOSTILE}'),
    ]
    fill(daemon, servers, 80)
    daemon.state.decision = decision(Verdict.FAILED, Reason(name="check_failed", values={"error": HOSTILE}))
    await page.goto(daemon.url)
    await expect(page.locator("#servers .name").first).to_have_text(HOSTILE)
    await expect(page.locator("#verdict-sentence")).to_contain_text(HOSTILE)
    await expect(page.locator("#claim-list tbody th")).to_contain_text("onfocus")
    for row in (0, 1):
        await page.locator("#servers .server").nth(row).click()
        await expect(page.locator("#details dd").first).to_contain_text("<script>window.pwned = 1</script><img src=x")
    await page.locator("#tables summary").click()
    await expect(page.locator("#tables tbody th", has_text="<script>")).to_have_count(2)
    assert await page.evaluate("window.pwned") is None
    assert await page.locator("script").count() == 2
    assert await page.locator("img").count() == 1
    assert watched.complaints == []


async def test_the_browser_lets_no_text_become_html_or_a_script(daemon: StillDaemon, watched: Watched) -> None:
    page = watched.page
    await page.goto(daemon.url)
    await expect(page.locator("#live")).to_have_text("live")
    for attempt in (
        "document.body.innerHTML = '<b>text</b>'",
        "document.body.setAttribute('onclick', 'window.pwned = 4')",
        "document.createElement('script').textContent = 'window.pwned = 5'",
    ):
        with pytest.raises(Error, match="Trusted"):
            await page.evaluate(attempt)
    assert await page.evaluate("window.pwned") is None


async def test_the_page_tells_all_that_holds_and_lives_without_being_loaded_again(
    daemon: StillDaemon, watched: Watched
) -> None:
    page = watched.page
    await page.goto(daemon.url)
    await expect(page.locator("#live")).to_have_text("live")
    await expect(page.locator("#verdict-word")).to_have_text("holding")
    await expect(page.locator("#verdict-sentence")).to_contain_text("3 moves in the last 24 h, at most 3 are allowed")
    await expect(page.locator("#verdict-target")).to_contain_text("From 0:16 to 40:56")
    await expect(page.locator(".block.uncovered")).to_have_count(3)
    await expect(page.locator(".block.uncovered .mark").first).to_have_text("\u00d7")
    await expect(page.locator(".block.weakest .mark").first).to_have_text("\u25b2")
    await expect(page.locator(".server.own .name")).to_have_text("hut-1")
    hatched = page.locator(".server.joining .track .bar").first
    assert "repeating-linear-gradient" in await hatched.evaluate("bar => getComputedStyle(bar).backgroundImage")
    holding = page.locator("#guard-list .holds")
    await expect(holding).to_have_count(3)
    await expect(holding.nth(1)).to_contain_text("Cooldown after a move")
    await expect(holding.nth(1).locator("time")).to_contain_text("min")
    await expect(page.locator("#move-list tbody tr")).to_have_count(3)
    newest = page.locator("#move-list tbody tr").first
    await expect(newest.locator("td")).to_have_text(["16:32 → 0:16", "done", "+3.1", "+2.3", "3 min 5 s"])
    await expect(page.locator("#move-list")).to_contain_text("out of memory")
    await expect(page.locator("#claim-list")).to_contain_text("→ 36:52")
    await expect(page).to_have_title("\u00d7 3 holes · llama-70b-hf · Swarmkeel")

    await page.evaluate("window.sameDocument = true")
    healed = [*example_servers(), Placed("12D3KooWHelper", Span(36, 52), 12.0, name="helper")]
    daemon.state.decision = decision(Verdict.BALANCED, Reason(name="already_at_best_place", values={"span": "0:16"}))
    daemon.show(80, healed)
    await expect(page.locator("#verdict-sentence")).to_have_text("0:16 is the best place for this server.")
    await expect(page.locator(".block.uncovered")).to_have_count(0)
    await expect(page.locator("#servers .name", has_text="helper")).to_be_visible()
    await expect(page.locator("#chart")).to_have_attribute("aria-label", re.compile(r"0 holes; since"))
    assert await page.evaluate("window.sameDocument")
    assert watched.complaints == []


async def test_everything_can_be_reached_by_the_keyboard(daemon: StillDaemon, watched: Watched) -> None:
    page = watched.page
    await page.goto(daemon.url)
    await expect(page.locator(".block.uncovered")).to_have_count(3)
    press = page.keyboard.press
    focused = page.locator(":focus")
    await press("Tab")
    await expect(focused).to_have_text("To the verdict")
    await press("Enter")
    await press("Tab")
    await expect(focused).to_have_attribute("aria-label", re.compile(r"^Block 0: .* RPS by \d+ servers?"))
    await press("End")
    await press("PageUp")
    await expect(focused).to_have_attribute("aria-label", re.compile("^Block 69: "))
    await expect(page.locator("#details")).to_contain_text("69")
    await expect(page.locator("#servers-title")).to_contain_text("on block 69")
    await press("Home")
    for _ in range(41):
        await press("ArrowRight")
    await expect(focused).to_have_attribute("aria-label", "Block 41: nobody serves it")
    await expect(page.locator("#servers .server")).to_have_count(0)
    await press("Escape")
    await expect(page.locator("#servers .server")).to_have_count(20)
    await press("Tab")
    await press("ArrowDown")
    await expect(focused).to_have_attribute("role", "option")
    peer = await focused.get_attribute("data-peer")
    await expect(page.locator("#details")).to_contain_text(str(peer))
    daemon.show(80, example_servers())  # a new snapshot takes the focus away from nobody
    await expect(page.locator("#live")).to_have_text("live")
    await expect(focused).to_have_attribute("data-peer", str(peer))
    await press("Tab")
    await expect(focused).to_have_text("The same as tables")
    await press("Enter")
    await expect(page.locator("#tables table")).to_have_count(2)
    assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_barrier(daemon: StillDaemon, watched: Watched, scheme: str) -> None:
    page = watched.page
    await page.emulate_media(color_scheme="light" if scheme == "light" else "dark", reduced_motion="reduce")
    await page.goto(daemon.url)
    await expect(page.locator(".block.uncovered")).to_have_count(3)
    await page.locator("#servers .server").first.click()
    for summary in await page.locator("summary").all():
        await summary.click()
    results = await Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert len(results.response["passes"]) > 20


async def test_a_phone_shows_80_blocks_and_says_how_many_of_1000_servers_it_does_not(
    daemon: StillDaemon, watched: Watched
) -> None:
    page = watched.page
    await page.set_viewport_size({"width": 360, "height": 740})
    fill(daemon, example_servers(1000), 80)
    await page.goto(daemon.url)
    await expect(page.locator("#blocks .block")).to_have_count(80)
    await expect(page.locator("#servers .server")).to_have_count(30)
    await expect(page.locator("#servers .server.own")).to_have_count(1)
    await expect(page.locator("#rest")).to_contain_text("970 more servers are not shown")
    await page.locator("#more").click()
    await expect(page.locator("#rest")).to_contain_text("870 more servers are not shown")
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    outside = """() => [...document.querySelectorAll("main *")].filter((element) => {
        const box = element.getBoundingClientRect();
        return box.width > 0 && box.right > 361 && !element.closest(".unseen, .uplot");
    }).map((element) => element.outerHTML.slice(0, 80))"""
    assert await page.evaluate(outside) == []


async def test_a_model_of_more_blocks_than_pixels_loses_no_hole(tmp_path: Path, watched: Watched) -> None:
    page = watched.page
    async with still_daemon(tmp_path, total_blocks=1500) as daemon:
        daemon.show(1500, [Placed("12D3KooWA", Span(0, 734)), Placed("12D3KooWB", Span(735, 1500))])
        await page.goto(daemon.url)
        hole = page.locator(".block.uncovered")
        await expect(hole).to_have_count(1)
        await expect(hole).to_have_attribute("aria-label", re.compile("at worst: nobody serves it"))
        assert await page.locator("#blocks .block").count() < 500
        await hole.click()
        await expect(page.locator("#servers-title")).to_have_text(re.compile("on blocks 73"))


async def test_a_daemon_that_knows_nothing_yet_and_one_that_is_paused_say_so(tmp_path: Path, watched: Watched) -> None:
    page = watched.page
    async with still_daemon(tmp_path) as daemon:
        await page.goto(daemon.url)
        await expect(page.locator("#live")).to_have_text("live")
        await expect(page.locator("#verdict-word")).to_have_text("not checked yet")
        await expect(page.locator("#servers-title")).to_have_text("The swarm has not been read yet.")
        fill(daemon, example_servers(), 80)
        daemon.state.pause = Pause(since=1000.0, until=None, reason=HOSTILE, uid=1000)
        daemon.state.config_is_current = False
        daemon.state.changes.note()
        await expect(page.locator("#notices .notice")).to_have_count(2)
        await expect(page.locator("#notices")).to_contain_text(HOSTILE)
        assert await page.evaluate("window.pwned") is None
        assert watched.complaints == []


async def test_a_page_that_lost_its_sidecar_says_so_and_comes_back_by_itself(tmp_path: Path, watched: Watched) -> None:
    page = watched.page
    async with still_daemon(tmp_path) as first:
        fill(first, example_servers(), 80)
        port = first.port
        await page.goto(first.url)
        await expect(page.locator("#live")).to_have_text("live")
    await expect(page.locator("#live")).to_have_text(re.compile("^connection lost: shown as of .*; trying again$"))
    await expect(page.locator("#servers .server")).to_have_count(20)
    async with still_daemon(tmp_path, port=port) as second:
        second.show(80, [Placed("12D3KooWNew", Span(0, 80), state=ServerState.JOINING)])
        await expect(page.locator("#live")).to_have_text("live")
        await expect(page.locator("#servers .server")).to_have_count(1)
        await expect(page.locator(".block.joining")).to_have_count(80)


@pytest.mark.parametrize("name", ["desktop-light", "desktop-dark", "phone"])
async def test_pictures_for_the_docs(daemon: StillDaemon, watched: Watched, tmp_path: Path, name: str) -> None:
    is_phone = name == "phone"
    folder = Path(os.environ.get("SWARMKEEL_SCREENSHOTS") or tmp_path)
    page = watched.page
    remember(daemon)
    await page.emulate_media(color_scheme="dark" if name.endswith("dark") else "light", reduced_motion="reduce")
    await page.set_viewport_size({"width": 360 if is_phone else 1280, "height": 1480 if is_phone else 900})
    await page.goto(daemon.url)
    await expect(page.locator(".block.uncovered")).to_have_count(3)
    await expect(page.locator("#chart canvas")).to_be_visible()
    await page.evaluate("document.fonts.ready")
    picture = Image.open(io.BytesIO(await page.screenshot(full_page=not is_phone)))
    assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50
    folder.mkdir(parents=True, exist_ok=True)
    small = picture.convert("RGB").quantize(200, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(folder / f"status-page-{name}.png", optimize=True)
