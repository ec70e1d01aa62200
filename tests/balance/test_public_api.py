"""The public Python API: Petals' names, importable without what it does not need."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from hivemind.p2p import PeerID

import swarmkeel
from swarmkeel import (
    RemoteModuleInfo,
    RemoteSpanInfo,
    ServerInfo,
    ServerState,
    choose_best_blocks,
    compute_spans,
    compute_throughputs,
    should_choose_other_blocks,
)

HEAVY = ("hivemind", "torch", "aiohttp", "structlog", "typer", "rich", "prometheus_client")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import swarmkeel", (*HEAVY, "numpy", "pydantic", "importlib.metadata")),
        ("import swarmkeel.balance", HEAVY),
        ("import swarmkeel.balance.policies", HEAVY),
        ("from swarmkeel import *", HEAVY),
        ("import swarmkeel.swarm.recorded", HEAVY),
        ("import swarmkeel.control.protocol", (*HEAVY, "numpy", "pydantic")),
        ("import swarmkeel.control.server", (*HEAVY, "numpy", "pydantic")),
    ],
)
def test_import_brings_nothing_heavy(statement: str, absent: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys\nprint(*set({absent!r}).intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_names_are_those_that_are_promised() -> None:
    assert set(swarmkeel.__all__) <= set(dir(swarmkeel))
    assert all(getattr(swarmkeel, name) is not None for name in swarmkeel.__all__)
    assert swarmkeel.__version__ == version("swarmkeel")
    with pytest.raises(AttributeError, match="no_such_name"):
        swarmkeel.no_such_name  # noqa: B018 -- asking is the test


class Base58Peer:
    """Stands for hivemind's PeerID, whose order is that of its base58 text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def to_base58(self) -> str:
        return self.text


def use_as_petals_code_does(own: object, other: object) -> None:
    """Go through the API as code written for Petals does."""
    pile = ServerInfo.from_tuple((ServerState.ONLINE.value, 5.0, {"start_block": 0, "end_block": 2}))
    infos: list[RemoteModuleInfo[object]] = [RemoteModuleInfo(uid=f"model.{block}", servers={}) for block in range(4)]
    for info in infos[:2]:
        info.servers[other] = pile
        info.servers[own] = pile
    spans = compute_spans(infos, min_state=ServerState.JOINING)
    assert list(spans) == [own, other]
    assert spans[own] == RemoteSpanInfo(peer_id=own, start=0, end=2, server_info=pile)
    assert all(type(peer) is type(own) for peer in spans)
    assert compute_throughputs(spans, total_blocks=4).tolist() == [10.0, 10.0, 0.0, 0.0]
    assert choose_best_blocks(2, infos) == [2, 3]
    assert should_choose_other_blocks(own, infos, 0.75)
    assert should_choose_other_blocks(own, infos, balance_quality=0.75, rng=np.random.RandomState(1))


def test_peer_ids_may_be_text_or_know_their_text() -> None:
    use_as_petals_code_does("QmA", "QmB")
    use_as_petals_code_does(Base58Peer("QmA"), Base58Peer("QmB"))


def test_peer_ids_may_be_those_of_hivemind() -> None:
    use_as_petals_code_does(
        PeerID.from_base58("QmSK3sroMXUiyJHNWULvC4YqYEhmJFS8LbK2ZSw96czJdV"),
        PeerID.from_base58("QmY5uRyyRippmFqoiDzvmDTHPvhxyX7XQDYENCbJ8Ha1j9"),
    )
