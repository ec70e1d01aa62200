"""The server's end of the control protocol, for any Python server to embed.

Standard library only: it runs inside other people's GPU servers, beside their pinned dependencies.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from swarmkeel.control.handler import Callbacks, Refused, RequestHandler
from swarmkeel.control.private_server import MAX_CONNECTIONS, REQUEST_SECONDS, PrivateHttpServer
from swarmkeel.control.unix_socket import SocketPathError

__all__ = ["Callbacks", "ControlServer", "Refused", "SocketPathError"]


class ControlServer(PrivateHttpServer):
    """Listens at a private Unix socket and lets a sidecar see and restart the embedding server.

    Used as a context manager, or by `start` and `close`. All work is done in daemon threads of its own.

    Args:
        socket_path: File of the socket, at most 107 bytes. Its directory is made, for this user alone, if it is missing.
        callbacks: What the embedding server says and does.
        allowed_uids: User ids that may use the socket; the process's own and root where None.
        request_seconds: How long one request may take to come in, and one answer to be taken.
        max_connections: How many clients may be connected at the same time; more are turned away.

    Raises:
        SocketPathError: If no socket can have that path.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str],
        callbacks: Callbacks,
        *,
        allowed_uids: Collection[int] | None = None,
        request_seconds: float = REQUEST_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        handler = RequestHandler(callbacks)
        super().__init__(
            socket_path,
            lambda request, _uid: handler.handle(request),
            name="control",
            allowed_uids=allowed_uids,
            request_seconds=request_seconds,
            max_connections=max_connections,
        )
