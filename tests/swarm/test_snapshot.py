from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given

from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, compute_spans
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from tests.balance.swarms import garbage_modules

INFO = ServerInfo(ServerState.ONLINE, 5.0, start_block=0, end_block=2, next_pings={"x": 1.0})


def two_blocks(
    first: dict[str, ServerInfo], second: dict[str, ServerInfo] | None = None, reading: KeyReading = KeyReading.OK
) -> SwarmSnapshot:
    blocks = (BlockReading("m.0", KeyReading.OK, first), BlockReading("m.1", reading, second or {}))
    return SwarmSnapshot("m", 0, blocks, 100.0, {"shape": 2, "state": 1})


def test_says_how_good_it_is() -> None:
    snapshot = two_blocks({"QmA": INFO, "QmB": INFO}, reading=KeyReading.UNKNOWN)
    quality = snapshot.quality(now=130.0, own_peer_id="QmB")
    assert (quality.keys_asked, quality.keys_answered, quality.keys_answered_ratio) == (2, 1, 0.5)
    assert (quality.records_accepted, quality.records_rejected, quality.records_rejected_ratio) == (2, 3, 0.6)
    assert quality.rejected == {"shape": 2, "state": 1}
    assert quality.age_seconds == 30.0
    assert quality.own_record_found
    assert not snapshot.quality(130.0, "QmC").own_record_found
    assert not snapshot.quality(130.0).own_record_found


def test_absence_is_an_answer() -> None:
    assert two_blocks({}, reading=KeyReading.ABSENT).quality(0.0).keys_answered == 2


def test_clock_set_back_makes_no_negative_age() -> None:
    assert two_blocks({}).quality(now=50.0).age_seconds == 0.0


def test_nothing_asked_and_nothing_found_are_no_division_by_zero() -> None:
    quality = SwarmSnapshot("m", 0, (), 0.0).quality(0.0)
    assert (quality.keys_answered_ratio, quality.records_rejected_ratio) == (0.0, 0.0)


def test_cannot_be_changed_through_anything_it_holds_or_was_made_of() -> None:
    servers, rejected = {"QmA": INFO}, {"shape": 1}
    snapshot = SwarmSnapshot("m", 0, (BlockReading("m.0", KeyReading.OK, servers),), 0.0, rejected)
    digest = snapshot.digest
    servers.clear()
    rejected.clear()
    snapshot.module_infos[0].servers.clear()
    snapshot.spans().clear()
    with pytest.raises(TypeError):
        snapshot.blocks[0].servers["QmB"] = INFO  # type: ignore[index]  # that this is refused is the point
    with pytest.raises(TypeError):
        snapshot.rejected["shape"] = 0  # type: ignore[index]  # as above
    with pytest.raises(TypeError):
        snapshot.quality(0.0).rejected["shape"] = 0  # type: ignore[index]  # as above
    assert snapshot.blocks[0].servers == {"QmA": INFO}
    assert snapshot.rejected == {"shape": 1}
    assert list(snapshot.spans()) == ["QmA"]
    assert replace(snapshot).digest == digest


@given(modules=garbage_modules())
def test_spans_are_those_of_its_records(modules: list[RemoteModuleInfo[str]]) -> None:
    prefix, first_block = modules[0].uid.split(".")
    blocks = tuple(BlockReading(module.uid, KeyReading.OK, module.servers) for module in modules)
    snapshot = SwarmSnapshot(prefix, int(first_block), blocks, 0.0)
    assert snapshot.module_infos == tuple(modules)
    assert snapshot.total_blocks == len(modules)
    assert snapshot.spans() == compute_spans(modules, min_state=ServerState.JOINING)
    for state in ServerState:
        expected = compute_spans(modules, min_state=state)
        assert list(snapshot.spans(state).items()) == list(expected.items())
        assert snapshot.spans(state) == snapshot.spans(state)


@pytest.mark.parametrize("uid", ["m.0", "m.2", "other.1", "m"])
def test_blocks_out_of_order_are_refused(uid: str) -> None:
    with pytest.raises(ValueError, match=r"block 1 is m\.1"):
        SwarmSnapshot("m", 1, (BlockReading(uid, KeyReading.OK, {}),), 0.0)


BASE = two_blocks({"QmA": INFO, "QmB": INFO}, {"QmA": INFO})


@pytest.mark.parametrize(
    "change",
    [
        lambda: two_blocks({"QmA": INFO}, {"QmA": INFO}),
        lambda: two_blocks({"QmA": INFO, "QmC": INFO}, {"QmA": INFO}),
        lambda: two_blocks({"QmA": INFO, "QmB": INFO}, {"QmB": INFO}),
        lambda: two_blocks({"QmA": INFO, "QmB": replace(INFO, throughput=5.000000000000001)}, {"QmA": INFO}),
        lambda: two_blocks({"QmA": INFO, "QmB": replace(INFO, state=ServerState.JOINING)}, {"QmA": INFO}),
        lambda: two_blocks({"QmA": INFO, "QmB": replace(INFO, start_block=1)}, {"QmA": INFO}),
        lambda: two_blocks({"QmA": INFO, "QmB": replace(INFO, end_block=None)}, {"QmA": INFO}),
        lambda: two_blocks({"QmA": INFO, "QmB": INFO}, {"QmA": INFO}, KeyReading.UNKNOWN),
        lambda: replace(BASE, rejected={"shape": 4}),
        lambda: replace(BASE, blocks=BASE.blocks[:1]),
        lambda: replace(BASE, overdue=frozenset({"QmA"})),
    ],
)
def test_digest_changes_with_all_that_decisions_depend_on(change: Callable[[], SwarmSnapshot]) -> None:
    assert change().digest != BASE.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda: two_blocks({"QmB": INFO, "QmA": INFO}, {"QmA": INFO}),
        lambda: replace(BASE, read_at=7.0),
        lambda: two_blocks({"QmA": replace(INFO, next_pings=None, public_name="x"), "QmB": INFO}, {"QmA": INFO}),
    ],
)
def test_digest_does_not_change_with_what_no_decision_depends_on(change: Callable[[], SwarmSnapshot]) -> None:
    assert change().digest == BASE.digest
    assert len(BASE.digest) == 64
