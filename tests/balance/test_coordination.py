"""What sidecars agree on before they plan: claims, who serves, who may be moved, and where a new server goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.coordination import (
    choose_first_span,
    hiding_places,
    missing_partners,
    plan_with_others,
    view_servers,
)
from swarmkeel.balance.plan import Plan, PlannedMove, Standing
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.policy import OwnServer
from swarmkeel.balance.selection import TooManyBlocksError, choose_best_blocks
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo, compute_spans
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.span import Span
from tests.balance.plan_servers import plan_server
from tests.balance.swarms import honest_modules, modules_from, spans_from

NOW = 1000.0
TOTAL = 12


HOME = Span(0, 3)


def own(peer_id: str = "QmA", span: Span | None = HOME, claim: Claim | None = None, **changes: object) -> OwnServer:
    plain = OwnServer(peer_id=peer_id, span=span, num_blocks=3, throughput=5.0, claim=claim)
    return plain.model_copy(update=changes)


def sidecar(peer_id: str, claim: Claim | None = None, **changes: object) -> Sidecar:
    plain = Sidecar(peer_id, movable_at=0.0, load_seconds=300.0, claim=claim)
    return replace(plain, **changes)  # type: ignore[arg-type] # any field of it


def claim(start: int, end: int, *, made_at: float = NOW - 10, expires_at: float = NOW + 100) -> Claim:
    return Claim(Span(0, 3), Span(start, end), made_at, expires_at, throughput=5.0)


def view(
    spans: dict[str, RemoteSpanInfo[str]], *sidecars: Sidecar, server: OwnServer | None = None, first_block: int = 0
) -> dict[str, PlanServer]:
    told = {one.peer_id: one for one in sidecars}
    seen = view_servers(spans, told, server or own(), total_blocks=TOTAL, now=NOW, first_block=first_block)
    assert [one.peer_id for one in seen] == sorted(one.peer_id for one in seen)
    return {one.peer_id: one for one in seen}


def test_servers_without_a_sidecar_are_not_movable() -> None:
    seen = view(spans_from((0, 3, 5.0), (3, 6, 5.0), (6, 9, 5.0)), sidecar("QmB"))
    assert {peer_id: one.movable for peer_id, one in seen.items()} == {"QmA": True, "QmB": True, "QmC": False}
    assert (seen["QmB"].load_seconds, seen["QmA"].load_seconds) == (300.0, 600.0)


def test_one_that_loads_neither_serves_nor_moves() -> None:
    seen = view(spans_from((0, 3, 5.0), (3, 6, 5.0), state=ServerState.JOINING), sidecar("QmB"))
    for one in seen.values():
        assert (one.serving, one.movable, one.movable_in_emergency) == (False, False, False)


@pytest.mark.parametrize(
    ("movable_at", "movable", "in_emergency"),
    [(NOW - 1, True, True), (NOW, True, True), (NOW + 1, False, True), (None, False, False)],
)
def test_a_server_moves_when_its_sidecar_lets_it(movable_at: float | None, movable: bool, in_emergency: bool) -> None:  # noqa: FBT001 - a parameter of the test
    for peer_id in ("QmA", "QmB"):  # its own rules bind the own sidecar too
        one = view(spans_from((0, 3, 5.0), (3, 6, 5.0)), sidecar(peer_id, movable_at=movable_at))[peer_id]
        assert (one.movable, one.movable_in_emergency) == (movable, in_emergency)


def test_a_claim_puts_its_server_where_it_is_going_to_be() -> None:
    one = view(spans_from((0, 3, 5.0), (0, 3, 5.0)), sidecar("QmB", claim(6, 9)))["QmB"]
    assert (one.final, one.serving, one.movable, one.movable_in_emergency) == (Span(6, 9), False, False, False)


def test_a_claim_of_a_server_that_is_there_already_is_done_with() -> None:
    one = view(spans_from((0, 3, 5.0), (6, 9, 5.0)), sidecar("QmB", claim(6, 9)))["QmB"]
    assert (one.final, one.serving, one.movable) == (Span(6, 9), True, True)


def test_a_claim_that_the_own_sidecar_does_not_know_is_of_its_last_life() -> None:
    one = view(spans_from((0, 3, 5.0)), sidecar("QmA", claim(6, 9)))["QmA"]
    assert (one.final, one.movable) == (Span(0, 3), True)


def test_a_claim_counts_until_it_expires() -> None:
    seen = view(spans_from((0, 3, 5.0), (0, 3, 5.0)), sidecar("QmB", claim(6, 9, expires_at=NOW)))
    assert seen["QmB"].final == Span(0, 3)


def test_only_newcomers_believe_claims_of_servers_that_nobody_sees() -> None:
    made_up = sidecar("QmB", replace(claim(6, 9), throughput=1e9))
    assert view(spans_from((0, 3, 5.0)), made_up).keys() == {"QmA"}
    seen = view(spans_from((0, 3, 5.0)), made_up, server=own("QmNew", None))
    assert (seen["QmB"].final, seen["QmB"].throughput) == (Span(6, 9), 5.0)


def test_a_mover_whose_process_starts_anew_is_on_its_way_and_another_that_is_offline_is_gone() -> None:
    gone = spans_from((0, 3, 5.0), (3, 6, 5.0), state=ServerState.OFFLINE)
    told = Sidecar("QmB", 0.0, 60.0, claim=replace(claim(6, 9), origin=Span(3, 6)))
    here = spans_from((0, 3, 5.0))
    assert set(view({**here, "QmB": gone["QmB"]})) == {"QmA"}
    mover = view({**here, "QmB": gone["QmB"]}, told)["QmB"]
    assert (mover.final, mover.serving, mover.unless_claimed) == (Span(6, 9), False, None)
    # One that only claims its first place is believed by newcomers alone, like those that nobody sees.
    first = Sidecar("QmB", 0.0, 60.0, claim=replace(claim(6, 9), origin=None))
    assert set(view({**here, "QmB": gone["QmB"]}, first)) == {"QmA"}
    assert set(view({**here, "QmB": gone["QmB"]}, first, server=own("QmNew", None))) == {"QmA", "QmB"}
    # Whoever comes after one that is gone is seen.
    after = spans_from((0, 3, 5.0), (3, 6, 5.0), (6, 9, 5.0))
    assert set(view({**after, "QmB": gone["QmB"]}, sidecar("QmB"))) == {"QmA", "QmC"}


def test_a_claim_says_where_its_server_is_if_it_comes_to_nothing() -> None:
    one = view(spans_from((0, 3, 5.0), (0, 3, 4.0)), sidecar("QmB", claim(6, 9)))["QmB"]
    assert one.unless_claimed == (Span(0, 3), 4.0)


@pytest.mark.parametrize(("made_at", "counts"), [(NOW - 20, True), (NOW - 10, True), (NOW - 9, False)])
def test_only_claims_that_go_first_count_against_an_own_one(made_at: float, counts: bool) -> None:  # noqa: FBT001 - a parameter of the test
    # QmB's name comes after QmA's and before QmC's, which decides where both are as old.
    mine = own("QmC", Span(0, 3), claim(6, 9, made_at=NOW - 10))
    seen = view(
        spans_from((0, 3, 5.0), (0, 3, 5.0), (0, 3, 5.0)), sidecar("QmB", claim(6, 9, made_at=made_at)), server=mine
    )
    assert (seen["QmB"].final == Span(6, 9)) is counts
    assert seen["QmC"].movable


def test_records_of_another_version_say_nothing() -> None:
    one = view(spans_from((0, 3, 5.0), (0, 3, 5.0)), sidecar("QmB", claim(6, 9), version=2))["QmB"]
    assert (one.final, one.movable) == (Span(0, 3), False)


def test_claims_count_from_the_first_block_of_the_model() -> None:
    told = sidecar("QmB", claim(16, 19)), sidecar("QmC", claim(0, 3)), sidecar("QmD", claim(20, 23))
    borders = sidecar("QmE", claim(10, 13)), sidecar("QmF", claim(19, 22))
    seen = view(spans_from(*[(1, 4, 5.0)] * 6), *told, *borders, first_block=10)
    assert seen["QmB"].final == Span(6, 9)
    # What is claimed outside of what was read is of no use here.
    assert not {"QmC", "QmD"} & seen.keys()
    assert (seen["QmE"].final, seen["QmF"].final) == (Span(0, 3), Span(9, 12))
    there = view(spans_from((0, 3, 5.0), (6, 9, 5.0)), sidecar("QmB", claim(16, 19)), first_block=10)["QmB"]
    assert there.movable


def test_what_a_liar_announces_counts_no_more_than_a_multiple_of_the_median() -> None:
    seen = view(spans_from((0, 3, 5.0), (0, 3, 5.0), (0, 3, 5.0), (0, 12, 1e300)))
    assert (seen["QmD"].throughput, seen["QmD"].credit, seen["QmD"].announced) == (20.0, 0.25, 5e298)
    assert seen["QmA"].credit == 1.0


def test_a_server_is_planned_for_with_all_that_is_known_of_it() -> None:
    spans = spans_from((0, 3, 5.0), (3, 6, 15.0), (6, 12, 12.5), (3, 6, 5.0), (0, 3, 4.0))
    told = sidecar("QmB", fetch_seconds=20.0, shapes=((4, 100.0), (3, 9.0)))
    mine = own(load_seconds=500.0, fetch_seconds=50.0, shapes=((3, 7.0), (2, 8.0)))
    seen = view(spans, told, server=mine)
    assert seen["QmA"] == PlanServer(
        "QmA",
        Span(0, 3),
        5.0,
        serving=True,
        movable=True,
        movable_in_emergency=True,
        load_seconds=500.0,
        fetch_seconds=50.0,
        shapes=((2, 8.0),),
    )
    # More than 2.5 times the median is doubted; more than 4 times is not counted.
    assert seen["QmB"] == PlanServer(
        "QmB",
        Span(3, 6),
        15.0,
        serving=True,
        movable=True,
        movable_in_emergency=True,
        load_seconds=300.0,
        fetch_seconds=20.0,
        shapes=((4, 20.0),),
        credit=1 / 3,
    )
    assert seen["QmC"] == PlanServer(
        "QmC", Span(6, 12), 12.5, serving=True, movable=False, movable_in_emergency=False, load_seconds=0.0
    )


def test_a_claim_is_planned_for_with_all_that_is_known_of_it() -> None:
    spans = spans_from((0, 3, 5.0), (3, 6, 100.0), (6, 9, 5.0), (6, 9, 5.0))
    spans["QmE"] = replace(spans["QmA"], peer_id="QmE", start=11, end=14)
    loud = replace(claim(6, 9), throughput=50.0)
    seen = view(spans, sidecar("QmB", loud, arrives_at=NOW + 80), sidecar("QmE", claim(9, 12)))
    assert seen["QmB"] == PlanServer(
        "QmB",
        Span(6, 9),
        20.0,
        serving=False,
        movable=False,
        movable_in_emergency=False,
        load_seconds=300.0,
        unless_claimed=(Span(3, 6), 20.0),
        credit=0.25,
        announced=2.5,
        arrives_in=90.0,
    )
    # Where it is said to be is no place at all.
    assert (seen["QmE"].final, seen["QmE"].unless_claimed) == (Span(9, 12), None)


def test_what_is_usual_is_told_by_those_who_serve_something_if_they_are_enough() -> None:
    def counted(*throughputs: float) -> float:
        spans = spans_from(*((0, 3, throughput) for throughput in throughputs))
        return max(one.throughput for one in view(spans).values())

    assert counted(5.0, 5.0, 100.0) == 100.0
    assert counted(5.0, 5.0, 5.0, 100.0) == 20.0
    assert counted(0.0, 0.0, 5.0, 21.0) == 21.0
    assert counted(0.5, 0.5, 0.5, 4.0) == 2.0
    assert counted(0.0, 0.0, 0.0, 0.0) == 0.0
    offline = spans_from((0, 3, 5.0), state=ServerState.OFFLINE)["QmA"]
    seen = view({**spans_from((0, 3, 5.0), (0, 3, 5.0), (0, 3, 100.0)), "QmZ": offline})
    assert seen["QmC"].throughput == 100.0


def test_how_much_more_is_announced_than_is_counted_is_known_of_the_weak_too() -> None:
    seen = view(spans_from((0, 3, 0.125), (0, 3, 0.125), (0, 3, 0.125), (0, 3, 1.0), (0, 3, 0.0)))
    assert (seen["QmD"].throughput, seen["QmD"].announced) == (0.5, 2.0)
    assert seen["QmE"].announced == 1.0


def test_hostile_spans_are_left_out() -> None:
    seen = view(spans_from((0, 3, 5.0), (5, 2, 5.0), (11, 14, 5.0), (4, 4, 5.0)))
    assert seen.keys() == {"QmA"}


def test_a_server_without_blocks_is_not_where_it_was_in_its_last_life() -> None:
    assert view(spans_from((0, 3, 5.0), (3, 6, 5.0)), server=own(span=None)).keys() == {"QmB"}


@given(honest_modules(), st.data())
def test_a_new_server_goes_where_petals_would_put_it(modules: list, data: st.DataObject) -> None:  # type: ignore[type-arg] # of RemoteModuleInfo
    total_blocks = len(modules)
    num_blocks = data.draw(st.integers(1, total_blocks))
    spans = compute_spans(modules, min_state=ServerState.JOINING)
    new = OwnServer(peer_id="QmNew", span=None, num_blocks=num_blocks, throughput=1.0)
    seen = view_servers(spans, {}, new, total_blocks=total_blocks, now=NOW)
    if any(span.throughput > one.throughput for one in seen for span in [spans[one.peer_id]]):
        return  # an outlier, which Petals believes
    chosen = choose_first_span(seen, new, total_blocks=total_blocks)
    assert list(range(chosen.start, chosen.end)) == choose_best_blocks(num_blocks, modules)


def test_a_new_server_leaves_claimed_blocks_to_others() -> None:
    spans = compute_spans(modules_from(9, (0, 3, 5.0), (0, 3, 5.0)), min_state=ServerState.JOINING)
    new = own("QmNew", None)
    told = {"QmB": sidecar("QmB", claim(3, 6))}
    seen = view_servers(spans, told, new, total_blocks=9, now=NOW)
    assert choose_first_span(seen, new, total_blocks=9) == Span(6, 9)


def test_a_new_server_takes_as_many_blocks_as_help_most() -> None:
    spans = compute_spans(modules_from(6, (0, 4, 5.0)), min_state=ServerState.JOINING)
    new = own("QmNew", None, shapes=((2, 8.0), (1, 16.0)))
    seen = view_servers(spans, {}, new, total_blocks=6, now=NOW)
    assert choose_first_span(seen, new, total_blocks=6) == Span(4, 6)


@pytest.mark.parametrize(
    ("shapes", "place"),
    [
        (((2, 6.0), (1, 7.0)), Span(4, 6)),
        (((2, 0.5), (6, 5.0)), Span(0, 6)),  # all of the model
        (((0, 9.0), (7, 9.0)), Span(3, 6)),  # no numbers of blocks at all
    ],
)
@pytest.mark.parametrize("unit", [1.0, 1e-4, 1e4])
def test_how_many_blocks_help_most_does_not_depend_on_the_unit(
    shapes: tuple[tuple[int, float], ...], place: Span, unit: float
) -> None:
    spans = compute_spans(modules_from(6, (0, 4, 5.0 * unit)), min_state=ServerState.JOINING)
    new = own("QmNew", None, throughput=5.0 * unit, shapes=tuple((length, rps * unit) for length, rps in shapes))
    seen = view_servers(spans, {}, new, total_blocks=6, now=NOW)
    assert choose_first_span(seen, new, total_blocks=6) == place


def test_a_new_server_may_take_a_single_block() -> None:
    spans = compute_spans(modules_from(4, (0, 3, 9.0)), min_state=ServerState.JOINING)
    new = own("QmNew", None, throughput=1.0, shapes=((1, 4.0),))
    seen = view_servers(spans, {}, new, total_blocks=4, now=NOW)
    assert choose_first_span(seen, new, total_blocks=4) == Span(3, 4)
    assert choose_first_span((), own("QmNew", None, throughput=0.0, shapes=((1, 0.0),)), total_blocks=4) == Span(0, 3)


def test_a_new_server_does_not_count_itself() -> None:
    spans = compute_spans(modules_from(6, (0, 3, 9.0), (3, 6, 5.0)), min_state=ServerState.JOINING)
    seen = view_servers(spans, {}, own("QmNew"), total_blocks=6, now=NOW)
    assert choose_first_span(seen, own("QmNew"), total_blocks=6) == Span(3, 6)
    assert choose_first_span(seen, own("QmA"), total_blocks=6) == Span(0, 3)


def test_a_server_larger_than_the_model_has_no_place() -> None:
    with pytest.raises(TooManyBlocksError):
        choose_first_span((), own(span=None), total_blocks=2)


def test_how_soon_a_server_will_serve_is_what_its_sidecar_tells() -> None:
    def arrives_in(*told: Sidecar, state: ServerState = ServerState.JOINING) -> float:
        spans = spans_from((0, 3, 5.0), (3, 6, 5.0), state=state)
        return view(spans, *told)["QmB"].arrives_in

    assert arrives_in() == 300.0
    assert arrives_in(sidecar("QmB"), state=ServerState.ONLINE) == 0.0
    assert arrives_in(sidecar("QmB", arrives_at=NOW + 100)) == 120.0
    assert arrives_in(sidecar("QmB", arrives_at=NOW)) == 30.0
    # Late by so much, it may need as long again: one that hangs is waited for less and less.
    assert arrives_in(sidecar("QmB", arrives_at=NOW - 500)) == 510.0
    claimed = sidecar("QmB", claim(6, 9, made_at=NOW - 10), load_seconds=100.0, fetch_seconds=300.0)
    assert arrives_in(claimed, state=ServerState.ONLINE) == 390.0


# Two weak stretches, each with one server: both have to be helped, so that one of the moves alone is for nothing.
TWO_WEAK = spans_from((0, 4, 5), (0, 4, 5), (0, 4, 5), (0, 4, 5), (0, 4, 5), (4, 8, 1), (8, 12, 1))


def partners(peer_id: str, *claims_of: str, as_planned: bool = True) -> tuple[str, ...]:
    """Give whose claims one of the plan's two movers waits for, where some have claimed their part of it."""
    told = {peer: sidecar(peer) for peer in TWO_WEAK}
    server = own(peer_id, Span(0, 4)).model_copy(update={"num_blocks": 4})
    servers, plan = plan_with_others(TWO_WEAK, told, server, total_blocks=TOTAL, now=NOW, move_cost=0.04)
    assert [move.peer_id for move in plan.moves] == ["QmA", "QmB"]
    for move in plan.moves:
        if move.peer_id in claims_of:
            target = move.target if as_planned else Span(2, 6)
            told[move.peer_id] = sidecar(move.peer_id, Claim(Span(0, 4), target, NOW - 1, NOW + 100, throughput=5.0))
    return missing_partners(plan, servers, told, server, total_blocks=TOTAL, now=NOW)


