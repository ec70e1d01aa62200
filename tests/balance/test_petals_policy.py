"""The policy `petals`: what it decides, what it refuses to decide on, and what holds for all its decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.balance.imbalance import check_imbalance, should_choose_other_blocks
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.balance.reasons import SENTENCES
from swarmkeel.balance.selection import choose_best_blocks
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span
from tests.balance.swarms import honest_modules, modules_from
from tests.support.examples import examples

NOW = 1000.0


def snapshot(modules: list[RemoteModuleInfo[str]], **changes: object) -> SwarmSnapshot:
    prefix, first_block = modules[0].uid.split(".")
    blocks = tuple(BlockReading(module.uid, KeyReading.OK, module.servers) for module in modules)
    made = SwarmSnapshot(prefix, int(first_block), blocks, NOW)
    return replace(made, **changes)  # type: ignore[arg-type] # any field of it


def own(span: Span | None, num_blocks: int | None = None) -> OwnServer:
    return OwnServer(peer_id="QmA", span=span, num_blocks=num_blocks or len(span or ()), throughput=5.0)


def decide(
    swarm: SwarmSnapshot, server: OwnServer, *, seed: int = 0, now: float = NOW, policy: PolicySettings | None = None
) -> Decision:
    situation = Situation(snapshot=swarm, own=server, settings=policy or PolicySettings(), now=now, seed=seed)
    return get_policy("petals").decide(situation)


def names(decision: Decision) -> list[str]:
    return [reason.name for reason in decision.reasons]


def test_a_pile_beside_a_hole_leads_into_the_hole() -> None:
    decision = decide(snapshot(modules_from(6, (0, 3, 5.0), (0, 3, 5.0))), own(Span(0, 3)))
    assert (decision.verdict, decision.target, names(decision)) == (Verdict.MOVING, Span(3, 6), ["imbalance"])
    assert decision.before is not None
    assert decision.after is not None
    assert (decision.before.bottleneck_rps, decision.before.uncovered_blocks) == (0, 3)
    assert (decision.after.bottleneck_rps, decision.after.uncovered_blocks) == (5, 0)
    assert decision.sentence.startswith("moving: the balance quality 0.0% is below the limit of 75.0%")


def test_a_decision_says_all_that_it_rests_on() -> None:
    swarm = snapshot(modules_from(6, (0, 3, 5.0), (0, 3, 5.0), first_block=10))
    decision = decide(swarm, own(Span(10, 13)), seed=7)
    assert decision == Decision(
        verdict=Verdict.MOVING,
        reasons=decision.reasons,
        policy="petals",
        peer_id="QmA",
        own_span=Span(10, 13),
        target=Span(13, 16),
        before=SwarmNumbers(bottleneck_rps=0, bound_rps=5, uncovered_blocks=3),
        after=SwarmNumbers(bottleneck_rps=5, bound_rps=5, uncovered_blocks=0),
        snapshot_digest=swarm.digest,
        seed=7,
    )


def test_the_seed_is_that_of_the_search() -> None:
    servers = [(3, 8, 5.0), (1, 8, 4.0), (6, 8, 1.0), (5, 8, 9.0), (4, 5, 8.0), (1, 10, 7.0)]
    swarm = snapshot(modules_from(10, *servers))
    spans = swarm.spans(ServerState.JOINING)
    found = []
    for seed in range(12):
        check = check_imbalance("QmA", spans, 0.75, total_blocks=10, rng=np.random.RandomState(seed))
        values = decide(swarm, own(Span(3, 8)), seed=seed).reasons[0].values
        assert (values["reached_rps"], values["rounds"]) == (check.reached_rps, check.rounds)
        found.append((check.reached_rps, check.rounds))
    assert len(set(found)) > 3


def test_joining_servers_count_and_offline_ones_do_not() -> None:
    modules = modules_from(6, (0, 3, 5.0), (0, 3, 5.0), (3, 6, 5.0))
    for module in modules[3:]:
        module.servers["QmC"] = replace(module.servers["QmC"], state=ServerState.JOINING)
    assert decide(snapshot(modules), own(Span(0, 3))).verdict is Verdict.BALANCED
    for module in modules[3:]:
        module.servers["QmC"] = replace(module.servers["QmC"], state=ServerState.OFFLINE)
    assert decide(snapshot(modules), own(Span(0, 3))).verdict is Verdict.MOVING


def test_what_the_swarm_would_do_is_summed_in_the_order_of_the_peer_ids() -> None:
    # 0.1 + 0.2 + 0.3 and 0.2 + 0.3 + 0.1 differ in the last bit.
    swarm = snapshot(modules_from(1, (0, 1, 9.0), (0, 1, 0.2), (0, 1, 0.3)))
    idle = OwnServer(peer_id="QmA", span=None, num_blocks=1, throughput=0.1)
    after = decide(swarm, idle).after
    assert after is not None
    assert after.bottleneck_rps == 0.1 + 0.2 + 0.3 != 0.2 + 0.3 + 0.1


def test_after_the_move_a_server_brings_what_its_record_says_to_just_its_target() -> None:
    forced = PolicySettings(quality=1.5)
    for total_blocks, bottleneck, uncovered in ((6, 6.0, 0), (8, 0.0, 2)):
        swarm = snapshot(modules_from(total_blocks, (4, 6, 7.0), (4, 6, 9.0), (0, 2, 6.0)))
        decision = decide(swarm, own(Span(4, 6)), policy=forced)
        assert decision.target == Span(2, 4)
        assert decision.after is not None
        assert (decision.after.bottleneck_rps, decision.after.uncovered_blocks) == (bottleneck, uncovered)


def test_a_server_may_hold_exactly_the_whole_model() -> None:
    decision = decide(snapshot(modules_from(4, (0, 3, 5.0))), own(None, 4))
    assert (decision.verdict, decision.target) == (Verdict.MOVING, Span(0, 4))


def test_blocks_are_counted_like_those_of_the_model() -> None:
    modules = modules_from(6, (0, 3, 5.0), (0, 3, 5.0), first_block=10)
    decision = decide(snapshot(modules), own(Span(10, 13)))
    assert decision.target == Span(13, 16)


def test_a_forced_move_goes_only_to_another_place() -> None:
    forced = PolicySettings(quality=1.5)
    away = decide(snapshot(modules_from(6, (0, 3, 5.0), (0, 3, 5.0))), own(Span(0, 3)), policy=forced)
    assert (away.verdict, away.target, names(away)) == (Verdict.MOVING, Span(3, 6), ["forced"])
    there = decide(snapshot(modules_from(6, (0, 3, 5.0), (3, 6, 5.0))), own(Span(0, 3)), policy=forced)
    assert (there.verdict, there.target, names(there)) == (Verdict.BALANCED, None, ["already_at_best_place", "forced"])


def test_a_server_that_can_hold_more_than_it_serves_moves_with_all_it_can_hold() -> None:
    decision = decide(snapshot(modules_from(7, (0, 3, 5.0), (0, 4, 5.0))), own(Span(0, 3), 4))
    assert decision.target == Span(3, 7)
    assert decision.after is not None
    assert decision.after.uncovered_blocks == 0


def test_a_search_without_end_leaves_the_server_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmkeel.balance.imbalance.MAX_ROUNDS", 0)
    decision = decide(snapshot(modules_from(6, (0, 3, 5.0), (0, 3, 5.0))), own(Span(0, 3)))
    assert (decision.verdict, names(decision)) == (Verdict.BALANCED, ["no_steady_placement"])


def test_a_server_that_the_dht_shows_offline_is_not_moved() -> None:
    modules = modules_from(6, (0, 3, 5.0), (0, 3, 5.0))
    for module in modules[:3]:
        module.servers["QmA"] = replace(module.servers["QmA"], state=ServerState.OFFLINE)
    decision = decide(snapshot(modules), own(Span(0, 3)))
    assert (decision.verdict, names(decision)) == (Verdict.INSUFFICIENT_INFORMATION, ["own_record_offline"])
    assert decision.before is not None


def test_a_swarm_of_nobody_takes_its_first_server() -> None:
    decision = decide(snapshot(modules_from(6)), own(None, 4))
    assert (decision.verdict, decision.target) == (Verdict.MOVING, Span(0, 4))


@pytest.mark.parametrize(
    ("servers", "span", "reason"),
    [
        ([(0, 1, 5.0), (0, 1, 6.0)], Span(0, 1), "no_gain"),
        ([(0, 3, 5.0), (3, 6, 5.0)], Span(0, 3), "leaving_uncovers_block"),
        ([(0, 3, 5.0), (0, 6, 5.0), (3, 6, 5.0)], Span(0, 3), "already_at_best_place"),
        ([(0, 3, 5.0), (0, 3, 20.0), (3, 6, 18.0)], Span(0, 3), "gain_too_small"),
    ],
)
def test_a_server_that_stays_is_told_why(servers: list[tuple[int, int, float]], span: Span, reason: str) -> None:
    decision = decide(snapshot(modules_from(6, *servers)), own(span))
    assert (decision.verdict, decision.target, names(decision)) == (Verdict.BALANCED, None, [reason])
    assert "{" not in decision.sentence


@pytest.mark.parametrize(
    ("servers", "quality", "reason"),
    [
        ([(0, 3, 5.0), (0, 3, 5.0)], 1.5, Reason(name="forced", values={"limit": 1.5})),
        (
            [(0, 3, 5.0), (3, 6, 5.0)],
            0.75,
            Reason(name="leaving_uncovers_block", values={"span": "10:13", "block": 10}),
        ),
        (
            [(0, 3, 5.0), (0, 2, 5.0), (3, 6, 5.0)],
            0.75,
            Reason(name="leaving_uncovers_block", values={"span": "10:13", "block": 12}),
        ),
        (
            [(0, 3, 5.0), (0, 6, 5.0), (3, 6, 5.0)],
            0.75,
            Reason(name="already_at_best_place", values={"span": "10:13"}),
        ),
        (
            [(0, 3, 5.0), (0, 3, 20.0), (3, 6, 16.0)],
            0.75,
            Reason(
                name="gain_too_small",
                values={"quality": 0.8, "limit": 0.75, "bottleneck_rps": 16.0, "reached_rps": 20.0, "rounds": 1},
            ),
        ),
        (
            [(0, 3, 5.0), (0, 3, 20.0), (3, 6, 16.0)],
            0.9,
            Reason(
                name="imbalance",
                values={"quality": 0.8, "limit": 0.9, "bottleneck_rps": 16.0, "reached_rps": 20.0, "rounds": 1},
            ),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)
def test_a_reason_has_its_numbers(servers: list[tuple[int, int, float]], quality: float, reason: Reason) -> None:
    swarm = snapshot(modules_from(6, *servers, first_block=10))
    decision = decide(swarm, own(Span(10, 13)), policy=PolicySettings(quality=quality))
    (said,) = decision.reasons
    assert said.name == reason.name
    assert dict(said.values) == pytest.approx(dict(reason.values))


def test_a_search_that_gains_nothing_has_its_numbers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = snapshot(modules_from(6, (0, 1, 5.0), (0, 1, 6.0)))
    values: dict[str, float] = {"bottleneck_rps": 0.0, "reached_rps": 0.0, "rounds": 1}
    assert decide(swarm, own(Span(0, 1))).reasons == (Reason(name="no_gain", values=values),)
    monkeypatch.setattr("swarmkeel.balance.imbalance.MAX_ROUNDS", 0)
    given_up = Reason(name="no_steady_placement", values={"rounds": 0})
    assert decide(swarm, own(Span(0, 1))).reasons == (given_up,)


def test_a_server_that_stays_is_told_all_of_it() -> None:
    there = snapshot(modules_from(6, (0, 3, 5.0), (3, 6, 5.0), first_block=10))
    at_its_best = decide(there, own(Span(10, 13)), policy=PolicySettings(quality=1.5))
    assert at_its_best.reasons == (
        Reason(name="already_at_best_place", values={"span": "10:13"}),
        Reason(name="forced", values={"limit": 1.5}),
    )
    too_large = decide(there, own(Span(10, 13), 7))
    assert too_large.reasons == (Reason(name="too_many_blocks", values={"num_blocks": 7, "total_blocks": 6}),)
    for decision in (decide(there, own(Span(10, 13))), at_its_best, too_large):
        assert decision.before == SwarmNumbers(bottleneck_rps=5, bound_rps=5, uncovered_blocks=0)
    first = decide(there, OwnServer(peer_id="QmNew", span=None, num_blocks=2, throughput=5.0))
    assert first.reasons == (Reason(name="first_placement", values={"target": "10:12"}),)


def test_a_server_without_blocks_goes_where_the_blocks_are_weakest_whatever_it_left_behind() -> None:
    leftovers = modules_from(6, (3, 6, 99.0), (0, 3, 50.0))
    decision = decide(snapshot(leftovers), own(None, 3))
    assert (decision.verdict, decision.target, names(decision)) == (Verdict.MOVING, Span(3, 6), ["first_placement"])
    assert decision.before is not None
    assert decision.before.uncovered_blocks == 3
    assert decision.after is not None
    assert decision.after.bottleneck_rps == 5.0


def test_a_server_that_holds_more_than_the_model_is_left_alone() -> None:
    decision = decide(snapshot(modules_from(4, (0, 4, 5.0))), own(Span(0, 4), 5))
    assert (decision.verdict, names(decision)) == (Verdict.BALANCED, ["too_many_blocks"])


PILE = modules_from(6, (0, 3, 5.0), (0, 3, 5.0))


def with_unread(*unread: int) -> tuple[BlockReading, ...]:
    blocks = list(snapshot(PILE).blocks)
    for block in unread:
        blocks[block] = BlockReading(blocks[block].uid, KeyReading.UNKNOWN, {})
    return tuple(blocks)


@pytest.mark.parametrize(
    ("swarm", "server", "now", "reason"),
    [
        (snapshot(PILE), own(Span(0, 3)), NOW + 121, "snapshot_stale"),
        (snapshot(PILE, rejected={"shape": 7}), own(Span(0, 3)), NOW, "records_rejected"),
        (snapshot(PILE, blocks=with_unread(0)), own(Span(0, 3)), NOW, "keys_unanswered"),
        (snapshot(PILE, blocks=with_unread(4)), own(Span(0, 3)), NOW, "unread_block_looks_uncovered"),
        (snapshot(PILE), own(Span(1, 4)), NOW, "own_span_differs"),
        (snapshot(modules_from(6)), own(Span(0, 3)), NOW, "own_record_missing"),
        (snapshot(modules_from(6, (0, 3, 1e308), (0, 3, 1e308))), own(Span(0, 3)), NOW, "throughput_overflow"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_is_decided_on_what_is_not_known(
    swarm: SwarmSnapshot, server: OwnServer, now: float, reason: str
) -> None:
    decision = decide(swarm, server, now=now)
    assert decision.verdict is Verdict.INSUFFICIENT_INFORMATION
    assert decision.target is None
    assert reason in names(decision)
    # What the swarm does is told where it is only the server's own record that is in doubt.
    assert (decision.before is not None) == reason.startswith("own_")
    assert "{" not in decision.sentence


def test_an_unread_key_whose_block_others_show_covered_is_no_obstacle() -> None:
    servers = modules_from(12, (0, 6, 5.0), (0, 6, 5.0), (6, 12, 1.0))
    blocks = list(snapshot(servers).blocks)
    blocks[1] = BlockReading(blocks[1].uid, KeyReading.UNKNOWN, {})
    decision = decide(snapshot(servers, blocks=tuple(blocks)), own(Span(0, 6)))
    assert decision.verdict is Verdict.MOVING


@pytest.mark.parametrize("policy", ["petals", "coordinated"])
def test_a_server_without_blocks_waits_for_no_unread_key(policy: str) -> None:
    servers = modules_from(12, (0, 6, 5.0))
    blocks = list(snapshot(servers).blocks)
    blocks[8] = BlockReading(blocks[8].uid, KeyReading.UNKNOWN, {})
    swarm = snapshot(servers, blocks=tuple(blocks))
    idle = OwnServer(peer_id="QmNew", span=None, num_blocks=6, throughput=5.0)
    situation = Situation(snapshot=swarm, own=idle, settings=PolicySettings(), now=NOW, seed=0)
    decision = get_policy(policy).decide(situation)
    assert (decision.verdict, decision.target, names(decision)) == (Verdict.MOVING, Span(6, 12), ["first_placement"])


@given(honest_modules(), st.integers(0, 2**32 - 1), st.floats(0, 1.1), st.data())
def test_it_is_the_three_functions_of_petals(
    modules: list[RemoteModuleInfo[str]], seed: int, quality: float, data: st.DataObject
) -> None:
    swarm = snapshot(modules)
    spans = swarm.spans(ServerState.JOINING)
    peer = data.draw(st.sampled_from([*sorted(spans), "QmNew"]))
    span = spans.get(peer)
    offset = swarm.first_block
    place = None if span is None else Span(span.start + offset, span.end + offset)
    length = span.length if span else data.draw(st.integers(1, len(modules)))
    server = OwnServer(peer_id=peer, span=place, num_blocks=length, throughput=span.throughput if span else 5.0)
    policy = PolicySettings(quality=quality)
    decision = decide(swarm, server, seed=seed, policy=policy)

    others = [
        RemoteModuleInfo(module.uid, {other: info for other, info in module.servers.items() if other != peer})
        for module in modules
    ]
    best = choose_best_blocks(length, others)
    target = Span(best[0] + offset, best[-1] + 1 + offset)
    wants = span is None or should_choose_other_blocks(peer, modules, quality, rng=np.random.RandomState(seed))
    assert (decision.verdict is Verdict.MOVING) == (wants and target != place)
    assert decision.target == (target if decision.verdict is Verdict.MOVING else None)

    # What holds for every decision: it is a value that can be written down, repeated, and said in words.
    assert decision.target != decision.own_span or decision.target is None
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
    assert decide(swarm, server, seed=seed, policy=policy) == decision
    assert all(reason.name in SENTENCES for reason in decision.reasons)
    assert "{" not in decision.sentence
    reordered = [RemoteModuleInfo(module.uid, _reversed(module.servers)) for module in modules]
    assert decide(snapshot(reordered), server, seed=seed, policy=policy) == decision


def _reversed(servers: Mapping[str, ServerInfo]) -> dict[str, ServerInfo]:
    return dict(reversed(list(servers.items())))


@examples(0.5)
@given(honest_modules(), st.integers(1, 12))
def test_after_its_first_placement_a_server_stays(modules: list[RemoteModuleInfo[str]], num_blocks: int) -> None:
    num_blocks = min(num_blocks, len(modules))
    placed = decide(snapshot(modules), OwnServer(peer_id="QmNew", span=None, num_blocks=num_blocks, throughput=5.0))
    assert placed.target is not None
    offset = snapshot(modules).first_block
    info = ServerInfo(ServerState.ONLINE, 5.0, start_block=placed.target.start, end_block=placed.target.end)
    for module in modules[placed.target.start - offset : placed.target.end - offset]:
        module.servers["QmNew"] = info
    server = OwnServer(peer_id="QmNew", span=placed.target, num_blocks=num_blocks, throughput=5.0)
    assert decide(snapshot(modules), server).verdict is Verdict.BALANCED
