"""What to have on disk: where the plan after somebody's departure would put the own server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.plan import Plan, PlannedMove, Standing, make_plan
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.staging import MAX_DEPARTURES, LikelySpan, choose_spans_to_stage, likely_next_spans
from swarmkeel.swarm.span import Span
from tests.balance.plan_servers import plan_server as server
from tests.balance.test_plan import swarms
from tests.support.examples import examples


def likely(total_blocks: int, peer_id: str, *servers: PlanServer) -> tuple[LikelySpan, ...]:
    return likely_next_spans(servers, peer_id, total_blocks=total_blocks, move_cost=0.04)


def test_the_spare_server_is_the_one_that_would_step_in() -> None:
    swarm = (server("a", 0, 3), server("b", 0, 3), server("c", 3, 6), server("d", 6, 9))
    assert likely(9, "a", *swarm) == (LikelySpan(Span(3, 6), 1), LikelySpan(Span(6, 9), 1))
    # The plan would take `a`, so that `b` need not have anything ready.
    assert likely(9, "b", *swarm) == ()


def test_a_departure_that_no_block_feels_leads_nowhere() -> None:
    swarm = (*(server(name, 0, 3) for name in "abcd"), server("e", 3, 6, 1.0), server("f", 3, 6, 1.0))
    assert likely(6, "a", *swarm) == (LikelySpan(Span(3, 6), 2),)  # after e or f leaves, not after b, c or d


def test_whole_spans_are_staged_as_far_as_they_fit() -> None:
    spans = (LikelySpan(Span(3, 6), 3), LikelySpan(Span(5, 9), 2), LikelySpan(Span(6, 8), 1))
    present = Span(2, 4)
    assert choose_spans_to_stage(spans, present, disk_blocks=0) == ()
    assert choose_spans_to_stage(spans, present, disk_blocks=1) == ()
    assert choose_spans_to_stage(spans, present, disk_blocks=2) == (Span(3, 6),)
    assert choose_spans_to_stage(spans, present, disk_blocks=4) == (Span(3, 6), Span(6, 8))
    assert choose_spans_to_stage(spans, present, disk_blocks=5) == (Span(3, 6), Span(5, 9), Span(6, 8))


def test_only_so_many_departures_are_thought_through() -> None:
    swarm = tuple(server(f"p{index:03}", index, index + 1) for index in range(100))
    thought, found = think(swarm, "p000", {}, total_blocks=100)
    assert thought == ["p001", "p002", "p003", "p004"]
    assert len(thought) == MAX_DEPARTURES
    assert found == ()


def test_those_departures_are_thought_through_that_hurt_most() -> None:
    # Without `strong` 2 is left, without `wide` nothing is; without `slight` the block beside it is as weak as before.
    swarm = (
        server("own", 0, 3, 2.0),
        server("slight", 0, 3, 1.0),
        server("strong", 3, 6, 4.0),
        server("weak", 3, 6, 2.0),
        server("wide", 6, 9, 3.0),
    )
    assert think(swarm, "own", {}, total_blocks=9)[0] == ["wide", "slight", "strong"]
    assert think((*swarm, server("x", 0, 3, 1.0)), "own", {}, total_blocks=9)[0] == ["wide", "strong"]
    assert think(swarm[:1], "own", {}, total_blocks=9)[0] == []
    assert think((), "own", {}, total_blocks=0)[0] == []


def test_the_likeliest_blocks_come_first_and_of_those_as_likely_the_first_ones() -> None:
    swarm = (server("own", 0, 1), *(server(name, place, place + 1) for place, name in enumerate("abcd", 1)))
    former, latter = Span(3, 4), Span(4, 5)
    assert think(swarm, "own", {"a": former, "b": latter, "d": latter}, total_blocks=5)[1] == (
        LikelySpan(latter, 2),
        LikelySpan(former, 1),
    )
    assert think(swarm, "own", {"a": latter, "b": former}, total_blocks=5)[1] == (
        LikelySpan(former, 1),
        LikelySpan(latter, 1),
    )


def think(
    swarm: tuple[PlanServer, ...], peer_id: str, targets: Mapping[str, Span], *, total_blocks: int
) -> tuple[list[str], tuple[LikelySpan, ...]]:
    """Give whose departures are thought through, and what follows if plans without some of them move the own server."""
    thought: list[str] = []

    def planning(
        servers: tuple[PlanServer, ...],
        *,
        total_blocks: int,
        move_cost: float,
        unread: frozenset[int] = frozenset(),
        standing: Standing | None = None,
    ) -> Plan:
        assert (total_blocks, move_cost, unread, standing) == (len_of_model, 0.04, frozenset(), None)
        (departing,) = {each.peer_id for each in swarm} - {each.peer_id for each in servers}
        thought.append(departing)
        moves = [
            PlannedMove(each, Span(0, 1), target, 5.0, 600.0)
            for each, target in (("x", Span(0, 1)), (peer_id, targets.get(departing)))
            if target is not None
        ]
        return Plan(tuple(moves), 0.0, 0, is_emergency=True, best=None, movable=1)

    len_of_model = total_blocks
    found = likely_next_spans(swarm, peer_id, total_blocks=total_blocks, move_cost=0.04, planner=planning)
    return thought, found


@examples(0.2)
@given(swarms())
def test_what_is_staged_is_what_the_plan_asks_for(case: tuple[int, tuple[PlanServer, ...]]) -> None:
    total_blocks, servers = case
    own = servers[0]
    for each in likely(total_blocks, own.peer_id, *servers):
        assert each.span != own.final
        asked = [
            make_plan(
                tuple(one for one in servers if one.peer_id != departing.peer_id),
                total_blocks=total_blocks,
                move_cost=0.04,
            ).move_of(own.peer_id)
            for departing in servers[1:]
        ]
        assert sum(move is not None and move.target == each.span for move in asked) >= each.departures
    assert not likely(total_blocks, own.peer_id, replace(own, movable=False, movable_in_emergency=False), *servers[1:])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=6), st.integers(0, 12))
def test_the_disk_holds_what_is_staged(spans: list[tuple[int, int]], disk_blocks: int) -> None:
    likely_spans = [LikelySpan(Span(start, start + length), 1) for start, length in spans]
    present = Span(2, 5)
    staged = choose_spans_to_stage(likely_spans, present, disk_blocks=disk_blocks)
    blocks = {block for span in staged for block in range(span.start, span.end)} - {2, 3, 4}
    assert len(blocks) <= disk_blocks
    for each in likely_spans:  # whatever was left out does not fit
        missing = set(range(each.span.start, each.span.end)) - blocks - {2, 3, 4}
        assert not missing or len(blocks) + len(missing) > disk_blocks
