"""Petals' request handler, with its open inference sessions counted and new ones refused on request."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
from collections.abc import Iterable
from typing import Any, AsyncIterator  # noqa: UP035 - hivemind knows a stream by this name alone, not by that of collections

from hivemind.p2p import P2PContext
from hivemind.proto import runtime_pb2
from petals.server import handler


class ServerMovesError(RuntimeError):
    """Told to a client that wants a new session on blocks that are about to go; it turns to another server."""


# The name is that of Petals' class: it is part of the names of the calls that clients make.
class TransformerConnectionHandler(handler.TransformerConnectionHandler):  # type: ignore[misc] # Petals has no types
    """Runs in a process of its own, forked when the blocks are loaded; the two values are shared with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Each has one writer, the process of the handler and the server's, so neither needs a lock.
        self.open_sessions = mp.RawValue("i", 0)
        self.refuses_sessions = mp.RawValue("b", 0)

    async def rpc_inference(
        self, requests: AsyncIterator[runtime_pb2.ExpertRequest], context: P2PContext
    ) -> AsyncIterator[runtime_pb2.ExpertResponse]:
        """Serve one inference session from its first step to its last."""
        if self.refuses_sessions.value:
            raise ServerMovesError("this server is about to serve other blocks")
        self.open_sessions.value += 1
        try:
            async with contextlib.aclosing(super().rpc_inference(requests, context)) as responses:
                async for response in responses:
                    yield response
        finally:
            self.open_sessions.value -= 1


def count_sessions(handlers: Iterable[Any]) -> int:
    """Count the open sessions of all handlers of a server."""
    return sum(int(each.open_sessions.value) for each in handlers)


def refuse_sessions(handlers: Iterable[Any]) -> None:
    """Have all handlers of a server refuse new sessions from now on, until they are replaced with their blocks."""
    for each in handlers:
        each.refuses_sessions.value = 1
