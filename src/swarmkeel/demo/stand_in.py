"""A GPU server without a GPU: `python -m swarmkeel.demo.stand_in`.

All else is real: a process of its own that joins the DHT as a peer that others can reach, keeps the records there that
a Petals server keeps, takes as long as it is told to load its blocks, and obeys the control socket. As in Petals
(`server.py`, `ModuleAnnouncerThread`) its records are renewed every `--update-period`, hold for twice that time, and say
OFFLINE when it leaves the blocks. Once it is up it prints one line of JSON, with its peer id and its address.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog

from swarmkeel.balance.selection import choose_best_blocks
from swarmkeel.control.protocol import PrefetchRequest, RestartRequest, ServerStatus
from swarmkeel.control.server import ControlServer, Refused
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.demo.server_life import Announcement, Gpu, ServerIsBusyError, ServerLife, Step
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.announcer import Announcer
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.span import Span

_log = structlog.get_logger(__name__)

ANNOUNCE_SECONDS: Final = 4.0
"""How long one announcement may take: a DHT in trouble must not hold up the server for longer."""
_VERSION: Final = version("swarmkeel")
_RETRY_SECONDS: Final = 2.0
_LONGEST_WAIT_SECONDS: Final = 1.0
_CACHE_TOKENS: Final = 8192


@dataclass(frozen=True)
class StandInSettings:
    """What one stand-in is.

    Attributes:
        socket: Its control socket.
        dht_prefix: Name of the model in the DHT.
        total_blocks: Blocks of the model.
        num_blocks: Blocks that it can hold.
        throughput: Requests a second that it announces.
        gpu: How the GPU that is not there behaves.
        first_block: It starts with the blocks from here; None to be idle until it is told which.
        idle_limit: Idle for this many seconds, it chooses its blocks by itself; None to wait for ever.
        initial_peers: Multiaddresses of DHT peers to join through; none for the first peer of a swarm.
        identity: Key file that its peer id follows from; a new one at every start where None.
        port: TCP port of the DHT, on the loopback interface; 0 for a free one.
        public_name: Name that it announces.
        update_period: Seconds between two announcements.
        lifetime: Seconds that an announcement holds.
    """

    socket: Path
    dht_prefix: str
    total_blocks: int
    num_blocks: int
    throughput: float
    gpu: Gpu = field(default_factory=Gpu)
    first_block: int | None = None
    idle_limit: float | None = None
    initial_peers: tuple[str, ...] = ()
    identity: Path | None = None
    port: int = 0
    public_name: str | None = None
    update_period: float = 120.0
    lifetime: float = 240.0


class P2pdGoneError(SwarmkeelError):
    """The child process that connects this server to the DHT is gone."""


class StandIn:
    """One running stand-in; also the callbacks of its control socket.

    Args:
        settings: What it is.
        node: Its node of the DHT.
    """

    def __init__(self, settings: StandInSettings, node: DhtNode) -> None:
        self._settings = settings
        self._node = node
        self._announcer = Announcer(node, settings.dht_prefix, timeout=ANNOUNCE_SECONDS)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._told: Announcement | None = None
        self._renewal_due = 0.0
        # The control socket's threads and the event loop both change the life.
        self._lock = threading.Lock()
        self._life = ServerLife(settings.gpu, since=time.monotonic())
        if settings.first_block is not None:
            self._begin(settings.first_block)

    def status(self) -> ServerStatus:
        """Tell the control socket what the server does."""
        settings, life = self._settings, self._advance()
        return ServerStatus(
            implementation=f"swarmkeel-stand-in/{_VERSION}",
            peer_id=self._node.peer_id,
            dht_prefix=settings.dht_prefix,
            total_blocks=settings.total_blocks,
            num_blocks=settings.num_blocks,
            throughput=settings.throughput,
            state=life.phase,
            span=life.span,
            sessions=life.sessions,
            capabilities=("drain", "prefetch") if settings.gpu.download_seconds else ("drain",),
            restart=life.restart_status(time.monotonic()),
            prefetch=life.prefetch_status(),
        )

    def restart(self, request: RestartRequest) -> None:
        """Begin a restart that the control socket asks for."""
        with self._lock:
            try:
                self._life = self._life.accept(request, time.monotonic())
            except ServerIsBusyError as busy:
                raise Refused(HTTPStatus.CONFLICT, str(busy)) from busy
        self._loop.call_soon_threadsafe(self._changed.set)

    def prefetch(self, request: PrefetchRequest) -> None:
        """Begin a download that the control socket asks for."""
        with self._lock:
            try:
                self._life = self._life.fetch(request, time.monotonic())
            except ServerIsBusyError as busy:
                raise Refused(HTTPStatus.CONFLICT, str(busy)) from busy
        self._loop.call_soon_threadsafe(self._changed.set)

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            P2pdGoneError: If p2pd ends.
        """
        while True:
            if not self._node.is_alive:
                raise P2pdGoneError("p2pd has ended", "start the server again")
            self._changed.clear()
            await self._choose_if_idle_for_too_long()
            await self._announce(self._advance().announcement)
            await self._wait_for_something_to_do()

    async def leave(self) -> None:
        """Tell the swarm that the server leaves; once `run` has ended."""
        with self._lock:
            self._life = self._life.end(time.monotonic())
        await self._announce(self._life.announcement)

    def _begin(self, first_block: int) -> None:
        with self._lock:
            self._life = self._life.begin(Span(first_block, first_block + self._settings.num_blocks), time.monotonic())

    def _advance(self) -> ServerLife:
        with self._lock:
            self._life = self._life.advance(time.monotonic())
            return self._life

    async def _choose_if_idle_for_too_long(self) -> None:
        settings, life = self._settings, self._life
        limit = settings.idle_limit
        if limit is None or life.step is not Step.IDLE or time.monotonic() - life.since < limit:
            return
        reader = SwarmReader(
            settings.initial_peers or self._node.visible_maddrs(), settings.dht_prefix, settings.total_blocks
        )
        try:
            snapshot = await reader.read()
        except SwarmkeelError as error:
            _log.warning("choice_put_off", error=str(error))
            return
        finally:
            await reader.close()
        blocks = choose_best_blocks(settings.num_blocks, snapshot.module_infos)
        # While the swarm was read the sidecar may have come.
        with suppress(ServerIsBusyError):
            self._begin(blocks[0])
            _log.info("blocks_chosen", first_block=blocks[0])

    async def _announce(self, announcement: Announcement | None) -> None:
        """Tell the swarm what is new, or due to be told again."""
        if announcement is None or (announcement == self._told and time.monotonic() < self._renewal_due):
            return
        settings, span = self._settings, announcement.span
        info = ServerInfo(
            state=announcement.state,
            throughput=settings.throughput,
            start_block=span.start,
            end_block=span.end,
            public_name=settings.public_name,
            version=_VERSION,
            network_rps=settings.throughput,
            forward_rps=settings.throughput,
            inference_rps=settings.throughput,
            torch_dtype="float16",
            quant_type="none",
            using_relay=False,
            cache_tokens_left=_CACHE_TOKENS if announcement.state is ServerState.ONLINE else 0,
        )
        result = await self._announcer.announce(info, range(span.start, span.end), settings.lifetime)
        if not result.complete:
            _log.warning("announcement_incomplete", asked=result.asked, kept=result.kept, refused=result.refused)
        if announcement != self._told:
            _log.info("announced", state=announcement.state.name, span=str(span))
        self._told = announcement
        self._renewal_due = time.monotonic() + (
            settings.update_period if result.complete else min(settings.update_period, _RETRY_SECONDS)
        )
        if announcement.state is ServerState.OFFLINE:
            with self._lock:
                self._life = self._life.announced_leaving(time.monotonic())

    async def _wait_for_something_to_do(self) -> None:
        now, life = time.monotonic(), self._life
        if life.announcement is None or life.announcement == self._told:
            wait = min(life.due - now, self._renewal_due - now if life.span else math.inf, _LONGEST_WAIT_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait, 0)):
                    await self._changed.wait()


