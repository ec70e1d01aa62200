"""What was decided and not done at once: the process was stopped in between, or the machine slept."""

from __future__ import annotations

import time

import pytest

from swarmkeel.balance.decision import Verdict
from swarmkeel.config import load_config
from swarmkeel.daemon.journal import CheckRecord, Journal
from swarmkeel.daemon.move import MoveStep
from swarmkeel.daemon.service import Sidecar
from swarmkeel.swarm.announcer import Announcer
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.span import Span
from tests.support.dht import DhtPeers, wait_until
from tests.support.sidecars import MODEL, ObedientServer, short_folder, sidecar, write_config

LOW = Span(0, 4)


async def test_a_decision_that_has_grown_old_before_it_is_acted_on_moves_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ahead, save_check = 0.0, Journal.save_check

    def save_and_sleep(journal: Journal, record: CheckRecord) -> None:
        nonlocal ahead
        save_check(journal, record)
        ahead += 3600.0 if record.decision.verdict is Verdict.MOVING else 0.0

    monkeypatch.setattr(Journal, "save_check", save_and_sleep)
    with short_folder() as folder:
        async with DhtPeers(2) as peers:
            info = ServerInfo(ServerState.ONLINE, 10.0, start_block=LOW.start, end_block=LOW.end)
            for index in range(2):
                await Announcer(peers.node(index), MODEL).announce(info, range(4), 600)
            own = ObedientServer(folder / "s", peers.node(0).peer_id, LOW)
            config = write_config(folder / "c.yaml", folder / "s", peers.initial_peers)
            daemon = Sidecar(load_config(config), config_path=config, clock=lambda: time.time() + ahead)
            with own.listening():
                async with sidecar(config, daemon):
                    await wait_until(lambda: daemon.state.move is not None and daemon.state.move.is_final)
                    assert daemon.state.move is not None
                    assert daemon.state.move.step is MoveStep.ABANDONED
            assert own.requests == []
