"""What one sidecar costs beside its server: `make bench-footprint`; exit code 1 if that is over the budget.

A real `swarmkeel run` with the default settings, beside a server that does nothing, in a swarm of three live DHT peers with
50 servers over 80 blocks. The budget is the table in docs/operating.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from packaging.requirements import Requirement

from benchmarks.line_process import LineProcess, children, cpu_seconds
from benchmarks.memory_dht import peer_id
from benchmarks.result_file import ROOT, Result, Table, Text, machine, write_result
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.control.server import ControlServer
from swarmkeel.demo.processes import ChildProcess
from swarmkeel.swarm.span import Span

BUDGET_PAGE: Final = ROOT / "docs" / "operating.md"
BLOCKS: Final = 80
SERVERS: Final = 50
_ROW: Final = re.compile(r"^\| (?P<name>[^|]+?) \| (?P<limit>[0-9.]+) \|$", re.MULTILINE)


def budget(text: str) -> dict[str, float]:
    """Read the budget: the rows of the table under the heading "What it may cost"."""
    section = text.partition("## What it may cost\n")[2].partition("\n## ")[0]
    return {match["name"]: float(match["limit"]) for match in _ROW.finditer(section)}


def over_budget(measured: dict[str, float], limits: dict[str, float]) -> list[str]:
    """Say what is over the budget, and what of it was not measured."""
    findings = [f"{name}: not measured" for name in limits if name not in measured]
    findings += [f"{name}: there is no budget for it" for name in measured if name not in limits]
    return findings + [
        f"{name}: {measured[name]:.1f} is over the budget of {limit:g}"
        for name, limit in limits.items()
        if name in measured and measured[name] > limit
    ]


class _Server:
    """A server that only says that it is there."""

    def status(self) -> ServerStatus:
        return ServerStatus("stand-in/1", peer_id(0), "m", BLOCKS, 18, 50.0, ServerPhase.ONLINE, Span(0, 18))

    def restart(self, _: object) -> None:
        """Never asked for in a dry run."""


async def run_once(folder: Path, addresses: Sequence[str], seconds: float) -> dict[str, float]:
    """Start a sidecar, wait for its first snapshot, let it run for a while and end it."""
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "swarm": {"dht_prefix": "m", "total_blocks": BLOCKS, "initial_peers": list(addresses)},
                "server": {"socket": str(folder / "s.sock")},
                "balance": {"dry_run": True},
                "journal": {"path": str(folder / "journal.sqlite")},
                "http": {"port": 0},
                "log": {"format": "json"},
            }
        )
    )
    log = folder / "sidecar.log"
    log.unlink(missing_ok=True)
    started = time.monotonic()
    process = await ChildProcess.start("sidecar", [sys.executable, "-m", "swarmkeel", "run", "-c", str(config)], log)
    try:
        await process.wait_for_log('"event": "started"')
        http = re.search(r'"http": "([^"]+)"', log.read_text())
        if http is None:
            raise RuntimeError(log.read_text())
        while not await asyncio.to_thread(_ready, http[1]):  # noqa: ASYNC110 - another process sets no events
            await asyncio.sleep(0.02)
        first_snapshot = time.monotonic() - started
        starting = _cpu(process.pid)
        await asyncio.sleep(5)  # what the first check leaves to do
        idle, since = _cpu(process.pid), time.monotonic()
        await asyncio.sleep(seconds)
        idle, window = _cpu(process.pid) - idle, time.monotonic() - since
        (p2pd,) = children(process.pid)
        daemon_mb, p2pd_mb = _resident(process.pid), _resident(p2pd)
    finally:
        await process.end()
    return {
        "start to first snapshot (s)": first_snapshot,
        "processor time to first snapshot (s)": starting,
        "daemon, resident memory (MB)": daemon_mb,
        "p2pd, resident memory (MB)": p2pd_mb,
        "processor time an hour, all of it (s)": idle / window * 3600,
    }


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=5) as answer:  # noqa: S310 - on the loopback interface
            return bool(answer.status == 200)  # noqa: PLR2004 - OK
    except (URLError, OSError):
        return False


def _cpu(pid: int) -> float:
    return sum(map(cpu_seconds, [pid, *children(pid)]))


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def installed_sizes() -> dict[str, float]:
    """Give the megabytes of each package that an installation of swarmkeel needs, itself included."""
    sizes: dict[str, float] = {}
    for package in _needed("swarmkeel"):
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        files = (Path(str(package.locate_file(file))) for file in package.files or ())
        sizes[name] = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
    sizes["swarmkeel"] = sum(path.stat().st_size for path in (ROOT / "src").rglob("*") if path.is_file()) / 1e6
    return sizes


def _needed(name: str) -> Iterator[Distribution]:
    seen, left = set(), [Requirement(name)]
    while left:
        wanted = left.pop()
        try:
            package = distribution(wanted.name)
        except PackageNotFoundError:
            continue  # another platform's
        for text in package.requires or ():
            requirement = Requirement(text)
            extras = wanted.extras or {""}
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                left.append(requirement)
        if package.metadata["Name"] not in seen:
            seen.add(package.metadata["Name"])
            yield package


async def measure(rounds: int, seconds: float) -> list[dict[str, float]]:
    """Run some sidecars, one after the other, in the same swarm."""
    with tempfile.TemporaryDirectory(prefix="sk-") as name:
        folder = Path(name)
        server = ControlServer(folder / "s.sock", _Server())
        server.start()
        try:
            async with LineProcess.running([sys.executable, "-m", "benchmarks.dht_farm"]) as farm:
                addresses = await farm.ask(peers=3)
                swarm = {"prefix": "m", "servers": SERVERS, "blocks": BLOCKS, "lengths": [12, 30]}
                await farm.ask(plant=swarm)
                return [await run_once(folder, addresses, seconds) for _ in range(rounds)]
        finally:
            server.close()


def main() -> None:
    """Measure, compare with the budget and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=125.0, help="how long each runs idle: two checks or more")
    arguments = parser.parse_args()
    all_measured = asyncio.run(measure(arguments.rounds, arguments.seconds))
    sizes = installed_sizes()
    measured = {name: median(one[name] for one in all_measured) for name in all_measured[0]}
    measured["installation (MB)"] = sum(sizes.values())
    measured["installation without torch (MB)"] = measured["installation (MB)"] - _torch(sizes)
    limits = budget(BUDGET_PAGE.read_text())
    findings = over_budget(measured, limits)
    print("written to", write_result(_result(all_measured, measured, limits, sizes, arguments)).relative_to(ROOT))
    for name, value in measured.items():
        print(f"{name:45} {value:8.1f}   budget {limits.get(name, float('nan')):g}")
    if findings:
        raise SystemExit("\n".join(findings))


