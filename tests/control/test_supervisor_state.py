"""The life of a supervised server: what follows from what, and what holds whatever happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.control.protocol import RestartPhase, RestartRequest, ServerPhase, ServerStatus
from swarmkeel.control.supervisor_state import Step, SupervisedServer, SupervisorIsEndingError, pause_after
from swarmkeel.swarm.span import Span

ORIGIN, TARGET = Span(0, 4), Span(4, 8)
ONLINE = SupervisedServer().begin(ORIGIN).ready()


def request(span: Span = TARGET, number: int = 1) -> RestartRequest:
    return RestartRequest(f"r{number}", span, if_span=None, reason="", conditional=False)


def restart_phase(server: SupervisedServer) -> RestartPhase | None:
    return None if server.restart is None else server.restart.phase


def test_a_restart_goes_through_all_phases_to_the_exact_span() -> None:
    stopping = ONLINE.accept(request())
    assert (stopping.phase, stopping.span, restart_phase(stopping)) == (
        ServerPhase.STOPPING,
        ORIGIN,
        RestartPhase.STOPPING,
    )
    loading = stopping.stopped()
    assert (loading.phase, loading.span, restart_phase(loading)) == (ServerPhase.JOINING, TARGET, RestartPhase.LOADING)
    online = loading.ready()
    assert (online.phase, online.span, restart_phase(online)) == (ServerPhase.ONLINE, TARGET, RestartPhase.ONLINE)


def test_an_idle_server_starts_at_once_on_its_first_span() -> None:
    server = SupervisedServer().accept(request())
    assert (server.step, server.span, restart_phase(server)) == (Step.STARTING, TARGET, RestartPhase.LOADING)


def test_a_restart_that_fails_goes_back_to_the_former_span_without_a_pause() -> None:
    failed = ONLINE.accept(request()).stopped().failed("out of memory")
    assert failed.restart is not None
    assert (failed.restart.phase, failed.restart.error) == (RestartPhase.FAILED, "out of memory")
    back = failed.stopped()
    assert (back.step, back.span, back.failures) == (Step.STARTING, ORIGIN, 0)
    assert back.ready().restart == failed.restart


def test_a_first_span_that_fails_leaves_the_server_idle() -> None:
    server = SupervisedServer().accept(request()).failed("no").stopped()
    assert (server.step, server.span, restart_phase(server)) == (Step.IDLE, None, RestartPhase.FAILED)


def test_a_failed_restart_on_the_same_span_is_tried_again_after_a_pause() -> None:
    server = ONLINE.accept(request(ORIGIN)).stopped().failed("no").stopped()
    assert (server.step, server.span, server.failures) == (Step.WAITING, ORIGIN, 1)


def test_crashes_in_a_row_are_counted_until_it_is_steady() -> None:
    server = ONLINE
    for count in (1, 2, 3):
        waiting = server.failed("crash").stopped()
        assert (waiting.phase, waiting.span, waiting.failures) == (ServerPhase.FAILED, ORIGIN, count)
        server = waiting.waited().ready()
    assert server.steady().failures == 0
    assert server.restart is None


def test_a_crashing_server_can_be_told_to_go_elsewhere() -> None:
    waiting = ONLINE.failed("crash").stopped()
    server = waiting.accept(request())
    assert (server.step, server.span, server.failures) == (Step.STARTING, TARGET, 0)
    assert server.failed("crash").stopped().span == ORIGIN


def test_the_end_is_the_end() -> None:
    ending = ONLINE.accept(request()).stopped().end()
    assert (ending.step, restart_phase(ending)) == (Step.STOPPING, RestartPhase.FAILED)
    with pytest.raises(SupervisorIsEndingError):
        ending.accept(request())
    ended = ending.stopped()
    assert ended.step is Step.ENDED
    assert ended.end() == ended


_EVENTS = ("begin", "accept", "ready", "steady", "failed", "end", "stopped", "waited")


@given(st.lists(st.tuples(st.sampled_from(_EVENTS), st.integers(0, 4)), max_size=30))
def test_whatever_happens_it_stays_a_server_that_can_tell_of_itself(events: list[tuple[str, int]]) -> None:
    server = SupervisedServer()
    finals: dict[str, object] = {}
    for number, (event, start) in enumerate(events):
        span = Span(start, start + 4)
        match event:
            case "begin":
                server = server.begin(span)
            case "accept":
                if not server.ending and not server.is_restarting:
                    server = server.accept(request(span, number))
            case "failed":
                server = server.failed("reason")
            case _:
                server = getattr(server, event)()
        assert (server.span is None) == (server.step in (Step.IDLE, Step.ENDED)) or server.step is Step.STOPPING
        status = ServerStatus("supervised/x", None, "m", 8, 4, 1.0, server.phase, server.span, restart=server.restart)
        assert ServerStatus.from_json(status.to_json()) == status
        if server.step is Step.ONLINE:
            assert not server.is_restarting
        if server.restart is not None and not server.is_restarting:
            # What is final stays as it is.
            assert finals.setdefault(server.restart.id, server.restart) == server.restart
        if server.is_restarting and server.restart is not None and server.step is Step.STARTING:
            assert server.span == server.restart.span


def test_nothing_starts_after_the_end() -> None:
    ending = replace(ONLINE.end(), following=TARGET)
    assert ending.failed("late") == ending
    assert ending.stopped().waited().step is Step.ENDED


def test_pauses_double_up_to_the_longest() -> None:
    assert [pause_after(failures, 1.0, 60.0) for failures in (1, 2, 3, 6, 7, 8, 10_000)] == [1, 2, 4, 32, 60, 60, 60]
