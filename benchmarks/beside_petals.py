"""Swarmkeel beside the installed Petals, on the same records and in turn: `make bench-petals`.

    .venv/bin/python -m benchmarks.beside_petals [--quick] [--only decision] [--servers 1000]

Each contender has a process of its own, in the environment that its users have. They are asked in turn, Swarmkeel, Petals,
Swarmkeel, Petals, so that what else the machine does strikes both; every answer must be the same. What is compared is
processor time, medians of all rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks.result_file import ROOT, Result, Table, Text, machine, three_digits, write_result
from benchmarks.swarms import KINDS, Swarm, announced, find_peer
from swarmkeel.balance.imbalance import ImbalanceCheck, check_imbalance
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, compute_spans

PETALS_PYTHON: Final = Path(os.environ.get("PETALS_PYTHON", ROOT / ".venv-petals" / "bin" / "python"))
QUALITY: Final = 0.75
LEAST: Final = {1_000: 50.0, 10_000: 100.0}
"""How many times as fast as Petals a decision that searches has to be, by servers, at 126 blocks."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        function: What is called, see `benchmarks/worker.py`.
        swarm: The swarm.
        searches: The server to decide about is one whose check goes through the whole search; else one whose ends before.
        rounds: How often both are asked.
    """

    function: str
    swarm: Swarm
    searches: bool = True
    rounds: int = 5


@dataclass
class Measured:
    """What came of a case: seconds of each call, and how the check that was asked for ends."""

    case: Case
    check: ImbalanceCheck
    records: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"swarmkeel": [], "petals": []})

    @property
    def ratios(self) -> list[float]:
        """How many times as long Petals took, for each of its rounds: against the median of Swarmkeel's."""
        ours = median(self.seconds["swarmkeel"])
        return [seconds / ours for seconds in self.seconds["petals"]]

    @property
    def ratio(self) -> float:
        """Median of the ratios."""
        return median(self.ratios)


def cases(*, quick: bool) -> Iterator[Case]:
    """Give what is compared; quick: nothing that takes Petals more than a few seconds."""
    for kind in KINDS:
        yield Case("decision", Swarm(kind, 1_000, 126), rounds=3)
    yield Case("decision", Swarm("balanced", 1_000, 126, shortest=10, longest=10), rounds=2)
    yield Case("decision", Swarm("balanced", 1_000, 126, equal=True), rounds=2)
    yield Case("decision", Swarm("balanced", 1_000, 126), searches=False)
    for servers, blocks in ((10, 126), (100, 126), (1_000, 32), (1_000, 80)):
        yield Case("decision", Swarm("piled", servers, blocks), rounds=3)
    for function in ("spans", "throughputs", "choice"):
        for kind in KINDS:
            yield Case(function, Swarm(kind, 1_000, 126))
        yield Case(function, Swarm("piled", 1_000, 1_000))
    yield Case("decision", Swarm("balanced", 1_000, 1_000), searches=False, rounds=3)
    if quick:
        return
    for function in ("spans", "throughputs", "choice"):
        yield Case(function, Swarm("piled", 10_000, 126), rounds=3)
    yield Case("decision", Swarm("balanced", 10_000, 126), searches=False, rounds=3)
    for kind in KINDS:
        yield Case("decision", Swarm(kind, 10_000, 126), rounds=1)
    yield Case("decision", Swarm("piled", 100, 1_000), rounds=1)


