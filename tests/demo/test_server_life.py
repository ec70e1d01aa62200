"""What a stand-in does when, as a pure state machine."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.control.protocol import (
    PrefetchPhase,
    PrefetchRequest,
    RestartPhase,
    RestartRequest,
    RestartStatus,
    ServerPhase,
)
from swarmkeel.demo.server_life import Announcement, Gpu, ServerIsBusyError, ServerLife, Step
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.span import Span

OLD, NEW = Span(0, 4), Span(2, 6)


def request(span: Span = NEW, *, drain_seconds: float = 0.0, identifier: str = "r") -> RestartRequest:
    return RestartRequest(identifier, span, None, "test", drain_seconds, conditional=False)


def online(gpu: Gpu, span: Span = OLD) -> ServerLife:
    life = ServerLife(gpu).begin(span, 0.0).advance(gpu.load_seconds)
    assert life.step is Step.ONLINE
    return life


def restart_of(life: ServerLife, now: float = 0.0) -> RestartStatus:
    status = life.restart_status(now)
    assert status is not None
    return status


def test_a_load_takes_its_time_and_shows_how_far_it_is() -> None:
    loading = ServerLife(Gpu(load_seconds=4.0)).accept(request(), 10.0)
    assert loading.phase is ServerPhase.JOINING
    assert [restart_of(loading, now).progress for now in (10.0, 11.0, 14.0)] == [0.0, 0.25, 1.0]
    assert loading.advance(13.9) == loading
    done = loading.advance(14.0)
    assert done.phase is ServerPhase.ONLINE
    assert restart_of(done).phase is RestartPhase.ONLINE


def prefetched(life: ServerLife) -> tuple[PrefetchPhase, str | None] | None:
    status = life.prefetch_status()
    return None if status is None else (status.phase, status.error)


def test_blocks_that_are_not_on_disk_are_downloaded_first_and_stay_there() -> None:
    life = online(Gpu(load_seconds=2.0, download_seconds=8.0)).accept(request(), 5.0).announced_leaving(5.0)
    assert life.due == 5.0 + 4.0 + 2.0  # two of the four blocks of 2:6 are there already
    assert restart_of(life, 8.0).progress == 0.5
    back = life.advance(11.0).accept(request(OLD, identifier="back"), 20.0).announced_leaving(20.0)
    assert back.due == 22.0


def test_a_prefetch_downloads_while_the_server_serves_and_leaves_only_the_loading() -> None:
    life = online(Gpu(load_seconds=2.0, download_seconds=8.0))
    assert prefetched(life) is None
    fetching = life.fetch(PrefetchRequest("f", NEW), 5.0)
    assert (fetching.phase, prefetched(fetching)) == (ServerPhase.ONLINE, (PrefetchPhase.FETCHING, None))
    assert fetching.due == 9.0
    assert fetching.advance(8.9) == fetching
    fetched = fetching.advance(9.0)
    assert prefetched(fetched) == (PrefetchPhase.DONE, None)
    assert fetched.accept(request(), 10.0).announced_leaving(10.0).due == 12.0
    again = fetched.fetch(PrefetchRequest("g", NEW), 10.0)
    assert prefetched(again) == (PrefetchPhase.DONE, None)


def test_a_prefetch_takes_the_place_of_another_and_goes_on_with_the_same_blocks() -> None:
    fetching = online(Gpu(load_seconds=2.0, download_seconds=8.0)).fetch(PrefetchRequest("staged", NEW), 5.0)
    claimed = fetching.fetch(PrefetchRequest("claimed", NEW), 7.0)
    status = claimed.prefetch_status()
    assert status is not None
    assert (status.id, claimed.due) == ("claimed", fetching.due)
    other = fetching.fetch(PrefetchRequest("other", Span(NEW.start + 1, NEW.end + 1)), 7.0)
    assert other.due > fetching.due
    assert other.advance(other.due).on_disk >= frozenset(range(NEW.start + 1, NEW.end + 1))


def test_a_restart_breaks_a_prefetch_off_and_a_server_that_does_not_serve_begins_none() -> None:
    fetching = online(Gpu(load_seconds=2.0, download_seconds=8.0)).fetch(PrefetchRequest("f", NEW), 5.0)
    leaving = fetching.accept(request(), 6.0)
    assert prefetched(leaving) == (PrefetchPhase.FAILED, "a restart came first")
    assert leaving.announced_leaving(6.0).due == 6.0 + 4.0 + 2.0
    with pytest.raises(ServerIsBusyError):
        leaving.fetch(PrefetchRequest("g", NEW), 7.0)
    assert prefetched(fetching.end(6.0)) == (PrefetchPhase.FAILED, "a restart came first")


def test_a_restart_says_goodbye_before_it_loads() -> None:
    life = online(Gpu(load_seconds=2.0)).accept(request(), 5.0)
    assert life.announcement == Announcement(OLD, ServerState.OFFLINE)
    assert life.advance(1000.0) == life  # time alone does not do it
    life = life.announced_leaving(6.0)
    assert life.announcement == Announcement(NEW, ServerState.JOINING)
    assert life.advance(8.0).announcement == Announcement(NEW, ServerState.ONLINE)


@pytest.mark.parametrize(("sessions", "session_seconds", "ends"), [(3, math.inf, 35.0), (3, 2.0, 7.0), (0, 9.0, 5.0)])
def test_draining_lasts_until_the_sessions_end_or_the_time_is_up(
    sessions: int, session_seconds: float, ends: float
) -> None:
    gpu = Gpu(load_seconds=2.0, sessions=sessions, session_seconds=session_seconds)
    life = online(gpu).accept(request(drain_seconds=30.0), 5.0)
    if sessions:
        assert life.announcement == Announcement(OLD, ServerState.ONLINE)
        assert restart_of(life).phase is RestartPhase.DRAINING
        assert life.sessions == sessions
        assert life.advance(ends - 0.1) == life
        life = life.advance(ends)
    assert life.step is Step.LEAVING
    assert life.sessions == 0


def test_a_failed_load_ends_the_restart_and_brings_the_former_blocks_back() -> None:
    life = online(Gpu(load_seconds=4.0, failing_blocks=frozenset({5}))).accept(request(), 10.0).announced_leaving(10.0)
    assert life.due == 13.0  # the fourth of four blocks
    life = life.advance(13.0)
    assert restart_of(life) == RestartStatus("r", NEW, RestartPhase.FAILED, None, "block 5 could not be loaded")
    assert life.announcement == Announcement(NEW, ServerState.OFFLINE)
    life = life.announced_leaving(13.0)
    assert life.announcement == Announcement(OLD, ServerState.JOINING)
    life = life.advance(17.0)
    assert (life.phase, life.span) == (ServerPhase.ONLINE, OLD)
    assert restart_of(life).phase is RestartPhase.FAILED


def test_a_failed_first_load_leaves_the_server_idle() -> None:
    life = ServerLife(Gpu(failing_blocks=frozenset({2}))).accept(request(), 0.0).advance(0.0).announced_leaving(0.0)
    assert (life.phase, life.span) == (ServerPhase.IDLE, None)
    assert restart_of(life).phase is RestartPhase.FAILED
    again = life.accept(request(Span(3, 7), identifier="again"), 1.0)
    assert restart_of(again).phase is RestartPhase.LOADING


def test_a_hanging_load_stays_where_it_is() -> None:
    life = ServerLife(Gpu(load_seconds=4.0, hanging_blocks=frozenset({3}))).accept(request(), 0.0)
    assert life.due == math.inf
    assert life.advance(1e9) == life
    assert restart_of(life, 1e9).progress == 0.25


def test_only_one_thing_at_a_time() -> None:
    loading = ServerLife(Gpu()).begin(OLD, 0.0)
    with pytest.raises(ServerIsBusyError, match="loading on blocks 0:4"):
        loading.accept(request(), 0.0)
    with pytest.raises(ServerIsBusyError):
        online(Gpu()).begin(NEW, 0.0)


def test_the_end_of_the_server_is_the_end_of_its_restart() -> None:
    life = ServerLife(Gpu()).accept(request(), 0.0).end(1.0)
    assert life.announcement == Announcement(NEW, ServerState.OFFLINE)
    assert restart_of(life).error == "the server was told to end"
    assert life.announced_leaving(1.0).announcement is None
    done = online(Gpu()).accept(request(), 5.0).announced_leaving(5.0).advance(9.0)
    assert restart_of(done.end(10.0)).phase is RestartPhase.ONLINE
    assert ServerLife(Gpu()).end(0.0) == ServerLife(Gpu())


spans = st.integers(0, 4).map(lambda start: Span(start, start + 4))
actions = st.one_of(
    st.tuples(st.just("restart"), spans, st.sampled_from([0.0, 3.0])),
    st.tuples(st.just("wait"), st.sampled_from([0.3, 1.0, 5.0])),
    st.just(("told",)),
)
blocks = st.frozensets(st.integers(0, 7), max_size=2)


@given(st.lists(actions, max_size=30), blocks, blocks, st.integers(0, 2))
def test_whatever_happens_the_swarm_is_told_the_truth(
    happenings: list[tuple[object, ...]], failing: frozenset[int], hanging: frozenset[int], sessions: int
) -> None:
    life = ServerLife(Gpu(2.0, failing, hanging, sessions, 1.0))
    now = 0.0
    told: list[Announcement] = []
    for number, happening in enumerate(happenings):
        before = life
        match happening:
            case ("wait", float() as seconds):
                now += seconds
        life = happen(life, happening, now, identifier=str(number))
        if life.announcement is not None and told[-1:] != [life.announcement]:
            told.append(life.announcement)
        assert (life.span is None) == (life.phase is ServerPhase.IDLE)
        if life.step is Step.ONLINE and life.span is not None:
            assert not (failing | hanging) & set(range(life.span.start, life.span.end))
        check_restarts(before.restart_status(now), life.restart_status(now))
    for earlier, later in pairwise(told):
        assert earlier.span == later.span or earlier.state is ServerState.OFFLINE
        assert (earlier.state, later.state) != (ServerState.OFFLINE, ServerState.ONLINE)


def happen(life: ServerLife, happening: tuple[object, ...], now: float, identifier: str) -> ServerLife:
    match happening:
        case ("restart", Span() as span, float() as drain):
            try:
                return life.accept(request(span, drain_seconds=drain, identifier=identifier), now)
            except ServerIsBusyError:
                assert life.step not in (Step.IDLE, Step.ONLINE)
                return life
        case ("wait", _):
            return life.advance(now)
        case _:
            return life.announced_leaving(now)


def check_restarts(before: RestartStatus | None, after: RestartStatus | None) -> None:
    if after is not None:
        assert after.progress is None or 0 <= after.progress <= 1
        assert (after.error is not None) == (after.phase is RestartPhase.FAILED)
        if before is not None and before.id == after.id and before.phase.is_final:
            assert after == before


def test_methods_change_nothing() -> None:
    life = online(Gpu())
    copy = replace(life)
    life.accept(request(), 1.0)
    life.end(1.0)
    assert life == copy