async def serve(settings: StandInSettings, make: Callable[[StandInSettings, DhtNode], StandIn] = StandIn) -> None:
    """Run a stand-in until SIGTERM or SIGINT.

    Args:
        settings: What it is.
        make: Makes it; tests make some that write down what they do.

    Raises:
        SwarmkeelError: If it cannot start, or p2pd ends.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    node = await DhtNode.open(
        settings.initial_peers,
        identity_path=settings.identity,
        client_mode=False,
        host_maddrs=(f"/ip4/127.0.0.1/tcp/{settings.port}",),
    )
    try:
        stand_in = make(settings, node)
        with ControlServer(settings.socket, stand_in):
            print(json.dumps({"ready": True, "peer_id": node.peer_id, "maddr": node.visible_maddrs()[0]}), flush=True)  # noqa: T201 - who started it waits for this line
            running = asyncio.create_task(stand_in.run())
            stopping = asyncio.create_task(ended.wait())
            try:
                await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
                running.cancel()
                (outcome, _) = await asyncio.gather(running, stopping, return_exceptions=True)
            if isinstance(outcome, Exception):
                raise outcome
            await stand_in.leave()
    finally:
        await node.close()


def _block_numbers(text: str) -> frozenset[int]:
    return frozenset(int(number) for number in text.split(",") if number.strip())


def parse_arguments(arguments: Sequence[str] | None = None) -> StandInSettings:
    """Read the command line; exits with status 2 and a message if it cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m swarmkeel.demo.stand_in", description="A GPU server without a GPU."
    )
    add = parser.add_argument
    add("--socket", type=Path, required=True, help="control socket to listen at")
    add("--dht-prefix", required=True, help="name of the model in the DHT")
    add("--total-blocks", type=int, required=True, help="blocks of the model")
    add("--num-blocks", type=int, required=True, help="blocks that this server can hold")
    add("--throughput", type=float, required=True, help="requests a second that it announces")
    add("--first-block", type=int, help="start with the blocks from here; left out it is idle until told which")
    add("--idle-limit", type=float, metavar="SECONDS", help="idle for so long, choose blocks without being told")
    add("--initial-peers", action="append", default=[], metavar="MADDR", help="DHT peer to join through; repeatable")
    add("--identity", type=Path, metavar="FILE", help="key file that the peer id follows from; made if missing")
    add("--port", type=int, default=0, help="TCP port of the DHT on the loopback interface; 0 for a free one")
    add("--public-name", help="name to announce")
    add("--update-period", type=float, default=120.0, metavar="SECONDS", help="time between announcements")
    add("--lifetime", type=float, metavar="SECONDS", help="how long an announcement holds; twice the update period")
    add("--load-seconds", type=float, default=2.0, metavar="SECONDS", help="how long it takes to load blocks")
    add("--download-seconds", type=float, default=0.0, metavar="SECONDS", help="how long a span takes to download")
    add("--fail-blocks", type=_block_numbers, default="", metavar="N,N", help="loading one of these fails")
    add("--hang-in-joining", type=_block_numbers, default="", metavar="N,N", help="loading one of these never ends")
    add("--sessions", type=int, default=0, help="open inference sessions while it is online")
    add("--session-seconds", type=float, default=math.inf, metavar="SECONDS", help="how long they go on when drained")
    given = parser.parse_args(arguments)
    if not 0 < given.num_blocks <= given.total_blocks:
        parser.error("--num-blocks must be between 1 and --total-blocks")
    if given.first_block is not None and not 0 <= given.first_block <= given.total_blocks - given.num_blocks:
        parser.error("--first-block must leave room for --num-blocks")
    return StandInSettings(
        socket=given.socket,
        dht_prefix=given.dht_prefix,
        total_blocks=given.total_blocks,
        num_blocks=given.num_blocks,
        throughput=given.throughput,
        gpu=Gpu(
            load_seconds=given.load_seconds,
            download_seconds=given.download_seconds,
            failing_blocks=given.fail_blocks,
            hanging_blocks=given.hang_in_joining,
            sessions=given.sessions,
            session_seconds=given.session_seconds,
        ),
        first_block=given.first_block,
        idle_limit=given.idle_limit,
        initial_peers=tuple(given.initial_peers),
        identity=given.identity,
        port=given.port,
        public_name=given.public_name,
        update_period=given.update_period,
        lifetime=2 * given.update_period if given.lifetime is None else given.lifetime,
    )


def main() -> int:
    """Run the command line."""
    settings = parse_arguments()
    configure_logging("info", "auto")
    try:
        asyncio.run(serve(settings))
    except (SwarmkeelError, OSError) as error:
        print(f"stand-in: {error}", file=sys.stderr)  # noqa: T201 - the one line that says why it ended
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
