"""Petals' container of blocks, with an end to its start: Petals waits for the processes of its handlers for ever."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import InvalidStateError
from typing import Any, ClassVar, Final

from petals.server import server

_POLL_SECONDS: Final = 0.1
_JOIN_SECONDS: Final = 5.0


class NotServingError(RuntimeError):
    """Blocks are loaded, and what is to serve them does not start."""


# The name is that of Petals' class, in whose place it is put.
class ModuleContainer(server.ModuleContainer):  # type: ignore[misc] # Petals is published without types
    """Serves one span of blocks: a thread, and a process for each handler of requests.

    Attributes:
        start_limit: Seconds that the processes of the handlers may take to start, all together.
    """

    start_limit: ClassVar[float] = float("inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._failure: str | None = None  # what ended the thread; not the error itself, which holds all of the blocks
        super().__init__(*args, **kwargs)

    def run(self) -> None:
        """Serve until the shutdown."""
        try:
            super().run()
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"
            raise

    def run_in_background(self, await_ready: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - as Petals declares it
        """Start to serve.

        Args:
            await_ready: Return only when the blocks serve.
            timeout: Seconds that this may take; `start_limit` where left out.

        Raises:
            NotServingError: If the blocks do not serve in time, or can no longer begin to.
        """
        self.start()
        if not await_ready:
            return
        try:
            self._wait_until_ready(self.start_limit if timeout is None else timeout)
        except BaseException:
            # The interrupt of a signal too: processes that are only starting would outlive the server.
            self._clear_away()
            raise

    def _wait_until_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.ready.wait(_POLL_SECONDS):
            if not self.is_alive():
                raise NotServingError(f"the blocks do not serve: {self._failure}")
            ended = [handler.exitcode for handler in self.conn_handlers if handler.exitcode is not None]
            if ended:
                raise NotServingError(f"the process of a handler ended with exit code {ended[0]} before it served")
            if time.monotonic() > deadline:
                raise NotServingError(f"the processes of the handlers have not started within {seconds:g} s")

    def _clear_away(self) -> None:
        for handler in self.conn_handlers:
            # The thread waits for this, and holds the blocks as long as it does.
            with contextlib.suppress(InvalidStateError):
                handler.ready.set_exception(NotServingError("the start was given up"))
        self.join(_JOIN_SECONDS)
        try:
            self.shutdown()
        finally:
            for handler in self.conn_handlers:
                if handler.is_alive():
                    handler.join(_JOIN_SECONDS)
                if handler.is_alive():  # it does not even hear Petals' SIGTERM
                    handler.kill()
                    handler.join()
