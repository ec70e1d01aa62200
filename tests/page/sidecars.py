"""Daemons without a loop: real HTTP, a real journal, and a state that the test sets."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.config import BalanceSection, Config, JournalSection, ServerSection, SwarmSection
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.api import Api
from swarmkeel.daemon.guard import GuardSettings, GuardView
from swarmkeel.daemon.http import HttpServer
from swarmkeel.daemon.journal import Journal
from swarmkeel.daemon.move import Move, MoveStep
from swarmkeel.daemon.state import ClaimsView, DaemonState, view_swarm
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

MODEL = "llama-70b-hf"
OWN = "12D3KooWOwn"


@dataclass(frozen=True)
class Placed:
    """A server as it announces itself."""

    peer_id: str
    span: Span
    throughput: float = 10.0
    state: ServerState = ServerState.ONLINE
    name: str | None = None


def snapshot(total_blocks: int, servers: Sequence[Placed], *, unread: Sequence[int] = ()) -> SwarmSnapshot:
    blocks = tuple(
        BlockReading(
            f"{MODEL}.{block}",
            KeyReading.UNKNOWN if block in unread else KeyReading.OK,
            {
                server.peer_id: ServerInfo(
                    server.state, server.throughput, server.span.start, server.span.end, public_name=server.name
                )
                for server in servers
                if server.span.start <= block < server.span.end
            },
        )
        for block in range(total_blocks)
    )
    return SwarmSnapshot(MODEL, 0, blocks, time.time(), {"shape": 2})


def decision(verdict: Verdict, *reasons: Reason, target: Span | None = None) -> Decision:
    before = SwarmNumbers(bottleneck_rps=0, bound_rps=31, uncovered_blocks=3)
    after = SwarmNumbers(bottleneck_rps=24, bound_rps=31, uncovered_blocks=0)
    return Decision(
        verdict=verdict,
        reasons=reasons,
        policy="coordinated",
        peer_id=OWN,
        own_span=Span(0, 16),
        target=target,
        before=before,
        after=after if target else None,
        snapshot_digest="0" * 64,
        seed=0,
    )


@dataclass
class StillDaemon:
    """A daemon that does nothing by itself."""

    state: DaemonState
    config: Config
    journal: Journal
    port: int = 0
    http: HttpServer | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def show(self, total_blocks: int, servers: Sequence[Placed], *, unread: Sequence[int] = ()) -> None:
        """Let the daemon have read this swarm just now."""
        self.state.show_swarm(view_swarm(snapshot(total_blocks, servers, unread=unread)), is_good=True)

    async def close(self) -> None:
        assert self.http is not None
        await self.http.close()


@asynccontextmanager
async def still_daemon(
    folder: Path, *, total_blocks: int = 80, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[StillDaemon]:
    """Let a daemon's HTTP listen, with nothing behind it but its state and an empty journal."""
    config = Config(
        swarm=SwarmSection(dht_prefix=MODEL, total_blocks=total_blocks, initial_peers=("/ip4/127.0.0.1/tcp/1/p2p/Q",)),
        server=ServerSection(socket=Path("/run/s")),
        journal=JournalSection(path=folder / "journal.sqlite"),
        balance=BalanceSection(),
    )
    now = time.time()
    state = DaemonState(started_at=now - 90_000, last_turn_at=now)
    with Journal(config.journal.path) as journal:
        daemon = StillDaemon(state, config, journal)
        api = Api(state, config=lambda: daemon.config, journal=journal, version="1.2.3", clock=time.time)
        daemon.http = HttpServer(
            CollectorRegistry(), state, stalled_after=lambda: 60, clock=time.time, api=api, host=host
        )
        daemon.port = await daemon.http.start(port)
        try:
            yield daemon
        finally:
            await daemon.close()


def move(number: int, started_at: float, step: MoveStep, *, error: str | None = None, gain: float = 6.0) -> Move:
    return Move(
        id=f"m{number}",
        peer_id=OWN,
        origin=Span(16, 32),
        target=Span(0, 16),
        reason="r",
        started_at=started_at,
        step=step,
        step_since=started_at + 200,
        requested_at=started_at + 10,
        served_at=started_at + 195 if step is MoveStep.DONE else None,
        predicted_gain_rps=gain,
        realised_gain_rps=gain - 0.8 if step is MoveStep.DONE else None,
        error=error,
    )


