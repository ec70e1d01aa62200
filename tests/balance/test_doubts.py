"""What makes a snapshot too bad to decide on: each limit, on both of its sides, and the values that are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarmkeel.balance.decision import Reason
from swarmkeel.balance.doubts import doubts_about_own_record, doubts_about_swarm, without_idle
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.snapshot import KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span
from tests.balance.swarms import modules_from
from tests.balance.test_petals_policy import snapshot

READ_AT = 1000.0
HOME = Span(10, 13)
"""The model's blocks 10 to 15 are read; the own server, QmA, is on the first three of them."""
SWARM = snapshot(modules_from(6, (0, 3, 5.0), (0, 6, 5.0), first_block=10))
SETTINGS = PolicySettings(min_answered_ratio=0.5, max_rejected_ratio=0.5, max_snapshot_age=120.0)


def situation(swarm: SwarmSnapshot = SWARM, *, span: Span | None = HOME, age: float = 0.0) -> Situation:
    own = OwnServer(peer_id="QmA", span=span, num_blocks=3, throughput=5.0)
    return Situation(snapshot=swarm, own=own, settings=SETTINGS, now=READ_AT + age, seed=0)


def about_swarm(swarm: SwarmSnapshot = SWARM, *, span: Span | None = HOME, age: float = 0.0) -> list[Reason]:
    return list(doubts_about_swarm(situation(swarm, span=span, age=age), swarm.spans(ServerState.JOINING)))


def about_own(swarm: SwarmSnapshot, span: Span | None) -> list[Reason]:
    return list(doubts_about_own_record(situation(swarm, span=span), swarm.spans(ServerState.JOINING)))


def unread(swarm: SwarmSnapshot, *blocks: int, reading: KeyReading = KeyReading.UNKNOWN) -> SwarmSnapshot:
    """Give a snapshot in which the keys of these blocks were not read, which are counted from the first one read."""
    readings = tuple(
        replace(block, reading=reading, servers={}) if index in blocks else block
        for index, block in enumerate(swarm.blocks)
    )
    return replace(swarm, blocks=readings)


def test_of_a_swarm_that_was_read_nothing_is_doubted() -> None:
    assert about_swarm() == []
    assert about_own(SWARM, HOME) == []


def test_so_many_keys_have_to_be_answered() -> None:
    assert about_swarm(unread(SWARM, 0, 1, 2)) == []
    (doubt,) = about_swarm(unread(SWARM, 0, 1, 2, 3))
    assert doubt == Reason(name="keys_unanswered", values={"answered": 2, "asked": 6, "floor": 0.5})
    # Nothing was asked: nothing is known, whatever the limit.
    of_nothing = SwarmSnapshot("m", 0, (), READ_AT)
    assert [doubt.name for doubt in about_swarm(of_nothing)] == ["keys_unanswered"]
    lenient = situation(of_nothing).model_copy(update={"settings": PolicySettings(min_answered_ratio=0.0)})
    assert [doubt.name for doubt in doubts_about_swarm(lenient, {})] == ["keys_unanswered"]


def test_so_many_records_may_be_rejected() -> None:
    # 9 records were accepted.
    assert about_swarm(replace(SWARM, rejected={"shape": 4, "state": 5})) == []
    (doubt,) = about_swarm(replace(SWARM, rejected={"shape": 4, "state": 6}))
    assert doubt == Reason(name="records_rejected", values={"rejected": 10, "total": 19, "ceiling": 0.5})


def test_a_snapshot_may_be_so_old() -> None:
    assert about_swarm(age=120.0) == []
    (doubt,) = about_swarm(age=121.0)
    assert doubt == Reason(name="snapshot_stale", values={"age_seconds": 121.0, "limit_seconds": 120.0})


def test_throughputs_add_up_to_a_number_twice_as_large_at_most() -> None:
    def announced(throughput: float) -> SwarmSnapshot:
        return snapshot(modules_from(6, (0, 6, throughput), (0, 6, throughput)))

    assert about_swarm(announced(4e307)) == []
    assert about_swarm(announced(5e307)) == [Reason(name="throughput_overflow")]


def test_a_block_that_could_not_be_read_is_doubted_if_no_other_shows_a_server_on_it() -> None:
    lonely = snapshot(modules_from(6, (0, 3, 5.0), first_block=10))
    assert about_swarm(unread(lonely, 1)) == []
    assert about_swarm(unread(lonely, 4, reading=KeyReading.ABSENT)) == []
    first = Reason(name="unread_block_looks_uncovered", values={"block": 14})
    assert about_swarm(unread(lonely, 1, 4, 5)) == [first]
    # One that serves no requests is none, and one that serves few is.
    assert about_swarm(unread(snapshot(modules_from(6, (0, 6, 0.0))), 1)) != []
    assert about_swarm(unread(snapshot(modules_from(6, (0, 6, 0.5))), 1)) == []
    # A server without blocks harms nobody by going anywhere, so that it need not wait for that.
    assert about_swarm(unread(lonely, 4), span=None) == []
    assert about_swarm(unread(lonely, 0, 2, 3, 4), span=None, age=121.0) != []


def test_every_doubt_is_told() -> None:
    bad = unread(replace(SWARM, rejected={"shape": 100}), 0, 1, 2, 3)
    assert [doubt.name for doubt in about_swarm(bad, age=121.0, span=None)] == [
        "keys_unanswered",
        "records_rejected",
        "snapshot_stale",
    ]


@pytest.mark.parametrize("span", [Span(10, 14), Span(11, 13), Span(0, 3)], ids=str)
def test_the_server_has_to_be_where_the_dht_shows_it(span: Span) -> None:
    values = {"announced": "10:13", "actual": str(span)}
    assert about_own(SWARM, span) == [Reason(name="own_span_differs", values=values)]


def test_a_server_with_blocks_needs_a_record() -> None:
    gone = snapshot(modules_from(6, first_block=10))
    assert about_own(gone, HOME) == [Reason(name="own_record_missing")]
    offline = tuple(
        replace(block, servers={peer: replace(info, state=ServerState.OFFLINE) for peer, info in block.servers.items()})
        for block in SWARM.blocks
    )
    assert about_own(replace(SWARM, blocks=offline), HOME) == [Reason(name="own_record_offline")]
    assert about_own(gone, None) == []


def test_of_a_server_without_blocks_records_tell_its_last_life() -> None:
    spans = SWARM.spans(ServerState.JOINING)
    assert without_idle(situation(), spans).keys() == {"QmA", "QmB"}
    assert without_idle(situation(span=None), spans).keys() == {"QmB"}
