"""The life of a supervised server as a pure state machine: no process, no clock, no I/O.

idle -> starting -> online -> stopping -> starting -> online
           |           |
           |           +--- it ends by itself ------------ waiting -> starting
           +--- not ready: stopping, and then
                  within a restart ----------------------- starting on the former blocks, or idle where there are none
                  else ----------------------------------- waiting -> starting
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from swarmkeel.control.protocol import RestartPhase, RestartRequest, RestartStatus, ServerPhase
from swarmkeel.swarm.span import Span


class Step(StrEnum):
    """What the supervised server is at."""

    IDLE = "idle"
    """Nothing runs: nobody has said which blocks."""
    STARTING = "starting"
    """The command runs, or is about to, and is not ready yet."""
    ONLINE = "online"
    STOPPING = "stopping"
    """What runs is being ended."""
    WAITING = "waiting"
    """The command ended by itself, and is run again after a pause."""
    ENDED = "ended"
    """It was told to end, and has."""


_SERVER_PHASES = {
    Step.IDLE: ServerPhase.IDLE,
    Step.STARTING: ServerPhase.JOINING,
    Step.ONLINE: ServerPhase.ONLINE,
    Step.STOPPING: ServerPhase.STOPPING,
    Step.WAITING: ServerPhase.FAILED,
    Step.ENDED: ServerPhase.STOPPING,
}


class SupervisorIsEndingError(Exception):
    """The server is being ended for good and takes no restart any more."""


@dataclass(frozen=True)
class SupervisedServer:
    """One moment in the life of a supervised server; every method gives the next one and changes nothing.

    Attributes:
        step: What it is at.
        span: The blocks that it serves, starts on or leaves; None while it has none.
        following: While stopping, the blocks to start on afterwards; None to have none then.
        former: The blocks to go back to if the present restart fails; None to be idle then.
        restart: The last restart that it was told to make, and how far that is.
        failures: How many times in a row the command ended by itself; decides the pause before the next time.
        pauses: Whether stopping is followed by a pause, since it was not asked for.
        ending: It was told to end for good.
    """

    step: Step = Step.IDLE
    span: Span | None = None
    following: Span | None = None
    former: Span | None = None
    restart: RestartStatus | None = None
    failures: int = 0
    pauses: bool = False
    ending: bool = False

    @property
    def phase(self) -> ServerPhase:
        """What the server as a whole does, as its control socket tells it."""
        return _SERVER_PHASES[self.step]

    @property
    def is_restarting(self) -> bool:
        """Whether a restart that it was told to make is not over."""
        return self.restart is not None and not self.restart.phase.is_final

    def begin(self, span: Span) -> SupervisedServer:
        """Start on blocks that nobody but the operator has chosen; changes nothing if it has some already."""
        return replace(self, step=Step.STARTING, span=span) if self.step is Step.IDLE else self

    def accept(self, request: RestartRequest) -> SupervisedServer:
        """Begin a restart on other blocks, or on the same ones.

        Raises:
            SupervisorIsEndingError: If it is being ended for good.
        """
        if self.ending:
            raise SupervisorIsEndingError("the server is being ended")
        told = replace(self, former=self.span, failures=0, pauses=False)
        if self.step in (Step.IDLE, Step.WAITING):
            return replace(
                told,
                step=Step.STARTING,
                span=request.span,
                restart=RestartStatus(request.id, request.span, RestartPhase.LOADING),
            )
        return replace(
            told,
            step=Step.STOPPING,
            following=request.span,
            restart=RestartStatus(request.id, request.span, RestartPhase.STOPPING),
        )

    def ready(self) -> SupervisedServer:
        """The command serves its blocks."""
        if self.step is not Step.STARTING:
            return self
        return replace(self._with_restart(RestartPhase.ONLINE), step=Step.ONLINE, former=None)

    def steady(self) -> SupervisedServer:
        """It has been online for so long that its former failures do not count any more."""
        return replace(self, failures=0)

    def failed(self, reason: str) -> SupervisedServer:
        """The command ended by itself, or was not ready in time: what is left of it is ended first.

        Args:
            reason: Why, in one line.
        """
        if self.step not in (Step.STARTING, Step.ONLINE):
            return self
        if self.is_restarting:
            after = self._with_restart(RestartPhase.FAILED, reason)
            # The same blocks again would fail again: no way back but a pause.
            pauses = self.former == self.span
            return replace(
                after,
                step=Step.STOPPING,
                following=self.former,
                former=None,
                failures=self.failures + pauses,
                pauses=pauses,
            )
        return replace(self, step=Step.STOPPING, following=self.span, failures=self.failures + 1, pauses=True)

    def end(self) -> SupervisedServer:
        """End what runs, for good."""
        if self.ending:
            return self
        ended = self._with_restart(RestartPhase.FAILED, "the server was told to end") if self.is_restarting else self
        return replace(ended, step=Step.STOPPING, following=None, former=None, pauses=False, ending=True)

    def stopped(self) -> SupervisedServer:
        """Nothing runs any more: go on to what comes next."""
        if self.step is not Step.STOPPING:
            return self
        if self.ending:
            return replace(self, step=Step.ENDED, span=None)
        step = Step.IDLE if self.following is None else Step.WAITING if self.pauses else Step.STARTING
        after = self._with_restart(RestartPhase.LOADING) if self.is_restarting else self
        return replace(after, step=step, span=self.following, following=None, pauses=False)

    def waited(self) -> SupervisedServer:
        """The pause is over."""
        return replace(self, step=Step.STARTING) if self.step is Step.WAITING else self

    def _with_restart(self, phase: RestartPhase, error: str | None = None) -> SupervisedServer:
        if self.restart is None or not self.is_restarting:
            return self
        return replace(self, restart=replace(self.restart, phase=phase, error=error))


def pause_after(failures: int, first: float, longest: float) -> float:
    """Give the seconds to wait before the command is run again: twice as long every further time.

    Args:
        failures: How many times in a row it ended by itself, from 1.
        first: Seconds after the first time.
        longest: The most seconds.
    """
    doublings = min(failures - 1, 64)  # more is beyond any limit, and beyond floating point in the end
    return min(first * 2.0**doublings, longest)