def test_a_move_that_helps_only_together_with_another_waits_for_its_claim() -> None:
    assert partners("QmA") == ("QmB",)
    assert partners("QmB") == ("QmA",)
    assert partners("QmA", "QmB") == ()
    assert partners("QmA", "QmB", as_planned=False) == ("QmB",)
    assert partners("QmC") == ()


def planned(*moves: tuple[str, int, int, float], is_emergency: bool = False) -> Plan:
    """Give a plan of these moves."""
    made = tuple(PlannedMove(peer, HOME, Span(start, end), rps, 300.0) for peer, start, end, rps in moves)
    return Plan(made, 0.0, 0, is_emergency=is_emergency, best=None, movable=9)


def waits(
    plan: Plan, *servers: PlanServer, peer_id: str = "a", claims: Mapping[str, Claim] | None = None
) -> tuple[str, ...]:
    """Give whose claims a server waits for; those without a claim have no sidecar."""
    told = {peer: sidecar(peer, each) for peer, each in (claims or {}).items()}
    return missing_partners(plan, servers, told, own(peer_id), total_blocks=6, now=NOW)


def test_who_waits_for_whom_follows_from_what_one_move_alone_does() -> None:
    strong = [plan_server(name, 0, 2, 5.0) for name in "abc"]
    weak, other = plan_server("d", 2, 4, 1.0), plan_server("e", 4, 6, 1.0)
    both = planned(("a", 2, 4, 5.0), ("b", 4, 6, 5.0))
    assert waits(both, *strong, weak, other) == ("b",)
    assert waits(both, *strong, weak, other, peer_id="b") == ("a",)
    assert waits(both, *strong, weak, other, claims={"b": claim(4, 6)}) == ()
    assert waits(both, *strong, weak, other, claims={"b": claim(3, 5)}) == ("b",)
    assert waits(both, *strong, weak, other, claims={"b": claim(4, 6, expires_at=NOW)}) == ("b",)
    assert waits(both, *strong, weak, other, claims={"c": claim(4, 6)}) == ("b",)  # it is not the one that is planned
    # Who is not in the plan, moves alone, closes a hole or helps by itself waits for nobody.
    assert waits(both, *strong, weak, other, peer_id="c") == ()
    assert waits(planned(("a", 2, 4, 5.0)), *strong, weak, other) == ()
    assert waits(planned(("a", 2, 4, 5.0), ("b", 4, 6, 5.0), is_emergency=True), *strong, weak, other) == ()
    assert waits(both, *strong, plan_server("d", 2, 4, 8.0), plan_server("e", 4, 6, 9.0)) == ()
    # Whoever has claimed counts where it is going to be, beside those who are there.
    three = planned(("a", 4, 6, 5.0), ("b", 2, 4, 1.0), ("c", 0, 2, 5.0))
    there = [plan_server("d", 2, 4, 3.0), plan_server("e", 4, 6, 3.5), *strong]
    assert waits(three, *there, claims={"b": claim(2, 4)}) == ()
    assert waits(three, *there) == ("b", "c")
    # What a server leaves behind counts too.
    pair = planned(("a", 4, 6, 5.0), ("c", 0, 2, 5.0))
    assert waits(
        pair, plan_server("d", 0, 2, 1.0), strong[0], plan_server("c", 2, 4, 9.0), plan_server("e", 4, 6, 2.0)
    ) == ("c",)
    # Nothing stays nothing.
    assert waits(both, *strong, plan_server("d", 2, 4, 0.0), plan_server("e", 4, 6, 0.0)) == ("b",)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 2), st.integers(1, 4)), min_size=3, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 2), st.integers(1, 4)), min_size=3, max_size=3),
    st.sets(st.sampled_from("bc")),
)
def test_a_move_waits_if_the_weakest_block_gains_nothing_without_the_others(
    places: list[tuple[int, int, int]], targets: list[tuple[int, int, int]], claimed: set[str]
) -> None:
    spans = [(start, start + length, float(rps)) for start, length, rps in places]
    goes_to = {
        name: (start, start + length, float(rps)) for name, (start, length, rps) in zip("abc", targets, strict=True)
    }
    everywhere = [(0, 6, 1.0)]  # no block is without a server
    made = planned(*((name, *place) for name, place in goes_to.items()))
    servers = [plan_server(name, *place) for name, place in zip("abcdefgh", [*spans, *everywhere], strict=False)]
    found = waits(made, *servers, claims={name: claim(*goes_to[name][:2]) for name in claimed})

    def weakest(*moved: str) -> float:
        at = [
            goes_to[one.peer_id] if one.peer_id in moved else (one.final.start, one.final.end, one.throughput)
            for one in servers
        ]
        return min(sum(rps for start, end, rps in at if start <= block < end) for block in range(6))

    helps = weakest("a", *claimed) > weakest(*claimed)
    assert found == (() if helps else tuple(sorted({"b", "c"} - claimed)))


