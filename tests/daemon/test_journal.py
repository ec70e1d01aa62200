from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from swarmkeel.balance.decision import Decision, Reason, Verdict
from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.daemon.check import decide_again
from swarmkeel.daemon.claiming import ClaimInputs, ClaimSettings, ClaimState, Prefetch
from swarmkeel.daemon.guard import GuardSettings, GuardView, apply_guards
from swarmkeel.daemon.journal import CheckInputs, CheckRecord, Journal, JournalError
from swarmkeel.daemon.move import Move, MoveStep
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

OWN = "QmSK3sroMXUiyJHNWULvC4YqYEhmJFS8LbK2ZSw96czJdV"
ROOM = 1 << 30
OTHER = "QmY5uRyyRippmFqoiDzvmDTHPvhxyX7XQDYENCbJ8Ha1j9"
GUARDS = GuardSettings(
    cooldown=1, minimum_uptime=1, moves_per_day=3, confirmations=1, breaker_base=200, breaker_max=1000
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened


def piled_snapshot(read_at: float = 100.0, pings: float = 0.1, rejected: int = 2) -> SwarmSnapshot:
    """Two servers on blocks 0 and 1 of 4; nobody on the others."""
    info = ServerInfo(ServerState.ONLINE, 5.0, start_block=0, end_block=2, public_name="n", next_pings={OTHER: pings})
    blocks = tuple(BlockReading(f"m.{n}", KeyReading.OK, {OWN: info, OTHER: info} if n < 2 else {}) for n in range(4))
    return SwarmSnapshot("m", 0, blocks, read_at, {"shape": rejected})


def decide(inputs: CheckInputs) -> Decision:
    wanted = get_policy("petals").decide(inputs.situation)
    return apply_guards(wanted, inputs.view, inputs.guards, dry_run=inputs.dry_run)


def check(
    number: int, *, at: float = 100.0, snapshot: SwarmSnapshot | None = None, pinned: bool = False
) -> CheckRecord:
    situation = Situation(
        snapshot=snapshot or piled_snapshot(),
        own=OwnServer(peer_id=OWN, span=Span(0, 2), num_blocks=2, throughput=5.0),
        settings=PolicySettings(),
        now=at,
        seed=number,
    )
    view = GuardView(
        now=at,
        server_state="online",
        running_restart=None,
        pinned=pinned,
        span_since=0.0,
        moves=(),
        confirmations=1,
    )
    inputs = CheckInputs(situation, view, GUARDS, dry_run=False)
    return CheckRecord(f"check{number}", at, decide(inputs), inputs)


def calm(number: int, at: float) -> CheckRecord:
    decision = check(number).decision.model_copy(update={"verdict": Verdict.BALANCED, "target": None})
    return CheckRecord(f"check{number}", at, decision, None)


def move(number: int, step: MoveStep = MoveStep.DONE, started_at: float = 100.0) -> Move:
    return Move(
        id=f"move{number}",
        peer_id=OWN,
        origin=None,
        target=Span(2, 4),
        reason="r",
        started_at=started_at,
        step=step,
        step_since=started_at + 5,
    )


def test_a_decision_can_be_replayed_from_the_journal(journal: Journal) -> None:
    written = check(1)
    assert written.decision.verdict is Verdict.MOVING
    journal.save_check(written)
    read = journal.check("check1")
    assert read is not None
    assert read.inputs is not None
    assert read.decision == written.decision
    assert decide(read.inputs) == written.decision
    assert read.inputs.view == written.inputs.view if written.inputs else False
    assert read.inputs.situation.snapshot.digest == piled_snapshot().digest
    assert read.inputs.situation.snapshot.rejected == {"shape": 2}


CLAIM = Claim(Span(0, 2), Span(2, 4), 90.0, 200.0, 5.0, 1.5, "ab")
TOLD = {OTHER: Sidecar(OTHER, 12.5, 61.3, shapes=((1, 7.5),), claim=CLAIM)}


def coordinated(number: int, told: dict[str, Sidecar]) -> CheckRecord:
    """A check by the policy that listens to other sidecars, with an own claim that has settled."""
    before = check(number).inputs
    assert before is not None
    claim = replace(CLAIM, made_at=80.0)
    situation = before.situation.model_copy(
        update={"sidecars": told, "own": before.situation.own.model_copy(update={"claim": claim})}
    )
    state = ClaimState(claim=claim, published_at=81.0, prefetch=Prefetch.DONE, prefetch_since=85.0)
    inputs = replace(
        before,
        situation=situation,
        claim=ClaimInputs(state=state, settings=ClaimSettings(), can_prefetch=True),
    )
    return CheckRecord(f"check{number}", 100.0, decide_again(inputs, "coordinated"), inputs)


def test_what_the_sidecars_told_and_the_own_claim_come_back_with_the_check(journal: Journal) -> None:
    written = coordinated(1, TOLD)
    assert written.decision.verdict is Verdict.MOVING
    journal.save_check(written)
    read = journal.check("check1")
    assert read is not None
    assert read.inputs is not None
    assert written.inputs is not None
    assert read.inputs.situation.sidecars == TOLD
    assert read.inputs.situation.own == written.inputs.situation.own
    assert read.inputs.claim == written.inputs.claim
    assert decide_again(read.inputs, "coordinated") == written.decision


def test_what_calm_sidecars_tell_is_stored_once_and_goes_with_the_last_check_that_names_it(
    journal: Journal, tmp_path: Path
) -> None:
    for number in range(5):
        journal.save_check(coordinated(number, TOLD))
    journal.save_check(coordinated(5, {OTHER: replace(TOLD[OTHER], claim=None)}))

    def contents() -> int:
        with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database:
            (count,) = database.execute("SELECT count(*) FROM snapshots").fetchone()
        return int(count)

    assert contents() == 3
    journal.prune(now=100.0, keep_seconds=50.0, max_decisions=1, max_bytes=ROOM)
    assert contents() == 2
    last = journal.check("check5")
    assert last is not None
    assert last.inputs is not None
    assert last.inputs.situation.sidecars[OTHER].claim is None


def test_checks_and_moves_of_before_there_were_claims_are_still_read(journal: Journal, tmp_path: Path) -> None:
    written = check(1)
    journal.save_check(written)
    journal.save_move(move(1))
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as database, database:
        (inputs,) = database.execute("SELECT inputs FROM decisions").fetchone()
        old = json.loads(inputs)
        del old["sidecars"], old["claim"], old["view"]["servers"], old["view"]["others_moving"]
        for name in ("load_seconds", "shapes", "claim"):
            del old["own"][name]
        del old["settings"]["move_cost"]
        database.execute("UPDATE decisions SET inputs = ?", (json.dumps(old),))
        (text,) = database.execute("SELECT move FROM moves").fetchone()
        new = ("staged", "requested_at", "served_at")
        former = {name: value for name, value in json.loads(text).items() if name not in new}
        database.execute("UPDATE moves SET move = ?", (json.dumps(former),))
    read = journal.check("check1")
    assert read is not None
    assert read.inputs is not None
    assert (read.inputs.claim, read.inputs.situation.sidecars) == (None, {})
    assert decide(read.inputs) == written.decision
    assert journal.moves() == (move(1),)
    assert journal.prune(now=1e6, keep_seconds=1.0, max_decisions=1, max_bytes=ROOM) == 1


def test_the_journal_survives_its_process_and_another_may_read_along(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.save_check(check(1))
        journal.save_move(move(1))
        with Journal(path, read_only=True) as reader:
            assert [record.check_id for record in reader.checks()] == ["check1"]
            with pytest.raises(JournalError):
                reader.save_move(move(2))
    with Journal(path) as journal:
        assert journal.moves() == (move(1),)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_checks_come_newest_first_and_can_be_filtered(journal: Journal) -> None:
    for number in range(3):
        journal.save_check(check(number, at=100.0 + number, pinned=number == 1))
    assert [record.check_id for record in journal.checks()] == ["check2", "check1", "check0"]
    assert [record.check_id for record in journal.checks(limit=1)] == ["check2"]
    assert [record.check_id for record in journal.checks(before=101.0)] == ["check0"]
    assert [record.check_id for record in journal.checks(verdict=Verdict.HOLDING)] == ["check1"]
    assert journal.check("nosuch") is None


def test_a_calm_swarm_is_stored_once(journal: Journal, tmp_path: Path) -> None:
    for number in range(20):
        journal.save_check(check(number, snapshot=piled_snapshot(100.0 + number, pings=number / 10)))
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        assert database.execute("SELECT count(*) FROM snapshots").fetchone() == (1,)
    database.close()
    last = journal.check("check19")
    assert last is not None
    assert last.inputs is not None
    assert last.inputs.situation.snapshot.read_at == 119.0


def test_wishes_count_back_to_the_last_check_without_one(journal: Journal) -> None:
    assert journal.wishes_in_a_row(since=0, limit=10) == 0
    journal.save_check(check(1, at=1))
    journal.save_check(calm(2, at=2))
    journal.save_check(check(3, at=3))
    journal.save_check(check(4, at=4, pinned=True))
    assert journal.wishes_in_a_row(since=0, limit=10) == 2
    assert journal.wishes_in_a_row(since=0, limit=1) == 1
    assert journal.wishes_in_a_row(since=3.5, limit=10) == 1
    journal.save_check(calm(5, at=5))
    assert journal.wishes_in_a_row(since=0, limit=10) == 0


def test_a_move_is_known_by_its_newest_state(journal: Journal) -> None:
    journal.save_move(move(1, MoveStep.PLANNED, started_at=1))
    journal.save_move(move(2, MoveStep.REQUESTED, started_at=2))
    assert [unfinished.id for unfinished in journal.unfinished_moves()] == ["move1", "move2"]
    journal.save_move(move(1, MoveStep.ABANDONED, started_at=1))
    assert [unfinished.id for unfinished in journal.unfinished_moves()] == ["move2"]
    assert [(known.id, known.step) for known in journal.moves()] == [
        ("move1", MoveStep.ABANDONED),
        ("move2", MoveStep.REQUESTED),
    ]
    assert [known.id for known in journal.moves(limit=1)] == ["move2"]


def test_old_rows_are_pruned_with_the_snapshots_that_nothing_names_any_more(journal: Journal, tmp_path: Path) -> None:
    for number in range(10):
        journal.save_check(check(number, at=float(number), snapshot=piled_snapshot(0.0, rejected=number + 1)))
    journal.save_move(move(1, MoveStep.DONE, started_at=-100))
    journal.save_move(move(2, MoveStep.REQUESTED, started_at=-100))
    journal.save_move(move(3, MoveStep.DONE, started_at=5))
    assert journal.prune(now=10.0, keep_seconds=7.0, max_decisions=4, max_bytes=ROOM) == 6
    assert [record.check_id for record in journal.checks()] == ["check9", "check8", "check7", "check6"]
    assert [known.id for known in journal.moves()] == ["move2", "move3"]
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        assert database.execute("SELECT count(*) FROM snapshots").fetchone() == (4,)
    database.close()


PEERS = "abcdefghijkmnopqrstuvwxyz"


def restless_snapshot(number: int) -> SwarmSnapshot:
    """A swarm that no two checks find alike."""
    info = ServerInfo(ServerState.ONLINE, 5.0 + number, start_block=0, end_block=2)
    many = {f"Qm{name}": replace(info, throughput=hash((number, ord(name))) % 10_007 + 1.0) for name in PEERS}
    blocks = tuple(BlockReading(f"m.{n}", KeyReading.OK, {OWN: info, **many} if n < 2 else {}) for n in range(4))
    return SwarmSnapshot("m", 0, blocks, 100.0, {})


def test_a_swarm_that_changes_all_the_time_does_not_make_the_journal_grow_without_end(
    journal: Journal, tmp_path: Path
) -> None:
    path, limit, slack = tmp_path / "journal.sqlite", 200_000, 150_000
    sizes = []
    for number in range(250):
        journal.save_check(check(number, at=float(number), snapshot=restless_snapshot(number)))
        if number % 25 == 24:
            journal.prune(now=250.0, keep_seconds=1e6, max_decisions=10_000, max_bytes=limit)
            sizes.append(path.stat().st_size)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert max(sizes) <= limit + slack, sizes
    # The newest are there, with all that they followed from.
    kept = [record.check_id for record in journal.checks(limit=-1)]
    assert kept == [f"check{number}" for number in reversed(range(250 - len(kept), 250))]
    assert len(kept) > 10
    oldest = journal.check(kept[-1])
    assert oldest is not None
    assert oldest.inputs is not None
    assert oldest.inputs.situation.snapshot.digest == restless_snapshot(250 - len(kept)).digest
    # However little room there is, the last decision is not forgotten.
    journal.prune(now=250.0, keep_seconds=1e6, max_decisions=10_000, max_bytes=1)
    assert [record.check_id for record in journal.checks()] == ["check249"]


def test_the_folder_of_a_journal_is_made_for_this_user_alone(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2777)  # as Kubernetes makes its empty ones
    with Journal(volume / "own" / "journal.sqlite") as journal:
        assert journal.checks(limit=1) == ()
    assert (volume / "own").stat().st_mode & 0o777 == 0o700
    with pytest.raises(JournalError, match="run chmod o-w"):
        Journal(volume / "journal.sqlite")


def test_what_is_no_journal_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, and long enough to be looked at as one" * 10)
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    for name, expected in [
        ("text", "not a database"),
        ("newer", "format 99"),
        ("text/no-folder/file", "cannot be opened"),
    ]:
        with pytest.raises(JournalError, match=expected) as caught:
            Journal(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_check_that_cannot_be_written_leaves_nothing_behind(journal: Journal) -> None:
    journal.save_check(check(1))
    with pytest.raises(JournalError):
        journal.save_check(check(1))
    assert len(journal.checks()) == 1
    journal.save_check(check(2))
    unknown = Reason(name="from_the_future", values={"x": 1})
    future = check(3).decision.model_copy(update={"reasons": (unknown,)})
    journal.save_check(CheckRecord("check3", 1.0, future, None))
    assert "from_the_future" in journal.checks(limit=1)[0].decision.sentence


def test_two_sidecars_cannot_share_a_journal(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="another sidecar"):
        Journal(tmp_path / "journal.sqlite")
    journal.close()
    Journal(tmp_path / "journal.sqlite").close()
