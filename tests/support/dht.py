"""Real peers of a DHT on the loopback interface, that can be frozen, killed and brought back where they were."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hivemind.dht.routing import DHTID

from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.failures import DhtNodeError
from swarmkeel.swarm.identity import create_identity
from tests.support.sockets import free_port

_KEYS: list[bytes] = []
"""Private keys for peers, made once a process: each takes a tenth of a second or more."""


class DhtPeers:
    """Peers that keep records, in the test's own event loop; each keeps its address and identity for good.

    The first is the initial peer of the others. A peer that comes back has lost its records.
    """

    def __init__(self, count: int) -> None:
        self._folder = Path()  # made when it is entered
        self._ports = [0] * count
        self.nodes: list[DhtNode | None] = [None] * count
        self._initial_peers: list[str] = []
        self._was_killed = False

    async def __aenter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="swarmkeel-dht-"))
        try:
            await self._start_all()
        except BaseException:
            await self._stop()
            raise
        return self

    async def _start_all(self) -> None:
        for index in range(len(self.nodes)):
            _write_key(index, self._key_file(index))
            await self._start(index, self._initial_peers[:1])
            self._initial_peers += self.node(index).visible_maddrs()
        self._was_killed = False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        try:
            for index, node in enumerate(self.nodes):
                if node is not None:
                    self.nodes[index] = None
                    await node.close()
        finally:
            shutil.rmtree(self._folder)

    @property
    def initial_peers(self) -> list[str]:
        """Addresses of all peers, whether they run or not."""
        return list(self._initial_peers)

    def node(self, index: int = 0) -> DhtNode:
        node = self.nodes[index]
        assert node is not None, f"peer {index} does not run"
        return node

    async def kill(self, *indices: int) -> None:
        """Kill these peers' p2pd with -9, and forget their records."""
        for index in indices:
            node = self.node(index)
            self.nodes[index] = None
            self._was_killed = True
            os.kill(p2pd_pid(node), signal.SIGKILL)
            await node.close()

    async def kill_all(self) -> None:
        await self.kill(*self._running())

    async def restart(self, *indices: int) -> None:
        """Bring killed peers back at the same address and with the same identity."""
        for index in indices:
            assert self.nodes[index] is None
            await self._start(index, [address for other, address in enumerate(self._initial_peers) if other != index])
        # The first to come back found nobody.
        for index in indices:
            await self.node(index).repair()

    async def restart_all(self) -> None:
        await self.restart(*(index for index, node in enumerate(self.nodes) if node is None))

    async def as_new(self) -> None:
        """Be for the next test what newly started peers would be: nobody frozen, no record kept, and no peer known that has gone."""
        self.thaw()
        if (
            self._was_killed
        ):  # those that were left still know the dead, and the others' p2pd would not dial them at once
            for index in self._running():
                await self.kill(index)
            self._ports = [0] * len(self.nodes)
            self._initial_peers.clear()
            await self._start_all()
        nodes = [self.node(index).hivemind_node for index in self._running()]
        ours = {node.node_id: node.peer_id for node in nodes}
        for node in nodes:
            protocol = node.protocol
            protocol.storage.clear()
            protocol.cache.clear()
            for former in [known for known in protocol.routing_table.uid_to_peer_id if known not in ours]:
                del protocol.routing_table[former]
            for other in ours.keys() - {node.node_id}:
                protocol.routing_table.add_or_update_node(other, ours[other])

    def freeze(self, *indices: int) -> None:
        """Stop these peers' p2pd (SIGSTOP): connections stay, answers do not come. All without indices."""
        for index in indices or self._running():
            freeze_process(p2pd_pid(self.node(index)))

    def thaw(self, *indices: int) -> None:
        for index in indices or self._running():
            os.kill(p2pd_pid(self.node(index)), signal.SIGCONT)

    def _running(self) -> list[int]:
        return [index for index, node in enumerate(self.nodes) if node is not None]

    def _key_file(self, index: int) -> Path:
        return self._folder / f"peer-{index}.key"

    async def _start(self, index: int, initial_peers: list[str]) -> None:
        for attempt in range(5):
            port = self._ports[index] or free_port()
            try:
                self.nodes[index] = await DhtNode.open(
                    initial_peers,
                    identity_path=self._key_file(index),
                    client_mode=False,
                    host_maddrs=[f"/ip4/127.0.0.1/tcp/{port}"],
                )
            except DhtNodeError:
                if attempt == 4:
                    raise
            else:
                self._ports[index] = port
                return


def _write_key(index: int, path: Path) -> None:
    if index < len(_KEYS):
        path.touch(mode=0o600)
        path.write_bytes(_KEYS[index])
    else:
        create_identity(path)
        _KEYS.append(path.read_bytes())


def p2pd_pid(node: DhtNode) -> int:
    """Give the process id of a node's p2pd."""
    return int(node._p2p._child.pid)


def p2pd_sockets(node: DhtNode) -> list[Path]:
    """Give the paths of the Unix sockets that a node may leave behind."""
    return [Path(maddr["unix"]) for maddr in (node._p2p._daemon_listen_maddr, node._p2p._client_listen_maddr)]


def process_runs(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def freeze_process(pid: int, *, seconds: float = 60.0) -> None:
    """Stop a process (SIGSTOP), and wait until the last of its threads stands still.

    The signal is one thread's to take in; until that has had its turn on a busy machine, the others go on answering.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + seconds
    while not all(state in "tTZX" for state in _thread_states(pid)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} still runs {seconds} s after SIGSTOP")
        time.sleep(0.001)


def _thread_states(pid: int) -> list[str]:
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended stands still
            states.append(stat.read_text().rpartition(")")[2].split()[0])
    return states


async def wait_until(condition: Callable[[], Any], *, seconds: float = 60.0) -> None:
    """Wait for a condition to hold."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def plant(nodes: Iterable[DhtNode | None], key: str, subkey: object, value: bytes, expiration: float) -> None:
    """Make peers hold bytes as they are, past all checks, as whoever speaks their protocol can.

    Args:
        nodes: The peers.
        key: The key, such as "model.0".
        subkey: The subkey; None puts a plain value in the place of the dictionary.
        value: The serialized value.
        expiration: When it ends, seconds since the epoch.
    """
    for node in nodes:
        assert node is not None
        node.hivemind_node.protocol.storage.store(DHTID.generate(key), value, expiration, subkey=subkey)
