"""The faults that strike a live swarm, in the words of docs/reliability.md: each a plain function, over when it returns.

Who is struck and for how long is drawn; what else goes on at that moment nobody decides.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace

from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.control.server import ControlServer
from swarmkeel.demo.processes import ChildProcess, ProcessFailedError
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.sidecar_board import board_key
from swarmkeel.swarm.sidecar_record import sidecar_to_wire
from swarmkeel.swarm.span import Span
from tests.chaos.truth import Fault, Life
from tests.support.dht import plant
from tests.support.hostile import SUBKEYS, VALUES
from tests.support.live_swarm import LiveSwarm, Slot
from tests.support.resources import p2pd_of
from tests.support.sidecars import ObedientServer
from tests.support.watched_server import Orders

LIAR = "QmLiar"
MOST_SERVERS_DOWN = 3
"""So many servers at most are down at a time, so that the others can serve every block."""
FORGETFUL_PEERS = 2
"""So many of the first peers may be gone at a time: what the last one knows brings the others back into the swarm."""


@dataclass
class Scene:
    """The swarm, and what has been done to it.

    Attributes:
        swarm: The swarm.
        lives: What is known of each server.
        rng: Draws everything.
        faults: All faults so far; those under way have no end yet.
        broken_rules: What a fault itself has seen that must not be, in words.
        crashes: Processes that were killed with no chance to clean up: their sockets may stay.
    """

    swarm: LiveSwarm
    lives: dict[str, Life]
    rng: random.Random
    faults: list[Fault] = field(default_factory=list)
    broken_rules: list[str] = field(default_factory=list)
    crashes: int = 0
    servers_down: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_SERVERS_DOWN))
    peers_free: asyncio.Lock = field(default_factory=asyncio.Lock)

    def seconds(self, least: float, most: float) -> float:
        return self.rng.uniform(least, most)

    def plant(self, key: str, subkey: object, value: bytes, seconds: float) -> None:
        plant([node for node in self.swarm.peers.nodes if node is not None], key, subkey, value, time.time() + seconds)

    def block_keys(self) -> list[str]:
        return [f"{self.swarm.model}.{block}" for block in range(self.swarm.total_blocks)]

    def plant_server(self, peer_id: str, span: Span, rps: float, state: ServerState, seconds: float) -> None:
        record = encode_value(ServerInfo(state, rps, span.start, span.end).to_tuple())
        for block in range(span.start, span.end):
            self.plant(f"{self.swarm.model}.{block}", peer_id, record, seconds)

    def any_span(self, length: int) -> Span:
        start = self.rng.randint(0, self.swarm.total_blocks - length)
        return Span(start, start + length)


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        strike: Breaks something beside one server, and mends it.
        hides: See `Fault`.
        invents: See `Fault`.
        of_all: It strikes all, so that no server's own peace is needed.
        of_peers: It strikes the first peers of the DHT, one such fault at a time.
    """

    strike: Callable[[Scene, Slot], Awaitable[None]]
    hides: bool = False
    invents: bool = False
    of_all: bool = False
    of_peers: bool = False


async def strike(scene: Scene, name: str, slot: Slot) -> None:
    """Let one fault happen from its beginning to its end, and note it."""
    kind = KINDS[name]
    async with _peace(scene, kind, slot):
        fault = Fault(name, "" if kind.of_all else slot.name, time.time(), hides=kind.hides, invents=kind.invents)
        place = len(scene.faults)
        scene.faults.append(fault)
        await kind.strike(scene, slot)
        scene.faults[place] = replace(fault, ended=time.time())


def _peace(scene: Scene, kind: Kind, slot: Slot) -> AbstractAsyncContextManager[None]:
    """Keep other faults away from what this one strikes."""
    if kind.of_peers:
        return scene.peers_free
    return nullcontext() if kind.of_all else slot.free


# ---------------------------------------------------------------- the sidecar's process


def _running(process: ChildProcess | None) -> ChildProcess:
    assert process is not None
    return process


