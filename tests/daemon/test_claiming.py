from __future__ import annotations

import math
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.balance.policy import OwnServer
from swarmkeel.daemon.check import plan_move
from swarmkeel.daemon.claiming import (
    ClaimAction,
    ClaimSettings,
    ClaimState,
    ClaimStep,
    Prefetch,
    apply_claim,
    count_moving,
    is_emergency,
    make_claim,
    next_step,
    step_under_way,
)
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.span import Span

NOW = 1_000_000.0
HOME, TARGET, ELSEWHERE = Span(0, 4), Span(4, 8), Span(2, 6)
SETTINGS = ClaimSettings(settle=8, lifetime=100, prefetch_timeout=300, prefetch_poll=2, prefetch_retry=600)
OWN = OwnServer(peer_id="p", span=HOME, num_blocks=4, throughput=10.0, shapes=((2, 15.0),))
IDLE = OwnServer(peer_id="p", span=None, num_blocks=4, throughput=10.0)


def decided(
    verdict: Verdict = Verdict.MOVING,
    target: Span | None = TARGET,
    *,
    own: OwnServer = OWN,
    uncovered: int = 0,
    reason: str = "raises_bottleneck",
) -> Decision:
    return Decision(
        verdict=verdict,
        reasons=(Reason(name=reason),),
        policy="coordinated",
        peer_id="p",
        own_span=own.span,
        target=target if verdict is Verdict.MOVING else None,
        before=SwarmNumbers(bottleneck_rps=1, bound_rps=9, uncovered_blocks=uncovered),
        after=SwarmNumbers(bottleneck_rps=4, bound_rps=9, uncovered_blocks=0),
        snapshot_digest="0123456789abcdef",
        seed=0,
    )


EMERGENCY = decided(uncovered=2, reason="closes_holes")


def step(
    decision: Decision, state: ClaimState, at: float, *, own: OwnServer = OWN, can_prefetch: bool = False
) -> ClaimStep:
    return next_step(decision, state, own=own, now=at, can_prefetch=can_prefetch, settings=SETTINGS)


def claimed(at: float = NOW, decision: Decision | None = None, own: OwnServer = OWN) -> ClaimState:
    made = step(decision or decided(own=own), ClaimState(), at, own=own)
    assert made.action is ClaimAction.PUBLISH
    return made.state.published(at)


def test_a_wanted_move_is_claimed_before_anything_else() -> None:
    made = step(decided(), ClaimState(), NOW)
    assert made.action is ClaimAction.PUBLISH
    assert made.state.claim == Claim(HOME, TARGET, NOW, NOW + 100, 10.0, 3.0, "0123456789ab")
    assert made.look_again_at == NOW + 8
    held = apply_claim(decided(), made)
    assert held.verdict is Verdict.HOLDING
    assert [reason.name for reason in held.reasons] == ["claim_settling", "raises_bottleneck"]
    assert held.sentence.startswith("holding: the move to 4:8 is claimed, the others have 8 s more to see it")


def test_a_claim_names_what_the_server_will_serve_at_the_targets_length() -> None:
    made = step(decided(target=Span(4, 6)), ClaimState(), NOW)
    assert made.state.claim is not None
    assert made.state.claim.throughput == 15.0


def test_a_decision_without_a_target_claims_nothing_and_one_without_numbers_promises_nothing() -> None:
    assert make_claim(decided().model_copy(update={"before": None}), OWN, now=NOW, settings=SETTINGS).gain_rps == 0
    with pytest.raises(ValueError, match="claims nothing"):
        make_claim(decided(Verdict.BALANCED), OWN, now=NOW, settings=SETTINGS)


@pytest.mark.parametrize("decision", [decided(target=HOME), decided(Verdict.BALANCED)], ids=["stays", "no target"])
def test_no_move_is_planned_to_nowhere_else(decision: Decision) -> None:
    with pytest.raises(ValueError, match="a move needs a target other than 0:4"):
        plan_move(decision, move_id="m", drain_seconds=0, now=NOW)