def test_unread_rows_as_long_as_the_shortest_span_may_hide_a_server() -> None:
    spans = spans_from((0, 3, 5.0), (0, 5, 5.0), (4, 4, 5.0))
    assert hiding_places((), spans) == frozenset()
    assert hiding_places((4, 5), spans) == frozenset()
    assert hiding_places((6, 4, 5), spans) == {4, 5, 6}
    assert hiding_places((0, 1, 3, 4, 5, 6, 8, 9), spans) == {3, 4, 5, 6}
    assert hiding_places((4, 7), spans_from((0, 1, 5.0), (0, 3, 5.0))) == {4, 7}
    # Nobody was read of, so that a server of any number of blocks may be there.
    assert hiding_places((4,), {}) == {4}


class Asked:
    """A planner that gives these plans, one after the other, and remembers what it was asked for."""

    def __init__(self, *plans: Plan) -> None:
        self.plans = list(plans)
        self.calls: list[tuple[dict[str, PlanServer], Standing | None]] = []

    def __call__(
        self,
        servers: tuple[PlanServer, ...],
        *,
        total_blocks: int,
        move_cost: float,
        unread: frozenset[int] = frozenset(),
        standing: Standing | None = None,
    ) -> Plan:
        assert (total_blocks, move_cost, unread) == (TOTAL, 0.04, frozenset({6, 7, 8}))
        self.calls.append(({one.peer_id: one for one in servers}, standing))
        return self.plans.pop(0)


