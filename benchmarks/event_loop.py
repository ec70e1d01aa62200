"""How long a sidecar's event loop stands still in checks of large swarms: `make bench-dht`.

A whole sidecar runs: reading, checking, deciding, journal, HTTP. Its DHT is one in memory (`memory_dht`), which answers with
the bytes that real peers would send; the time of making an answer is the benchmark's and is taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

import yaml
from aiohttp import ClientSession

from benchmarks.memory_dht import MODEL, MemoryDht, peer_id, records
from benchmarks.result_file import ROOT, Result, Table, Text, machine, write_result
from swarmkeel.config import load_config
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.control.server import ControlServer
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.daemon.loop_watch import LoopWatch, tame_collector
from swarmkeel.daemon.service import Sidecar
from swarmkeel.swarm.span import Span

BLOCKS: Final = 126
LENGTHS: Final = (8, 40)
LIMIT: Final = 0.05
"""Seconds that no turn should take."""


@dataclass(frozen=True)
class Measured:
    """What one swarm showed.

    Attributes:
        servers: Number of servers.
        checks: Seconds of each check.
        computing: Seconds of processor time of each, on the loop and in threads.
        longest: Seconds of the longest turn in each check.
        longest_computed: Seconds of computing in the turn of each check that computed longest.
        over: Turns over the limit in all checks.
        over_computed: Turns that computed for longer than the limit.
        turns: Turns in all checks.
        resident: Resident memory after the last check, bytes, without what the benchmark itself holds.
        calls: Questions to peers in the last check.
        bytes_read: Bytes of their answers.
    """

    servers: int
    checks: Sequence[float]
    computing: Sequence[float]
    longest: Sequence[float]
    longest_computed: Sequence[float]
    over: int
    over_computed: int
    turns: int
    resident: int
    calls: int
    bytes_read: int


class _Server:
    """The own server, one of the swarm's."""

    def __init__(self, span: Span) -> None:
        self._status = ServerStatus(
            "stand-in/1", peer_id(0), MODEL, BLOCKS, span.end - span.start, 50.0, ServerPhase.ONLINE, span
        )

    def status(self) -> ServerStatus:
        return self._status

    def restart(self, _: object) -> None:
        """Dry run: never told."""


def measure(servers: int, checks: int) -> Measured:
    """Run a sidecar in a swarm of so many servers for some checks."""
    held = records(servers, BLOCKS, LENGTHS)
    own = [block for block, there in held.items() if peer_id(0) in there]
    dht = MemoryDht(held)
    del held
    tame_collector()  # as `swarmkeel run` does; what the benchmark holds is not looked through either
    before = _resident()
    watch = LoopWatch()
    with tempfile.TemporaryDirectory(prefix="sk-") as name, dht.in_place():
        folder = Path(name)
        server = ControlServer(folder / "s.sock", _Server(Span(own[0], own[-1] + 1)))
        server.start()
        try:
            with asyncio.Runner(loop_factory=watch.new_loop) as runner:
                return runner.run(_run(folder, dht, watch, servers=servers, checks=checks, before=before))
        finally:
            server.close()


