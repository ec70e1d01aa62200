"""Weights of blocks on disk, fetched by Petals' own functions while other blocks serve."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from petals.server import from_pretrained

from swarmkeel.swarm.span import Span

_DOWNLOAD_RETRIES: Final = 3


class WeightsUnavailableError(RuntimeError):
    """The weights of a block cannot be read or downloaded."""


class RetryLimit:
    """Stands in for the module `time` in `petals.server.from_pretrained`, which sleeps before each try at a download.

    Petals tries for ever. That is right for a server which has nothing else to do, and wrong for one that could go back
    to the blocks it had: within `limited`, and in that thread alone, the tries come to an end.
    """

    def __init__(self) -> None:
        self._thread = threading.local()

    @contextlib.contextmanager
    def limited(self, retries: int) -> Iterator[None]:
        """Let this thread try again so many times, then raise WeightsUnavailableError."""
        self._thread.left = retries
        try:
            yield
        finally:
            self._thread.left = None

    def sleep(self, seconds: float) -> None:
        """Sleep as Petals asks before its next try, or raise if there is to be none."""
        left = getattr(self._thread, "left", None)
        if left is not None:
            if left <= 0:
                cause = sys.exc_info()[1]  # Petals sleeps while it handles the failure
                raise WeightsUnavailableError(f"the weights cannot be had: {cause}")
            self._thread.left = left - 1
        time.sleep(seconds)


class Weights:
    """The checkpoint that a server loads its blocks from.

    Args:
        server: The `petals.server.Server`.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._limit = RetryLimit()
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self._fetching: Span | None = None
        self.fetched: Span | None = None
        """The blocks that were fetched last."""
        from_pretrained.time = self._limit

    def bounded(self) -> contextlib.AbstractContextManager[None]:
        """Let what this thread loads fail after a few tries."""
        # Nobody else will put a missing file into a local folder, so nothing is gained by trying again.
        is_local = Path(self._server.converted_model_name_or_path).is_dir()
        return self._limit.limited(0 if is_local else _DOWNLOAD_RETRIES)

    def fetch(self, span: Span, progress: Callable[[float], None]) -> None:
        """Have the weights of these blocks on disk.

        Raises:
            Exception: Whatever Petals raises, and WeightsUnavailableError.
        """
        self._join(cancel=self._fetching != span)
        if self.fetched == span:
            return
        self._fetch(span, progress, threading.Event())

    def fetch_in_background(self, span: Span, report: Callable[[Span, Exception | None], None]) -> None:
        """Begin to fetch the weights of these blocks, in place of what is being fetched, and return at once."""

        def work(former: threading.Thread | None, cancelled: threading.Event) -> None:
            if former is not None:
                former.join()
            try:
                self._fetch(span, lambda _: None, cancelled)
            except Exception as error:  # noqa: BLE001 - whatever it is, the serving goes on
                report(span, error)
            else:
                report(span, None)

        self._cancelled.set()
        # Each has its own: one that was cancelled while it waited for its turn must not begin when that comes.
        self._cancelled = threading.Event()
        self._fetching = span
        self._thread = threading.Thread(
            target=work, args=(self._thread, self._cancelled), name="swarmkeel-prefetch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End what runs in the background: nothing of it may be under way when Petals forks its processes."""
        self._join(cancel=True)

    def _join(self, *, cancel: bool) -> None:
        if self._thread is not None:
            if cancel:
                self._cancelled.set()
            self._thread.join()
            self._thread = self._fetching = None

    def _fetch(self, span: Span, progress: Callable[[float], None], cancelled: threading.Event) -> None:
        server = self._server
        self.fetched = None
        for done, index in enumerate(range(span.start, span.end)):
            if cancelled.is_set():
                return
            progress(done / len(span))
            with self.bounded():
                # Reads them as well: half a file is found now, not when the old blocks are gone.
                from_pretrained._load_state_dict_from_repo(  # noqa: SLF001 - what Petals' own loading begins with
                    server.converted_model_name_or_path,
                    f"{server.block_config.block_prefix}.{index}.",
                    revision=server.revision,
                    token=server.token,
                    cache_dir=server.cache_dir or from_pretrained.DEFAULT_CACHE_DIR,
                    max_disk_space=server.max_disk_space,
                )
        self.fetched = span