def test_a_claim_settles_from_when_it_was_out_and_not_from_when_it_was_made() -> None:
    state = step(decided(), ClaimState(), NOW).state.published(NOW + 5)
    assert step(decided(), state, NOW + 12.9).action is ClaimAction.WAIT
    assert step(decided(), state, NOW + 12.9).look_again_at == NOW + 13
    assert step(decided(), state, NOW + 13).action is ClaimAction.GO


def test_a_claim_that_took_long_to_come_out_stands_behind_those_that_settled_without_seeing_it() -> None:
    made = step(decided(), ClaimState(), NOW).state
    claim = made.claim
    assert claim is not None
    assert made.standing(SETTINGS) == claim
    assert made.published(NOW + 4).standing(SETTINGS) == claim
    late = made.published(NOW + 5).standing(SETTINGS)
    assert late == Claim(HOME, TARGET, NOW + 5, NOW + 100, 10.0, 3.0, "0123456789ab")
    assert Claim(None, TARGET, NOW + 1, NOW + 9, 1.0).precedes("q", late, "p")


def test_a_settled_claim_that_is_decided_again_goes() -> None:
    going = step(decided(), claimed(), NOW + 8)
    assert going.action is ClaimAction.GO
    assert going.reason is None
    assert going.state.claim is not None
    assert (going.state.claim.made_at, going.state.claim.expires_at) == (NOW, NOW + 108)
    assert apply_claim(decided(), going) == decided()


@pytest.mark.parametrize("verdict", [Verdict.BALANCED, Verdict.HOLDING, Verdict.WOULD_MOVE, Verdict.DISABLED])
def test_a_claim_that_is_not_wanted_any_more_is_withdrawn(verdict: Verdict) -> None:
    given_up = step(decided(verdict), claimed(), NOW + 8)
    assert given_up.action is ClaimAction.WITHDRAW
    assert given_up.state == ClaimState()
    assert apply_claim(decided(verdict), given_up) == decided(verdict)
    assert step(decided(verdict), ClaimState(), NOW).action is ClaimAction.NOTHING


def test_a_claim_is_kept_while_nothing_can_be_read_and_runs_out() -> None:
    unread = decided(Verdict.INSUFFICIENT_INFORMATION)
    assert step(unread, claimed(), NOW + 8).action is ClaimAction.WAIT
    assert step(unread, claimed(), NOW + 100).action is ClaimAction.WITHDRAW


def test_a_claim_overtaken_by_older_ones_is_withdrawn_even_if_another_target_is_wanted() -> None:
    lost = step(decided(target=ELSEWHERE), claimed(), NOW + 8)
    assert lost.action is ClaimAction.WITHDRAW
    assert lost.state == ClaimState()
    held = apply_claim(decided(target=ELSEWHERE), lost)
    assert held.verdict is Verdict.HOLDING
    assert "older claims make 2:6 the better place" in held.sentence


def test_in_an_emergency_the_other_target_is_claimed_at_once_and_settles_anew() -> None:
    other = EMERGENCY.model_copy(update={"target": ELSEWHERE})
    again = step(other, claimed(decision=EMERGENCY), NOW + 8)
    assert again.action is ClaimAction.PUBLISH
    assert again.state.claim is not None
    assert (again.state.claim.target, again.state.claim.made_at) == (ELSEWHERE, NOW + 8)
    assert step(other, again.state.published(NOW + 8), NOW + 9).action is ClaimAction.WAIT


def test_a_first_placement_claims_looks_once_more_and_takes_what_is_best_then() -> None:
    state = claimed(own=IDLE)
    assert state.claim is not None
    assert state.claim.origin is None
    going = step(decided(target=ELSEWHERE, own=IDLE), state, NOW + 8, own=IDLE, can_prefetch=True)
    assert going.action is ClaimAction.GO
    assert going.state.claim is not None
    assert going.state.claim.target == ELSEWHERE


