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
) -> Decision:
    """Decide as the sidecar of this server would; without other word, every server has a sidecar."""
    spans = swarm.spans(ServerState.JOINING)
    span = spans[peer_id]
    own = OwnServer(
        peer_id=peer_id,
        span=None if idle else Span(span.start + swarm.first_block, span.end + swarm.first_block),
        num_blocks=span.length,
        throughput=span.throughput,
        claim=claim,
    )
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


PILE = modules_from(6, (0, 3, 5.0), (0, 3, 5.0), (0, 3, 5.0))


def test_one_server_of_a_pile_moves_into_the_hole_and_the_others_know() -> None:
    decisions = {peer_id: decide(snapshot(PILE), peer_id) for peer_id in ("QmA", "QmB", "QmC")}
    assert [decision.verdict for decision in decisions.values()] == [
        Verdict.MOVING,
        Verdict.BALANCED,
        Verdict.BALANCED,
    ]
    moving = decisions["QmA"]
    assert (moving.target, names(moving)) == (Span(3, 6), ["closes_holes"])
    assert moving.before is not None
    assert moving.after is not None
    assert (moving.before.uncovered_blocks, moving.after.uncovered_blocks) == (3, 0)
    assert names(decisions["QmB"]) == ["others_move", "closes_holes"]
    assert decisions["QmB"].sentence.startswith("balanced: the plan moves 1 other server (QmA)")


def test_blocks_are_counted_like_those_of_the_model() -> None:
    modules = modules_from(6, (0, 3, 5.0), (0, 3, 5.0), first_block=10)
    assert decide(snapshot(modules)).target == Span(13, 16)
    assert decide(snapshot(modules), idle=True).target == Span(13, 16)


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
    assert decision.reasons[0].values["gain_rps"] == pytest.approx(0.5)
    dear = decide(snapshot(modules), move_cost=0.0)
    assert (dear.verdict, dear.target) == (Verdict.MOVING, Span(3, 6))


def test_holes_that_nobody_can_close_are_said() -> None:
    decision = decide(snapshot(modules_from(12, (0, 3, 5.0), (0, 3, 5.0))))
    assert names(decision) == ["holes_stay"]
    assert decision.reasons[0].values == {"uncovered": 9, "left": 6, "moves": 1}


def test_a_server_that_has_to_stay_says_so() -> None:
    decision = decide(snapshot(modules_from(6, (0, 3, 5.0), (3, 6, 5.0))))
    assert names(decision) == ["nobody_can_move"]


def test_an_old_or_contradicting_snapshot_is_not_decided_on() -> None:
    stale = snapshot(PILE, read_at=NOW - 1000)
    assert names(decide(stale)) == ["snapshot_stale"]


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