def follow(
    asked: Asked, mine: OwnServer, *sidecars: Sidecar, first_block: int = 0, **throughputs: float
) -> tuple[dict[str, PlanServer], Plan]:
    """Give what the own server's sidecar follows, which is at home with QmB to QmD; blocks 6, 7, 8 and 10 are unread."""
    spans = spans_from(*((0, 3, throughputs.get(name, 5.0)) for name in "ABCD"))
    servers, plan = plan_with_others(
        spans,
        {one.peer_id: one for one in sidecars},
        mine,
        total_blocks=TOTAL,
        now=NOW,
        move_cost=0.04,
        unread=(6, 7, 8, 10),
        overdue={"QmB"},
        planner=asked,
        **({"first_block": first_block} if first_block else {}),
    )
    return {one.peer_id: one for one in servers}, plan


NOBODY_MOVES = planned()
"""Plans are told apart by being the very same."""


def test_without_a_claim_the_plan_of_all_is_followed() -> None:
    asked = Asked(NOBODY_MOVES)
    servers, plan = follow(asked, own(), sidecar("QmB", claim(6, 9)), sidecar("QmC"))
    assert plan is NOBODY_MOVES
    assert asked.calls == [(servers, None)]
    assert {peer_id: one.is_overdue for peer_id, one in servers.items()} == {
        "QmA": False,
        "QmB": True,
        "QmC": False,
        "QmD": False,
    }
    assert servers["QmB"].final == Span(6, 9)


