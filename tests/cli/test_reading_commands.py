"""`snapshot` and `explain` against a real DHT with real servers, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import ServerPhase
from swarmkeel.demo.processes import RunningStandIn
from tests.support.servers import MODEL, TOTAL_BLOCKS, stand_in


async def swarmkeel(*arguments: str | Path) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "swarmkeel", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def write_config(path: Path, initial_peer: str, control_socket: Path) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "swarm": {"dht_prefix": MODEL, "total_blocks": TOTAL_BLOCKS, "initial_peers": [initial_peer]},
                "server": {"socket": str(control_socket), "request_timeout": 5},
                "journal": {"path": str(path.parent / "journal.sqlite")},
            }
        )
    )
    return path


async def is_online(server: RunningStandIn) -> None:
    async with asyncio.timeout(60), ControlClient(server.settings.socket, request_timeout=10) as client:
        while (await client.status()).state is not ServerPhase.ONLINE:
            await asyncio.sleep(0.05)


@pytest.fixture
async def pile() -> AsyncIterator[RunningStandIn]:
    """Two servers on 0:4 of eight blocks, and a hole at 4:8; gives the first."""
    name = "[red]evil\x1b[2J"
    async with stand_in([], lifetime=600) as first, stand_in([first.maddr], lifetime=600, public_name=name) as second:
        await is_online(first)
        await is_online(second)
        yield first


async def test_snapshot_shows_pile_and_hole_and_explain_what_to_do(pile: RunningStandIn, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", pile.maddr, pile.settings.socket)
    file = tmp_path / "snapshot.json"

    code, out, err = await swarmkeel("snapshot", "-c", config, "--json", file)
    assert (code, err) == (0, "")
    assert "8 blocks, 2 servers (2 online); 4 uncovered (4:8)" in out
    assert "8 of 8 keys answered, 8 records accepted, 0 rejected" in out
    assert "\n" + " " * 33 + "████XXXX\n" in out
    assert out.count("0:4     online") == 2
    assert "[red]evil?[2J" in out

    code, out, err = await swarmkeel("snapshot", "-c", config, "--json", "-")
    assert (code, err) == (0, "")
    assert json.loads(out)["blocks"] == json.loads(file.read_text())["blocks"]

    code, out, err = await swarmkeel("explain", "-c", config, "--json")
    assert (code, err) == (0, "")
    by_socket = json.loads(out)
    assert (by_socket["verdict"], by_socket["peer_id"]) == ("moving", pile.peer_id)
    assert (by_socket["own_span"], by_socket["target"]) == ({"start": 0, "end": 4}, {"start": 4, "end": 8})

    code, out, err = await swarmkeel("explain", "--snapshot", file, "--peer", pile.peer_id, "--json")
    assert (code, err) == (0, "")
    by_file = json.loads(out)
    del by_socket["quality"]["age_seconds"], by_file["quality"]["age_seconds"]
    # A file does not hold what sidecars tell each other; nobody tells anything here.
    assert by_socket["plan"].pop("readable")
    assert not by_file["plan"].pop("readable")
    assert by_file == by_socket
    assert by_socket["held_by"] == []

    code, out, err = await swarmkeel("explain", "-c", config)
    assert (code, err) == (0, "")
    assert "sidecars: 0 others tell of their servers" in out
    assert "plan: 1 moves, +10 RPS" in out
    assert f"{pile.peer_id[-7:]} (this one)" in out

    # Explaining is not acting.
    async with ControlClient(pile.settings.socket, request_timeout=10) as client:
        status = await client.status()
    assert status.span is not None
    assert (status.span.start, status.restart) == (0, None)


async def test_a_server_that_is_not_the_configured_one_is_named(pile: RunningStandIn, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", pile.maddr, pile.settings.socket)
    config.write_text(config.read_text().replace(f"total_blocks: {TOTAL_BLOCKS}", "total_blocks: 9"))
    code, out, err = await swarmkeel("explain", "-c", config)
    assert (code, out) == (1, "")
    assert "the server is not the configured one: its model has 8 blocks, swarm.total_blocks is 9" in err
    assert err.count("\n") == 1


async def test_a_swarm_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as nobody:  # bound and not listening: nobody else gets the port meanwhile
        nobody.bind(("127.0.0.1", 0))
        peer = f"/ip4/127.0.0.1/tcp/{nobody.getsockname()[1]}/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
        config = write_config(tmp_path / "c.yaml", peer, tmp_path / "server.sock")
        for command in ("snapshot", "explain"):
            code, out, err = await swarmkeel(command, "-c", config)
            assert (code, out) == (1, "")
            assert err.startswith("swarmkeel: ")
            assert err.count("\n") == 1


async def test_ctrl_c_while_it_reads_ends_it_quietly_with_all_that_it_started(tmp_path: Path) -> None:
    called = asyncio.Event()
    server = await asyncio.start_server(lambda *_: called.set(), "127.0.0.1", 0)  # takes calls and never answers
    async with server:
        port = server.sockets[0].getsockname()[1]
        peer = f"/ip4/127.0.0.1/tcp/{port}/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
        config = write_config(tmp_path / "c.yaml", peer, tmp_path / "server.sock")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "swarmkeel", "snapshot", "-c", str(config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(60):
                await called.wait()
                process.send_signal(signal.SIGINT)
                # Its p2pd has these pipes too: the end of file says that both are gone.
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert (process.returncode, out, err) == (130, b"", b"")
