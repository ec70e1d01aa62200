"""The daemon's HTTP: metrics, health, `/api/v1/` and the status page, read only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from swarmkeel.daemon.api import Api
from swarmkeel.daemon.page import page_routes
from swarmkeel.daemon.state import DaemonState
from swarmkeel.daemon.web import IDLE_SECONDS, listen, make_application
from swarmkeel.errors import SwarmkeelError


class ListenError(SwarmkeelError):
    """The address cannot be listened on."""


class HttpServer:
    """Serves `/metrics`, `/healthz` and `/readyz`; with an API also that and the status page, which lives by it.

    Args:
        registry: The metrics to show.
        state: What the daemon knows.
        api: What answers under `/api/v1/`.
        host: The address to listen on.
        stalled_after: Gives the seconds without a turn of the loop after which it counts as stuck.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        state: DaemonState,
        *,
        stalled_after: Callable[[], float],
        clock: Callable[[], float],
        api: Api | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._state = state
        self._host = host
        self._stalled_after = stalled_after
        self._clock = clock
        application = make_application(host)
        application.router.add_get("/metrics", make_aiohttp_handler(registry))
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        if api is not None:
            application.add_routes([*api.routes(), *page_routes()])
            application.on_shutdown.append(self._end_events)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=1.0, keepalive_timeout=IDLE_SECONDS
        )
        self._listener: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        """Begin to listen.

        Returns:
            The port, which matters where 0 was asked for.

        Raises:
            ListenError: If the address is taken or not ours.
        """
        await self._runner.setup()
        try:
            self._listener = await listen(self._runner, self._host, port)
        except OSError as error:
            await self._runner.cleanup()
            raise ListenError(
                f"cannot listen on {self._host}:{port} ({error.strerror or error})",
                "choose another http.host or http.port",
            ) from error
        return self.port

    @property
    def port(self) -> int:
        """The port that it listens at; 0 while it does not."""
        listening = () if self._listener is None else self._listener.sockets
        return int(listening[0].getsockname()[1]) if listening else 0

    async def close(self) -> None:
        """Stop listening and end open connections."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    async def _end_events(self, _: web.Application) -> None:
        self._state.changes.close()

    async def _healthz(self, _: web.Request) -> web.Response:
        silent = abs(self._clock() - self._state.last_turn_at)
        if silent > self._stalled_after():
            return web.Response(status=503, text=f"the loop has not turned for {silent:.0f} s\n")
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if not self._state.ready:
            return web.Response(status=503, text="no good snapshot yet\n")
        return web.Response(text="ready\n")
