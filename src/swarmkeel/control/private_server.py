"""HTTP on a private Unix socket: who may come in, how many at a time, and how long they may take.

Standard library only, as all that the server's side of the control protocol needs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Collection
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from swarmkeel.control.handler import problem_response
from swarmkeel.control.http1 import HttpConnection, HttpError, Request, Response
from swarmkeel.control.protocol import MAX_BODY_BYTES
from swarmkeel.control.unix_socket import (
    PrivateListener,
    check_socket_path,
    own_and_root_uids,
    peer_uid,
)

MAX_CONNECTIONS: Final = 32
REQUEST_SECONDS: Final = 10.0

_CLOSE_SECONDS: Final = 5.0
_ACCEPT_RETRY_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)
_servers: weakref.WeakSet[PrivateHttpServer] = weakref.WeakSet()


class PrivateHttpServer:
    """Listens at a private Unix socket and answers the requests of those users who may use it.

    Used as a context manager, or by `start` and `close`. All work is done in daemon threads of its own.

    Args:
        socket_path: File of the socket, at most 107 bytes. Its directory is made, for this user alone, if it is missing.
        answer: Gives the response to a request of the user with this id; called from several threads, and raises nothing.
        name: What the log and the threads call it.
        allowed_uids: User ids that may use the socket; the process's own and root where None.
        request_seconds: How long one request may take to come in, and one answer to be taken.
        max_connections: How many clients may be connected at the same time; more are turned away.

    Raises:
        SocketPathError: If no socket can have that path.
    """

    def __init__(
        self,
        socket_path: str | os.PathLike[str],
        answer: Callable[[Request, int], Response],
        *,
        name: str,
        allowed_uids: Collection[int] | None = None,
        request_seconds: float = REQUEST_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.socket_path = check_socket_path(socket_path)
        self._answer = answer
        self._name = name
        self._allowed_uids = own_and_root_uids() if allowed_uids is None else frozenset(allowed_uids)
        self._request_seconds = request_seconds
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._listener: PrivateListener | None = None
        self._acceptor: threading.Thread | None = None
        self._wake: socket.socket | None = None
        self._closing = threading.Event()
        self._connections: dict[socket.socket, threading.Thread] = {}
        _servers.add(self)

    def start(self) -> None:
        """Bind the socket and serve it from a thread.

        Raises:
            SocketPathError: If the socket cannot be there: the text says why.
            OSError: If the system refuses for another reason.
            RuntimeError: If it has been started already.
        """
        with self._lock:
            if self._listener is not None:
                raise RuntimeError(f"the {self._name} server has been started already")
            self._listener = PrivateListener.open(self.socket_path)
            self._closing.clear()
            sleeper, self._wake = socket.socketpair()
            self._acceptor = threading.Thread(
                target=self._accept_connections,
                args=(self._listener.socket, sleeper),
                name=f"swarmkeel-{self._name}",
                daemon=True,
            )
            self._acceptor.start()
        _log.info("%s socket open at %s", self._name, self.socket_path)

    def close(self) -> None:
        """Stop serving, wait for the requests under way, and remove the socket. More than once does no harm."""
        with self._lock:
            listener, acceptor, wake = self._listener, self._acceptor, self._wake
            self._listener = self._acceptor = self._wake = None
        if listener is None or acceptor is None or wake is None:
            return
        self._closing.set()
        wake.close()  # the other end becomes readable
        acceptor.join()
        listener.close()
        self._end_connections()
        _log.info("%s socket closed at %s", self._name, self.socket_path)

    def abandon(self) -> None:
        """Let go of the socket in a forked child, without removing what belongs to the parent.

        Called by itself after a fork. A child that kept the socket open would, after the parent's death, make clients
        connect to nobody.
        """
        held = [*self._connections, self._wake, self._listener and self._listener.socket]
        for end in held:
            if end is not None:
                end.close()
        self._listener = self._acceptor = self._wake = None
        self._connections = {}
        self._lock = threading.Lock()  # a thread that the child does not have may have held it

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_connections(self) -> None:
        deadline = time.monotonic() + _CLOSE_SECONDS
        # First only their reading: who waits for a request is woken, and who answers one may do so.
        for how in (socket.SHUT_RD, socket.SHUT_RDWR):
            others = self._other_connections()
            for connection in others:
                with contextlib.suppress(OSError):  # it may end by itself at any time
                    connection.shutdown(how)
            for thread in others.values():
                thread.join(max(0.0, deadline - time.monotonic()))
            deadline += 1.0
        if self._other_connections():
            _log.warning("a callback did not return within %g s of the %s server's end", _CLOSE_SECONDS, self._name)

    def _other_connections(self) -> dict[socket.socket, threading.Thread]:
        """Give the connections but that of this thread: a callback may close the server that called it."""
        with self._lock:
            return {c: thread for c, thread in self._connections.items() if thread is not threading.current_thread()}

    def _accept_connections(self, listener: socket.socket, sleeper: socket.socket) -> None:
        with sleeper, selectors.DefaultSelector() as selector:
            listener.settimeout(0)
            selector.register(listener, selectors.EVENT_READ)
            selector.register(sleeper, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _events in selector.select()}
                if sleeper in ready:
                    return
                try:
                    connection, _address = listener.accept()
                except BlockingIOError:
                    continue
                except OSError as error:  # above all no file descriptors left, which may pass
                    _log.warning("a %s connection could not be taken: %s", self._name, error)
                    self._closing.wait(_ACCEPT_RETRY_SECONDS)
                    continue
                self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        thread = threading.Thread(
            target=self._serve, args=(connection,), name=f"swarmkeel-{self._name}-connection", daemon=True
        )
        with self._lock:
            full = len(self._connections) >= self._max_connections
            if not full:
                self._connections[connection] = thread
        if full:
            _log.warning("more than %d %s connections: one turned away", self._max_connections, self._name)
            response = problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", {"Retry-After": "1"})
            with connection, contextlib.suppress(OSError):
                connection.send(response.render(keep_alive=False), socket.MSG_DONTWAIT)
            return
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads
            _log.warning("a %s connection could not be served: %s", self._name, error)
            self._drop(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._converse(connection)
        except OSError as error:
            _log.debug("a %s connection broke: %s", self._name, error)
        finally:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.pop(connection, None)
        connection.close()

    def _converse(self, connection: socket.socket) -> None:
        http = HttpConnection(connection, request_seconds=self._request_seconds, max_body_bytes=MAX_BODY_BYTES)
        uid = peer_uid(connection)
        if uid not in self._allowed_uids:
            _log.warning("user %d may not use the %s socket %s", uid, self._name, self.socket_path)
            _turn_away(http, HTTPStatus.FORBIDDEN, f"user {uid} may not use this socket")
            return
        try:
            while request := http.read_request():
                response = self._answer(request, uid)
                keep_alive = request.head.keep_alive and not self._closing.is_set()
                http.send(response.render(keep_alive=keep_alive, with_body=request.head.method != "HEAD"))
                if not keep_alive:
                    return
        except HttpError as error:
            _turn_away(http, error.status, error.detail)


def _turn_away(http: HttpConnection, status: HTTPStatus, detail: str) -> None:
    http.send(problem_response(status, detail).render(keep_alive=False))
    http.linger()


def _abandon_in_child() -> None:
    for server in list(_servers):
        server.abandon()


os.register_at_fork(after_in_child=_abandon_in_child)
