"""The operator's end of the admin socket: one request, one answer, nothing kept open."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from swarmkeel.config import Config
from swarmkeel.control.fields import parse_json, render_json
from swarmkeel.control.protocol import JSON_CONTENT_TYPE, PROBLEM_CONTENT_TYPE, Problem
from swarmkeel.errors import SwarmkeelError
from swarmkeel.printable import printable

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_TEXT_LIMIT: Final = 300

_Answer = TypeVar("_Answer", bound=BaseModel)


class SidecarUnreachable(SwarmkeelError):  # noqa: N818 - named for what is the case
    """No sidecar gives a whole answer at the admin socket."""


class SidecarRefused(SwarmkeelError):  # noqa: N818 - named for what is the case
    """The sidecar will not do what it was asked for.

    Attributes:
        status: HTTP status code.
    """

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        remedy = (
            "add the user id to admin.uids, or run this as the sidecar's user"
            if status == HTTPStatus.FORBIDDEN
            else "see the sidecar's log for more"
        )
        super().__init__(f"the sidecar refused ({status}): {printable(detail, _TEXT_LIMIT)}", remedy)


class AdminClient:
    """Asks one running sidecar.

    Args:
        socket_path: Its admin socket.
        timeout: Seconds to wait for a sign of it.
    """

    def __init__(self, socket_path: Path, *, timeout: float) -> None:
        self._path = socket_path
        self._timeout = timeout

    @classmethod
    def of(cls, config: Config, *, timeout: float) -> AdminClient:
        """Give the client of the sidecar with this configuration."""
        return cls(config.admin_socket, timeout=timeout)

    def get(self, path: str, answer: type[_Answer]) -> _Answer:
        """Ask for something; see `post` for the errors."""
        return self._call("GET", path, None, answer)

    def post(self, path: str, message: Mapping[str, object], answer: type[_Answer]) -> _Answer:
        """Ask the sidecar to do something.

        Args:
            path: Such as `/v1/pause`.
            message: The request.
            answer: What to read the answer as.

        Raises:
            SidecarUnreachable: If there is no sidecar, or it gives no whole answer in time.
            SidecarRefused: If it will not.
        """
        return self._call("POST", path, render_json(message), answer)

    def _call(self, method: str, path: str, body: bytes | None, answer: type[_Answer]) -> _Answer:
        connection = _UnixConnection(self._path, self._timeout)
        try:
            headers = {} if body is None else {"Content-Type": JSON_CONTENT_TYPE}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
        except TimeoutError:
            raise SidecarUnreachable(
                f"the sidecar at {self._path} gave no answer within {self._timeout:g} s",
                "try again, or see its log for what keeps it busy",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        try:
            if response.status == HTTPStatus.OK and len(content) <= MAX_ANSWER_BYTES:
                return answer.model_validate_json(content)
            if response.headers.get_content_type() == PROBLEM_CONTENT_TYPE:
                raise SidecarRefused(response.status, Problem.from_json(parse_json(content)).detail)
        except (ValidationError, ValueError) as error:
            raise self._nonsense(str(error)) from None
        raise self._nonsense(f"it answered {response.status}")

    def _unreachable(self, error: OSError | http.client.HTTPException) -> SidecarUnreachable:
        if isinstance(error, PermissionError):
            remedy = "run this as the sidecar's user or root, or let your user in: see admin.uids"
            return SidecarUnreachable(f"the admin socket {self._path} may not be used by this user", remedy)
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number else printable(str(error) or "it said nothing", _TEXT_LIMIT)
        return SidecarUnreachable(
            f"no sidecar answers at {self._path} ({reason})",
            "start it with swarmkeel run, or name the configuration that it runs with",
        )

    def _nonsense(self, what: str) -> SidecarUnreachable:
        return SidecarUnreachable(
            f"what answers at {self._path} is no sidecar of this version: {printable(what, _TEXT_LIMIT)}",
            "see that admin.socket is the sidecar's own, and that both are of the same version",
        )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("sidecar", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's file instead of to a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
