"""What sidecars agree on before they plan: claims, who serves, who may be moved, and where a new server goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.coordination import choose_first_span, missing_partners, plan_with_others, view_servers
from swarmkeel.balance.plan_server import PlanServer
from swarmkeel.balance.policy import OwnServer
from swarmkeel.balance.selection import TooManyBlocksError, choose_best_blocks
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo, compute_spans
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.span import Span
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
    ("movable_at", "movable", "in_emergency"), [(NOW - 1, True, True), (NOW + 1, False, True), (None, False, False)]
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
    seen = view(spans_from((0, 3, 5.0), (0, 3, 5.0), (0, 3, 5.0), (0, 3, 5.0)), *told, first_block=10)
    assert seen["QmB"].final == Span(6, 9)
    # What is claimed outside of what was read is of no use here.
    assert not {"QmC", "QmD"} & seen.keys()


def test_what_a_liar_announces_counts_no_more_than_a_multiple_of_the_median() -> None:
    seen = view(spans_from((0, 3, 5.0), (0, 3, 5.0), (0, 3, 5.0), (0, 12, 1e300)))
    assert (seen["QmD"].throughput, seen["QmD"].credit, seen["QmD"].announced) == (20.0, 0.25, 5e298)
    assert seen["QmA"].credit == 1.0


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