@pytest.mark.parametrize("first_block", [0, 10])
def test_a_claim_stands_as_long_as_the_plan_keeps_to_it(first_block: int) -> None:
    target = Span(9 + first_block, 12 + first_block)
    mine = own(claim=replace(claim(0, 3), target=target, throughput=100.0))
    kept = planned(("QmA", 9, 12, 20.0))
    asked = Asked(kept)
    older = claim(3 + first_block, 6 + first_block, made_at=NOW - 20)
    # Whoever claimed later is only asked to stay where the plan has become another one.
    younger = claim(6 + first_block, 9 + first_block, made_at=NOW - 1)
    servers, plan = follow(asked, mine, sidecar("QmB", older), sidecar("QmC", younger), first_block=first_block)
    assert plan is kept
    assert servers["QmB"].final == Span(3, 6)
    # No more is counted for it than the others make plausible.
    assert asked.calls == [(servers, Standing("QmA", Span(9, 12), 20.0))]


def test_what_was_claimed_outside_of_what_was_read_or_by_a_newcomer_does_not_stand() -> None:
    for target, first_block in ((Span(10, 13), 0), (Span(8, 11), 9)):
        asked = Asked(NOBODY_MOVES)
        follow(asked, own(claim=replace(claim(0, 3), target=target)), first_block=first_block)
        assert [standing for _, standing in asked.calls] == [None]
    asked = Asked(NOBODY_MOVES)
    follow(asked, own("QmNew", None, claim(3, 6)))
    assert [standing for _, standing in asked.calls] == [None]