async def kill_sidecar(scene: Scene, slot: Slot) -> None:
    await scene.swarm.crash_sidecar(slot)
    scene.crashes += 1
    await asyncio.sleep(scene.seconds(0, 8))
    await scene.swarm.start_sidecar(slot)


async def end_sidecar(scene: Scene, slot: Slot) -> None:
    sidecar, slot.sidecar = _running(slot.sidecar), None
    code = await sidecar.end(30)
    if code != 0:
        scene.broken_rules.append(f"{sidecar.name} ended with code {code} after SIGTERM")
    await asyncio.sleep(scene.seconds(0, 8))
    await scene.swarm.start_sidecar(slot)


async def stop_sidecar(scene: Scene, slot: Slot) -> None:
    sidecar = _running(slot.sidecar)
    sidecar.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(scene.seconds(1, 20))
    finally:
        sidecar.signal(signal.SIGCONT)


async def crash_sidecar_again_and_again(scene: Scene, slot: Slot) -> None:
    for _ in range(4):
        await scene.swarm.crash_sidecar(slot)
        scene.crashes += 1
        await scene.swarm.start_sidecar(slot)
        await asyncio.sleep(scene.seconds(0, 4))


async def kill_sidecar_in_a_move(scene: Scene, slot: Slot) -> None:
    await _wait_for_a_move(slot)
    await kill_sidecar(scene, slot)


async def _wait_for_a_move(slot: Slot) -> None:
    """Wait until the server has begun a restart; for some seconds, since it may never."""
    size = slot.diary.stat().st_size
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        with slot.diary.open() as diary:
            diary.seek(size)
            if '"step": "leaving"' in diary.read():
                return
        await asyncio.sleep(0.05)


# ---------------------------------------------------------------- p2pd


async def kill_sidecars_p2pd(scene: Scene, slot: Slot) -> None:
    if (p2pd := p2pd_of(_running(slot.sidecar).pid)) is not None:
        _send(p2pd, signal.SIGKILL)
        scene.crashes += 1
    await asyncio.sleep(1)


async def stop_sidecars_p2pd(scene: Scene, slot: Slot) -> None:
    await _stop_for(p2pd_of(_running(slot.sidecar).pid), scene.seconds(2, 12))


async def kill_servers_p2pd(scene: Scene, slot: Slot) -> None:
    server = _running(slot.server)
    async with scene.servers_down:
        slot.server = None  # it ends by itself then, which is no fault of its own
        if (p2pd := p2pd_of(server.pid)) is not None:
            _send(p2pd, signal.SIGKILL)
        with suppress(TimeoutError):
            await asyncio.wait_for(server.wait(), 15)
        await server.crash()
        await _comes_back(scene, slot)


async def stop_servers_p2pd(scene: Scene, slot: Slot) -> None:
    await _stop_for(p2pd_of(_running(slot.server).pid), scene.seconds(2, 12))


