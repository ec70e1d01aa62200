"""A demo that is interrupted, or does not heal in time, leaves nothing behind either."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.demo.test_demo_heals import descendants
from tests.support.dht import process_runs, wait_until
from tests.support.sidecars import short_folder

pytestmark = pytest.mark.xdist_group("demo")


@asynccontextmanager
async def demo(folder: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "swarmkeel", "demo", *options),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_it_with_all_that_it_started(number: signal.Signals, code: int) -> None:
    with short_folder() as folder:
        async with demo(folder) as process:
            # Some servers run by then, with their p2pd, and others are about to.
            await wait_until(lambda: len(descendants(process.pid)) >= 8)
            assert len(list(folder.iterdir())) == 1
            started = descendants(process.pid)
            process.send_signal(number)
            process.send_signal(number)  # a second one must not cut the cleaning up short
            async with asyncio.timeout(60):
                _, errors = await process.communicate()
        assert process.returncode == code
        assert errors == b""
        assert list(folder.iterdir()) == []
        await wait_until(lambda: not any(map(process_runs, started)))


async def test_without_enough_time_it_says_what_is_missing() -> None:
    with short_folder() as folder:
        async with demo(folder, "--deadline", "1") as process, asyncio.timeout(60):
            _, errors = await process.communicate()
        assert process.returncode == 1
        (line,) = errors.decode().splitlines()
        assert line.startswith("swarmkeel: the swarm did not heal within 1 s: its servers are not up: ")
        assert list(folder.iterdir()) == []


async def test_a_temporary_folder_too_deep_for_sockets_is_named() -> None:
    with short_folder() as folder:
        deep = folder / ("d" * 90)
        deep.mkdir()
        async with demo(deep) as process, asyncio.timeout(60):
            _, errors = await process.communicate()
        assert process.returncode == 1
        assert b"set TMPDIR to a shorter folder" in errors
        assert list(deep.iterdir()) == []
