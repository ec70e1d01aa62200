from __future__ import annotations

from pathlib import Path

import pytest

from swarmkeel.balance.decision import Verdict
from swarmkeel.config import load_config
from swarmkeel.daemon.service import Sidecar
from tests.daemon.test_metrics import decision
from tests.support.sidecars import write_config

PEER = "/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
CALM = {Verdict.BALANCED, Verdict.DISABLED, Verdict.PAUSED}


@pytest.mark.parametrize(
    ("policy", "confirmations", "calm"),
    [("coordinated", 1, CALM), ("petals", 2, CALM), ("petals", 1, set())],
)
def test_readings_spare_others_only_while_no_move_can_follow_from_one(
    tmp_path: Path, policy: str, confirmations: int, calm: set[Verdict]
) -> None:
    sections: dict[str, dict[str, object]] = {
        "balance": {"policy": policy},
        "guards": {"confirmations": confirmations},
    }
    path = write_config(tmp_path / "c.yaml", tmp_path / "s", [PEER], **sections)
    sidecar = Sidecar(load_config(path), config_path=path)
    try:
        assert not sidecar._loop._is_calm()  # nothing has been decided yet
        for verdict in Verdict:
            sidecar.state.decision = decision().model_copy(update={"verdict": verdict})
            assert sidecar._loop._is_calm() is (verdict in calm), verdict
    finally:
        sidecar._journal.close()