def test_the_weights_are_fetched_while_the_server_serves_and_then_it_is_decided_once_more() -> None:
    fetching = step(decided(), claimed(), NOW + 8, can_prefetch=True)
    assert fetching.action is ClaimAction.PREFETCH
    assert fetching.look_again_at == NOW + 10
    state = fetching.state
    assert state.claim is not None
    assert state.claim.expires_at == NOW + 108
    assert step(decided(), state, NOW + 50, can_prefetch=True).action is ClaimAction.WAIT
    extended = step(decided(), state, NOW + 59, can_prefetch=True)
    assert extended.action is ClaimAction.EXTEND
    assert extended.state.claim is not None
    assert (extended.state.claim.made_at, extended.state.claim.expires_at) == (NOW, NOW + 159)
    assert apply_claim(decided(), extended).reasons[0].name == "prefetching"
    there = extended.state.with_prefetch(Prefetch.DONE)
    assert step(decided(), there, NOW + 70, can_prefetch=True).action is ClaimAction.GO
    assert step(decided(Verdict.BALANCED), there, NOW + 70, can_prefetch=True).action is ClaimAction.WITHDRAW


@pytest.mark.parametrize(("prefetch", "after"), [(Prefetch.FAILED, 1.0), (Prefetch.FETCHING, 300.0)])
def test_weights_that_cannot_be_fetched_hold_the_next_claim_back_for_a_while(prefetch: Prefetch, after: float) -> None:
    fetching = step(decided(), claimed(), NOW + 8, can_prefetch=True).state
    state = fetching.with_prefetch(prefetch)
    assert state.claim is not None
    long_lived = state.model_copy(update={"claim": Claim(HOME, TARGET, NOW, NOW + 1000, 10.0)})
    given_up = step(decided(), long_lived, NOW + 8 + after, can_prefetch=True)
    assert given_up.action is ClaimAction.WITHDRAW
    assert apply_claim(decided(), given_up).reasons[0].name == "prefetch_failed"
    later = NOW + 8 + after
    assert step(decided(), given_up.state, later + 599, can_prefetch=True).action is ClaimAction.NOTHING
    assert step(EMERGENCY, given_up.state, later + 1, can_prefetch=True).action is ClaimAction.PUBLISH
    assert step(decided(), given_up.state, later + 600, can_prefetch=True).action is ClaimAction.PUBLISH
    assert step(EMERGENCY, long_lived, later, can_prefetch=True).action is ClaimAction.GO


NEEDS_OTHERS = decided().model_copy(
    update={"reasons": (Reason(name="raises_bottleneck"), Reason(name="needs_others", values={"moves": 1}))}
)


def test_a_move_that_needs_others_keeps_its_claim_until_they_have_claimed() -> None:
    waiting = step(NEEDS_OTHERS, claimed(), NOW + 8)
    assert waiting.action is ClaimAction.WAIT
    assert waiting.reason is not None
    assert waiting.reason.name == "waiting_for_others"
    later = step(NEEDS_OTHERS, waiting.state, NOW + 70)
    assert later.action is ClaimAction.EXTEND
    assert later.state.claim is not None
    assert later.state.claim.expires_at == NOW + 170
    assert step(decided(), later.state, NOW + 78).action is ClaimAction.GO


def test_a_move_whose_partners_do_not_claim_is_given_up() -> None:
    state = step(NEEDS_OTHERS, claimed(), NOW + 8).state
    for after in range(16, 188, 8):
        waiting = step(NEEDS_OTHERS, state, NOW + after)
        assert waiting.action in (ClaimAction.WAIT, ClaimAction.EXTEND)
        state = waiting.state
    given_up = step(NEEDS_OTHERS, state, NOW + 188)
    assert given_up.action is ClaimAction.WITHDRAW
    assert given_up.state.claim is None
    assert given_up.reason is not None
    assert given_up.reason.name == "others_stay"