async def _stop_for(pid: int | None, seconds: float) -> None:
    if pid is None:
        return
    _send(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


# ---------------------------------------------------------------- the server


async def kill_server(scene: Scene, slot: Slot) -> None:
    async with scene.servers_down:
        await scene.swarm.crash_server(slot)
        await _comes_back(scene, slot)


async def kill_server_in_a_move(scene: Scene, slot: Slot) -> None:
    await _wait_for_a_move(slot)
    await kill_server(scene, slot)


async def end_server(scene: Scene, slot: Slot) -> None:
    async with scene.servers_down:
        server, slot.server = _running(slot.server), None
        await server.end()
        await _comes_back(scene, slot)


async def stop_server(scene: Scene, slot: Slot) -> None:
    async with scene.servers_down:
        began = time.time()
        await _stop_for(_running(slot.server).pid, scene.seconds(2, 20))
        scene.lives[slot.name].frozen.append((began, time.time()))


async def crash_server_again_and_again(scene: Scene, slot: Slot) -> None:
    async with scene.servers_down:
        for _ in range(3):
            await scene.swarm.crash_server(slot)
            await _comes_back(scene, slot, most=1)
            await asyncio.sleep(scene.seconds(0, 4))


async def _comes_back(scene: Scene, slot: Slot, most: float = 30) -> None:
    """Start it again after a while: sometimes before its records are gone, sometimes long after."""
    _note_crash(scene, slot)
    await asyncio.sleep(scene.seconds(0, most))
    await scene.swarm.start_server(slot, idle=scene.rng.random() < 0.5)


def _note_crash(scene: Scene, slot: Slot) -> None:
    scene.lives[slot.name].gone.append(time.time())
    scene.crashes += 1


async def hang_in_joining(scene: Scene, slot: Slot) -> None:
    """Whatever it is told to load, it comes to no end."""
    await _misload(scene, slot, Orders(hanging=tuple(range(scene.swarm.total_blocks))))


async def fail_to_load(scene: Scene, slot: Slot) -> None:
    half = scene.rng.sample(range(scene.swarm.total_blocks), scene.swarm.total_blocks // 2)
    await _misload(scene, slot, Orders(failing=tuple(half)))


async def _misload(scene: Scene, slot: Slot, orders: Orders) -> None:
    """Keep a server from loading: one that may be told to move, or one that has no blocks and certainly is told."""
    if scene.rng.random() < 0.5:
        async with scene.servers_down:
            await scene.swarm.crash_server(slot)
            _note_crash(scene, slot)
            await scene.swarm.start_server(slot, idle=True, orders=orders)
    else:
        orders.give(slot.folder)
    await asyncio.sleep(scene.seconds(15, 40))
    Orders().give(slot.folder)


async def say_nothing_to_the_swarm(scene: Scene, slot: Slot) -> None:
    Orders(mute=True).give(slot.folder)
    await asyncio.sleep(scene.swarm.speed.lifetime + scene.seconds(0, 8))
    Orders().give(slot.folder)


async def lie_about_its_state(scene: Scene, slot: Slot) -> None:
    Orders(lies=True).give(slot.folder)
    await asyncio.sleep(scene.seconds(5, 15))
    Orders().give(slot.folder)


# ---------------------------------------------------------------- the control socket


@contextmanager
def _socket_put_away(slot: Slot) -> Iterator[None]:
    away = slot.socket.with_name("away")
    slot.socket.rename(away)
    try:
        yield
    finally:
        slot.socket.unlink(missing_ok=True)
        away.rename(slot.socket)


async def lose_the_socket(scene: Scene, slot: Slot) -> None:
    with _socket_put_away(slot):
        await asyncio.sleep(scene.seconds(2, 15))


async def replace_the_socket(scene: Scene, slot: Slot) -> None:
    """Another server stands at the same path; it must be told nothing."""
    plan = slot.plan
    other = ObedientServer(slot.socket, "QmAnother")
    span = Span(plan.first_block, plan.first_block + plan.num_blocks)
    other.present = ServerStatus(
        "another/1",
        "QmAnother",
        scene.swarm.model,
        scene.swarm.total_blocks,
        plan.num_blocks,
        plan.throughput,
        ServerPhase.ONLINE,
        span,
    )
    with _socket_put_away(slot), ControlServer(slot.socket, other):
        await asyncio.sleep(scene.seconds(2, 15))
    if other.requests:
        scene.broken_rules.append(f"another server at the socket of {slot.name} was told to move")


@asynccontextmanager
async def _listening(slot: Slot, answer: bytes, every: float) -> AsyncIterator[None]:
    """Take every connection, and send so many bytes of an answer, one at a time."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError):
            for byte in answer:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(every)

    server = await asyncio.start_unix_server(serve, slot.socket)
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


async def never_answer(scene: Scene, slot: Slot) -> None:
    with _socket_put_away(slot):
        async with _listening(slot, b"", 0):
            await asyncio.sleep(scene.seconds(2, 15))


async def answer_byte_by_byte(scene: Scene, slot: Slot) -> None:
    with _socket_put_away(slot):
        async with _listening(slot, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + b"X: y\r\n" * 99, 0.3):
            await asyncio.sleep(scene.seconds(2, 15))


# ---------------------------------------------------------------- the DHT


async def lose_bootstrap_peers(scene: Scene, _: Slot) -> None:
    gone = scene.rng.sample(range(3), scene.rng.randint(1, FORGETFUL_PEERS))
    await scene.swarm.peers.kill(*gone)
    await asyncio.sleep(scene.seconds(2, 12))
    await scene.swarm.peers.restart(*gone)


async def freeze_bootstrap_peers(scene: Scene, _: Slot) -> None:
    scene.swarm.peers.freeze()
    try:
        await asyncio.sleep(scene.seconds(2, 8))
    finally:
        scene.swarm.peers.thaw()


async def forget_records(scene: Scene, _: Slot) -> None:
    """The first peers lose all records that they keep."""
    for node in scene.swarm.peers.nodes:
        if node is not None:
            node.hivemind_node.protocol.storage.clear()
            node.hivemind_node.protocol.cache.clear()
    await asyncio.sleep(scene.swarm.speed.update_period)


async def make_keys_unreadable(scene: Scene, _: Slot) -> None:
    """Somebody puts a plain value where the records of half of the blocks are."""
    seconds = scene.seconds(5, 15)
    keys = scene.block_keys()
    for key in scene.rng.sample(keys, len(keys) // 2):
        scene.plant(key, None, encode_value("mine now"), seconds)
    await asyncio.sleep(seconds)


async def plant_junk(scene: Scene, _: Slot) -> None:
    """Values that crash or hang other readers, beside the honest ones."""
    seconds = scene.seconds(5, 15)
    for key in scene.block_keys():
        for name in scene.rng.sample(sorted(VALUES), 6):
            scene.plant(key, f"Qm{scene.rng.choice('abcdefgh')}", VALUES[name][0], seconds)
        subkey = SUBKEYS[scene.rng.choice(sorted(SUBKEYS))]
        with suppress(TypeError):  # hivemind cannot order subkeys of different types
            scene.plant(key, subkey, VALUES["text"][0], seconds)
    await asyncio.sleep(seconds)


async def boast(scene: Scene, _: Slot) -> None:
    """A server that nobody has claims to serve everything, or much."""
    seconds = scene.seconds(5, 15)
    span = scene.any_span(scene.rng.randint(4, scene.swarm.total_blocks))
    rps = scene.rng.choice([1e300, 1e6, 20.0, 5e-324, 0.0])
    state = scene.rng.choice([ServerState.ONLINE, ServerState.JOINING])
    scene.plant_server(LIAR, span, rps, state, seconds)
    await asyncio.sleep(seconds)


async def overwrite_a_record(scene: Scene, slot: Slot) -> None:
    """Somebody else announces an honest server where it is not, or not at all."""
    seconds = scene.seconds(5, 15)
    state = scene.rng.choice([ServerState.ONLINE, ServerState.OFFLINE])
    scene.plant_server(slot.peer_id, scene.any_span(slot.plan.num_blocks), slot.plan.throughput, state, seconds)
    await asyncio.sleep(seconds)


async def claim_falsely(scene: Scene, slot: Slot) -> None:
    """Somebody claims in the names of servers that they are about to move."""
    seconds = scene.seconds(5, 15)
    for other in scene.rng.sample(scene.swarm.slots, 4):
        length = other.plan.num_blocks
        claim = Claim(
            scene.any_span(length),
            scene.any_span(length),
            time.time() - 5,
            time.time() + seconds,
            other.plan.throughput,
        )
        value = encode_value(sidecar_to_wire(Sidecar(other.peer_id, None, 1.0, claim=claim)))
        scene.plant(board_key(scene.swarm.model), other.peer_id, value, seconds)
    del slot
    await asyncio.sleep(seconds)


# ---------------------------------------------------------------- the machine


async def fill_the_disk(scene: Scene, slot: Slot) -> None:
    """No file may be written to by the sidecar, the log neither."""
    await _limited(scene, slot, resource.RLIMIT_FSIZE, 0)


async def use_up_descriptors(scene: Scene, slot: Slot) -> None:
    await _limited(scene, slot, resource.RLIMIT_NOFILE, 3)


async def _limited(scene: Scene, slot: Slot, what: int, limit: int) -> None:
    pid = _running(slot.sidecar).pid
    with suppress(ProcessLookupError):
        soft, hard = resource.prlimit(pid, what)
        resource.prlimit(pid, what, (limit, hard))
        try:
            await asyncio.sleep(scene.seconds(2, 12))
        finally:
            resource.prlimit(pid, what, (soft, hard))


async def hold_the_journal(scene: Scene, slot: Slot) -> None:
    """Somebody keeps the journal from being written, for longer than the sidecar waits."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(slot.journal, timeout=5)) as database:
        database.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(scene.seconds(4, 12))


async def damage_the_journal(scene: Scene, slot: Slot) -> None:
    """It is damaged while the sidecar is down, refused at the start, and put away by the operator."""
    await scene.swarm.crash_sidecar(slot)
    scene.crashes += 1
    with slot.journal.open("r+b") as file:
        file.write(b"\xa5" * 512)
    for neighbour in slot.folder.glob(f"{slot.journal.name}-*"):
        neighbour.unlink()
    try:
        await scene.swarm.start_sidecar(slot)
        scene.broken_rules.append(f"the sidecar of {slot.name} took a damaged journal")
    except ProcessFailedError:
        slot.journal.rename(slot.folder / f"damaged-{len(scene.faults)}")
        await scene.swarm.start_sidecar(slot)


KINDS: dict[str, Kind] = {
    "sidecar: SIGKILL": Kind(kill_sidecar),
    "sidecar: SIGKILL in a move": Kind(kill_sidecar_in_a_move),
    "sidecar: SIGTERM": Kind(end_sidecar),
    "sidecar: SIGSTOP and SIGCONT": Kind(stop_sidecar),
    "sidecar crashes again and again": Kind(crash_sidecar_again_and_again),
    "p2pd of the sidecar killed": Kind(kill_sidecars_p2pd),
    "p2pd of the sidecar frozen": Kind(stop_sidecars_p2pd),
    "server: SIGKILL": Kind(kill_server),
    "server: SIGKILL in a move": Kind(kill_server_in_a_move),
    "server: SIGTERM": Kind(end_server),
    "server: SIGSTOP and SIGCONT": Kind(stop_server, hides=True),
    "server crashes again and again": Kind(crash_server_again_and_again),
    "p2pd of the server killed": Kind(kill_servers_p2pd),
    "p2pd of the server frozen": Kind(stop_servers_p2pd, hides=True),
    "server hangs in JOINING": Kind(hang_in_joining),
    "server fails to load": Kind(fail_to_load),
    "own record missing": Kind(say_nothing_to_the_swarm, hides=True),
    "server lies about its state": Kind(lie_about_its_state),
    "control socket gone": Kind(lose_the_socket),
    "control socket replaced": Kind(replace_the_socket),
    "control socket never answers": Kind(never_answer),
    "control socket answers byte by byte": Kind(answer_byte_by_byte),
    "bootstrap peers gone": Kind(lose_bootstrap_peers, hides=True, of_all=True, of_peers=True),
    "p2pd of the bootstrap peers frozen": Kind(freeze_bootstrap_peers, hides=True, of_all=True, of_peers=True),
    "records lost": Kind(forget_records, hides=True, of_all=True, of_peers=True),
    "half of the keys unreadable": Kind(make_keys_unreadable, hides=True, of_all=True),
    "hostile records": Kind(plant_junk, of_all=True),
    "a server that is not there": Kind(boast, invents=True, of_all=True),
    "record overwritten": Kind(overwrite_a_record, hides=True, invents=True, of_all=True),
    "false claims": Kind(claim_falsely, invents=True, of_all=True),
    "disk full": Kind(fill_the_disk),
    "file descriptors used up": Kind(use_up_descriptors),
    "journal cannot be written": Kind(hold_the_journal),
    "journal corrupted": Kind(damage_the_journal),
}
"""Every kind of fault. "Peers flapping" is what the others come to; a clock cannot be set for one process."""