class Worker:
    """A process that answers; see `benchmarks/worker.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.about: dict[str, str] = self._read()

    def ask(self, **request: object) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            SystemExit: If the process has ended.
        """
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise SystemExit(f"a contender has ended with {self._process.wait()}; its error stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def worker(python: Path, name: str) -> Iterator[Worker]:
    """Run a contender until the end of the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        [python, "-m", "benchmarks.worker", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()


def find_question(case: Case) -> tuple[str, ImbalanceCheck, int]:
    """Find a server whose check is of the kind asked for: its peer id, its check, and the number of records.

    Raises:
        SystemExit: If there is none.
    """
    blocks = announced(case.swarm)
    modules = [
        RemoteModuleInfo(f"model.{block}", {peer: ServerInfo.from_tuple(record) for peer, record in servers.items()})
        for block, servers in enumerate(blocks)
    ]
    spans = compute_spans(modules, min_state=ServerState.JOINING)
    found: dict[str, ImbalanceCheck] = {}

    def is_wanted(peer: str) -> bool:
        found[peer] = check_imbalance(peer, spans, QUALITY, total_blocks=len(blocks), rng=np.random.RandomState(1))
        return (found[peer].rounds > 0) is case.searches

    peer = find_peer(blocks, is_wanted)
    if peer is None:
        raise SystemExit(f"{case}: no server's check is of this kind")
    return peer, found[peer], sum(map(len, blocks))


def compare(case: Case, workers: dict[str, Worker]) -> Measured:
    """Ask both in turn.

    Raises:
        SystemExit: If they do not get the same swarm, or do not give the same answer.
    """
    peer, check, records = find_question(case)
    measured = Measured(case, check, records)
    digests = {one.ask(swarm=asdict(case.swarm))["digest"] for one in workers.values()}
    if len(digests) > 1:
        raise SystemExit(f"{case}: the contenders have made different swarms")
    num_blocks = max(1, case.swarm.blocks // 6)
    for _ in range(case.rounds):
        answers = {}
        for name, one in workers.items():
            repeats = 3 if name == "swarmkeel" else 1
            answer = one.ask(function=case.function, peer=peer, num_blocks=num_blocks, repeats=repeats)
            measured.seconds[name] += answer["seconds"]
            answers[name] = answer["answer"]
        if answers["swarmkeel"] != answers["petals"]:
            raise SystemExit(f"{case}: different answers: {answers}")
    return measured


def _milliseconds(seconds: Sequence[float]) -> str:
    return three_digits(median(seconds) * 1000)


def _row(one: Measured) -> list[str]:
    swarm, shortest_to_longest = one.case.swarm, one.case.swarm.lengths
    kind = swarm.kind + (", equally fast" if swarm.equal else "")
    spans = " to ".join(map(str, dict.fromkeys(shortest_to_longest)))
    ends = f"{one.check.rounds} rounds" if one.check.rounds else "before the search"
    low, high = min(one.ratios), max(one.ratios)
    spread = f"{low:,.0f} to {high:,.0f}" if len(one.ratios) > 1 else "one run"
    return [
        one.case.function if one.case.function != "decision" else f"decision, {ends}",
        f"{swarm.servers:,}",
        f"{swarm.blocks:,}",
        f"{kind}, spans of {spans}",
        f"{one.records:,}",
        _milliseconds(one.seconds["swarmkeel"]),
        _milliseconds(one.seconds["petals"]),
        three_digits(one.ratio),
        spread,
    ]


COLUMNS: Final = ("", "servers", "blocks", "swarm", "records", "Swarmkeel (ms)", "Petals (ms)", "ratio", "spread")


def result_of(measured: Sequence[Measured], about: dict[str, dict[str, str]]) -> Result:
    """Put what was measured into the form of a section."""
    worst = {
        servers: min(one.ratio for one in of_it)
        for servers in LEAST
        if (of_it := [one for one in measured if is_goal(one.case) and one.case.swarm.servers == servers])
    }
    reached = "; ".join(
        f"at {servers:,} servers and 126 blocks {ratio:,.0f} times in the worst of these swarms"
        f" (wanted: {LEAST[servers]:.0f})"
        for servers, ratio in worst.items()
    )
    text = f"""\
Petals {about["petals"]["petals"]}, installed beside Swarmkeel in an environment of its own (numpy {about["petals"]["numpy"]}), is asked
in turn with Swarmkeel, each in one long-lived process, on the same records. Every answer was the same, to the last bit. Times
are processor time from the records in memory to the answer: the median of all rounds; the spread is that of Petals'
rounds over Swarmkeel's median. A decision is `should_choose_other_blocks`, with spans and throughputs computed from the records
in each call, as Petals does it. Most servers' checks end before the search, since the server is where it helps most; the
others let the whole swarm move round by round.

As fast as Petals, where the check searches: {reached}."""
    figures = [
        {"case": asdict(one.case), "seconds": one.seconds, "ratio": one.ratio, "rounds": one.check.rounds}
        for one in measured
    ]
    return Result(
        "petals",
        "Beside Petals' own code",
        11,
        "make bench-petals",
        machine(),
        [Text(text), Table(COLUMNS, [_row(one) for one in measured])],
        {"cases": figures, "worst": worst},
    )


def is_goal(case: Case) -> bool:
    """Tell whether the ratio that is wanted is wanted of this case."""
    return case.function == "decision" and case.searches and case.swarm.blocks == 126 and case.swarm.servers in LEAST  # noqa: PLR2004 -- as the goal says


def main() -> None:
    """Compare everything, print a table and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out what takes Petals long")
    parser.add_argument("--only", help="compare this function alone, and write nothing")
    parser.add_argument("--servers", type=int, help="compare at this number of servers alone, and write nothing")
    options = parser.parse_args()
    if not PETALS_PYTHON.exists():
        raise SystemExit(f"there is no Petals environment at {PETALS_PYTHON}: run make setup-petals")
    measured = []
    with worker(Path(sys.executable), "swarmkeel") as ours, worker(PETALS_PYTHON, "petals") as theirs:
        workers = {"swarmkeel": ours, "petals": theirs}
        widths = (28, 8, 7, 42, 9, 15, 13, 8, 16)
        print("".join(f"{name:>{width}}" for name, width in zip(COLUMNS, widths, strict=True)))
        for case in cases(quick=options.quick):
            if options.only in (None, case.function) and options.servers in (None, case.swarm.servers):
                measured.append(compare(case, workers))
                row = zip(_row(measured[-1]), widths, strict=True)
                print("".join(f"{cell:>{width}}" for cell, width in row), flush=True)
        about = {name: one.about for name, one in workers.items()}
    for one in measured:
        if is_goal(one.case) and one.ratio < LEAST[one.case.swarm.servers]:
            print(f"below what is wanted: {one.case}: {one.ratio:.0f}")
    if options.only is None and options.servers is None:
        print(write_result(result_of(measured, about)).relative_to(ROOT))


if __name__ == "__main__":
    main()