def test_a_claim_of_before_the_clock_was_set_back_does_not_hold_the_move_for_ever() -> None:
    again = step(decided(), claimed(NOW), NOW - 3600)
    assert again.action is ClaimAction.PUBLISH
    assert again.state.claim is not None
    assert again.state.claim.made_at == NOW - 3600


def test_a_claim_outlives_its_move_no_longer_than_needed() -> None:
    state = step(decided(), claimed(), NOW + 8).state.begun()

    def under_way(at: float, *, is_visible: bool = False, is_over: bool = False) -> ClaimStep:
        return step_under_way(state, is_visible=is_visible, is_over=is_over, now=at, settings=SETTINGS)

    assert under_way(NOW + 10).action is ClaimAction.WAIT
    assert under_way(NOW + 80).action is ClaimAction.EXTEND
    assert under_way(NOW + 10, is_visible=True) == ClaimStep(ClaimAction.WITHDRAW, ClaimState())
    assert under_way(NOW + 10, is_over=True) == ClaimStep(ClaimAction.WITHDRAW, ClaimState())
    gone = step_under_way(ClaimState(), is_visible=False, is_over=True, now=NOW, settings=SETTINGS)
    assert gone.action is ClaimAction.NOTHING


def test_an_emergency_is_a_plan_that_closes_holes_and_not_one_beside_others_who_do() -> None:
    assert is_emergency(EMERGENCY)
    assert not is_emergency(decided(uncovered=2))
    assert not is_emergency(decided(reason="closes_holes"))


def test_servers_that_load_or_have_claimed_are_on_the_move() -> None:
    def remote(peer_id: str, state: ServerState) -> RemoteSpanInfo[str]:
        return RemoteSpanInfo(peer_id, 0, 4, ServerInfo(state, 1.0))

    def told(peer_id: str, made_at: float, expires_at: float = NOW + 60) -> Sidecar:
        return Sidecar(peer_id, 0.0, 60.0, claim=Claim(HOME, TARGET, made_at, expires_at, 1.0))

    spans = {name: remote(name, ServerState.ONLINE) for name in "abp"} | {"j": remote("j", ServerState.JOINING)}
    sidecars = {"a": told("a", NOW - 5), "b": told("b", NOW - 1), "j": told("j", NOW - 9), "p": told("p", NOW - 9)}
    sidecars |= {"x": told("x", NOW - 50, NOW), "y": Sidecar("y", 0.0, 60.0)}
    assert count_moving(spans, sidecars, OWN, now=NOW) == 3
    later = OWN.model_copy(update={"claim": Claim(HOME, TARGET, NOW - 3, NOW + 60, 1.0)})
    assert count_moving(spans, sidecars, later, now=NOW) == 2


def test_a_reading_that_began_before_the_claim_had_settled_settles_nothing() -> None:
    early = next_step(
        decided(), claimed(), own=OWN, now=NOW + 9, can_prefetch=False, settings=SETTINGS, asked_at=NOW + 7.9
    )
    assert (early.action, early.look_again_at) == (ClaimAction.WAIT, NOW + 9)
    late = next_step(
        decided(), claimed(), own=OWN, now=NOW + 9, can_prefetch=False, settings=SETTINGS, asked_at=NOW + 8
    )
    assert late.action is ClaimAction.GO


@dataclass
class Wisher:
    """A sidecar that wants the one hole there is, as long as no claim that goes before its own is on it."""

    peer_id: str
    starts_at: float
    publishing_takes: float
    reading_takes: float
    state: ClaimState = field(default_factory=ClaimState)
    visible_from: float = math.inf

    def check(self, asked_at: float, others: list[Wisher]) -> ClaimStep:
        own = OWN.model_copy(update={"peer_id": self.peer_id, "claim": self.state.standing(SETTINGS)})
        seen = [other for other in others if other.state.claim is not None and other.visible_from <= asked_at]
        taken = any(
            own.claim is None
            or (other.state.claim and other.state.claim.precedes(other.peer_id, own.claim, self.peer_id))
            for other in seen
        )
        wish = decided(Verdict.BALANCED) if taken else EMERGENCY
        now = asked_at + self.reading_takes
        return next_step(wish, self.state, own=own, now=now, can_prefetch=False, settings=SETTINGS, asked_at=asked_at)


