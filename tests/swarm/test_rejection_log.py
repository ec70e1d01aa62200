from __future__ import annotations

from structlog.testing import capture_logs

from swarmkeel.swarm.rejection_log import REPEAT_SECONDS, RejectionLog


def test_what_goes_on_is_said_once_in_a_while_and_what_is_new_at_once() -> None:
    clock = [0.0]
    log = RejectionLog("rejected", lambda: clock[0])
    with capture_logs() as lines:
        for second in range(int(REPEAT_SECONDS)):
            clock[0] = float(second)
            log.note({"shape": 2, "state": 0})
        assert [line["shape"] for line in lines] == [2]
        log.note({"shape": 2, "state": 1})
        assert [(line["shape"], line.get("state")) for line in lines[1:]] == [(2 * REPEAT_SECONDS, 1)]
        clock[0] += REPEAT_SECONDS - 1
        log.note({"shape": 2, "state": 1})
        log.note({})
        assert len(lines) == 2
        clock[0] += 1
        log.note({"state": 1})
        assert [(line["shape"], line["state"]) for line in lines[2:]] == [(2, 2)]


def test_two_reasons_in_turn_do_not_make_it_speak_more_often() -> None:
    log = RejectionLog("rejected", lambda: 5.0)
    with capture_logs() as lines:
        for _ in range(50):
            log.note({"shape": 1})
            log.note({"state": 1})
    assert len(lines) == 2
