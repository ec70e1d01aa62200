"""The policy `coordinated`: what one server is told of the plan that all sidecars make alike."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from swarmkeel.balance.bound import measure_placed
from swarmkeel.balance.decision import Decision, Verdict
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.balance.reasons import SENTENCES
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span
from tests.balance.swarms import honest_modules, modules_from
from tests.balance.test_petals_policy import NOW, names, snapshot
from tests.support.examples import examples


def decide(
    swarm: SwarmSnapshot,
    peer_id: str = "QmA",
    *,
    sidecars: Mapping[str, Sidecar] | None = None,
    claim: Claim | None = None,
    idle: bool = False,
    move_cost: float = 0.04,
    min_answered_ratio: float = 0.9,
    **changes: object,
) -> Decision:
    """Decide as the sidecar of this server would; without other word, every server has a sidecar.

    `changes` are of what the server tells of itself.
    """
    spans = swarm.spans(ServerState.JOINING)
    span = spans[peer_id]
    own = OwnServer(
        peer_id=peer_id,
        span=None if idle else Span(span.start + swarm.first_block, span.end + swarm.first_block),
        num_blocks=span.length,
        throughput=span.throughput,
        claim=claim,
    ).model_copy(update=changes)
    if sidecars is None:
        sidecars = {peer: Sidecar(peer, movable_at=0.0, load_seconds=600.0) for peer in spans}
    situation = Situation(
        snapshot=swarm,
        own=own,
        settings=PolicySettings(move_cost=move_cost, min_answered_ratio=min_answered_ratio),
        now=NOW,
        seed=0,
        sidecars=sidecars,
    )
    return get_policy("coordinated").decide(situation)


def told(decision: Decision) -> list[tuple[str, dict[str, object]]]:
    """Give the reasons with their values."""
    return [(reason.name, dict(reason.values)) for reason in decision.reasons]


def named(modules: list[RemoteModuleInfo[str]], name: str = "Server-") -> list[RemoteModuleInfo[str]]:
    """Give every server a longer name."""
    return [
        RemoteModuleInfo(module.uid, {f"{name}{peer[-1]}": info for peer, info in module.servers.items()})
        for module in modules
    ]


PILE = modules_from(6, (0, 3, 5.0), (0, 3, 5.0), (0, 3, 5.0))


def test_one_server_of_a_pile_moves_into_the_hole_and_the_others_know() -> None:
    decisions = {peer_id: decide(snapshot(PILE), peer_id) for peer_id in ("QmA", "QmB", "QmC")}
    assert [decision.verdict for decision in decisions.values()] == [
        Verdict.MOVING,
        Verdict.BALANCED,
        Verdict.BALANCED,
    ]
    moving = decisions["QmA"]
    assert moving.target == Span(3, 6)
    assert told(moving) == [("closes_holes", {"uncovered": 3, "moves": 1})]
    assert moving.before is not None
    assert moving.after is not None
    assert (moving.before.uncovered_blocks, moving.after.uncovered_blocks) == (3, 0)
    assert names(decisions["QmB"]) == ["others_move", "closes_holes"]
    assert decisions["QmB"].sentence.startswith("balanced: the plan moves 1 other server (QmA)")


def test_blocks_are_counted_like_those_of_the_model() -> None:
    modules = modules_from(6, (0, 3, 5.0), (0, 3, 5.0), first_block=10)
    assert decide(snapshot(modules)).target == Span(13, 16)
    assert decide(snapshot(modules), idle=True).target == Span(13, 16)
    claimed = Claim(Span(10, 13), Span(13, 16), NOW - 10, NOW + 100, throughput=5.0)
    told_by_b = {"QmB": Sidecar("QmB", 0.0, 600.0, claim=claimed)}
    assert decide(snapshot(modules), sidecars=told_by_b).verdict is Verdict.BALANCED


def test_a_server_alone_with_a_sidecar_moves_alone() -> None:
    assert decide(snapshot(PILE), "QmC", sidecars={}).verdict is Verdict.MOVING


def test_a_server_that_may_not_move_leaves_it_to_another() -> None:
    sidecars = {
        "QmA": Sidecar("QmA", movable_at=None, load_seconds=600.0),
        "QmB": Sidecar("QmB", movable_at=0.0, load_seconds=600.0),
    }
    assert names(decide(snapshot(PILE), "QmA", sidecars=sidecars)) == ["others_move", "closes_holes"]
    assert decide(snapshot(PILE), "QmB", sidecars=sidecars).verdict is Verdict.MOVING


def test_a_claim_keeps_others_from_doing_the_same() -> None:
    mine = Claim(Span(0, 3), Span(3, 6), NOW - 10, NOW + 100, throughput=5.0)
    sidecars = {peer: Sidecar(peer, movable_at=0.0, load_seconds=600.0) for peer in ("QmB", "QmC")}
    sidecars["QmA"] = Sidecar("QmA", movable_at=0.0, load_seconds=600.0, claim=mine)
    assert decide(snapshot(PILE), "QmB", sidecars=sidecars).verdict is Verdict.BALANCED
    again = decide(snapshot(PILE), "QmA", sidecars=sidecars, claim=mine)
    assert (again.verdict, again.target) == (Verdict.MOVING, Span(3, 6))


def test_of_two_claims_on_one_hole_the_older_holds() -> None:
    older = Claim(Span(0, 3), Span(3, 6), NOW - 12, NOW + 100, throughput=5.0)
    younger = Claim(Span(0, 3), Span(3, 6), NOW - 10, NOW + 100, throughput=5.0)
    sidecars = {
        "QmA": Sidecar("QmA", movable_at=0.0, load_seconds=600.0, claim=younger),
        "QmB": Sidecar("QmB", movable_at=0.0, load_seconds=600.0, claim=older),
        "QmC": Sidecar("QmC", movable_at=0.0, load_seconds=600.0),
    }
    assert decide(snapshot(PILE), "QmA", sidecars=sidecars, claim=younger).verdict is Verdict.BALANCED
    assert decide(snapshot(PILE), "QmB", sidecars=sidecars, claim=older).verdict is Verdict.MOVING


def test_what_is_not_worth_a_restart_is_said_with_its_numbers() -> None:
    modules = modules_from(6, (0, 3, 10.0), (0, 3, 10.0), (0, 3, 10.0), (3, 6, 19.5))
    decision = decide(snapshot(modules))
    assert (decision.verdict, names(decision)) == (Verdict.BALANCED, ["not_worth_it"])
    assert decision.reasons[0].values == pytest.approx({"gain_rps": 0.5, "cost_rps": 19.5 * 0.04, "moves": 1})
    dear = decide(snapshot(modules), move_cost=0.0)
    assert (dear.verdict, dear.target) == (Verdict.MOVING, Span(3, 6))


def test_holes_that_nobody_can_close_are_said() -> None:
    decision = decide(snapshot(modules_from(12, (0, 3, 5.0), (0, 3, 5.0))))
    assert names(decision) == ["holes_stay"]
    assert decision.reasons[0].values == {"uncovered": 9, "left": 6, "moves": 1}


def test_a_server_that_has_to_stay_says_so() -> None:
    both_alone = snapshot(modules_from(6, (0, 3, 5.0), (3, 6, 5.0)))
    decision = decide(both_alone)
    assert told(decision) == [("nobody_can_move", {"movable": 2, "servers": 2})]
    assert decision.before == measure_placed([(Span(0, 3), 5.0), (Span(3, 6), 5.0)], 6)
    pinned = {"QmA": Sidecar("QmA", None, 600.0), "QmB": Sidecar("QmB", 0.0, 600.0)}
    stays = [("nobody_can_move", {"movable": 1, "servers": 2})]
    assert told(decide(both_alone, "QmA", sidecars=pinned)) == [*stays, ("not_movable", {})]
    assert told(decide(both_alone, "QmB", sidecars=pinned)) == stays


def test_what_one_move_cannot_raise_is_said() -> None:
    two_weak = modules_from(6, (0, 2, 5.0), (0, 2, 5.0), (2, 4, 1.0), (4, 6, 1.0))
    assert told(decide(snapshot(two_weak), sidecars={})) == [("no_gain", {"bottleneck_rps": 1.0})]


def test_an_old_or_contradicting_snapshot_is_not_decided_on() -> None:
    stale = snapshot(PILE, read_at=NOW - 1000)
    assert names(decide(stale)) == ["snapshot_stale"]
    decision = decide(stale, span=Span(1, 4))
    assert (decision.verdict, decision.before) == (Verdict.INSUFFICIENT_INFORMATION, None)
    assert names(decision) == ["snapshot_stale", "own_span_differs"]
    # What is known of the swarm is told even where the server says something else.
    decision = decide(snapshot(PILE), span=Span(1, 4))
    assert (decision.verdict, names(decision)) == (Verdict.INSUFFICIENT_INFORMATION, ["own_span_differs"])
    assert decision.before == measure_placed([(Span(0, 3), 5.0)] * 3, 6)


def test_a_decision_says_whose_it_is_and_what_it_rests_on() -> None:
    swarm = snapshot(PILE)
    decision = decide(swarm, "QmB")
    assert (decision.policy, decision.peer_id, decision.own_span) == ("coordinated", "QmB", Span(0, 3))
    assert (decision.snapshot_digest, decision.seed) == (swarm.digest, 0)


def test_a_server_that_holds_more_than_the_model_is_left_alone() -> None:
    decision = decide(snapshot(PILE), idle=True, num_blocks=7)
    assert (decision.verdict, told(decision)) == (
        Verdict.BALANCED,
        [("too_many_blocks", {"num_blocks": 7, "total_blocks": 6})],
    )
    assert decision.before == measure_placed([(Span(0, 3), 5.0)] * 2, 6)
    assert decide(snapshot(PILE), idle=True, num_blocks=6).target == Span(0, 6)


def test_a_first_placement_counts_claims_and_has_the_throughput_of_its_number_of_blocks() -> None:
    swarm = snapshot(modules_from(6, (0, 3, 9.0), (0, 3, 5.0), first_block=10))
    claimed = Claim(Span(10, 13), Span(13, 16), NOW - 10, NOW + 100, throughput=5.0)
    sidecars = {"QmB": Sidecar("QmB", 0.0, 600.0, claim=claimed)}
    decision = decide(swarm, idle=True, sidecars=sidecars, shapes=((2, 1.0), (4, 6.0)))
    assert (decision.verdict, decision.target) == (Verdict.MOVING, Span(10, 14))
    assert told(decision) == [("first_placement", {"target": "10:14"})]
    assert decision.before == measure_placed([(Span(3, 6), 5.0)], 6)
    assert decision.after == measure_placed([(Span(0, 4), 6.0), (Span(3, 6), 5.0)], 6)
    usual = decide(swarm, idle=True, sidecars=sidecars, shapes=((2, 1.0),))
    assert usual.target == Span(10, 13)
    assert usual.after == measure_placed([(Span(0, 3), 9.0), (Span(3, 6), 5.0)], 6)


# Three weak stretches: only if all of them are helped does the bottleneck rise.
WEAK = ((4, 8, 1.0), (8, 12, 1.0), (12, 16, 1.0))
THREE_WEAK = snapshot(named(modules_from(16, *[(0, 4, 5.0)] * 8, *WEAK, first_block=10)))


def test_a_plan_of_several_moves_is_told_with_all_of_them() -> None:
    worth = {"bottleneck_rps": 1.0, "reached_rps": 6.0, "cost_rps": 0.129, "moves": 3}
    placed = [(Span(0, 4), 5.0)] * 5 + [(Span(start, end), rps) for start, end, rps in WEAK]
    moving = decide(THREE_WEAK, "Server-A")
    assert moving.reasons[0].name == "raises_bottleneck"
    assert moving.reasons[0].values == pytest.approx(worth)
    others: dict[str, object] = {"peers": "erver-B, erver-C", "moves": 2}
    assert told(moving)[1:] == [("together_with", others), ("needs_others", others)]
    assert (moving.verdict, moving.own_span) == (Verdict.MOVING, Span(10, 14))
    assert moving.before == measure_placed([(Span(0, 4), 5.0)] * 3 + placed, 16)
    assert moving.after == measure_placed([(Span(start, end), 5.0) for start, end, _ in WEAK] + placed, 16)
    targets = {decide(THREE_WEAK, f"Server-{name}").target for name in "ABC"}
    assert targets == {Span(14, 18), Span(18, 22), Span(22, 26)}
    staying = decide(THREE_WEAK, "Server-D")
    assert told(staying)[0] == ("others_move", {"peers": "erver-A, erver-B, erver-C", "moves": 3})
    assert staying.reasons[1:] == moving.reasons[:1]
    assert (staying.verdict, staying.before) == (Verdict.BALANCED, moving.before)
    assert (staying.target, staying.after) == (None, None)


def test_a_move_waits_no_more_for_those_who_have_claimed_theirs() -> None:
    claims = {
        peer: Claim(Span(10, 14), target, NOW - age, NOW + 100, throughput=5.0)
        for peer, age in (("Server-A", 30), ("Server-B", 20), ("Server-C", 10))
        if (target := decide(THREE_WEAK, peer).target) is not None
    }

    def told_to_b(*claimed: str) -> list[tuple[str, dict[str, object]]]:
        sidecars = {peer: Sidecar(peer, 0.0, 600.0) for peer in THREE_WEAK.spans(ServerState.JOINING)}
        sidecars |= {peer: replace(sidecars[peer], claim=claims[peer]) for peer in claimed}
        return told(decide(THREE_WEAK, "Server-B", sidecars=sidecars, claim=claims["Server-B"]))[1:]

    # The claim of `A`, which is older than its own, counts as made; that of `C` as one that will be made.
    with_c = ("together_with", {"peers": "erver-C", "moves": 1})
    assert told_to_b("Server-A", "Server-B") == [with_c, ("needs_others", {"peers": "erver-C", "moves": 1})]
    assert told_to_b("Server-A", "Server-B", "Server-C") == [with_c]


def test_a_hole_that_will_be_closed_late_is_told_with_both_times() -> None:
    modules = modules_from(6, (0, 3, 5.0), (0, 3, 5.0), (3, 6, 5.0))
    for module in modules[3:]:
        module.servers["QmC"] = replace(module.servers["QmC"], state=ServerState.JOINING)
    sidecars = {"QmC": Sidecar("QmC", 0.0, 600.0, arrives_at=NOW + 1200)}
    decision = decide(snapshot(modules), sidecars=sidecars, load_seconds=60.0)
    assert told(decision) == [("closes_holes_sooner", {"seconds": 1200.0, "reached_seconds": 60.0, "moves": 1})]


def test_nobody_counts_on_a_server_whose_record_is_overdue() -> None:
    swarm = snapshot(modules_from(6, (0, 3, 5.0), (0, 3, 1.0), (0, 3, 4.0), (3, 6, 5.0)))
    sidecars = {peer: Sidecar(peer, 0.0, 600.0) for peer in ("QmA", "QmB")}
    assert decide(swarm, "QmB", sidecars=sidecars).verdict is Verdict.MOVING
    assert decide(replace(swarm, overdue=frozenset({"QmC"})), "QmB", sidecars=sidecars).verdict is Verdict.BALANCED


@examples(0.3)
@given(honest_modules(), st.sampled_from([0.0, 0.04]))
def test_all_sidecars_of_one_view_follow_one_plan(modules: list[RemoteModuleInfo[str]], move_cost: float) -> None:
    swarm = snapshot(modules)
    decisions = {peer: decide(swarm, peer, move_cost=move_cost) for peer in swarm.spans(ServerState.JOINING)}
    movers = {peer for peer, decision in decisions.items() if decision.verdict is Verdict.MOVING}
    closing = any(names(decision)[:1] == ["closes_holes"] for decision in decisions.values())
    assert len(movers) <= 3 or closing
    assert len({decision.after for decision in decisions.values() if decision.after is not None}) <= 1
    for peer, decision in decisions.items():
        assert decision == decide(swarm, peer, move_cost=move_cost)
        assert decision.target != decision.own_span
        assert all(reason.name in SENTENCES for reason in decision.reasons)
        assert all(SENTENCES[reason.name].format(**reason.values) for reason in decision.reasons)  # no value is missing
        if decision.verdict is Verdict.MOVING:
            assert decision.before is not None
            assert decision.after is not None
            assert decision.after.bottleneck_rps > decision.before.bottleneck_rps


def _coverage(placed: Mapping[str, tuple[Span, float]], total_blocks: int) -> NDArray[np.float64]:
    blocks = np.zeros(total_blocks)
    for span, throughput in placed.values():
        blocks[span.start : span.end] += throughput
    return blocks


@examples(0.6)
@given(honest_modules(), st.data())
def test_who_reads_but_a_part_of_the_swarm_never_makes_it_worse(
    modules: list[RemoteModuleInfo[str]], data: st.DataObject
) -> None:
    whole = snapshot(modules)
    lost = data.draw(st.sets(st.integers(0, whole.total_blocks - 1)))
    blocks = tuple(
        BlockReading(block.uid, KeyReading.UNKNOWN, {}) if index in lost else block
        for index, block in enumerate(whole.blocks)
    )
    part = replace(whole, blocks=blocks)
    placed = {
        peer: (Span(span.start, span.end), span.throughput) for peer, span in whole.spans(ServerState.JOINING).items()
    }
    before = _coverage(placed, whole.total_blocks)
    for peer in part.spans(ServerState.JOINING):
        decision = decide(part, peer, min_answered_ratio=0.0)
        if decision.verdict is Verdict.MOVING:
            assert decision.target is not None
            target = Span(decision.target.start - whole.first_block, decision.target.end - whole.first_block)
            placed[peer] = (target, placed[peer][1])
    after = _coverage(placed, whole.total_blocks)
    assert np.count_nonzero(after <= 0) <= np.count_nonzero(before <= 0)
    assert after.min() >= before.min() * (1 - 1e-6)


@examples(0.3)
@given(honest_modules(), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(modules: list[RemoteModuleInfo[str]], rng: random.Random) -> None:
    swarm = snapshot(modules)

    def shuffled(servers: Mapping[str, ServerInfo]) -> dict[str, ServerInfo]:
        entries = list(servers.items())
        rng.shuffle(entries)
        return dict(entries)

    mixed = replace(swarm, blocks=tuple(replace(block, servers=shuffled(block.servers)) for block in swarm.blocks))
    for peer in swarm.spans(ServerState.JOINING):
        assert decide(mixed, peer) == decide(swarm, peer)


def test_what_nobody_could_read_may_be_better_than_it_looks() -> None:
    # The last three blocks look weak, but could not be read: a strong server may be there, of three blocks as others.
    modules = modules_from(9, (0, 3, 5.0), (0, 3, 5.0), (0, 3, 5.0), (3, 6, 9.0), (5, 8, 1.0), (6, 9, 2.0))
    swarm = snapshot(modules)
    blind = tuple(
        replace(block, reading=KeyReading.UNKNOWN) if n >= 6 else block for n, block in enumerate(swarm.blocks)
    )
    assert decide(swarm).verdict is Verdict.MOVING
    assert decide(replace(swarm, blocks=blind), min_answered_ratio=0.0).verdict is Verdict.BALANCED
