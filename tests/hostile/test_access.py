"""Who else on this machine, or on the network, could steer a sidecar or use it up: files, and the HTTP port."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from swarmkeel.config import ConfigError, load_config
from swarmkeel.daemon import web
from swarmkeel.daemon.journal import Journal, JournalError
from tests.page.sidecars import StillDaemon, still_daemon
from tests.support.sidecars import write_config

QUESTION = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[StillDaemon]:
    async with still_daemon(tmp_path) as running:
        yield running


async def connect(daemon: StillDaemon) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", daemon.port)


async def first_line(daemon: StillDaemon) -> bytes:
    reader, writer = await connect(daemon)
    try:
        writer.write(QUESTION)
        return await reader.readline()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("what", ["the file", "its directory", "the file of a link", "the directory of a link"])
def test_a_configuration_that_everyone_may_change_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    real, links = tmp_path / "real", tmp_path / "links"
    for folder in (real, links):
        folder.mkdir()
    config = write_config(real / "c.yaml", tmp_path / "s", ["/ip4/127.0.0.1/tcp/1/p2p/Q"])
    link = links / "c.yaml"
    link.symlink_to(config)
    used = link if "link" in what else config
    assert load_config(used).swarm.total_blocks > 0
    opened = {
        "the file": config,
        "its directory": real,
        "the file of a link": config,
        "the directory of a link": links,
    }[what]
    opened.chmod(opened.stat().st_mode | 0o002)

    with pytest.raises(ConfigError, match="run chmod o-w ") as refused:
        load_config(used)
    assert "\n" not in str(refused.value)
    opened.chmod(0o775)  # whoever gives a group the right to write means it
    load_config(used)
    if opened.is_dir():
        opened.chmod(0o1777)  # others may add files there, not replace this one
        load_config(used)


@pytest.mark.parametrize("opened", ["journal.sqlite", "."])
def test_a_journal_that_everyone_may_write_is_refused(tmp_path: Path, opened: str) -> None:
    """It tells of moves under way, which the next start takes up."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    path = folder / "journal.sqlite"
    Journal(path).close()
    for file in folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    (folder / opened).chmod(0o777)

    with pytest.raises(JournalError, match="run chmod o-w"):
        Journal(path)
    (folder / opened).chmod(0o700)
    Journal(path).close()


async def test_connections_are_bounded_and_those_that_ask_nothing_end(
    daemon: StillDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 3)
    silent = [await connect(daemon) for _ in range(3)]
    async with asyncio.timeout(60):
        while (line := await first_line(daemon)) != b"HTTP/1.1 503 Service Unavailable\r\n":
            assert line in (b"", b"HTTP/1.1 503 Service Unavailable\r\n"), "a fourth was let in"
        for _, writer in silent:
            writer.close()
        while b"no good snapshot" not in (await ask(daemon)):
            await asyncio.sleep(0.02)


async def send_for_ever(sender: socket.socket, data: bytes) -> None:
    async with asyncio.timeout(60):
        while True:
            await asyncio.get_running_loop().sock_sendall(sender, data)


async def ask(daemon: StillDaemon) -> bytes:
    reader, writer = await connect(daemon)
    try:
        writer.write(QUESTION.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("begun", [b"", b"GET /readyz HT", QUESTION, QUESTION + QUESTION[:20]])
async def test_whoever_does_not_go_on_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("swarmkeel.daemon.http.IDLE_SECONDS", 0.3)
    async with still_daemon(tmp_path) as quick:
        reader, writer = await connect(quick)
        writer.write(begun)
        async with asyncio.timeout(60):
            await reader.read()  # to its end
        writer.close()


async def test_whoever_does_not_read_the_answers_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "IDLE_SECONDS", 0.5)
    async with still_daemon(tmp_path) as quick:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)  # noqa: FBT003 - the socket's own way
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, ("127.0.0.1", quick.port))
            many = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
            with pytest.raises(ConnectionError):
                await send_for_ever(deaf, many)
        assert b"no good snapshot" in await ask(quick)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10_000, 400),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n"
            + b"".join(b"X%d: 1\r\n" % number for number in range(500))
            + b"Y: 1",
            400,
        ),
        (b"POST /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000", 405),
        (b"GET / HTTP/1.1\r\nHost: evil.example", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost.evil.example:9476", 421),
        (b"GET / HTTP/1.1", 400),
        (b"nonsense", 400),
    ],
    ids=[
        "long path",
        "long header",
        "many headers",
        "large body",
        "rebound name",
        "similar name",
        "no name",
        "no HTTP",
    ],
)
async def test_questions_too_large_or_for_another_name_are_refused(
    daemon: StillDaemon, head: bytes, status: int
) -> None:
    reader, writer = await connect(daemon)
    writer.write(head + b"\r\n\r\n")
    async with asyncio.timeout(60):
        line = await reader.readline()
    writer.close()
    assert int(line.split()[1]) in {status, 421 if head == b"GET / HTTP/1.1" else status}
    assert b"no good snapshot" in await ask(daemon)


@pytest.mark.parametrize(
    ("origin", "status"), [("https://evil.example", 403), ("null", 403), ("http://localhost:1", 403), (None, 200)]
)
async def test_no_page_of_another_origin_gets_an_answer(daemon: StillDaemon, origin: str | None, status: int) -> None:
    reader, writer = await connect(daemon)
    named = f"Origin: {origin}\r\n" if origin else ""
    writer.write(f"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n{named}Connection: close\r\n\r\n".encode())
    async with asyncio.timeout(60):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert int(head.split()[1]) == status
    assert json.loads(body).keys() == {"type", "title", "status", "detail"} or status == 200
    assert b"access-control" not in head.lower()
    assert b"Cross-Origin-Resource-Policy: same-origin" in head
