"""The whole demo, as a stranger runs it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.support.dht import process_runs, wait_until


def descendants(pid: int) -> list[int]:
    """Give all processes below one."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [process for child in children for process in (child, *descendants(child))]


@pytest.mark.xdist_group("demo")
@pytest.mark.timeout(400)
async def test_the_demo_heals_and_leaves_nothing_behind(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    demo = await asyncio.create_subprocess_exec(
        # Tests run beside it on the same processors, so it gets more time than it needs.
        *(sys.executable, "-m", "swarmkeel", "demo", "--deadline", "300", "--json", str(report)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    ending = asyncio.create_task(demo.communicate())
    started: set[int] = set()
    try:
        async with asyncio.timeout(350):
            while not ending.done():
                started.update(descendants(demo.pid))
                await asyncio.wait([ending], timeout=0.5)
        output = (await ending)[0].decode()
        assert demo.returncode == 0, output
        assert "error" not in output.lower(), output
    finally:
        if demo.returncode is None:
            demo.terminate()  # it ends what it started
            await ending
    assert len(started) >= 8 * 4  # servers and sidecars, each with its p2pd
    await wait_until(lambda: not any(process_runs(pid) for pid in started))
    *_, bad, _balanced, killed, healed = json.loads(report.read_text())["milestones"]
    assert bad["uncovered_blocks"] > 0
    assert killed["servers"] == healed["servers"] == bad["servers"] - 2
    assert healed["uncovered_blocks"] == 0
    assert healed["bottleneck_rps"] >= 0.8 * healed["best"]["bound_rps"]