def fill(daemon: StillDaemon, servers: Sequence[Placed], total_blocks: int) -> None:
    """Give a daemon a life: a server of its own, a verdict, guards that hold, claims and moves."""
    now, state = time.time(), daemon.state
    moves = (
        move(1, now - 80_000, MoveStep.DONE),
        move(2, now - 40_000, MoveStep.FELL_BACK, error="the server could not serve 0:16: out of memory"),
        move(3, now - 800, MoveStep.DONE, gain=3.1),
    )
    for one in moves:
        daemon.journal.save_move(one)
    state.server = ServerStatus("sim/1", OWN, MODEL, total_blocks, 16, 12.0, ServerPhase.ONLINE, Span(0, 16))
    state.span_since = now - 600
    state.dht_peers = 14
    state.snapshot_seconds = 1.4
    state.last_check_at = now - 3
    state.decision = decision(
        Verdict.HOLDING,
        Reason(name="moves_per_day", values={"moves": 3, "limit": 3}),
        Reason(name="closes_holes", values={"uncovered": 3, "moves": 1}),
        target=Span(40, 56),
    )
    view = GuardView(
        now=now,
        server_state="online",
        running_restart=None,
        pinned=False,
        span_since=now - 600,
        moves=moves,
        confirmations=1,
        servers=len(servers),
        others_moving=1,
    )
    limits = GuardSettings(
        cooldown=1200, minimum_uptime=1800, moves_per_day=3, confirmations=1, breaker_base=60, breaker_max=3600
    )
    state.guards = (view, limits)
    other = servers[-1]
    state.sidecars = {
        other.peer_id: Sidecar(
            other.peer_id, 0.0, 60, claim=Claim(other.span, Span(36, 52), now - 12, now + 160, other.throughput, 4.2)
        )
    }
    state.claims = ClaimsView(sidecars=len(servers) - 1, claims=1, implausible=1, rejected=0, readable=True)
    daemon.show(total_blocks, servers)


def example_servers(count: int = 20) -> list[Placed]:
    """Make a swarm of 80 blocks with a hole, servers of all states, and names of all kinds."""
    chance = random.Random(4)  # noqa: S311 - an example that can be repeated
    servers = [Placed(OWN, Span(0, 16), 12.0, name="hut-1")]
    for number in range(1, count):
        length = chance.choice([12, 16, 20])
        start = 80 - length if number == 1 else chance.randrange(0, 80 - length + 1)
        if start < 44 and start + length > 41:
            start = max(41 - length, 0) if number % 2 else 44
        state = ServerState.JOINING if number % 9 == 4 else ServerState.ONLINE
        if number % 13 == 7:
            state = ServerState.OFFLINE
        name = None if number % 5 == 0 else f"server-{number}"
        servers.append(
            Placed(f"12D3KooW{number:07d}", Span(start, start + length), chance.choice([6.0, 8, 12, 17.5]), state, name)
        )
    return servers


def remember(daemon: StillDaemon, minutes: int = 240) -> None:
    """Give a daemon a past: a bottleneck that wavers, and a hole that was healed."""
    chance, now = random.Random(1), time.time()  # noqa: S311 - as above
    newest = list(daemon.state.timeline)
    daemon.state.timeline.clear()
    for minute in range(minutes):
        is_hole = minutes // 3 < minute < minutes // 3 + 25
        numbers = SwarmNumbers(
            bottleneck_rps=0 if is_hole else 17 + chance.gauss(0, 0.8) + 6 * (minute > minutes * 0.6),
            bound_rps=33 if minute < minutes * 0.7 else 30,
            uncovered_blocks=3 if is_hole else 0,
        )
        daemon.state.timeline.append((now - 60 * (minutes - minute), numbers))
    daemon.state.timeline.extend(newest)
