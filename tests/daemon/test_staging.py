"""When staging is due and what it asks for: values in, values out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.decision import Decision, Verdict
from swarmkeel.balance.staging import LikelySpan
from swarmkeel.config import load_config
from swarmkeel.control.protocol import (
    PrefetchPhase,
    PrefetchStatus,
    RestartPhase,
    RestartStatus,
    ServerPhase,
    ServerStatus,
)
from swarmkeel.daemon.stager import staging_settings
from swarmkeel.daemon.staging import (
    Disturbance,
    StagingResult,
    StagingSettings,
    StagingState,
    blocks_beside,
    find_disturbance,
    is_due,
    next_span,
    result_of,
)
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.span import Span
from tests.support.sidecars import write_config

HOME, TARGET = Span(0, 4), Span(4, 8)
STATUS = ServerStatus("sim/1", "p", "m", 8, 4, 10.0, ServerPhase.ONLINE, HOME, capabilities=("prefetch",))
SETTINGS = StagingSettings(period=100.0, quiet_for=10.0)
QUIET = StagingState(quiet_since=0.0)


def decision(verdict: Verdict = Verdict.BALANCED) -> Decision:
    return Decision(
        verdict=verdict,
        reasons=(),
        policy="coordinated",
        peer_id="p",
        own_span=HOME,
        target=None,
        before=None,
        after=None,
        snapshot_digest="",
        seed=0,
    )


def on(peer_id: str, span: Span, state: ServerState = ServerState.ONLINE) -> RemoteSpanInfo[str]:
    return RemoteSpanInfo(peer_id, span.start, span.end, ServerInfo(state, 10.0))


SPANS = {"p": on("p", HOME), "q": on("q", TARGET), "r": on("r", Span(2, 6))}


def disturbance(
    verdict: Verdict = Verdict.BALANCED,
    status: ServerStatus | None = STATUS,
    spans: dict[str, RemoteSpanInfo[str]] | None = None,
    claims: dict[str, Claim] | None = None,
) -> Disturbance | None:
    sidecars = {peer: Sidecar(peer, 0.0, 60.0, claim=claim) for peer, claim in (claims or {}).items()}
    return find_disturbance(decision(verdict), status, spans or SPANS, sidecars, total_blocks=8, now=50.0)


def test_a_quiet_swarm_with_a_free_server_is_the_time() -> None:
    assert disturbance() is None
    done = PrefetchStatus("f", TARGET, PrefetchPhase.DONE)
    restarted = RestartStatus("r", HOME, RestartPhase.ONLINE)
    assert disturbance(status=replace(STATUS, prefetch=done, restart=restarted)) is None


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.BALANCED])
def test_a_sidecar_with_something_to_do_stages_nothing(verdict: Verdict) -> None:
    assert disturbance(verdict) is Disturbance.NOT_BALANCED


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"capabilities": ()}, Disturbance.CANNOT),
        ({"pinned": True}, Disturbance.CANNOT),
        ({"state": ServerPhase.DRAINING}, Disturbance.SERVER_BUSY),
        ({"span": None}, Disturbance.SERVER_BUSY),
        ({"restart": RestartStatus("r", TARGET, RestartPhase.ACCEPTED)}, Disturbance.SERVER_BUSY),
        ({"prefetch": PrefetchStatus("f", TARGET, PrefetchPhase.FETCHING)}, Disturbance.SERVER_BUSY),
    ],
)
def test_a_server_that_cannot_or_has_something_to_do_is_asked_for_nothing(
    changes: dict[str, object], found: Disturbance
) -> None:
    assert disturbance(status=replace(STATUS, **changes)) is found  # type: ignore[arg-type] # fields of it
    assert disturbance(status=None) is Disturbance.CANNOT


def test_while_others_move_or_a_block_is_unserved_nothing_is_staged() -> None:
    claim = Claim(TARGET, HOME, 45.0, 60.0, 10.0)
    assert disturbance(claims={"q": claim}) is Disturbance.OTHERS_BUSY
    assert disturbance(claims={"q": replace(claim, expires_at=50.0)}) is None
    assert disturbance(claims={"nobody": claim}) is None  # anybody can make up a server
    assert disturbance(spans={**SPANS, "r": on("r", HOME, ServerState.JOINING)}) is Disturbance.OTHERS_BUSY
    for left in ([HOME], [TARGET], [Span(0, 3), Span(5, 8)]):
        assert disturbance(spans={str(span): on(str(span), span) for span in left}) is Disturbance.HOLE


def test_it_is_due_after_a_quiet_time_and_once_a_period() -> None:
    state = StagingState().after_check(None, 100.0)
    assert not is_due(state, SETTINGS, room=4, now=109.0)
    assert is_due(state.after_check(None, 105.0), SETTINGS, room=4, now=110.0)
    assert not is_due(state, SETTINGS, room=0, now=110.0)
    disturbed = state.after_check(Disturbance.HOLE, 105.0)
    assert not is_due(disturbed, SETTINGS, room=4, now=200.0)
    assert not is_due(disturbed.after_check(None, 106.0), SETTINGS, room=4, now=110.0)
    planned = state.with_plans_made(110.0)
    assert not is_due(planned, SETTINGS, room=4, now=209.0)
    assert is_due(planned, SETTINGS, room=4, now=210.0)
    assert is_due(replace(planned, quiet_since=0.0), SETTINGS, room=4, now=109.0)  # the clock was set back


def test_the_likeliest_span_is_asked_for_once_and_then_the_next_that_fits() -> None:
    likely = (LikelySpan(Span(2, 6), 3), LikelySpan(TARGET, 2), LikelySpan(Span(1, 5), 1))
    assert next_span(likely, QUIET, HOME, room=1) == Span(1, 5)
    assert next_span(likely, QUIET, HOME, room=4) == Span(2, 6)
    first = QUIET.with_fetched(Span(2, 6), HOME, 4)
    assert next_span(likely, first, HOME, room=2) is None
    assert next_span(likely, first, HOME, room=4) == TARGET
    assert next_span(likely, first.with_fetched(TARGET, HOME, 4), HOME, room=4) is None
    assert next_span((), QUIET, HOME, room=4) is None


def test_where_there_is_no_room_for_all_the_oldest_is_forgotten() -> None:
    state = QUIET.with_fetched(Span(8, 12), HOME, 4).with_fetched(Span(4, 8), HOME, 4)
    assert state.fetched == (Span(4, 8),)
    assert state.with_fetched(Span(2, 6), HOME, 4).fetched == (Span(4, 8), Span(2, 6))
    assert state.with_fetched(Span(20, 25), HOME, 4).fetched == ()


SPAN = st.builds(lambda start, length: Span(start, start + length), st.integers(0, 20), st.integers(1, 6))


@given(st.lists(st.lists(SPAN, max_size=5), max_size=6), SPAN, st.integers(0, 8))
def test_what_is_asked_for_is_new_and_what_is_held_has_room(plans: list[list[Span]], present: Span, room: int) -> None:
    state = QUIET
    for plan in plans:
        likely = tuple(LikelySpan(span, 1) for span in plan)
        asked = next_span(likely, state, present, room=room)
        while asked is not None:
            assert asked in plan
            assert not blocks_beside(present, (asked,)) <= blocks_beside(present, state.fetched)
            state = state.with_fetched(asked, present, room)
            assert asked in state.fetched
            assert len(blocks_beside(present, state.fetched)) <= room
            following = next_span(likely, state, present, room=room)
            assert following != asked
            asked = following


@pytest.mark.parametrize(
    ("shown", "result"),
    [
        (None, StagingResult.UNTOLD),
        (PrefetchStatus("mine", TARGET, PrefetchPhase.FETCHING), None),
        (PrefetchStatus("mine", TARGET, PrefetchPhase.DONE), StagingResult.DONE),
        (PrefetchStatus("mine", TARGET, PrefetchPhase.FAILED), StagingResult.FAILED),
        (PrefetchStatus("claimed", TARGET, PrefetchPhase.FETCHING), StagingResult.REPLACED),
    ],
)
def test_the_status_says_what_has_become_of_it(shown: PrefetchStatus | None, result: StagingResult | None) -> None:
    assert result_of("mine", replace(STATUS, prefetch=shown)) is result
    assert result is None or result.has_weights == (result in ("done", "untold"))


def test_settings_are_those_of_the_configuration_and_none_where_nothing_is_to_be_staged(tmp_path: Path) -> None:
    def settings(staging: dict[str, object], **balance: object) -> StagingSettings | None:
        path = write_config(
            tmp_path / "c.yaml",
            tmp_path / "s",
            ["/ip4/127.0.0.1/tcp/1/p2p/QmPeer"],
            balance={"policy": "coordinated"} | balance,
            staging=staging,
        )
        return staging_settings(load_config(path))

    assert settings({}) == StagingSettings()
    assert settings({"blocks": 3, "period": 9, "quiet_for": 0}) == StagingSettings(3, 9.0, 0.0)
    assert settings({"enabled": False}) is None
    assert settings({"blocks": 0}) is None
    assert settings({}, dry_run=True) is None
    assert settings({}, policy="petals") is None
    assert settings({}, enabled=False) is None
    assert StagingSettings().room(STATUS) == STATUS.num_blocks
    assert StagingSettings(blocks=9).room(STATUS) == 9
