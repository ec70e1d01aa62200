"""What is answered under `/api/v1/`: as the OpenAPI file says, only to who may ask, and nothing can be changed."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiohttp import ClientResponse, ClientSession, StreamReader

from swarmkeel.balance.decision import Verdict
from swarmkeel.daemon.api import MAX_LISTENERS
from swarmkeel.daemon.changes import Changes
from swarmkeel.daemon.journal import CheckRecord
from swarmkeel.daemon.openapi import openapi, openapi_yaml
from tests.page.sidecars import OWN, StillDaemon, decision, example_servers, fill, still_daemon

ROOT = Path(__file__).parents[2]
DESCRIPTION = openapi("1.2.3")
PATHS = [path for path in DESCRIPTION["paths"] if not path.endswith(("events", "openapi.json"))]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[StillDaemon]:
    async with still_daemon(tmp_path) as running:
        fill(running, example_servers(), 80)
        for number, verdict in enumerate((Verdict.BALANCED, Verdict.HOLDING, Verdict.BALANCED)):
            running.journal.save_check(CheckRecord(f"c{number}", 1000.0 + number, decision(verdict), None))
        yield running


@pytest.fixture
async def client(daemon: StillDaemon) -> AsyncIterator[ClientSession]:
    async with ClientSession(daemon.url) as session:
        yield session


def check(answer: object, path: str, status: str = "200") -> None:
    (content,) = DESCRIPTION["paths"][path]["get"]["responses"][status]["content"].values()
    jsonschema.Draft202012Validator(content["schema"] | {"components": DESCRIPTION["components"]}).validate(answer)


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_is_as_it_is_described(client: ClientSession, path: str) -> None:
    async with client.get(path) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        answer = await response.json()
    check(answer, path)
    assert any(answer.values())


async def test_the_description_in_the_docs_and_at_the_daemon_is_that_of_the_code(client: ClientSession) -> None:
    # Written anew by: python -m swarmkeel.daemon.openapi > docs/api.yaml
    assert (ROOT / "docs" / "api.yaml").read_text() == openapi_yaml()
    async with client.get("/api/v1/openapi.json") as response:
        assert await response.json() == DESCRIPTION
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DESCRIPTION)))
    assert references <= DESCRIPTION["components"]["schemas"].keys()
    for schema in DESCRIPTION["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_checks_can_be_limited_and_filtered(client: ClientSession) -> None:
    async def checks(query: str) -> list[str]:
        async with client.get(f"/api/v1/checks?{query}") as response:
            return [entry["check_id"] for entry in (await response.json())["checks"]]

    assert await checks("") == ["c2", "c1", "c0"]
    assert await checks("limit=1") == ["c2"]
    assert await checks("before=1002&verdict=balanced") == ["c0"]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/api/v1/checks?verdict=fine", "verdict"),
        ("/api/v1/checks?limit=0", "limit"),
        ("/api/v1/moves?limit=1001", "limit"),
        ("/api/v1/moves?newest=1", "newest"),
        ("/api/v1/timeline?since=nan", "since"),
    ],
)
async def test_a_wrong_query_is_told_what_is_wrong(client: ClientSession, path: str, named: str) -> None:
    async with client.get(path) as response:
        assert (response.status, response.content_type) == (400, "application/problem+json")
        problem = await response.json()
    check(problem, path.partition("?")[0], "400")
    assert problem["detail"].startswith(f"{named}: ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_can_be_changed(client: ClientSession, method: str) -> None:
    for path in ("/", *PATHS, "/api/v1/events", "/metrics"):
        async with client.request(method, path) as response:
            assert response.status == 405, path
            assert response.content_type == "application/problem+json"


async def test_every_answer_carries_the_headers_that_make_browsers_careful(client: ClientSession) -> None:
    for path in ("/", "/page/page.js", *PATHS, "/api/v1/nothing", "/metrics", "/healthz"):
        async with client.get(path) as response:
            policy = response.headers["Content-Security-Policy"].split("; ")
            assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(
                policy
            )
            assert "require-trusted-types-for 'script'" in policy
            assert not any("unsafe" in part or "*" in part for part in policy)
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["Cache-Control"] in ("no-store", "no-cache")
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_another_name_that_was_made_to_lead_here_gets_nothing(daemon: StillDaemon, client: ClientSession) -> None:
    for host, status in (
        ("evil.example", 421),
        (f"evil.example:{daemon.port}", 421),
        ("127.0.0.1.evil.example", 421),
        ("[", 421),
        (f"localhost:{daemon.port}", 200),
        (f"[::1]:{daemon.port}", 200),
        ("127.0.0.1", 200),
    ):
        async with client.get("/api/v1/status", headers={"Host": host}) as response:
            assert response.status == status, host
            assert ("peer_id" in await response.text()) == (status == 200)


async def test_on_an_address_with_names_that_nobody_knows_any_name_is_served(tmp_path: Path) -> None:
    async with (
        still_daemon(tmp_path, host="0.0.0.0") as daemon,  # noqa: S104 - what is asked about
        ClientSession(daemon.url) as client,
        client.get("/api/v1/status", headers={"Host": "gpu-7.example"}) as response,
    ):
        assert response.status == 200


async def test_before_the_first_snapshot_the_swarm_is_not_told(tmp_path: Path) -> None:
    async with still_daemon(tmp_path) as daemon, ClientSession(daemon.url) as client:
        async with client.get("/api/v1/swarm") as response:
            assert response.status == 503
            check(await response.json(), "/api/v1/swarm", "503")
        async with client.get("/api/v1/status") as response:
            check(await response.json(), "/api/v1/status")


async def test_parts_of_the_page_are_asked_for_once(client: ClientSession) -> None:
    async with client.get("/") as first:
        assert first.content_type == "text/html"
        tag = first.headers["ETag"]
    async with client.get("/", headers={"If-None-Match": tag}) as again:
        assert again.status == 304
    async with client.get("/page/..%2f..%2fapi.py") as response:
        assert response.status == 404


async def test_a_long_answer_is_compressed_for_who_can_read_that(client: ClientSession) -> None:
    async with client.get("/api/v1/swarm", headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert len((await response.json())["blocks"]) == 80


async def next_status(stream: StreamReader) -> dict[str, Any]:
    event = await stream.readuntil(b"\n\n")
    _, name, data = event.decode().strip().splitlines()
    assert name == "event: status"
    answer = json.loads(data.removeprefix("data: "))
    check(answer, "/api/v1/status")
    return dict(answer)


async def test_each_change_is_one_event(daemon: StillDaemon, client: ClientSession) -> None:
    async with client.get("/api/v1/events") as response, asyncio.timeout(30):
        assert response.content_type == "text/event-stream"
        assert (await next_status(response.content))["verdict"]["verdict"] == "holding"
        for verdict in (Verdict.BALANCED, Verdict.FAILED):
            daemon.state.decision = decision(verdict)
            daemon.state.changes.note()
            assert (await next_status(response.content))["verdict"]["verdict"] == verdict
        server = daemon.state.server
        assert server is not None
        assert server.peer_id == OWN


async def test_events_end_with_the_daemon_and_so_does_their_number(daemon: StillDaemon, client: ClientSession) -> None:
    responses: list[ClientResponse] = [await client.get("/api/v1/events") for _ in range(MAX_LISTENERS)]
    async with asyncio.timeout(60):
        for response in responses:
            await next_status(response.content)
        async with client.get("/api/v1/events") as refused:
            assert refused.status == 503
        responses.pop().close()
        while True:  # the daemon sees that one has gone when it next writes
            daemon.state.changes.note()
            another = await client.get("/api/v1/events")
            if another.status == 200:
                break
        await daemon.close()
        for response in (*responses, another):
            await response.content.read()  # to its end
            response.close()


async def test_whoever_waits_for_a_change_is_told_of_it_and_of_the_end() -> None:
    changes = Changes()
    waiting = asyncio.create_task(changes.wait(0, at_most=30))
    await asyncio.sleep(0)
    changes.note()
    assert await waiting == 1
    assert await changes.wait(0, at_most=30) == 1  # it was over before
    assert await changes.wait(1, at_most=0.01) == 1
    changes.close()
    assert await changes.wait(2, at_most=30) == 2
