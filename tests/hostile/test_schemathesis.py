"""The server's end of the control protocol against its description, by schemathesis: requests and answers as it has them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from swarmkeel.control.server import ControlServer
from tests.control.recording import RecordingServer, exchange, request_bytes
from tests.support.sidecars import short_folder

SCHEMA = schemathesis.openapi.from_path(Path(__file__).parents[2] / "docs" / "protocol-openapi.yaml")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until there are no more, and tell the other end so."""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@contextmanager
def proxy_to(path: Path) -> Iterator[str]:
    """Take connections to a port of the loopback interface to a Unix socket, which schemathesis cannot speak to."""
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(path)
        try:
            await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
        finally:
            inner_writer.close()
            writer.close()

    async def serve() -> None:
        over = asyncio.Event()
        async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set_result((url, asyncio.get_running_loop(), over))
            await over.wait()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    url, loop, over = started.result(timeout=30)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Path, str]]:
    with (
        short_folder() as folder,
        ControlServer(folder / "s", RecordingServer(), request_seconds=5.0),
        proxy_to(folder / "s") as url,
    ):
        yield folder / "s", url


@SCHEMA.parametrize()
@settings(suppress_health_check=list(HealthCheck))
def test_the_server_keeps_to_the_protocol(case: schemathesis.Case[Any], served: tuple[Path, str]) -> None:
    path, url = served
    # What fits the schemas may still be refused: a model has so many blocks, and a server holds so many of them.
    case.call_and_validate(base_url=url, timeout=30, excluded_checks=[positive_data_acceptance])
    (answer,) = exchange(path, request_bytes("GET", "/v1/status"))
    assert answer.status == 200
