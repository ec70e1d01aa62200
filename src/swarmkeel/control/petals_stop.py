"""The event that a Petals server sleeps on, made so that a sidecar can wake it. Standard library only."""

from __future__ import annotations

import threading


class WakeableStop:
    """Stands in for the `threading.Event` in `petals.server.Server.stop`.

    Petals waits on it between two checks of the balance, for up to twice its check period, and looks at whether it
    should move when the wait ends without a stop. `wake` ends the wait at once.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._stopped = False
        self._woken = False

    def is_set(self) -> bool:
        """Tell whether the server is to end."""
        with self._condition:
            return self._stopped

    def set(self) -> None:
        """Say that the server is to end."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def wake(self) -> None:
        """End one wait, the present one or the next, without a stop."""
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the stop, for a call of `wake`, or for the timeout; tell whether it was the stop."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or self._woken, timeout)
            self._woken = False
            return self._stopped
