"""A swarm as large as this machine carries, with real sidecars on a real DHT: `make bench-scale`.

The DHT's peers are real (`dht_farm`), and so are the sidecars: `swarmkeel run`, one process and one p2pd each. The servers
are announcements that the farm renews; those with a sidecar have a control socket too and move when they are told to. The
same sidecars see the swarm grow, and at each size all servers of the last block fall silent at once.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.request import urlopen

import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.line_process import LineProcess, children, cpu_seconds
from benchmarks.memory_dht import MODEL, MemoryDht, peer_id, records
from benchmarks.result_file import ROOT, Result, Table, Text, machine, write_result
from swarmkeel.control.protocol import RestartPhase, RestartRequest, RestartStatus, ServerPhase, ServerStatus
from swarmkeel.control.server import ControlServer
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.demo.processes import ChildProcess
from swarmkeel.swarm.reader import SwarmReader
from swarmkeel.swarm.span import Span

BLOCKS: Final = 32
LENGTH: Final = 8
SIZES: Final = (25, 100, 300)
GUARDS: Final = 3
"""So many servers hold the last blocks until they go silent."""
LIFETIME: Final = 20.0
RENEWAL: Final = LIFETIME / 2
LOAD: Final = 2.0
CHECK_PERIOD: Final = 5.0
SETTLE: Final = 1.5
WATCHED: Final = 30.0
"""Seconds for which load is measured at each size."""
PATIENCE: Final = 120.0
MEMORY_SIZES: Final = (10, 30, 100, 300, 1000)


class Server:
    """One announced server; also the callbacks of its control socket, if it has one."""

    def __init__(self, number: int, span: Span) -> None:
        self.peer_id = peer_id(number)
        self.span = span
        self.online_at = 0.0
        self.requests = 0
        self._request: RestartRequest | None = None

    @property
    def is_online(self) -> bool:
        """Whether it has loaded its blocks."""
        return time.monotonic() >= self.online_at

    def status(self) -> ServerStatus:
        """Tell the control socket what it does."""
        state, phase = ServerPhase.JOINING, RestartPhase.LOADING
        if self.is_online:
            state, phase = ServerPhase.ONLINE, RestartPhase.ONLINE
        restart = self._request and RestartStatus(self._request.id, self._request.span, phase)
        return ServerStatus("stand-in/1", self.peer_id, MODEL, BLOCKS, LENGTH, 10.0, state, self.span, restart=restart)

    def restart(self, request: RestartRequest) -> None:
        """Move, as it is told."""
        self.requests += 1
        self._request = request
        self.span, self.online_at = request.span, time.monotonic() + LOAD

    def announcement(self) -> list[Any]:
        """Give state, throughput and span for the farm."""
        return [2 if self.is_online else 1, 10.0, self.span.start, self.span.end]


@dataclass(frozen=True)
class Seen:
    """What one size of the swarm showed.

    Attributes:
        servers: Announced servers.
        sidecars: Real sidecars among them.
        checks_a_second: Of all sidecars together.
        cpu_a_check: Processor time of daemon and p2pd, seconds.
        calls_a_check: Questions to DHT peers.
        mb_a_check: Megabytes of the answers.
        closed_after: Seconds from when the servers of the last block fell silent until every block was served again; None if
            that took longer than the benchmark waits.
        moves: Moves that were made for that.
    """

    servers: int
    sidecars: int
    checks_a_second: float
    cpu_a_check: float
    calls_a_check: float
    mb_a_check: float
    closed_after: float | None
    moves: int


class Swarm:
    """The servers, the farm that announces them, and the sidecars beside some of them."""

    def __init__(self, farm: LineProcess, sidecars: int) -> None:
        self.farm = farm
        self.guards = [Server(number, Span(BLOCKS - LENGTH, BLOCKS)) for number in range(GUARDS)]
        self.watched = [self._placed(GUARDS + number) for number in range(sidecars)]
        self.others: list[Server] = []
        self.silent: set[str] = set()
        self._told: dict[str, tuple[list[Any], float]] = {}
        self.processes: list[ChildProcess] = []
        self.urls: list[str] = []

    @staticmethod
    def _placed(number: int) -> Server:
        """Place a server anywhere but on the last blocks."""
        start = number * 5 % (BLOCKS - 2 * LENGTH + 4)
        return Server(number, Span(start, start + LENGTH))

    @property
    def servers(self) -> list[Server]:
        """All of them, the silent ones too."""
        return [*self.guards, *self.watched, *self.others]

    async def announce(self) -> None:
        """Tell the farm what is served where: what has changed, and what is due to be renewed."""
        now = time.monotonic()
        told: dict[str, list[Any]] = {}
        for number, server in enumerate(self.servers):
            said = server.announcement()
            former, due = self._told.get(server.peer_id, ([], 0.0))
            if server.peer_id in self.silent or (said == former and now < due):
                continue
            told[server.peer_id] = said
            # Not all in the same moment, as nowhere else.
            self._told[server.peer_id] = (said, now + RENEWAL * (1 if former else (number % 10) / 10))
        await self.farm.ask(announce={"prefix": MODEL, "servers": told, "lifetime": LIFETIME})

    def holes(self) -> int:
        """Count the blocks that nobody serves."""
        served = Counter(
            block
            for server in self.servers
            if server.peer_id not in self.silent and server.is_online
            for block in range(server.span.start, server.span.end)
        )
        return sum(not served[block] for block in range(BLOCKS))

    async def keep_announced(self) -> None:
        """Announce again and again, as servers do."""
        while True:
            await self.announce()
            await asyncio.sleep(1.0)

    async def scrape(self) -> dict[str, float]:
        """Add up what the sidecars count, and their processor time."""
        total: defaultdict[str, float] = defaultdict(float)
        for url in self.urls:
            text = await asyncio.to_thread(_get, url)
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    total[sample.name] += sample.value
        total["cpu"] = sum(
            cpu_seconds(pid) for process in self.processes for pid in (process.pid, *children(process.pid))
        )
        return total

    async def watch(self) -> dict[str, float]:
        """Let it run for a while and give what was counted meanwhile."""
        before, started = await self.scrape(), time.monotonic()
        await asyncio.sleep(WATCHED)
        after = await self.scrape()
        counted = {name: value - before.get(name, 0.0) for name, value in after.items()}
        return {**counted, "seconds": time.monotonic() - started}

    async def close_hole(self) -> tuple[float | None, int]:
        """Silence all servers of the last block, and see how long blocks stay uncovered."""
        requests = sum(server.requests for server in self.watched)
        self.silent = {server.peer_id for server in self.servers if server.span.end == BLOCKS}
        began = time.monotonic()
        if not self.holes():
            raise RuntimeError("somebody serves everything still")
        while self.holes() and time.monotonic() < began + PATIENCE:  # noqa: ASYNC110 - time itself is waited for
            await asyncio.sleep(0.1)
        took = time.monotonic() - began if not self.holes() else None
        return took, sum(server.requests for server in self.watched) - requests

    async def restore(self) -> None:
        """Let the silent servers speak again; what sidecars have moved stays where it is."""
        self.silent = set()
        self._told.clear()
        await self.announce()

    def grow(self, count: int) -> None:
        """Let there be so many servers."""
        while len(self.servers) < count:
            self.others.append(self._placed(len(self.servers)))


def _get(url: str) -> str:
    with urlopen(f"{url}/metrics", timeout=20) as answer:  # noqa: S310 - on the loopback interface
        return str(answer.read().decode())


def _config(folder: Path, addresses: Sequence[str]) -> dict[str, Any]:
    return {
        "swarm": {
            "dht_prefix": MODEL,
            "total_blocks": BLOCKS,
            "initial_peers": list(addresses),
            "read_timeout": 20,
        },
        "server": {"socket": str(folder / "s.sock")},
        "balance": {"load_seconds": LOAD, "check_period": CHECK_PERIOD},
        "claims": {"settle": SETTLE, "lifetime": 30},
        "guards": {"cooldown": 5, "minimum_uptime": 0, "moves_per_day": 1000, "breaker_base": 5},
        "move": {"drain": 0, "restart_timeout": 60, "verify_timeout": 30, "poll_period": 0.5},
        "journal": {"path": str(folder / "journal.sqlite")},
        "http": {"port": 0},
        "log": {"format": "json"},
    }


async def measure(sizes: Sequence[int], sidecars: int, peers: int) -> list[Seen]:
    """Run the real swarm."""
    seen: list[Seen] = []
    with tempfile.TemporaryDirectory(prefix="sk-") as name:
        async with LineProcess.running([sys.executable, "-m", "benchmarks.dht_farm"]) as farm:
            addresses = await farm.ask(peers=peers)
            swarm = Swarm(farm, sidecars)
            announcing = asyncio.create_task(swarm.keep_announced())
            sockets: list[ControlServer] = []
            try:
                for number, server in enumerate(swarm.watched):
                    folder = Path(name) / str(number)
                    folder.mkdir(mode=0o700)
                    socket = ControlServer(folder / "s.sock", server)
                    socket.start()
                    sockets.append(socket)
                    config = folder / "config.yaml"
                    config.write_text(yaml.safe_dump(_config(folder, addresses[:3])))
                    command = [sys.executable, "-m", "swarmkeel", "run", "-c", str(config)]
                    process = await ChildProcess.start(f"sidecar {number}", command, folder / "sidecar.log")
                    swarm.processes.append(process)
                for process in swarm.processes:
                    await process.wait_for_log('"event": "check"', seconds=240)
                    http = re.search(r'"http": "([^"]+)"', process.log_path.read_text())
                    swarm.urls += [http[1]] if http else []
                for size in sizes:
                    swarm.grow(size)
                    await swarm.announce()
                    await asyncio.sleep(3 * CHECK_PERIOD)
                    counted = await swarm.watch()
                    if announcing.done():
                        announcing.result()  # raises what ended it
                    closed_after, moves = await swarm.close_hole()
                    checks = max(counted["swarmkeel_decisions_total"], 1)
                    seen.append(
                        Seen(
                            len(swarm.servers),
                            len(swarm.watched),
                            checks / counted["seconds"],
                            counted["cpu"] / checks,
                            counted["swarmkeel_dht_calls_total"] / checks,
                            counted["swarmkeel_dht_received_bytes_total"] / checks / 1e6,
                            closed_after,
                            moves,
                        )
                    )
                    print(seen[-1], flush=True)
                    await swarm.restore()
                    await asyncio.sleep(3 * CHECK_PERIOD)
            finally:
                announcing.cancel()
                await asyncio.gather(*(process.end() for process in swarm.processes))
                for socket in sockets:
                    socket.close()
    return seen


@dataclass(frozen=True)
class Load:
    """What one reading costs where every server is a peer of the DHT: questions and megabytes, thorough and calm."""

    servers: int
    thorough_calls: int
    thorough_mb: float
    calm_calls: int
    calm_mb: float


async def load(servers: int) -> Load:
    """Read a swarm in memory whose servers are the DHT's peers too, 80 blocks and spans of 12 to 30."""
    dht = MemoryDht(records(servers, 80, (12, 30)), peers=servers)
    found = []
    with dht.in_place():
        reader = SwarmReader([f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(-2)}"], MODEL, 80, read_timeout=300)
        for thorough in (True, True, False):
            calls, sent = dht.calls, dht.bytes_sent
            await reader.read(thorough=thorough)
            found.append((dht.calls - calls, (dht.bytes_sent - sent) / 1e6))
        await reader.close()
    return Load(servers, *found[1], *found[2])


def _result(seen: Sequence[Seen], loads: Sequence[Load], peers: int) -> Result:
    real = f"""\
{peers} real DHT peers and {seen[0].sidecars if seen else 0} real sidecars (`swarmkeel run`, policy `coordinated`), each with
a p2pd of its own, in a swarm of {BLOCKS} blocks that grows while they run. The other servers are announcements that hold
for {LIFETIME:.0f} seconds and are renewed at half of that. A check every {CHECK_PERIOD:.0f} seconds, claims that settle for {SETTLE} seconds, {LOAD:.0f}
seconds to load. At each size all servers of the last block fall silent at once, without a goodbye, and the time counts from there
until every block is served again: their records go on for up to {LIFETIME:.0f} seconds, of which sidecars doubt the second
half, then come a check, the settling of a claim, and the loading. One run; all of it shares this machine's processors with
whatever else runs there.
"""
    memory = """\
### Load on the DHT where every server is a peer

Questions and megabytes of one reading, counted at peers in memory (80 blocks, spans of 12 to 30, records of 0.8 KB), where
there are as many peers as servers. Where each server has a sidecar, each peer answers on average as much as one sidecar asks:
the last column, with one check a minute, three of four of them calm. It grows with the number of servers: everybody reads
everything.
"""
    limits = """\
### What limits it at internet scale

- **Everybody reads everything.** Bytes a check are servers x blocks a server x bytes a record x copies. hivemind has no
  question "what has changed since", so a check that finds nothing new costs as much as one that does. With 1,000 servers and a
  check a minute every peer sends and receives about a megabyte a second; with 10,000 it would be ten, 80 Mbit/s. This, not
  the deciding, is the limit. A longer `balance.check_period` divides it.
- **One answer holds 4 MiB**, so that a block with more than some 5,000 servers cannot be read at all, and **one sidecars' key**
  holds what all sidecars tell: 8,000 of them at 500 bytes.
- **A reading has a deadline** (`swarm.read_timeout`, 15 seconds): 100 MB in that time need 55 Mbit/s.
- **A hole is seen when records end.** Of the time until a hole is closed, most is the records' life (2 to 4 minutes with
  Petals), the wait for the next check, and the loading of weights; the size of the swarm adds little.

What would have to change, in this order: records without the pings to other servers, which are most of their bytes, or with
them under one key alone; one key a server for what is the same under all its blocks, with block keys that hold names and
versions; a question for what is newer than a given time, or digests that tell that nothing is. Until then checks have to
become rarer as the swarm grows.
"""
    rows = [
        [
            str(one.servers),
            str(one.sidecars),
            f"{one.checks_a_second:.2f}",
            f"{one.cpu_a_check * 1000:.0f}",
            f"{one.calls_a_check:.0f}",
            f"{one.mb_a_check:.2f}",
            "not closed" if one.closed_after is None else f"{one.closed_after:.1f}",
            str(one.moves),
        ]
        for one in seen
    ]
    load_rows = [
        [
            str(one.servers),
            f"{one.thorough_calls}",
            f"{one.thorough_mb:.1f}",
            f"{one.calm_calls}",
            f"{one.calm_mb:.1f}",
            f"{(one.thorough_mb + 3 * one.calm_mb) / 4 / 60 * 1000:.0f}",
        ]
        for one in loads
    ]
    return Result(
        "scale-dht",
        "Scale: real sidecars on a real DHT",
        50,
        "make bench-scale",
        machine(),
        [
            Text(real),
            Table(
                (
                    "servers",
                    "sidecars",
                    "checks a second",
                    "processor time a check (ms)",
                    "questions a check",
                    "MB a check",
                    "hole closed after (s)",
                    "moves",
                ),
                rows,
            ),
            Text(memory),
            Table(
                (
                    "servers and peers",
                    "questions, thorough",
                    "MB, thorough",
                    "questions, calm",
                    "MB, calm",
                    "kB a second at each peer",
                ),
                load_rows,
            ),
            Text(limits),
        ],
        {"real": [asdict(one) for one in seen], "memory": [asdict(one) for one in loads]},
    )


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--sidecars", type=int, default=20)
    parser.add_argument("--peers", type=int, default=10)
    arguments = parser.parse_args()
    configure_logging("error", "json")
    loads = [asyncio.run(load(servers)) for servers in MEMORY_SIZES]
    for one in loads:
        print(one, flush=True)
    seen = asyncio.run(measure(arguments.sizes, arguments.sidecars, arguments.peers))
    print("median checks a second", median(one.checks_a_second for one in seen))
    print("written to", write_result(_result(seen, loads, arguments.peers)).relative_to(ROOT))


if __name__ == "__main__":
    main()
