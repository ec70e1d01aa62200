"""A pause as a value: when it holds, what it makes of a decision and of a claim, and that the journal keeps it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.decision import Decision, Reason, Verdict
from swarmkeel.daemon.check import decide_again, guard_wish
from swarmkeel.daemon.claiming import ClaimAction
from swarmkeel.daemon.journal import CheckRecord, Journal
from swarmkeel.daemon.pause import Pause, apply_pause
from swarmkeel.swarm.span import Span
from tests.daemon.test_journal import TOLD, coordinated, move

PAUSE = Pause(since=90.0, until=200.0, reason="new disks", uid=1000)


def decision(verdict: Verdict) -> Decision:
    return Decision(
        verdict=verdict,
        reasons=(Reason(name="dry_run"),),
        policy="petals",
        peer_id="Qm",
        own_span=Span(0, 2),
        target=Span(2, 4),
        before=None,
        after=None,
        snapshot_digest="",
        seed=0,
    )


@given(st.floats(0, 1e12), st.floats(0, 1e9))
def test_a_pause_holds_until_its_end_and_no_longer(since: float, seconds: float) -> None:
    until = since + seconds
    pause = Pause(since=since, until=until, uid=0)
    assert pause.holds(since) == (seconds > 0 and until > since)
    assert not pause.holds(until)
    assert not pause.holds(until + 1)
    assert Pause(since=since, until=None, uid=0).holds(until)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_paused_decision_says_what_it_would_have_been(verdict: Verdict) -> None:
    before = decision(verdict)
    after = apply_pause(before, PAUSE)
    assert apply_pause(before, None) == before
    if verdict in (Verdict.DISABLED, Verdict.INSUFFICIENT_INFORMATION, Verdict.FAILED):
        assert after == before
        return
    assert after.verdict is Verdict.PAUSED
    assert after.reasons[0].values["would"] == verdict.value
    assert after.reasons[1:] == before.reasons
    assert after.target == before.target
    expected = "paused: user 1000 has paused it until 1970-01-01 00:03:20 UTC (new disks); without that: "
    assert after.sentence.startswith(expected + verdict.value)


def test_a_pause_takes_a_claim_back_even_where_nothing_can_be_decided() -> None:
    inputs = coordinated(1, TOLD).inputs
    assert inputs is not None
    assert decide_again(inputs, "coordinated").verdict is Verdict.MOVING
    paused, step = replace(inputs, pause=PAUSE), None
    for verdict in (Verdict.MOVING, Verdict.INSUFFICIENT_INFORMATION):
        _, step = guard_wish(decision(verdict), paused)
        assert step is not None
        assert (step.action, step.state.claim) == (ClaimAction.WITHDRAW, None)
    assert paused.claim is not None
    assert step is not None
    again = replace(paused, claim=paused.claim.model_copy(update={"state": step.state}))
    _, step = guard_wish(decision(Verdict.MOVING), again)
    assert step is not None
    assert step.action is ClaimAction.NOTHING


def test_a_paused_check_is_replayed_with_its_pause(tmp_path: Path) -> None:
    inputs = coordinated(1, TOLD).inputs
    assert inputs is not None
    paused = replace(inputs, pause=PAUSE)
    with Journal(tmp_path / "j") as journal:
        journal.save_check(CheckRecord("one", 100.0, decide_again(paused, "coordinated"), paused))
        read = journal.check("one")
    assert read is not None
    assert read.inputs is not None
    assert read.inputs.pause == PAUSE
    assert read.decision.verdict is Verdict.PAUSED
    assert decide_again(read.inputs, "coordinated") == read.decision


def test_the_journal_keeps_one_pause_until_it_is_taken_back(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        assert journal.pause() is None
        journal.save_pause(Pause(since=1.0, until=None, uid=0))
        journal.save_pause(PAUSE)
    with Journal(tmp_path / "j") as journal:
        assert journal.pause() == PAUSE
        journal.save_pause(None)
        assert journal.pause() is None


FORMAT_1 = """
CREATE TABLE snapshots (digest TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE decisions (id INTEGER PRIMARY KEY, check_id TEXT NOT NULL UNIQUE, at REAL NOT NULL, verdict TEXT NOT NULL,
    sentence TEXT NOT NULL, wants_move INTEGER NOT NULL, decision TEXT NOT NULL, digest TEXT REFERENCES snapshots (digest),
    inputs TEXT);
CREATE TABLE moves (id TEXT PRIMARY KEY, started_at REAL NOT NULL, step TEXT NOT NULL, step_since REAL NOT NULL,
    move TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def test_a_journal_of_format_1_is_read_as_it_is_and_brought_up_to_date_by_who_writes(tmp_path: Path) -> None:
    path, written = tmp_path / "j", coordinated(1, TOLD)
    with Journal(tmp_path / "new") as journal:
        journal.save_check(written)
        journal.save_move(move(1))
    with closing(sqlite3.connect(path)) as old, old:
        old.executescript(FORMAT_1)
        old.execute("ATTACH ? AS new", (str(tmp_path / "new"),))
        old.execute("INSERT INTO snapshots SELECT * FROM new.snapshots")
        columns = "id, check_id, at, verdict, sentence, wants_move, decision, digest, inputs"
        old.execute(f"INSERT INTO decisions SELECT {columns} FROM new.decisions")  # noqa: S608 - a constant
        old.execute("INSERT INTO moves SELECT * FROM new.moves")
        (version,) = old.execute("PRAGMA user_version").fetchone()
    assert version == 1
    for read_only in (True, False, True):
        with Journal(path, read_only=read_only) as journal:
            record = journal.check("check1")
            assert record is not None
            assert (record.decision, record.version) == (written.decision, None)
            assert [check.check_id for check in journal.checks()] == ["check1"]
            assert journal.moves() == (move(1),)
            assert journal.pause() == (PAUSE if read_only and _format(path) == 2 else None)
            if not read_only:
                journal.save_pause(PAUSE)
    assert _format(path) == 2


def _format(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)
