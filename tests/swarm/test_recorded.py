from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.policies import POLICIES
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.recorded import (
    SnapshotFileError,
    read_snapshot_file,
    snapshot_from_json,
    snapshot_to_json,
    write_snapshot_file,
)
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

PEERS = ["QmA", "QmB", "QmC", "12D3KooW"]
rps = st.floats(0, allow_infinity=False)
texts = st.none() | st.text(max_size=5)
infos = st.builds(
    ServerInfo,
    state=st.sampled_from(ServerState),
    throughput=rps,
    start_block=st.none() | st.integers(0, 8) | st.integers(0, 2**64),
    end_block=st.none() | st.integers(0, 8),
    public_name=texts,
    version=texts,
    network_rps=st.none() | rps,
    forward_rps=st.none() | rps,
    inference_rps=st.none() | rps,
    adapters=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    torch_dtype=texts,
    quant_type=texts,
    using_relay=st.none() | st.booleans(),
    cache_tokens_left=st.none() | st.integers(0, 9),
    next_pings=st.none() | st.dictionaries(st.text(max_size=3), st.floats(0), max_size=2),
)


@st.composite
def snapshots(draw: st.DrawFn) -> SwarmSnapshot:
    first_block = draw(st.integers(0, 3))
    blocks = tuple(
        BlockReading(
            f"some/model-hf.{first_block + index}",
            draw(st.sampled_from(KeyReading)),
            draw(st.dictionaries(st.sampled_from(PEERS), infos, max_size=3)),
        )
        for index in range(draw(st.integers(1, 4)))
    )
    rejected = draw(st.dictionaries(st.sampled_from(["shape", "state", "something newer"]), st.integers(1, 9)))
    overdue = draw(st.frozensets(st.sampled_from(PEERS), max_size=2))
    return SwarmSnapshot("some/model-hf", first_block, blocks, draw(st.floats(0, 2e9)), rejected, overdue)


@given(snapshot=snapshots())
def test_round_trip_keeps_all(snapshot: SwarmSnapshot) -> None:
    again = snapshot_from_json(json.loads(json.dumps(snapshot_to_json(snapshot))))
    assert again == snapshot
    assert again.digest == snapshot.digest
    assert [list(block.servers) for block in again.blocks] == [list(block.servers) for block in snapshot.blocks]


@given(snapshot=snapshots(), seed=st.integers(0, 9), data=st.data())
def test_replay_leads_to_the_same_decision(snapshot: SwarmSnapshot, seed: int, data: st.DataObject) -> None:
    own = OwnServer(
        peer_id=data.draw(st.sampled_from(PEERS)),
        span=data.draw(st.none() | st.just(Span(snapshot.first_block, snapshot.first_block + 1))),
        num_blocks=1,
        throughput=5.0,
    )
    again = snapshot_from_json(json.loads(json.dumps(snapshot_to_json(snapshot))))
    settings = PolicySettings(min_answered_ratio=0.0, max_rejected_ratio=1.0)
    for policy in POLICIES.values():
        first, second = (
            policy.decide(Situation(snapshot=taken, own=own, settings=settings, now=snapshot.read_at, seed=seed))
            for taken in (snapshot, again)
        )
        assert first == second


def by_hand(**changes: Any) -> dict[str, Any]:
    """Give the format's example, as a person would write it."""
    return {
        "format": 1,
        "dht_prefix": "llama",
        "first_block": 0,
        "total_blocks": 2,
        "blocks": [
            {"uid": "llama.0", "servers": {"QmA": [2, 762.9, {"start_block": 0, "end_block": 1}]}},
            {"uid": "llama.1", "servers": {}},
        ],
        **changes,
    }


def test_what_may_be_left_out_is_filled_in() -> None:
    snapshot = snapshot_from_json(by_hand())
    assert [block.reading for block in snapshot.blocks] == [KeyReading.OK, KeyReading.ABSENT]
    assert snapshot.read_at == 0.0
    assert snapshot.rejected == {}
    assert snapshot.blocks[0].servers == {"QmA": ServerInfo(ServerState.ONLINE, 762.9, start_block=0, end_block=1)}


def test_fields_of_newer_writers_are_passed_over() -> None:
    assert snapshot_from_json(by_hand(comment="x")) == snapshot_from_json(by_hand())


