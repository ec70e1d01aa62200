"""A Petals server that goes where its sidecar tells it to, and where Petals would when there is no sidecar."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import petals
from petals.data_structures import ServerState
from petals.server import server as petals_server

from swarmkeel.control.petals_container import ModuleContainer
from swarmkeel.control.petals_placement import Placement
from swarmkeel.control.petals_sessions import TransformerConnectionHandler, count_sessions, refuse_sessions
from swarmkeel.control.petals_stop import WakeableStop
from swarmkeel.control.petals_weights import Weights
from swarmkeel.control.protocol import PrefetchRequest, RestartPhase, RestartRequest, ServerPhase, ServerStatus
from swarmkeel.control.server import ControlServer, Refused
from swarmkeel.control.unix_socket import own_and_root_uids
from swarmkeel.swarm.span import Span

_DRAIN_POLL_SECONDS: Final = 0.1
_RETRY_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SteeringOptions:
    """How a server is steered.

    Attributes:
        control_socket: Path of its control socket.
        idle_limit: Seconds that it waits for a sidecar's first choice before it chooses as Petals would.
        sidecar_lost_after: Seconds without a request after which it balances by itself again.
        start_limit: Seconds that the processes which serve loaded blocks may take to start.
        prefetch: Fetch the weights of a restart's blocks before the old blocks are stopped.
        allowed_uids: User ids that may use the control socket beside the server's own and root.
    """

    control_socket: str
    idle_limit: float
    sidecar_lost_after: float
    start_limit: float
    prefetch: bool = True
    allowed_uids: Collection[int] = ()


class SteeredServer(petals_server.Server):  # type: ignore[misc] # Petals is published without types
    """Petals' server with protocol 1: all of its work is done by Petals, only the places where it decides are its own.

    `run` of Petals loops over choosing blocks, loading them, and asking now and then whether to choose again. Those
    three questions are answered here; the DHT node, the peer id and the process stay through every move.

    Args:
        options: How it is steered.
        **petals_options: Those of `petals.server.server.Server`.
    """

    def __init__(self, *, options: SteeringOptions, **petals_options: Any) -> None:
        self._container: Any = None
        self._placement = Placement(options.sidecar_lost_after)
        self._options = options
        self._served: Span | None = None
        self._fallback: Span | None = None
        self._is_first_choice = True
        self._has_failed = False
        self._rebalances = False
        super().__init__(**petals_options)
        self.stop = WakeableStop()
        self._weights = Weights(self)
        self._peer_id = str(self.dht.peer_id.to_base58())
        self._load_petals_block = petals_server.load_pretrained_block
        petals_server.load_pretrained_block = self._load_block
        petals_server.TransformerConnectionHandler = TransformerConnectionHandler
        ModuleContainer.start_limit = options.start_limit
        petals_server.ModuleContainer = ModuleContainer

    # What Petals' own run() asks and sets.

    def run(self) -> None:
        """Serve until the stop. A failed move never ends it; what would end Petals before any move still does."""
        allowed = own_and_root_uids().union(self._options.allowed_uids)
        with ControlServer(self._options.control_socket, self, allowed_uids=allowed):
            while True:
                try:
                    super().run()
                except Exception as error:
                    if not self._placement.was_ever_moved:
                        raise
                    _log.exception("serving blocks %s failed", self._placement.view.span)
                    reason = f"{type(error).__name__}: {error}"
                else:
                    return
                # Only here is the error gone, and with it what it held of the blocks.
                self._give_up_blocks(reason)

    @property
    def module_container(self) -> Any:
        """The blocks and the processes that serve them."""
        return self._container

    @module_container.setter
    def module_container(self, container: Any) -> None:
        self._container = container
        if container is not None:  # Petals sets it when the blocks are loaded and serve
            self._served = self._placement.view.span
            self._fallback = None
            self._has_failed = False
            self._placement.arrive()
            _log.info("serving blocks %s", self._served)

    def _choose_blocks(self) -> Sequence[int]:
        # Petals is about to fork the processes of the next blocks.
        self._weights.stop()
        span = self._placement.take() or self._go_back()
        if span is None and self.strict_block_indices is None:
            span = self._wait_for_choice()
        if span is None:
            self._placement.show(ServerPhase.JOINING, None)
            blocks = super()._choose_blocks()
            span = Span(min(blocks), max(blocks) + 1)
        self._is_first_choice = self._rebalances = False
        self._placement.show(ServerPhase.JOINING, span)
        _log.info("loading blocks %s", span)
        return range(span.start, span.end)

    def _go_back(self) -> Span | None:
        """Give the blocks to load again: those before a failed move, or those whose processes have crashed."""
        if self._has_failed:
            return self._fallback
        crashed = self._served is not None and not self._rebalances
        return self._served if crashed and self._placement.sidecar_in_touch() else None

    def _wait_for_choice(self) -> Span | None:
        if self._has_failed:
            self._placement.show(ServerPhase.FAILED, None)
            return self._wait_for_sidecar(_RETRY_SECONDS)
        if self._is_first_choice:
            self._placement.show(ServerPhase.IDLE, None)
            return self._wait_for_sidecar(self._options.idle_limit)
        return None

    def _wait_for_sidecar(self, seconds: float) -> Span | None:
        deadline = time.monotonic() + seconds
        while self._placement.wanted is None and (left := deadline - time.monotonic()) > 0:
            if self.stop.wait(left):
                raise KeyboardInterrupt
        return self._placement.take()

    def _should_choose_other_blocks(self) -> bool:
        request = self._placement.wanted
        if request is not None:
            return self._leave_for(request)
        if self._placement.sidecar_in_touch():
            return False
        # A sidecar may have come while the swarm was read.
        self._rebalances = bool(super()._should_choose_other_blocks()) and not self._placement.sidecar_in_touch()
        if self._rebalances:
            self._fallback = self._served
            self._placement.show(ServerPhase.STOPPING, self._served)
        return self._rebalances

    def _leave_for(self, request: RestartRequest) -> bool:
        """Do what comes before the stop; with False the blocks go on serving and the restart has failed."""
        try:
            if self._options.prefetch:
                self._placement.advance(RestartPhase.PREFETCHING, 0.0)
                self._weights.fetch(
                    request.span, lambda progress: self._placement.advance(RestartPhase.PREFETCHING, progress)
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, the present blocks go on serving
            _log.exception("restart %s: the weights of blocks %s cannot be fetched", request.id, request.span)
            self._placement.fail(f"{type(error).__name__}: {error}")
            return False
        self._fallback = self._served
        if request.drain_seconds > 0:
            self._drain(request.drain_seconds)
        self._placement.show(ServerPhase.STOPPING, self._served)
        self._placement.advance(RestartPhase.STOPPING)
        return True

    def _drain(self, seconds: float) -> None:
        self._placement.show(ServerPhase.DRAINING, self._served)
        refuse_sessions(self._container.conn_handlers)
        # Clients look for servers that are ONLINE; to other servers one that is JOINING still counts.
        self._container.dht_announcer.announce(ServerState.JOINING)
        begin = time.monotonic()
        while self._count_sessions() and (share := (time.monotonic() - begin) / seconds) < 1:
            self._placement.advance(RestartPhase.DRAINING, share)
            if self.stop.wait(_DRAIN_POLL_SECONDS):
                return

    def _load_block(self, model: str, index: int, **options: Any) -> Any:
        """Load a block as Petals does, and show how far the loading has come."""
        view = self._placement.view
        # Petals tries for ever to get what is missing. Since the first move there is always something better to do.
        with self._weights.bounded() if self._placement.was_ever_moved else contextlib.nullcontext():
            block = self._load_petals_block(model, index, **options)
        if view.span is not None:
            self._placement.advance(RestartPhase.LOADING, (index + 1 - view.span.start) / len(view.span))
        return block

    def _give_up_blocks(self, reason: str) -> None:
        """Clear away what failed, and go back to the blocks before it, if it was not those that failed."""
        failed = self._placement.view.span
        for announcer in _running_announcers():
            announcer.announce(ServerState.OFFLINE)
        self._clean_memory_and_fds()
        if self._fallback == failed:
            self._fallback = None
        self._has_failed = True
        self._served = None
        if self._placement.wanted is None:
            self._placement.fail(reason)

    # What the control socket asks, from threads of its own.

    def status(self) -> ServerStatus:
        """Tell what the server does."""
        self._placement.note_contact()
        view = self._placement.view
        return ServerStatus(
            implementation=f"petals/{petals.__version__}",
            peer_id=self._peer_id,
            dht_prefix=self.dht_prefix,
            total_blocks=self.block_config.num_hidden_layers,
            num_blocks=self.num_blocks,
            throughput=float(self.server_info.throughput),
            state=view.state,
            span=view.span,
            pinned=self.strict_block_indices is not None,
            sessions=self._count_sessions(),
            capabilities=("drain", "prefetch") if self._options.prefetch else ("drain",),
            restart=view.restart,
        )

    def restart(self, request: RestartRequest) -> None:
        """Have the main thread restart on other blocks."""
        if self.strict_block_indices is not None:
            raise Refused(HTTPStatus.CONFLICT, "pinned by its operator with --block_indices")
        if self.stop.is_set():
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the server is about to end")
        self._placement.accept(request)
        self.stop.wake()

    def prefetch(self, request: PrefetchRequest) -> None:
        """Begin to fetch the weights of other blocks."""
        if self._placement.view.state is not ServerPhase.ONLINE:
            raise Refused(HTTPStatus.CONFLICT, "the server is loading blocks itself")
        self._weights.fetch_in_background(request.span, _report_prefetch)

    def _count_sessions(self) -> int:
        container = self._container
        return 0 if container is None else count_sessions(container.conn_handlers)


def _running_announcers() -> Iterator[Any]:
    """Find the threads that announce blocks: a container that failed late leaves its one running."""
    for thread in threading.enumerate():
        if isinstance(thread, petals_server.ModuleAnnouncerThread):
            yield thread


def _report_prefetch(span: Span, error: Exception | None) -> None:
    if error is None:
        _log.info("the weights of blocks %s are fetched", span)
    else:
        _log.warning("the weights of blocks %s could not be fetched: %s", span, error)
