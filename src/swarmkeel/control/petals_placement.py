"""Where a Petals server is and is told to be: what its control socket shows, kept in one place.

Written by the server's main thread, read and asked by the threads of the control socket. Standard library only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from swarmkeel.control.protocol import RestartPhase, RestartRequest, RestartStatus, ServerPhase
from swarmkeel.swarm.span import Span


@dataclass(frozen=True)
class View:
    """What a server shows of itself at one instant.

    Attributes:
        state: What it does.
        span: The blocks that it serves or loads.
        restart: The last restart that it was asked for.
    """

    state: ServerPhase = ServerPhase.JOINING
    span: Span | None = None
    restart: RestartStatus | None = None


class Placement:
    """The state of one server, safe to use from any thread.

    Args:
        sidecar_lost_after: Seconds without a request after which no sidecar is in touch any more.
        clock: Seconds that only grow.
    """

    def __init__(self, sidecar_lost_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._view = View()
        self._wanted: RestartRequest | None = None
        self._sidecar_lost_after = sidecar_lost_after
        self._clock = clock
        self._contact: float | None = None

    @property
    def view(self) -> View:
        """What to show now."""
        with self._lock:
            return self._view

    @property
    def wanted(self) -> RestartRequest | None:
        """The restart that is still to be done; None when it is being loaded, is done, or has failed."""
        with self._lock:
            return self._wanted

    @property
    def was_ever_moved(self) -> bool:
        """Whether a sidecar has ever asked for a restart."""
        return self.view.restart is not None

    def note_contact(self) -> None:
        """Note that a sidecar has just asked for something."""
        with self._lock:
            self._contact = self._clock()

    def sidecar_in_touch(self) -> bool:
        """Tell whether a sidecar has asked for something lately."""
        with self._lock:
            return self._contact is not None and self._clock() - self._contact < self._sidecar_lost_after

    def accept(self, request: RestartRequest) -> None:
        """Take a restart that is to be done from now on."""
        with self._lock:
            self._wanted = request
            restart = RestartStatus(request.id, request.span, RestartPhase.ACCEPTED)
            self._view = replace(self._view, restart=restart)

    def show(self, state: ServerPhase, span: Span | None) -> None:
        """Show another state; the restart stays as it is."""
        with self._lock:
            self._view = replace(self._view, state=state, span=span)

    def advance(self, phase: RestartPhase, progress: float | None = None) -> None:
        """Show how far the restart under way has come; without one nothing changes."""
        with self._lock:
            restart = self._view.restart
            if restart is not None and not restart.phase.is_final:
                self._view = replace(self._view, restart=replace(restart, phase=phase, progress=progress))

    def take(self) -> Span | None:
        """Give the blocks of the restart that is to be done, which is loading from now on; None if there is none."""
        with self._lock:
            wanted, self._wanted = self._wanted, None
            if wanted is None:
                return None
            restart = RestartStatus(wanted.id, wanted.span, RestartPhase.LOADING, progress=0.0)
            self._view = replace(self._view, state=ServerPhase.JOINING, span=wanted.span, restart=restart)
            return wanted.span

    def arrive(self) -> None:
        """Show that the blocks serve. A restart that was loading is done; one that waits for its turn goes on waiting."""
        with self._lock:
            restart = self._view.restart
            if restart is not None and restart.phase is RestartPhase.LOADING:
                restart = replace(restart, phase=RestartPhase.ONLINE, progress=1.0)
            self._view = replace(self._view, state=ServerPhase.ONLINE, restart=restart)

    def fail(self, reason: str) -> None:
        """End the restart under way as failed; without one nothing changes."""
        with self._lock:
            self._wanted = None
            restart = self._view.restart
            if restart is not None and not restart.phase.is_final:
                failed = replace(restart, phase=RestartPhase.FAILED, progress=None, error=reason)
                self._view = replace(self._view, restart=failed)