def test_younger_claims_take_nobodys_place() -> None:
    mine = own(claim=claim(3, 6, made_at=NOW - 20))
    told = (
        sidecar("QmA", mine.claim),
        sidecar("QmB", claim(3, 6, made_at=NOW - 10)),
        sidecar("QmC", claim(3, 6, made_at=NOW - 10, expires_at=NOW)),
        sidecar("QmD"),
    )
    standing = Standing("QmA", Span(3, 6), 5.0)
    for lost in (planned(("QmB", 3, 6, 5.0)), planned(("QmA", 2, 5, 5.0))):
        final = planned(("QmA", 3, 6, 5.0))
        asked = Asked(lost, final)
        servers, plan = follow(asked, mine, *told)
        assert plan is final
        (free, first), (firm, second) = asked.calls
        assert (first, second) == (standing, standing)
        assert all(one.movable and one.movable_in_emergency for one in free.values())
        assert servers == firm == {**free, "QmB": replace(free["QmB"], movable=False, movable_in_emergency=False)}


def test_where_nobody_has_a_younger_claim_the_first_plan_holds() -> None:
    lost = planned(("QmB", 3, 6, 5.0))
    asked = Asked(lost)
    mine = own(claim=claim(3, 6))
    servers, plan = follow(asked, mine, sidecar("QmA", mine.claim), sidecar("QmB"))
    assert plan is lost
    assert asked.calls == [(servers, Standing("QmA", Span(3, 6), 5.0))]