def _torch(sizes: dict[str, float]) -> float:
    return sum(size for name, size in sizes.items() if name in {"torch", "triton"} or name.startswith("nvidia"))


def _result(
    all_measured: Sequence[dict[str, float]],
    measured: dict[str, float],
    limits: dict[str, float],
    sizes: dict[str, float],
    arguments: Any,  # noqa: ANN401 - argparse's
) -> Result:
    text = f"""\
A real `swarmkeel run` with the default settings, checks once a minute, in a swarm of three live DHT peers with {SERVERS}
servers over {BLOCKS} blocks; {arguments.rounds} runs one after the other, medians, each idle for {arguments.seconds:.0f}
seconds. Memory is the resident set in the end; processor time counts the daemon and its p2pd together. The start is from
`exec` until `/readyz` says that there is a good snapshot, and waits for whatever else the machine does; the processor time
of it does not. The budget is that of [Operating](operating.md#what-it-may-cost); the benchmark fails over it.
"""
    rows = []
    for name, value in measured.items():
        each = [one[name] for one in all_measured if name in one]
        spread = f"{min(each):.1f} to {max(each):.1f}" if each else "-"
        rows.append([name, f"{value:.1f}", spread, f"{limits[name]:g}" if name in limits else "-"])
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    torch = """\
### The installation

hivemind asks for torch, and a DHT node uses none of it: the daemon imports hivemind's DHT alone
([decision 1](decisions/0001-hivemind-in-process.md)), so that torch costs space on disk and no memory. The container image
leaves it out. The largest packages:
"""
    return Result(
        "footprint",
        "Footprint",
        40,
        "make bench-footprint",
        machine(),
        [
            Text(text),
            Table(("what", "median", "smallest to largest", "budget"), rows),
            Text(torch),
            Table(("package", "MB"), [[name, f"{size:.1f}"] for name, size in largest]),
        ],
        {"measured": measured, "runs": list(all_measured), "budget": limits, "packages_mb": sizes},
    )


if __name__ == "__main__":
    main()
