"""A stand-in that writes a diary of what it really does, and takes orders to misbehave: `-m tests.support.watched_server`.

What a swarm of sidecars did can then be judged by what happened, not by what they believe.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from swarmkeel.control.protocol import RestartRequest, ServerPhase, ServerStatus
from swarmkeel.control.server import Refused
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.demo.processes import stand_in_command
from swarmkeel.demo.server_life import Announcement, ServerLife
from swarmkeel.demo.stand_in import StandIn, StandInSettings, parse_arguments, serve
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.dht_node import DhtNode
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.span import Span


@dataclass(frozen=True)
class Orders:
    """How a server misbehaves.

    Attributes:
        hanging: Loading one of these blocks never ends, until other orders come.
        failing: Loading one of these blocks fails.
        mute: It tells the swarm nothing but goodbyes.
        lies: It says at its control socket that it serves other blocks than it does.
    """

    hanging: tuple[int, ...] = ()
    failing: tuple[int, ...] = ()
    mute: bool = False
    lies: bool = False

    def give(self, folder: Path) -> None:
        """Make them the orders of the server whose folder this is; it looks at least once a second."""
        path = orders_path(folder)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(path)


def orders_path(folder: Path) -> Path:
    return folder / "orders.json"


def diary_path(folder: Path) -> Path:
    return folder / "diary.jsonl"


def watched_command(settings: StandInSettings, folder: Path) -> list[str]:
    """Give the command that starts a watched server."""
    python, flag, _, *options = stand_in_command(settings)
    return [python, flag, "tests.support.watched_server", str(folder), *options]


class WatchedStandIn(StandIn):
    """Writes a line whenever its life takes a step, and whenever it is asked for a restart."""

    def __init__(self, settings: StandInSettings, node: DhtNode, folder: Path) -> None:
        self._orders = Orders()
        self._orders_path = orders_path(folder)
        self._orders_at = 0
        self._diary = diary_path(folder).open("a", buffering=1)
        self._lived: ServerLife | None = None
        super().__init__(settings, node)

    @property
    def _life(self) -> ServerLife:
        assert self._lived is not None
        return self._lived

    @_life.setter
    def _life(self, life: ServerLife) -> None:
        former, self._lived = self._lived, life
        if former is None or _shown(former) != _shown(life):
            self._write("life", **_shown(life))

    def status(self) -> ServerStatus:
        status = super().status()
        if not self._orders.lies or status.span is None:
            return status
        shift = 1 if status.span.end < status.total_blocks else -1
        return replace(
            status,
            state=ServerPhase.ONLINE,
            span=Span(status.span.start + shift, status.span.end + shift),
            restart=None,
        )

    def restart(self, request: RestartRequest) -> None:
        before = self._advance()
        refusal = None
        try:
            super().restart(request)
        except Refused as refused:
            refusal = refused.detail
            raise
        finally:
            at = before.span
            self._write(
                "asked",
                id=request.id,
                target=str(request.span),
                served=None if at is None else str(at),
                busy_with=before.restart.id if before.restart and not before.restart_is_over else None,
                refusal=refusal,
            )

    def _advance(self) -> ServerLife:
        self._look_at_orders()
        return super()._advance()

    async def _announce(self, announcement: Announcement | None) -> None:
        if self._orders.mute and announcement is not None and announcement.state is not ServerState.OFFLINE:
            self._told = announcement
            self._renewal_due = time.monotonic() + 1.0
            return
        await super()._announce(announcement)

    def _look_at_orders(self) -> None:
        try:
            changed = self._orders_path.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed == self._orders_at:
            return
        self._orders_at = changed
        self._orders = Orders(**json.loads(self._orders_path.read_text()))
        with self._lock:
            gpu = replace(
                self._life.gpu,
                hanging_blocks=frozenset(self._orders.hanging),
                failing_blocks=frozenset(self._orders.failing),
            )
            self._life = replace(self._life, gpu=gpu)

    def _write(self, what: str, **values: Any) -> None:
        self._diary.write(json.dumps({"at": time.time(), "what": what, **values}) + "\n")


def _shown(life: ServerLife) -> dict[str, Any]:
    return {
        "step": life.step.value,
        "span": None if life.span is None else str(life.span),
        "restart": life.restart.id if life.restart else None,
        "over": life.restart_is_over,
        "error": life.restart_error,
    }


def main() -> int:
    folder = Path(sys.argv[1])
    settings = parse_arguments(sys.argv[2:])
    configure_logging("info", "auto")
    try:
        asyncio.run(serve(settings, lambda given, node: WatchedStandIn(given, node, folder)))
    except (SwarmkeelError, OSError) as error:
        print(f"stand-in: {error}", file=sys.stderr)  # noqa: T201 - the one line that says why it ended
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
