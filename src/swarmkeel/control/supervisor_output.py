"""Passes the output of a child process through as it is, and looks at its lines on the way."""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
from collections.abc import Callable
from typing import Final

_CHUNK_BYTES: Final = 64 * 1024
LONGEST_REST: Final = 16 * 1024
"""So many bytes at the end of an incomplete line are kept to be looked at together with what comes next."""
_LINE_ENDS: Final = re.compile(rb"[\r\n]+")  # a progress bar ends its lines with a carriage return alone


class LineScanner:
    """Cuts a stream of bytes into lines.

    Args:
        on_text: Called with every line that is not empty, without its end, and with every beginning of one that is not
            complete yet, so that a prompt is seen too: the same text may come several times.
    """

    def __init__(self, on_text: Callable[[bytes], None]) -> None:
        self._on_text = on_text
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take what was read."""
        *lines, rest = _LINE_ENDS.split(self._rest + chunk)
        for text in (*lines, rest):
            if text:
                self._on_text(text)
        self._rest = rest[-LONGEST_REST:]


class OutputRelay:
    """A thread that copies one stream of a child to a stream of our own, byte for byte and at once.

    When our own stream is gone, the child's goes on being read, so that the child does not notice.

    Args:
        source: Read end of the child's pipe; closed in the end.
        target: File descriptor to write to; left open.
        on_text: See `LineScanner`; called in the thread.
    """

    def __init__(self, source: int, target: int, on_text: Callable[[bytes], None]) -> None:
        self._source = source
        self._target = target
        self._scanner = LineScanner(on_text)
        self._stopper, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._run, name="swarmkeel-output", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until all that will ever be written has been copied, or the time is over; blocks."""
        self._thread.join(seconds)

    def finish(self, seconds: float) -> None:
        """Copy what the child has written so far, and end; blocks for a while if nobody takes our own output.

        Processes that the child left behind may still hold the other end of the pipe, so its end is not waited for.

        Args:
            seconds: How long to wait for whoever takes our output.
        """
        os.close(self._stopped)
        self._thread.join(seconds)

    def _run(self) -> None:
        os.set_blocking(self._source, False)
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._stopper, select.POLLIN)
        try:
            stopping = False
            while True:
                # The order matters: what was written before the stop is read after it has been noticed.
                stopping = stopping or any(descriptor == self._stopper for descriptor, _ in poll.poll())
                try:
                    chunk = os.read(self._source, _CHUNK_BYTES)
                except BlockingIOError:
                    if stopping:
                        return
                    continue
                if not chunk:
                    return
                self._scanner.feed(chunk)
                self._write(chunk)
        finally:
            os.close(self._source)
            os.close(self._stopper)

    def _write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        with contextlib.suppress(OSError):  # nobody reads our output any more: the child goes on all the same
            while view:
                try:
                    view = view[os.write(self._target, view) :]
                except BlockingIOError:  # whoever gave us the stream made it non-blocking
                    select.select([], [self._target], [])
