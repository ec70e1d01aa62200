"""Reading a swarm from a real DHT, beside Petals' own reading of the same: `make bench-dht`.

The peers are in a process of their own (`dht_farm`), Petals' reader in another (`petals_reader`). They are asked in turn:
Swarmkeel thoroughly, Petals, Swarmkeel as in calm times, so that what else the machine does strikes all.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.line_process import LineProcess, children, cpu_seconds
from benchmarks.result_file import ROOT, Result, Table, Text, machine, write_result
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.daemon.loop_watch import LoopWatch, tame_collector
from swarmkeel.swarm.reader import SwarmReader

PETALS_PYTHON: Final = Path(os.environ.get("PETALS_PYTHON", ROOT / ".venv-petals" / "bin" / "python"))
_JOINS: Final = 3
"""Petals' reader may join so many times: peers that do not answer at once on a busy machine are gone for it, and stay so."""
READERS: Final = ("Swarmkeel, thorough", "Petals", "Swarmkeel, calm")


@dataclass(frozen=True)
class Case:
    """One swarm to read: peers of the DHT, blocks, servers and the lengths of their spans."""

    peers: int
    blocks: int
    servers: int
    lengths: tuple[int, int]
    rounds: int = 7


CASES: Final = (
    Case(10, 32, 50, (8, 24)),
    Case(10, 80, 200, (16, 48)),
    Case(30, 80, 200, (16, 48)),
    Case(30, 126, 200, (30, 70), 5),
    Case(10, 36, 1300, (24, 34), 3),
)


@dataclass
class Row:
    """What one reader needed for the readings that found all keys.

    Attributes:
        seconds: Of each reading.
        cpu: Processor time of each, of the reader with its p2pd.
        calls: Questions that the peers answered, of each.
        megabytes: Of their answers.
        keys: Keys with servers that were found, in every reading.
        digests: Of what was found, of the readings that found all keys.
    """

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)


@dataclass
class Measured:
    """What a case showed."""

    case: Case
    planted: dict[str, float]
    rows: dict[str, Row]
    longest_turn: float
    longest_computed: float


async def measure(case: Case, watch: LoopWatch) -> Measured:
    """Run one case."""
    rows = {name: Row() for name in READERS}
    turns: list[tuple[float, float]] = []
    async with (
        LineProcess.running([sys.executable, "-m", "benchmarks.dht_farm"]) as farm,
        LineProcess.running([PETALS_PYTHON, "-m", "benchmarks.petals_reader"]) as petals,
    ):
        addresses = await farm.ask(peers=case.peers)
        swarm = {"prefix": "m", "servers": case.servers, "blocks": case.blocks, "lengths": case.lengths}
        planted = await farm.ask(plant=swarm)
        await petals.ask(initial_peers=addresses[:3], blocks=case.blocks)
        for _ in range(_JOINS):
            if (await petals.ask(prefix="m", blocks=case.blocks))["keys"] == case.blocks:
                break
            await petals.ask(reopen=True)
        reader = SwarmReader(addresses[:3], "m", case.blocks, read_timeout=60.0)

        async def ours(*, thorough: bool) -> dict[str, Any]:
            await reader.open()
            processes = [os.getpid(), *children(os.getpid(), "p2pd")]
            cpu, started = sum(map(cpu_seconds, processes)), time.perf_counter()
            turns.append((0.0, time.thread_time()))
            watch.listen(lambda seconds: turns.append((seconds, time.thread_time())))
            snapshot = await reader.read(thorough=thorough)
            watch.listen(lambda _: None)
            seconds = time.perf_counter() - started
            cpu = sum(map(cpu_seconds, processes)) - cpu
            found = [sorted(block.servers) for block in snapshot.blocks]
            digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
            return {"seconds": seconds, "cpu": cpu, "keys": sum(map(bool, found)), "digest": digest}

        try:
            for number in range(case.rounds + 1):
                for name in READERS:
                    before = await farm.ask(load=True)
                    if name == "Petals":
                        read = await petals.ask(prefix="m", blocks=case.blocks)
                    else:
                        read = await ours(thorough=name == READERS[0])
                    after = await farm.ask(load=True)
                    row = rows[name]
                    if number:  # the first of each is to warm up
                        row.keys.append(read["keys"])
                    if number and read["keys"] == case.blocks:
                        row.seconds.append(read["seconds"])
                        row.cpu.append(read["cpu"])
                        row.calls.append(after["calls"] - before["calls"])
                        row.megabytes.append((after["bytes"] - before["bytes"]) / 1e6)
                        row.digests.add(read["digest"])
        finally:
            await reader.close()
    computed = [after[1] - before[1] for before, after in itertools.pairwise(turns) if after[0]]
    return Measured(case, planted, rows, max(turn for turn, _ in turns), max(computed))


def _cells(row: Row, petals: Row) -> list[str]:
    if not row.seconds:
        return [f"(found {min(row.keys)} to {max(row.keys)} keys)", "-", "-", "-", "-"]
    ratio = f"{median(row.seconds) / median(petals.seconds):.2f}" if petals.seconds else "-"
    return [
        f"{median(row.seconds):.2f} ({min(row.seconds):.2f} to {max(row.seconds):.2f})",
        ratio,
        f"{median(row.cpu):.2f}",
        f"{median(row.calls):.0f}",
        f"{median(row.megabytes):.1f}",
    ]


