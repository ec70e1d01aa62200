from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hivemind.dht import DHTNode, protocol
from hivemind.p2p import P2P, p2p_daemon

from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.failures import ClockDiffersError, DhtNodeError, IdentityError, InitialPeerError
from tests.support.dht import DhtPeers, freeze_process, p2pd_pid, p2pd_sockets, process_runs, wait_until

_NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/QmSEdyYNDK3ki4ssP9Vi4mmkfqhMYWn31CWip1wQ6ZmHzf"


def children() -> set[int]:
    """Give the p2pd processes that this process started."""
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in pids if process_runs(int(pid))}


def assert_gone(node: DhtNode) -> None:
    assert not process_runs(p2pd_pid(node))
    assert not any(path.exists() for path in p2pd_sockets(node))


async def test_a_client_knows_who_greets_it_and_does_not_listen() -> None:
    async with DhtPeers(2) as peers:
        node = await DhtNode.open(peers.initial_peers)
        assert node.is_alive
        assert node.known_peers == 2
        assert node.visible_maddrs() == []
        await node.close()
        await node.close()

        assert not node.is_alive
        assert_gone(node)


async def test_every_peer_comes_to_know_every_other_through_one() -> None:
    async with DhtPeers(4) as peers:
        assert [peers.node(index).known_peers for index in range(4)] == [3, 3, 3, 3]


async def test_a_key_file_gives_the_same_peer_id_again(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    first = await DhtNode.open([], identity_path=path)
    try:
        before = children()
        with pytest.raises(IdentityError, match="in use"):
            await DhtNode.open([], identity_path=path)
        assert children() == before
    finally:
        await first.close()
    second = await DhtNode.open([], identity_path=path, client_mode=False)
    await second.close()

    assert second.peer_id == first.peer_id
    assert [maddr.endswith(f"/p2p/{first.peer_id}") for maddr in second.visible_maddrs()] == [True]


async def test_a_client_with_the_key_of_an_initial_peer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    server = await DhtNode.open([], identity_path=path, client_mode=False)
    await server.close()

    with pytest.raises(IdentityError, match="initial peer"):
        await DhtNode.open(server.visible_maddrs(), identity_path=path)
    await (await DhtNode.open(server.visible_maddrs(), identity_path=path, client_mode=False)).close()


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "/ip4/127.0.0.1/tcp/9", "/ip4/127.0.0.1/tcp/9/p2p/Qm", "/ip4/1.2.3/tcp/9/p2p/" + _NOBODY[-46:]],
)
async def test_what_is_no_address_of_a_peer_is_named(address: str) -> None:
    with pytest.raises(InitialPeerError) as caught:
        await DhtNode.open([_NOBODY, address])
    assert repr(address) in str(caught.value)


async def test_it_opens_while_its_peers_are_down_and_meets_them_later() -> None:
    async with DhtPeers(2) as peers:
        await peers.kill_all()
        node = await DhtNode.open(peers.initial_peers)
        try:
            assert node.is_alive
            assert node.known_peers == 0
            await peers.restart_all()
            while not await node.repair():  # p2pd leaves an address that failed alone for a while
                await asyncio.sleep(0.5)
            assert node.known_peers > 0
        finally:
            await node.close()


async def test_a_port_that_is_taken_is_a_clear_error() -> None:
    before = children()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(DhtNodeError, match="did not start"):
        await DhtNode.open([], client_mode=False, host_maddrs=[f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"])
    assert children() == before


async def test_another_time_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with DhtPeers(1) as peers:
        before = children()
        real = protocol.get_dht_time
        skew = iter([0.0, 60.0] * 50)
        # Peers and client share this process: the asking client reads the clock first, then the peer, in every ping.
        monkeypatch.setattr(protocol, "get_dht_time", lambda: real() + next(skew))
        with pytest.raises(ClockDiffersError, match="clock"):
            await DhtNode.open(peers.initial_peers)
        assert children() == before


async def test_closing_ends_a_p2pd_that_hangs() -> None:
    for client_mode in (True, False):
        node = await DhtNode.open([], client_mode=client_mode)
        freeze_process(p2pd_pid(node))
        async with asyncio.timeout(30):
            await node.close()
        assert_gone(node)


async def test_a_p2pd_that_died_shows_and_closes() -> None:
    for client_mode in (True, False):
        node = await DhtNode.open([], client_mode=client_mode)
        os.kill(p2pd_pid(node), signal.SIGKILL)
        await wait_until(partial(lambda node: not node.is_alive, node))
        async with asyncio.timeout(30):
            assert await node.repair() == 0
            await node.close()
        assert_gone(node)


async def test_cancelling_the_close_of_a_p2pd_that_hangs_still_ends_it() -> None:
    node = await DhtNode.open([])
    freeze_process(p2pd_pid(node))
    closing = asyncio.create_task(node.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert_gone(node)


async def test_cancelling_the_start_at_any_moment_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[P2P] = []
    construct = P2P.__init__

    def note(self: P2P) -> None:
        construct(self)
        made.append(self)

    monkeypatch.setattr(P2P, "__init__", note)
    path = tmp_path / "node.key"
    before = children()
    started = time.monotonic()
    await (await DhtNode.open([_NOBODY], identity_path=path)).close()
    duration = time.monotonic() - started
    for moment in range(15):
        opening = asyncio.create_task(DhtNode.open([_NOBODY], identity_path=path))
        await asyncio.wait([opening], timeout=duration * moment / 12)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await (await opening).close()
        assert children() == before

    assert len(made) > 3
    assert not any(Path(p2p._daemon_listen_maddr["unix"]).exists() for p2p in made)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_start_that_is_cancelled_leaves_no_error_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    tripped, told = asyncio.Event(), []

    async def trip(*_: object) -> None:
        tripped.set()
        raise asyncio.InvalidStateError  # as where p2pd gets ready and nobody waits for that any more

    monkeypatch.setattr(P2P, "_read_outputs", trip)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    starting = asyncio.create_task(DhtNode.open([]))
    await tripped.wait()
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    del starting
    for _ in range(3):  # what has ended is let go of in the loop's next turns
        await asyncio.sleep(0)
        gc.collect()
    assert told == []


async def test_a_missing_p2pd_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p2p_daemon, "P2PD_FILENAME", "no-p2pd")

    with pytest.raises(DhtNodeError, match="p2pd"):
        await DhtNode.open([])


async def test_a_start_that_fails_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(**_: object) -> None:
        raise RuntimeError("half-way")

    before = children()
    monkeypatch.setattr(DHTNode, "create", fail)
    with pytest.raises(DhtNodeError, match="half-way"):
        await DhtNode.open([])
    assert children() == before


@pytest.mark.parametrize("client_mode", [True, False])
async def test_p2pd_and_its_socket_do_not_outlive_a_process_that_is_killed(client_mode: bool) -> None:  # noqa: FBT001 - a parameter of the test
    program = f"""if True:
        import asyncio
        from swarmkeel.swarm.dht_node import DhtNode
        async def main():
            node = await DhtNode.open([], client_mode={client_mode})
            print(node._p2p._child.pid, node._p2p._daemon_listen_maddr["unix"], flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        pid, path = (await process.stdout.readline()).decode().split()
        assert process_runs(int(pid))
        assert Path(path).is_socket()
    finally:
        process.kill()
        await process.wait()
    await wait_until(lambda: not process_runs(int(pid)))
    assert not Path(path).exists()
