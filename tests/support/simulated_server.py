"""A server as a value, with every freedom that the control protocol leaves it: for tests of moves in simulated time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from swarmkeel.control.protocol import RestartPhase, RestartRequest, RestartStatus, ServerPhase, ServerStatus
from swarmkeel.daemon.move import Refusal
from swarmkeel.swarm.span import Span

ORIGIN, TARGET = Span(0, 4), Span(4, 8)


@dataclass(frozen=True)
class SimulatedServer:
    """A truthful server with every freedom that the protocol leaves it."""

    span: Span | None = ORIGIN
    state: ServerPhase = ServerPhase.ONLINE
    restart: RestartStatus | None = None
    accepted: tuple[str, ...] = ()
    former: Span | None = None

    def status(self) -> ServerStatus:
        return ServerStatus("sim/1", "p", "m", 8, 4, 1.0, self.state, self.span, restart=self.restart)

    def take(self, request: RestartRequest) -> tuple[SimulatedServer, Refusal | None]:
        if self.restart is not None and self.restart.id == request.id:
            return self, None
        if self.restart is not None and not self.restart.phase.is_final:
            return self, Refusal(409, "another restart is under way")
        if request.if_span != self.span:
            return self, Refusal(409, "if_span is not the present span")
        restart = RestartStatus(request.id, request.span, RestartPhase.LOADING)
        taken = replace(
            self,
            span=request.span,
            state=ServerPhase.JOINING,
            restart=restart,
            accepted=(*self.accepted, request.id),
            former=self.span,
        )
        return taken, None

    def own_steps(self) -> Iterator[SimulatedServer]:
        """Everything that may happen to the server by itself before the sidecar looks again."""
        yield self
        if self.restart is not None and not self.restart.phase.is_final:
            done = replace(self.restart, phase=RestartPhase.ONLINE)
            failed = replace(self.restart, phase=RestartPhase.FAILED, error="out of memory")
            yield replace(self, state=ServerPhase.ONLINE, restart=done)
            yield replace(self, state=ServerPhase.FAILED, span=None, restart=failed)
            if self.former is not None:
                yield replace(self, state=ServerPhase.ONLINE, span=self.former, restart=failed)
        # A new process of the server knows nothing of restarts.
        yield replace(self, state=ServerPhase.IDLE, span=None, restart=None)
        yield replace(self, state=ServerPhase.ONLINE, span=ORIGIN, restart=None)