WISHERS = st.lists(
    st.builds(
        lambda start, publishing, reading: Wisher("", NOW + start, publishing, reading),
        st.floats(0, 20),
        st.floats(0, 30),
        st.floats(0, 6),
    ),
    min_size=2,
    max_size=5,
)


@given(WISHERS)
def test_of_sidecars_that_want_the_same_at_most_one_goes_however_slow_the_dht_is(wishers: list[Wisher]) -> None:
    for number, wisher in enumerate(wishers):
        wisher.peer_id = f"p{number}"
    went: list[str] = []
    queue = [(wisher.starts_at, number, "check") for number, wisher in enumerate(wishers)]
    heapify(queue)
    while queue:
        at, number, what = heappop(queue)
        wisher = wishers[number]
        if what == "out":
            wisher.state = wisher.state.published(at)
            heappush(queue, (at + SETTINGS.settle, number, "check"))
            continue
        # What others do while this one reads is not in what it reads.
        taken = wisher.check(at, [other for other in wishers if other is not wisher])
        now = at + wisher.reading_takes
        wisher.state = taken.state
        match taken.action:
            case ClaimAction.PUBLISH:
                wisher.visible_from = now + wisher.publishing_takes
                heappush(queue, (wisher.visible_from, number, "out"))
            case ClaimAction.GO:
                went.append(wisher.peer_id)
            case ClaimAction.WAIT:
                assert taken.look_again_at is not None
                heappush(queue, (taken.look_again_at, number, "check"))
    assert len(went) <= 1


VERDICTS = st.sampled_from([Verdict.MOVING] * 4 + [Verdict.HOLDING, Verdict.BALANCED, Verdict.INSUFFICIENT_INFORMATION])


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[float, Decision, Prefetch]]:
    """Any decisions, at times that mostly go forward."""
    events: list[tuple[float, Decision, Prefetch]] = []
    at = NOW
    for _ in range(draw(st.integers(1, 12))):
        at += draw(st.one_of(st.floats(0, 400), st.just(0.0), st.floats(-50, 0)))
        decision = decided(
            draw(VERDICTS),
            draw(st.sampled_from([TARGET, TARGET, ELSEWHERE])),
            uncovered=draw(st.sampled_from([0, 0, 2])),
            reason=draw(st.sampled_from(["raises_bottleneck", "closes_holes"])),
        )
        events.append((at, decision, draw(st.sampled_from(list(Prefetch)))))
    return events


@given(history=histories(), can_prefetch=st.booleans())
def test_no_move_begins_without_a_claim_for_it_that_has_settled(
    *, history: list[tuple[float, Decision, Prefetch]], can_prefetch: bool
) -> None:
    state = ClaimState()
    for at, decision, prefetch in history:
        before = state.with_prefetch(prefetch)
        taken = step(decision, before, at, can_prefetch=can_prefetch)
        held = apply_claim(decision, taken)
        assert held.sentence
        assert (held.verdict is Verdict.MOVING) == (
            decision.verdict is Verdict.MOVING and taken.action is ClaimAction.GO
        )
        if taken.action is ClaimAction.GO:
            claim = before.claim
            assert claim is not None
            assert before.published_at is not None
            assert decision.target == claim.target
            assert before.published_at + SETTINGS.settle <= at < claim.expires_at
            return
        if taken.look_again_at is not None:
            assert at < taken.look_again_at <= at + max(SETTINGS.settle, SETTINGS.prefetch_poll) + 1.0
        state = taken.state.published(at)
        if taken.action in (ClaimAction.WITHDRAW, ClaimAction.NOTHING):
            assert state.claim is None
        if state.claim is not None:
            assert state.claim.expires_at <= max(at, state.claim.made_at + 1.0) + SETTINGS.lifetime + 1000
            assert math.isfinite(state.claim.gain_rps)