def _result(all_measured: Sequence[Measured]) -> Result:
    rows, turns = [], []
    for measured in all_measured:
        case = measured.case
        petals = measured.rows["Petals"]
        for name, row in measured.rows.items():
            rows.append(
                [
                    f"{case.peers} peers, {case.blocks} blocks, {case.servers} servers",
                    name,
                    f"{len(row.seconds)} of {len(row.keys)}",
                    *_cells(row, petals),
                ]
            )
        turns.append(
            [
                f"{case.peers} peers, {case.blocks} blocks, {case.servers} servers",
                f"{measured.planted['records']:.0f}",
                f"{measured.planted['bytes'] / 1e6:.1f}",
                f"{measured.longest_computed * 1000:.0f}",
                f"{measured.longest_turn * 1000:.0f}",
            ]
        )
    text = """\
Swarmkeel's reader and Petals' own (`get_remote_module_infos(latest=True)`, what a Petals server reads before it decides) read
the same records from the same live peers on the loopback interface, in turn, after a reading each to warm up. Medians, with
the smallest and the largest. Processor time is that of the reader and its p2pd; questions and megabytes are counted at the
peers, answers alone. A *whole* reading found servers under every key; only those are in the other columns, and all of them
found the same servers. Where a reading was not whole, peers had not answered in hivemind's 3 seconds on a busy machine, or their
answer would have been over 4 MiB: Petals' reader then takes them for gone, and reads on with fewer of them or with none. It
is given three attempts to join before the first round.

*Thorough* asks all peers that may hold a record, ten a key, as it is done before every move and in one of four readings at
least. *Calm* is what is done while the swarm is balanced: three of the five peers that hold a key are asked, all of them if
these do not agree or do not show what was seen before.

There is no delay between the peers here, and peers and readers share the processors: what carries over is the number of
questions, the megabytes and the processor time, not the seconds.
"""
    limit = """\
### The limit of an answer

hivemind's peers send no answer over 4 MiB, nor an error in its place. Petals asks for several keys at once, whatever they
weigh, takes a peer that does not answer for gone, and finds nothing under those keys. Swarmkeel takes as many keys into one
question as weighed 1 MiB together in the last reading; before the first answer it takes two. What is left is hivemind's own
limit for a single key: some 5,000 servers of Petals' usual records under one block.

### How long the event loop stands still

The longest turn of the event loop in all these readings: by processor time, and by the clock, in which whatever else the
machine did counts too. Answers are read one after the other and in pieces of 256 KiB.
"""
    load = """\
### Why not every key need be read, and why each is

A record carries its server's whole span, so that under a tenth of the keys every server could be seen. That is not done: the
DHT's records are unsigned, anybody may overwrite one, and what is under the other keys would be taken from a single record's
word. Keeping what was read under the other keys without that is no way either: a Petals server's records hold for 2 to 4
minutes and are renewed at half of that, so that with a check a minute nearly every key holds a record that ends before the
next check but one, and must be read again before it does, lest a server that is there looks gone. What is saved is therefore
copies, two of five, and questions.
"""
    return Result(
        "dht-reading",
        "Reading the swarm, and the load on the DHT",
        30,
        "make bench-dht",
        machine(),
        [
            Text(text),
            Table(
                (
                    "swarm",
                    "reader",
                    "whole readings",
                    "seconds",
                    "against Petals",
                    "processor seconds",
                    "questions",
                    "MB",
                ),
                rows,
            ),
            Text(limit),
            Table(("swarm", "records", "MB of one copy", "longest, computing (ms)", "longest, clock (ms)"), turns),
            Text(load),
        ],
        {
            "cases": [
                {
                    "case": asdict(m.case),
                    "planted": m.planted,
                    "longest_turn": m.longest_turn,
                    "longest_computed": m.longest_computed,
                    "readers": {
                        name: {
                            "keys": row.keys,
                            "seconds": row.seconds,
                            "cpu": row.cpu,
                            "calls": row.calls,
                            "mb": row.megabytes,
                        }
                        for name, row in m.rows.items()
                    },
                }
                for m in all_measured
            ]
        },
    )


def main() -> None:
    """Measure all cases and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)), help="numbers of the cases")
    arguments = parser.parse_args()
    configure_logging("error", "json")
    tame_collector()
    all_measured = []
    for number in arguments.cases:
        watch = LoopWatch()
        with asyncio.Runner(loop_factory=watch.new_loop) as runner:
            measured = runner.run(measure(CASES[number], watch))
        all_measured.append(measured)
        print(measured.case, measured.planted, flush=True)
        for name, row in measured.rows.items():
            print(f"  {name:20} {_cells(row, measured.rows['Petals'])} keys {row.keys}", flush=True)
        same = len(set.union(*(row.digests for row in measured.rows.values()))) == 1
        print(f"  the same servers: {same}; longest turn {measured.longest_computed:.3f} s computing", flush=True)
    print("written to", write_result(_result(all_measured)).relative_to(ROOT))


if __name__ == "__main__":
    main()
