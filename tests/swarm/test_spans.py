from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, RemoteSpanInfo, compute_spans, parse_uid, peer_text
from tests.balance import plain
from tests.balance.swarms import garbage_modules, honest_modules

JOINING, ONLINE, OFFLINE = ServerState.JOINING, ServerState.ONLINE, ServerState.OFFLINE


def info(state: ServerState = ONLINE, start: int | None = None, end: int | None = None) -> ServerInfo:
    return ServerInfo(state, 1.0, start_block=start, end_block=end)


def blocks(*servers: dict[Any, ServerInfo], first_block: int = 0) -> list[RemoteModuleInfo[Any]]:
    return [RemoteModuleInfo(f"m.{index}", held) for index, held in enumerate(servers, first_block)]


def span_of(*servers: dict[str, ServerInfo], first_block: int = 0) -> tuple[int, int]:
    span = compute_spans(blocks(*servers, first_block=first_block), min_state=JOINING)["Qm"]
    return span.start, span.end


def test_published_span_counts_even_where_keys_of_it_are_missing() -> None:
    assert span_of({}, {"Qm": info(start=0, end=3)}, {}, {}) == (0, 3)


def test_without_a_published_span_it_reaches_from_the_first_key_to_the_last() -> None:
    assert span_of({}, {"Qm": info()}, {}, {"Qm": info()}) == (1, 4)


def test_half_a_published_span_is_none() -> None:
    assert span_of({}, {"Qm": info(start=0)}, {}) == (1, 2)
    assert span_of({}, {"Qm": info(end=3)}, {}) == (1, 2)


def test_published_span_past_the_end_is_cut() -> None:
    assert span_of({"Qm": info(start=0, end=99)}, {}) == (0, 2)


def test_published_span_is_counted_from_the_first_block_read() -> None:
    assert span_of({"Qm": info(start=10, end=12)}, {"Qm": info(start=10, end=12)}, {}, first_block=10) == (0, 2)
    assert span_of({"Qm": info(start=8, end=11)}, {}, first_block=10) == (0, 1)


def test_hostile_span_is_kept_as_it_is() -> None:
    assert span_of({"Qm": info(start=5, end=1)}, {}) == (5, 1)
    assert span_of({"Qm": info(start=10**30, end=10**30)}, {}) == (10**30, 2)


def test_key_beyond_the_published_span_stretches_it() -> None:
    assert span_of({"Qm": info(start=0, end=1)}, {}, {"Qm": info(start=0, end=1)}) == (0, 3)


def test_higher_state_replaces_the_span_and_lower_does_not() -> None:
    assert span_of({"Qm": info(JOINING, 0, 1)}, {"Qm": info(ONLINE, 1, 3)}, {}) == (1, 3)
    assert span_of({"Qm": info(ONLINE, 0, 1)}, {"Qm": info(JOINING, 1, 3)}, {}) == (0, 1)


def test_records_below_the_least_state_are_passed_over() -> None:
    modules = blocks({"QmA": info(OFFLINE), "QmB": info(JOINING), "QmC": info(ONLINE)})
    assert list(compute_spans(modules, min_state=OFFLINE)) == ["QmA", "QmB", "QmC"]
    assert list(compute_spans(modules, min_state=JOINING)) == ["QmB", "QmC"]
    assert list(compute_spans(modules, min_state=ONLINE)) == ["QmC"]


def test_order_is_that_of_the_blocks_and_then_of_the_peer_ids() -> None:
    modules = blocks({"Qmb": info(), "QmB": info()}, {"QmA": info(), "Qmb": info()})
    assert list(compute_spans(modules, min_state=JOINING)) == ["QmB", "Qmb", "QmA"]


def test_no_blocks_no_spans() -> None:
    assert compute_spans([], min_state=JOINING) == {}


@given(modules=garbage_modules() | honest_modules(), min_state=st.sampled_from(ServerState))
def test_agrees_with_the_plain_rule(modules: list[RemoteModuleInfo[str]], min_state: ServerState) -> None:
    expected = plain.spans_of(modules, min_state)
    spans = compute_spans(modules, min_state=min_state)
    assert spans == expected
    assert list(spans) == list(expected)


@given(modules=garbage_modules(), seed=st.integers(0, 99))
def test_order_of_the_records_does_not_matter(modules: list[RemoteModuleInfo[str]], seed: int) -> None:
    shuffled = []
    for module in modules:
        items = list(module.servers.items())
        random.Random(seed).shuffle(items)  # noqa: S311 -- an order, not a secret
        shuffled.append(RemoteModuleInfo(module.uid, dict(items)))
    expected = compute_spans(modules, min_state=JOINING)
    assert list(compute_spans(shuffled, min_state=JOINING).items()) == list(expected.items())


@pytest.mark.parametrize("uid", ["m", "m.", "m.x", "m.-1", "m.1.2", "m.²", ""])
def test_key_that_names_no_block_is_an_error(uid: str) -> None:
    with pytest.raises(ValueError, match="block's key"):
        compute_spans([RemoteModuleInfo(uid, {})], min_state=JOINING)


def test_key_is_split_into_prefix_and_index() -> None:
    assert parse_uid("bigscience/bloom-petals.17") == ("bigscience/bloom-petals", 17)


class Base58Peer:
    """Stands for hivemind's PeerID: hashable, and known by its base58 text alone."""

    def __init__(self, text: str) -> None:
        self.text = text

    def to_base58(self) -> str:
        return self.text


def test_peer_ids_may_be_objects_and_are_given_back_as_they_came() -> None:
    second, first = Base58Peer("QmB"), Base58Peer("QmA")
    spans = compute_spans(blocks({second: info(), first: info()}), min_state=JOINING)
    assert [span.peer_id for span in spans.values()] == list(spans) == [first, second]


def test_what_is_no_peer_id_is_named() -> None:
    with pytest.raises(TypeError, match="not int"):
        compute_spans(blocks({1: info()}), min_state=JOINING)
    assert peer_text("Qm") == "Qm"


def test_span_says_what_its_record_says() -> None:
    span = RemoteSpanInfo("Qm", 2, 5, ServerInfo(JOINING, 7.0))
    assert (span.length, span.state, span.throughput) == (3, JOINING, 7.0)