def test_bad_records_are_counted_one_by_one_on_top_of_those_of_the_reading() -> None:
    servers = {"QmA": [2, 1.0], "QmB": [2, -1.0], "QmC": [2, math.nan], "no peer": [2, 1.0], "QmD": 5}
    source = by_hand(
        total_blocks=1, blocks=[{"uid": "llama.0", "servers": servers}], rejected={"throughput": 10, "undecodable": 1}
    )
    snapshot = snapshot_from_json(source)
    assert list(snapshot.blocks[0].servers) == ["QmA"]
    assert snapshot.rejected == {"throughput": 12, "peer_id": 1, "shape": 1, "undecodable": 1}


@pytest.mark.parametrize(
    ("source", "place", "allowed"),
    [
        (5, "(top level)", "an object"),
        ({}, "format", "missing"),
        (by_hand(format=2), "format", "1"),
        (by_hand(dht_prefix="a.b"), "dht_prefix", 'without "."'),
        (by_hand(dht_prefix=""), "dht_prefix", "a name"),
        (by_hand(first_block=-1), "first_block", "greater than or equal to 0"),
        (by_hand(first_block=1), "blocks[0].uid", "'llama.1'"),
        (by_hand(total_blocks=0), "total_blocks", "greater than or equal to 1"),
        (by_hand(total_blocks=True), "total_blocks", "integer"),
        (by_hand(total_blocks=3), "total_blocks", "there are 2 blocks"),
        (by_hand(read_at=math.inf), "read_at", "finite"),
        (by_hand(read_at="now"), "read_at", "number"),
        (by_hand(rejected={"x": -1}), "rejected.x", "greater than or equal to 0"),
        (by_hand(blocks={}), "blocks", "a list"),
        (by_hand(blocks=[1, 2]), "blocks[0]", "an object"),
        (by_hand(blocks=[{"uid": "llama.0"}, {}]), "blocks[0].servers", "missing"),
        (by_hand(blocks=[{"uid": "llama.0", "servers": []}]), "blocks[0].servers", "an object"),
        (by_hand(blocks=[{"uid": "llama.0", "servers": {}, "read": "maybe"}]), "blocks[0].read", "'ok', 'absent'"),
    ],
)
def test_bad_source_is_named_with_its_place_and_what_is_allowed(source: Any, place: str, allowed: str) -> None:
    with pytest.raises(SnapshotFileError) as caught:
        snapshot_from_json(source, name="swarm.json")
    assert caught.value.problem.startswith(f"swarm.json: {place}: ")
    assert allowed in caught.value.problem
    assert isinstance(caught.value, SwarmkeelError)


@given(
    source=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*by_hand(), "x"]), inner),
        max_leaves=5,
    )
)
def test_nothing_else_escapes(source: Any) -> None:
    for made in (source, {**by_hand(), **source} if isinstance(source, dict) else by_hand(blocks=source)):
        try:
            snapshot_from_json(made)
        except SnapshotFileError as error:
            assert str(error)  # noqa: PT017 -- which of the two happens is not the question


def test_file_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "swarm.json"
    snapshot = snapshot_from_json(by_hand(read_at=5.5))
    write_snapshot_file(snapshot, path)
    assert read_snapshot_file(path) == snapshot
    assert [*tmp_path.iterdir()] == [path]
    assert not stat.S_IMODE(path.stat().st_mode) & stat.S_IXUSR


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "swarm.json"
    write_snapshot_file(snapshot_from_json(by_hand()), path)
    before = path.read_text()

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(SnapshotFileError, match=r"swarm\.json: No space left"):
        write_snapshot_file(snapshot_from_json(by_hand(read_at=1.0)), path)
    assert path.read_text() == before
    assert [*tmp_path.iterdir()] == [path]


def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotFileError, match="No such file"):
        write_snapshot_file(snapshot_from_json(by_hand()), tmp_path / "nowhere" / "swarm.json")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "line 1, column 1: it is not JSON"),
        (b'{"format": 1,\n "x"}', "line 2, column 5: it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"1" * 5000, "it is not JSON"),
        (b"[]", "(top level): it should be an object"),
    ],
    ids=["empty", "syntax", "no text", "deep", "huge number", "list"],
)
def test_bad_file_is_named_with_its_place(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "swarm.json"
    path.write_bytes(content)
    with pytest.raises(SnapshotFileError) as caught:
        read_snapshot_file(path)
    assert str(path) in caught.value.problem
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotFileError, match="No such file"):
        read_snapshot_file(tmp_path / "nowhere.json")
    with pytest.raises(SnapshotFileError, match="directory"):
        read_snapshot_file(tmp_path)