async def _run(folder: Path, dht: MemoryDht, watch: LoopWatch, *, servers: int, checks: int, before: int) -> Measured:
    path = folder / "config.yaml"
    address = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(-2)}"
    path.write_text(
        yaml.safe_dump(
            {
                "swarm": {
                    "dht_prefix": MODEL,
                    "total_blocks": BLOCKS,
                    "initial_peers": [address],
                    "read_timeout": 120,
                },
                "server": {"socket": str(folder / "s.sock")},
                "balance": {"dry_run": True, "check_period": 3600},
                "journal": {"path": str(folder / "journal.sqlite")},
                "http": {"port": 0},
            }
        )
    )
    sidecar = Sidecar(load_config(path), config_path=path, loop_watch=watch)
    turns: list[float] = []
    computing: list[float] = []

    def note(seconds: float) -> None:
        turns.append(seconds)
        computing.append(time.thread_time())

    running = asyncio.create_task(sidecar.run())
    taken, computing_all, longest, longest_computed = [], [], [], []
    over = over_computed = count = 0
    calls = read = 0
    try:
        while sidecar.state.last_check_at is None:  # noqa: ASYNC110 - nothing is told when the first check is over
            await asyncio.sleep(0.05)
        for _ in range(checks):
            turns.clear()
            computing[:] = [time.thread_time()]
            watch.listen(note)
            calls, read = dht.calls, dht.bytes_sent
            started, cpu = time.perf_counter(), time.process_time()
            record = await sidecar._loop.check_now()  # noqa: SLF001 - as its admin socket does
            taken.append(time.perf_counter() - started)
            computing_all.append(time.process_time() - cpu)
            if record.decision.before is None:
                raise RuntimeError(record.decision.sentence)
            calls, read = dht.calls - calls, dht.bytes_sent - read
            async with (
                ClientSession() as client,
                client.get(
                    f"http://127.0.0.1:{sidecar._http.port}/api/v1/swarm"  # noqa: SLF001
                ) as answer,
            ):
                await answer.read()
            longest.append(max(turns))
            computed = [after - before for before, after in itertools.pairwise(computing)]
            longest_computed.append(max(computed))
            over_computed += sum(turn > LIMIT for turn in computed)
            over += sum(turn > LIMIT for turn in turns)
            count += len(turns)
        resident = _resident() - before
    finally:
        sidecar.stop()
        await running
    return Measured(
        servers, taken, computing_all, longest, longest_computed, over, over_computed, count, resident, calls, read
    )


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--servers", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--checks", type=int, default=5)
    arguments = parser.parse_args()
    configure_logging("error", "json")
    all_measured = []
    for servers in arguments.servers:
        all_measured.append(measure(servers, arguments.checks))
        print(all_measured[-1], flush=True)
    print("written to", write_result(_result(all_measured)).relative_to(ROOT))
    if any(measured.over_computed for measured in all_measured):
        raise SystemExit(f"a turn computed for more than {LIMIT * 1000:.0f} ms")


def _result(all_measured: Sequence[Measured]) -> Result:
    text = f"""\
A whole sidecar, as `swarmkeel run` has it, checks swarms of {BLOCKS} blocks whose servers hold {LENGTHS[0]} to {LENGTHS[1]}
of them: reading, checking every record, deciding, journal, and the swarm's JSON over HTTP after every check. Its DHT is in
memory: the answers are the bytes that hivemind's peers would send, and go through the same code from there on, whereas p2pd
and the network between are left out. {len(all_measured[0].checks)} checks each after a first one; all of them read
everything thoroughly, the dearest case.

A *turn* is the time from one look at what has come in to the next. *Computing* is the processor time of the loop's thread in
the turn that had most of it; *clock* is the longest turn by the clock, in which it also counts when the machine has
other things to do or another thread holds the interpreter. No turn may compute for more than {LIMIT * 1000:.0f} ms, or the
benchmark fails. In a running sidecar `swarmkeel_event_loop_turn_seconds` and `swarmkeel_event_loop_longest_turn_seconds`
measure the same by the clock.
"""
    rows = [
        [
            f"{one.servers:,}",
            f"{max(one.longest_computed) * 1000:.0f}",
            f"{max(one.longest) * 1000:.0f}",
            f"{one.over} of {one.turns:,}",
            f"{median(one.computing):.2f}",
            f"{one.bytes_read / 1e6:.0f}",
            f"{one.resident / 1e6:.0f}",
        ]
        for one in all_measured
    ]
    columns = (
        "servers",
        "longest turn, computing (ms)",
        "longest turn, clock (ms)",
        "turns over 50 ms by the clock",
        "processor seconds a check",
        "MB read a check",
        "memory on top (MB)",
    )
    return Result(
        "event-loop",
        "The event loop in large swarms",
        31,
        "make bench-dht",
        machine(),
        [Text(text), Table(columns, rows)],
        {"measured": [asdict(one) for one in all_measured]},
    )


if __name__ == "__main__":
    main()
