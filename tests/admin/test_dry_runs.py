"""What dry runs tell each other, and who counts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmkeel.balance.decision import Verdict
from swarmkeel.config import load_config
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.check import Outcome, Past, Reading, decide_check
from swarmkeel.daemon.pause import Pause
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.sidecar_record import BoardReading
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span
from tests.daemon.test_journal import OTHER, OWN
from tests.support.sidecars import MODEL, TOTAL_BLOCKS, write_config

NOW = 1000.0
PEER = f"/ip4/192.0.2.1/tcp/1/p2p/{OWN}"


def check(folder: Path, other: Sidecar, *, dry_run: bool, pause: Pause | None = None) -> Outcome:
    """Check a swarm of two servers on 0:4, with a hole at 4:8."""
    config = load_config(
        write_config(folder / "c.yaml", folder / "s", [PEER], balance={"policy": "coordinated", "dry_run": dry_run})
    )
    info = ServerInfo(ServerState.ONLINE, 10.0, start_block=0, end_block=4)
    servers = {OWN: info, OTHER: info}
    blocks = tuple(BlockReading(f"{MODEL}.{n}", KeyReading.OK, servers if n < 4 else {}) for n in range(TOTAL_BLOCKS))
    status = ServerStatus("obedient/1", OWN, MODEL, TOTAL_BLOCKS, 4, 10.0, ServerPhase.ONLINE, Span(0, 4))
    reading = Reading(
        SwarmSnapshot(MODEL, 0, blocks, NOW, {}),
        None,
        status,
        None,
        BoardReading({OTHER: other}, {}, readable=True),
        NOW,
    )
    past = Past((), None, span_since=0.0, wishes=0, pause=pause)
    return decide_check(config, reading, past, now=NOW, seed=0, numbers=None)


@pytest.mark.parametrize("other_is_dry", [True, False])
@pytest.mark.parametrize("dry_run", [True, False])
def test_dry_runs_count_on_each_other_and_nobody_else_counts_on_them(
    tmp_path: Path, *, dry_run: bool, other_is_dry: bool
) -> None:
    other = Sidecar(OTHER, None if other_is_dry else 0.0, 1.0, dry_run_movable_at=0.0 if other_is_dry else None)
    outcome = check(tmp_path, other, dry_run=dry_run)
    assert outcome.inputs is not None
    counts = not other_is_dry or dry_run
    assert outcome.inputs.situation.sidecars[OTHER].movable_at == (0.0 if counts else None)
    # Of these two every plan moves the other one, if it may be moved.
    wants = outcome.decision.verdict in (Verdict.WOULD_MOVE, Verdict.HOLDING)
    assert wants is not counts
    assert outcome.told is not None
    assert (outcome.told.movable_at, outcome.told.dry_run_movable_at) == ((None, 0.0) if dry_run else (0.0, None))


def test_a_paused_dry_run_is_not_counted_on_by_anybody(tmp_path: Path) -> None:
    pause = Pause(since=0.0, until=None, uid=0)
    outcome = check(tmp_path, Sidecar(OTHER, None, 1.0), dry_run=True, pause=pause)
    assert outcome.told is not None
    assert (outcome.told.movable_at, outcome.told.dry_run_movable_at) == (None, None)
    assert outcome.decision.verdict is Verdict.PAUSED
    assert outcome.decision.reasons[0].values["would"] == "would_move"
