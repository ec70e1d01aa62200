"""What tests of faults are made of: given, when and then, in plain functions on one `Scene`.

The scene is a small swarm on a real DHT with 8 blocks: the own server, steered by the test, and others that only announce
themselves. The sidecar beside the own server is the real one.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import time
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from swarmkeel.balance.decision import Verdict
from swarmkeel.config import load_config
from swarmkeel.daemon.journal import Journal
from swarmkeel.daemon.move import FINAL_STEPS, Move, MoveStep
from swarmkeel.daemon.service import Sidecar
from swarmkeel.daemon.witnesses import read_source
from swarmkeel.demo.processes import RunningStandIn
from swarmkeel.swarm.announcer import Announcer
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.span import Span
from tests.faults.forked import ForkedDaemon, forked_daemon
from tests.faults.steered import SteeredServer, last_move
from tests.support.dht import DhtPeers, freeze_process, p2pd_pid, plant, wait_until
from tests.support.ledger import Finding, note
from tests.support.servers import stand_in
from tests.support.sidecars import sidecar, write_config

LOW, HIGH = Span(0, 4), Span(4, 8)
Sections = dict[str, dict[str, object]]
"""What a test changes of the configuration."""
_MODELS = itertools.count()


class Clock:
    """The time of day, as far as the sidecar knows it.

    Attributes:
        ahead: Seconds by which it is ahead.
    """

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Scene:
    """One test's swarm, and what has happened in it.

    Attributes:
        fault: What is injected, one of `tests.support.ledger.FAULTS`.
        peers: The DHT.
        folder: A folder for sockets and the journal.
        own: The own server.
        own_socket: Is open while the own server listens.
        daemon: The sidecar in this process.
        forked: The sidecar as a process of its own.
        clock: What the sidecar in this process takes for the time.
        injected: How often the fault was injected.
        happened: What was seen, in a few words each.
    """

    fault: str
    peers: DhtPeers
    folder: Path
    stack: AsyncExitStack
    model: str = field(default_factory=lambda: f"tiny{next(_MODELS)}-{os.getpid()}")
    own_socket: ExitStack = field(default_factory=ExitStack)
    clock: Clock = field(default_factory=Clock)
    injected: int = 0
    happened: list[str] = field(default_factory=list)
    _own: SteeredServer | None = None
    _daemon: Sidecar | None = None
    _forked: ForkedDaemon | None = None

    @property
    def journal(self) -> Path:
        return self.folder / "journal.sqlite"

    @property
    def own(self) -> SteeredServer:
        assert self._own is not None
        return self._own

    @property
    def daemon(self) -> Sidecar:
        assert self._daemon is not None
        return self._daemon

    @property
    def forked(self) -> ForkedDaemon:
        assert self._forked is not None
        return self._forked

    def moves(self) -> list[Move]:
        with Journal(self.journal, read_only=True) as journal:
            return list(journal.moves())

    def saw(self, what: str) -> None:
        if what not in self.happened[-1:]:
            self.happened.append(what)


# ---------------------------------------------------------------- given


async def given_a_swarm(
    scene: Scene, config: Sections | None = None, *, others: tuple[Span, ...] = (HIGH,), lifetime: float = 600
) -> None:
    """Others that announce themselves, the own server, and a configuration for its sidecar."""
    for index, span in enumerate(others, 1):
        await announce(scene, index, span)
    scene._own = steered(scene, 0)
    await scene.own.announce(ServerState.ONLINE, LOW, lifetime)
    scene.own_socket.enter_context(scene.own.listening())
    scene.stack.callback(scene.own_socket.close)
    configure(scene, config or {})


async def given_a_swarm_with_a_hole(scene: Scene, config: Sections | None = None) -> None:
    """The own server is one of two on the same blocks, and nobody is on the others: it has to move."""
    await given_a_swarm(scene, config, others=(LOW,))


async def given_a_swarm_of_python_peers(scene: Scene, config: Sections) -> list[RunningStandIn]:
    """As before, but the DHT's peers are processes of their own; the own server's records are those of the first."""
    first = await scene.stack.enter_async_context(stand_in([], dht_prefix=scene.model, lifetime=600))
    second = await scene.stack.enter_async_context(
        stand_in([first.maddr], dht_prefix=scene.model, first_block=4, lifetime=600)
    )
    await given_a_swarm(scene, others=())
    scene.own.present = replace(scene.own.present, peer_id=first.peer_id)
    configure(scene, {**config, "swarm": {**config["swarm"], "initial_peers": [first.maddr, second.maddr]}})
    return [first, second]


def steered(scene: Scene, index: int) -> SteeredServer:
    """Make a server on the first blocks with the peer id of one of the peers."""
    return SteeredServer(
        scene.folder / "s", scene.journal, node=lambda: scene.peers.node(index), model=scene.model, span=LOW
    )


def configure(scene: Scene, config: Sections) -> Path:
    swarm = {"initial_peers": scene.peers.initial_peers, "dht_prefix": scene.model, **config.get("swarm", {})}
    return write_config(scene.folder / "c.yaml", scene.folder / "s", [], **{**config, "swarm": swarm})


async def given_a_running_sidecar(scene: Scene) -> None:
    """The sidecar, in this process."""
    config = scene.folder / "c.yaml"
    scene._daemon = Sidecar(load_config(config), config_path=config, clock=scene.clock)
    await scene.stack.enter_async_context(sidecar(config, scene._daemon))


async def given_a_sidecar_that_finds_all_well(scene: Scene) -> None:
    await given_a_running_sidecar(scene)
    await wait_until(lambda: verdict(scene) is Verdict.BALANCED, seconds=120)


async def given_a_sidecar_process(scene: Scene) -> None:
    """The sidecar as a process of its own, for what can be done to a process alone."""
    number = len(list(scene.folder.glob("*.log")))
    log = scene.folder / f"{number}.log"
    scene._forked = await scene.stack.enter_async_context(forked_daemon(scene.folder / "c.yaml", log))
    await scene.forked.waits_for("started")


# ---------------------------------------------------------------- when


async def announce(scene: Scene, index: int, span: Span) -> None:
    info = ServerInfo(ServerState.ONLINE, 10.0, start_block=span.start, end_block=span.end)
    await Announcer(scene.peers.node(index), scene.model).announce(info, range(span.start, span.end), 600)


async def when_the_whole_dht_dies(scene: Scene) -> None:
    scene.injected += 1
    await scene.peers.kill_all()


async def when_the_dht_is_back(scene: Scene) -> None:
    await scene.peers.restart_all()


async def when_a_peer_dies(scene: Scene, index: int) -> None:
    scene.injected += 1
    await scene.peers.kill(index)


def when_the_peers_freeze(scene: Scene) -> None:
    scene.injected += 1
    scene.peers.freeze()


def when_the_peers_go_on(scene: Scene) -> None:
    scene.peers.thaw()


def own_p2pd(scene: Scene) -> int:
    node = scene.daemon._reader.node
    assert node is not None
    return p2pd_pid(node)


def when_the_sidecars_p2pd_is_killed(scene: Scene) -> None:
    scene.injected += 1
    os.kill(own_p2pd(scene), signal.SIGKILL)


def when_the_sidecars_p2pd_freezes(scene: Scene) -> None:
    scene.injected += 1
    freeze_process(own_p2pd(scene))


def when_keys_become_unreadable(scene: Scene, blocks: range) -> None:
    """Somebody puts a plain value where the records of these blocks are."""
    scene.injected += len(blocks)
    for block in blocks:
        plant(scene.peers.nodes, f"{scene.model}.{block}", None, encode_value("mine now"), time.time() + 600)


def when_the_socket_is_gone(scene: Scene) -> None:
    scene.injected += 1
    scene.own_socket.close()


def when_the_own_server_listens_again(scene: Scene) -> None:
    scene.own_socket.enter_context(scene.own.listening())


def when_another_server_takes_the_socket(scene: Scene) -> SteeredServer:
    """Another server, with another peer id, stands at the same path."""
    scene.injected += 1
    scene.own_socket.close()
    other = steered(scene, 2)
    scene.own_socket.enter_context(other.listening())
    return other


def when_the_clock_is_set(scene: Scene, *, ahead: float) -> None:
    scene.injected += 1
    scene.clock.ahead = ahead


# ---------------------------------------------------------------- then


def verdict(scene: Scene) -> Verdict | None:
    decision = scene.daemon.state.decision
    return decision.verdict if decision else None


def reasons(scene: Scene) -> list[str]:
    decision = scene.daemon.state.decision
    return [reason.name for reason in decision.reasons] if decision else []


async def then_it_says(scene: Scene, said: Verdict, *names: str, seconds: float = 120) -> None:
    """The next verdict, and one of the reasons for it."""
    await wait_until(
        lambda: verdict(scene) is said and (not names or not set(names).isdisjoint(reasons(scene))), seconds=seconds
    )
    scene.saw(f"`{said.value}`")


async def then_all_is_well_again(scene: Scene) -> None:
    await then_it_says(scene, Verdict.BALANCED)


async def then_it_checks_on(scene: Scene, times: int = 3) -> None:
    """Some more checks are made, and none of them leads to a move."""

    def checks() -> int:
        with Journal(scene.journal, read_only=True) as journal:
            return len(journal.check_ids())

    enough = checks() + times
    await wait_until(lambda: checks() >= enough, seconds=120)


async def then_the_move_ends(scene: Scene, *ends: MoveStep) -> None:
    """The one move that there was has come to one of these ends, and no other follows."""
    await wait_until(lambda: is_over(last_move(scene.journal)), seconds=180)
    (move,) = scene.moves()
    assert move.step in ends, move
    scene.saw(f"`{move.step.value}`")
    await then_it_checks_on(scene)
    assert len(scene.moves()) == 1, "a second move followed at once"


def is_over(move: Move | None) -> bool:
    return move is not None and move.step in FINAL_STEPS


def then_the_swarms_past_is_unknown(scene: Scene) -> None:
    """Neither the status page nor a report draws bottlenecks and holes from what could not be read."""
    assert list(scene.daemon.state.timeline) == []
    witness, _wishes = read_source(str(scene.journal), since=0, until=time.time())
    assert witness.looks
    assert witness.points == ()


def then_the_server_was_told_nothing(scene: Scene) -> None:
    assert scene.own.taken == []
    assert scene.own.present.span == LOW


def then_the_server_is_on(scene: Scene, span: Span | None) -> None:
    assert scene.own.present.span == span


def then_nothing_is_lost(scene: Scene, *, journal_is_lost: bool = False) -> None:
    """The journal is whole, no move is left over, the server began no restart twice; the finding is written down."""
    assert scene.injected, "nothing was broken"
    moves: list[Move] = []
    if not journal_is_lost:
        with closing(sqlite3.connect(scene.journal)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        moves = scene.moves()
    assert len(set(scene.own.taken)) == len(scene.own.taken), "one restart was begun twice"
    assert all(move.is_final for move in moves)
    note(Finding(scene.fault, scene.injected, ", then ".join(scene.happened), len(moves), len(scene.own.taken)))
