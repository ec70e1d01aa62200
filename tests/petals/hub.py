"""A stand-in for the website that Petals downloads weights from, with a slow line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

_COMMIT = "0" * 40


class Hub:
    """A folder of a model, offered as huggingface_hub asks for it.

    Args:
        model: The model's folder.
        seconds_a_file: How long the download of one file of weights takes.

    Attributes:
        url: Where it is, for HF_ENDPOINT.
        downloads: Every file of weights that was asked for: its name and when, by time.monotonic().
    """

    def __init__(self, model: Path, seconds_a_file: float) -> None:
        self._model = model
        self._seconds_a_file = seconds_a_file
        self.url = ""
        self.downloads: list[tuple[str, float]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a HEAD or GET of a file."""
        name = request.match_info["file"]
        path = self._model / name
        if not path.is_file():
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        if request.method == "GET" and path.suffix == ".safetensors":
            self.downloads.append((name, time.monotonic()))
            await asyncio.sleep(self._seconds_a_file)
        return web.FileResponse(path, headers={"X-Repo-Commit": _COMMIT, "X-Linked-Etag": f'"{name}"'})


@asynccontextmanager
async def slow_hub(model: Path, seconds_a_file: float) -> AsyncIterator[Hub]:
    """Offer a model until the end of the block."""
    hub = Hub(model, seconds_a_file)
    application = web.Application()
    application.router.add_get("/{owner}/{name}/resolve/{revision}/{file}", hub.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield hub
    finally:
        await runner.cleanup()
