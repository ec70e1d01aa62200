"""The daemon's JSON under `/api/v1/`: read only, described by `daemon.openapi`. Nothing is made before somebody asks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from copy import copy
from http import HTTPStatus
from typing import Final, TypeVar

from aiohttp import web
from pydantic import ValidationError

from swarmkeel.config import Config
from swarmkeel.daemon.describe import (
    describe_check,
    describe_daemon,
    describe_move,
    describe_swarm,
    describe_timeline,
)
from swarmkeel.daemon.journal import Journal, JournalError
from swarmkeel.daemon.openapi import openapi_json
from swarmkeel.daemon.queries import MOVES_SHOWN, ChecksQuery, MovesQuery, Query, TimelineQuery
from swarmkeel.daemon.state import DaemonState
from swarmkeel.daemon.status import Checks, DaemonStatus, Moves, Timeline
from swarmkeel.daemon.web import json_answer, refuse

MAX_LISTENERS: Final = 32
"""So many may follow the events at the same time."""
HEARTBEAT_SECONDS: Final = 15.0
"""Without a change an event `alive` is sent after so long, which shows both ends that the other is there."""
SHORTEST_BETWEEN_EVENTS: Final = 0.25
"""Changes in quicker succession become one event, in seconds."""

_Asked = TypeVar("_Asked", bound=Query)


class Api:
    """Answers what is asked under `/api/v1/`.

    Args:
        state: What the daemon knows.
        config: Gives the configuration in force.
        journal: Its checks and moves.
        version: Version of Swarmkeel.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        state: DaemonState,
        *,
        config: Callable[[], Config],
        journal: Journal,
        version: str,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._config = config
        self._journal = journal
        self._version = version
        self._clock = clock
        self._listeners = 0
        self._event: tuple[int, bytes] = (-1, b"")
        self._describing = asyncio.Lock()
        self._swarm: tuple[tuple[object, ...], bytes] = ((), b"")

    def routes(self) -> list[web.RouteDef]:
        """Give what is answered, under `/api/v1/`."""
        return [
            web.get("/api/v1/status", self._get_status),
            web.get("/api/v1/swarm", self._get_swarm),
            web.get("/api/v1/moves", self._get_moves),
            web.get("/api/v1/checks", self._get_checks),
            web.get("/api/v1/timeline", self._get_timeline),
            web.get("/api/v1/events", self._get_events),
            web.get("/api/v1/openapi.json", self._get_openapi),
        ]

    async def status(self) -> DaemonStatus:
        """Say what the daemon knows and does.

        Raises:
            JournalError: If the last moves cannot be read.
        """
        moves = await asyncio.to_thread(self._journal.moves, limit=MOVES_SHOWN)
        return describe_daemon(self._state, self._config(), moves, version=self._version, now=self._clock())

    async def _get_status(self, _: web.Request) -> web.Response:
        try:
            return json_answer(await self.status())
        except JournalError as error:
            raise _unreadable(error) from error

    async def _get_swarm(self, _: web.Request) -> web.Response:
        # Of a large swarm this takes a while, and every page asks for it at the same time.
        async with self._describing:
            state, config = copy(self._state), self._config()
            made_of = (state.swarm, state.sidecars, state.server, config)
            if len(self._swarm[0]) != len(made_of) or any(
                known is not present for known, present in zip(self._swarm[0], made_of, strict=True)
            ):
                swarm = await asyncio.to_thread(describe_swarm, state, config)
                if swarm is None:
                    raise refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the swarm has not been read yet")
                self._swarm = (made_of, (await asyncio.to_thread(swarm.model_dump_json)).encode())
            return json_answer(self._swarm[1])

    async def _get_moves(self, request: web.Request) -> web.Response:
        query = _read_query(MovesQuery, request)
        try:
            moves = await asyncio.to_thread(self._journal.moves, limit=query.limit)
        except JournalError as error:
            raise _unreadable(error) from error
        return json_answer(Moves(moves=tuple(describe_move(move) for move in reversed(moves))))

    async def _get_checks(self, request: web.Request) -> web.Response:
        query = _read_query(ChecksQuery, request)
        try:
            checks = await asyncio.to_thread(
                self._journal.checks, limit=query.limit, before=query.before, verdict=query.verdict
            )
        except JournalError as error:
            raise _unreadable(error) from error
        told = tuple(describe_check(check.check_id, check.at, check.decision) for check in checks)
        return json_answer(Checks(checks=told))

    async def _get_timeline(self, request: web.Request) -> web.Response:
        since = _read_query(TimelineQuery, request).since
        points = describe_timeline(self._state, since=-math.inf if since is None else since)
        return json_answer(Timeline(points=points))

    async def _get_openapi(self, _: web.Request) -> web.Response:
        return json_answer(openapi_json(self._version).encode())

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        """Send the status now and after every change, as server-sent events, until the daemon ends."""
        if self._listeners >= MAX_LISTENERS:
            raise refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_LISTENERS} others follow the events already")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        self._listeners += 1
        changes, seen = self._state.changes, -1
        try:
            while not changes.is_closed:
                if changes.revision == seen:
                    await response.write(f"event: alive\ndata: {self._clock()}\n\n".encode())
                else:
                    seen = changes.revision
                    await response.write(await self._event_of(seen))
                    await asyncio.sleep(SHORTEST_BETWEEN_EVENTS)
                await changes.wait(seen, at_most=HEARTBEAT_SECONDS)
        except ConnectionError:
            pass  # it has gone
        finally:
            self._listeners -= 1
        return response

    async def _event_of(self, revision: int) -> bytes:
        """Give the event of a revision, which is made once for all who follow."""
        if self._event[0] != revision:
            try:
                status = (await self.status()).model_dump_json()
            except JournalError:
                # The log tells of it, and those who follow ask again.
                return b": the journal cannot be read\n\n"
            self._event = (revision, f"id: {revision}\nevent: status\ndata: {status}\n\n".encode())
        return self._event[1]


def _unreadable(error: JournalError) -> web.HTTPException:
    return refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))


def _read_query(model: type[_Asked], request: web.Request) -> _Asked:
    """Check a request's query.

    Raises:
        HTTPException: Naming what is wrong in it and what is allowed.
    """
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in found["loc"])
        known = ", ".join(model.model_fields)
        detail = f"{name}: {found['msg']}; what can be asked for is {known}"
        raise refuse(HTTPStatus.BAD_REQUEST, detail) from error
