"""The journal: every decision with what is needed to replay it, and every step of every move, in one SQLite file.

Safe for several threads of one process; another process may read along (WAL).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import TypeAdapter

from swarmkeel import __version__
from swarmkeel.balance.decision import Decision, Verdict
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.daemon.claiming import ClaimInputs
from swarmkeel.daemon.guard import GuardSettings, GuardView
from swarmkeel.daemon.move import FINAL_STEPS, Move
from swarmkeel.daemon.pause import Pause
from swarmkeel.errors import SwarmkeelError
from swarmkeel.printable import printable
from swarmkeel.private_path import open_to_everyone
from swarmkeel.swarm.recorded import snapshot_from_json, snapshot_to_json
from swarmkeel.swarm.sidecar import Sidecar
from swarmkeel.swarm.snapshot import SwarmSnapshot
from swarmkeel.swarm.span import Span

SCHEMA_VERSION: Final = 2
OLDEST_READ: Final = 1
"""Older formats are read as they are, and brought up to date by the first sidecar that writes."""
MOVES_KEPT_FACTOR: Final = 10
"""Moves are few and tell more than decisions: they are kept this many times as long."""
SHRINK_RATIO: Final = 0.1
"""A journal that is too large loses this share at a time, so that it need not be made smaller at every check."""
WAL_BYTES: Final = 8 * 1024 * 1024
"""What is left of the file beside the journal that takes new entries first, once they are in the journal."""

_SCHEMA: Final = """
-- Snapshots, and what the sidecars told, each once by its digest.
CREATE TABLE snapshots (digest TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    check_id TEXT NOT NULL UNIQUE,
    at REAL NOT NULL,
    verdict TEXT NOT NULL,
    sentence TEXT NOT NULL,
    wants_move INTEGER NOT NULL,
    decision TEXT NOT NULL,
    digest TEXT REFERENCES snapshots (digest),
    inputs TEXT,
    version TEXT -- of Swarmkeel
);
CREATE INDEX decisions_at ON decisions (at);
CREATE INDEX decisions_digest ON decisions (digest);
CREATE TABLE moves (
    id TEXT PRIMARY KEY,
    started_at REAL NOT NULL,
    step TEXT NOT NULL,
    step_since REAL NOT NULL,
    move TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX moves_started_at ON moves (started_at);
"""
_SINCE_2: Final = """
CREATE TABLE pauses (id INTEGER PRIMARY KEY CHECK (id = 1), pause TEXT NOT NULL);
"""
_WHERE: Final = (
    " {time} >= coalesce(:since, -1e300) AND {time} < coalesce(:before, 1e300)"
    " AND (:start IS NULL OR (json_extract({text}, '$.target.start'), json_extract({text}, '$.target.end'))"
    " = (:start, :end))"
)
_FROM_1_TO_2: Final = f"ALTER TABLE decisions ADD COLUMN version TEXT; {_SINCE_2}"


class JournalError(SwarmkeelError):
    """The journal cannot be read or written."""


@dataclass(frozen=True)
class CheckInputs:
    """What a decision followed from: enough to decide the same again.

    Attributes:
        situation: What the policy was told.
        view: What the guards looked at.
        guards: Their limits.
        dry_run: Whether the move would have been made.
        claim: What was known of the own claim; None where the policy makes none.
        pause: The pause that held; None without one.
    """

    situation: Situation
    view: GuardView
    guards: GuardSettings
    dry_run: bool
    claim: ClaimInputs | None = None
    pause: Pause | None = None


@dataclass(frozen=True)
class CheckRecord:
    """One check of the balance as it is written down.

    Attributes:
        check_id: Unique; the log's lines of the same check carry it.
        at: When it was made, seconds since the epoch.
        decision: What it ended in.
        inputs: What it followed from; None where there was nothing to decide on, such as after a failed reading.
        version: Version of Swarmkeel that wrote it down; None before that was written down too.
    """

    check_id: str
    at: float
    decision: Decision
    inputs: CheckInputs | None
    version: str | None = None


class Journal:
    """An open journal.

    Args:
        path: The SQLite file; made when missing, its folder too, for this user alone.
        read_only: Open an existing file without the right to change it.

    Raises:
        JournalError: If it cannot be opened, is no journal, or was written by a newer version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._claim = -1
        try:
            with self._errors("opened"):
                if read_only:
                    name = f"{path.absolute().as_uri()}?mode=ro"
                else:
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._claim = _claim(path)
                    _refuse_if_open(path)
                    path.touch(mode=0o600, exist_ok=True)
                    name = path.absolute().as_uri()
                self._database = sqlite3.connect(name, uri=True, check_same_thread=False)
            try:
                with self._errors("opened"):
                    self._prepare(read_only=read_only)
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            self._release()
            raise

    def _prepare(self, *, read_only: bool) -> None:
        self._database.execute("PRAGMA busy_timeout = 5000")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version == 0 and not read_only:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._change_format(f"{_SCHEMA} {_SINCE_2}")
            version = SCHEMA_VERSION
        elif version == 1 and not read_only:
            self._change_format(_FROM_1_TO_2)
            version = SCHEMA_VERSION
        elif not OLDEST_READ <= version <= SCHEMA_VERSION:
            raise JournalError(
                f"the journal {self._path} has format {version}, this version reads {OLDEST_READ} to {SCHEMA_VERSION}",
                "use the version of Swarmkeel that wrote it, or move the file away",
            )
        self._version_column = "decisions.version" if version > 1 else "NULL"
        self._has_pauses = version > 1
        # A step of a move that is lost to a power cut could be taken twice.
        self._database.execute("PRAGMA synchronous = FULL")
        # Removing many old entries at once makes that file as large as they are, and by itself it never shrinks.
        self._database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")

    def _change_format(self, changes: str) -> None:
        with self._database:
            self._database.executescript(f"BEGIN; {changes} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            remedy = "check the path, its rights and the free space; a damaged file can be moved away"
            raise JournalError(f"the journal {self._path} cannot be {done}: {error}", remedy) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            self._database.close()
            self._release()

    def _release(self) -> None:
        if self._claim >= 0:
            os.close(self._claim)
            self._claim = -1

    def save_check(self, record: CheckRecord) -> None:
        """Write a check down.

        Raises:
            JournalError: If it could not be written; nothing of it is.
        """
        decision, inputs = record.decision, record.inputs
        digest = inputs.situation.snapshot.digest if inputs else None
        with self._lock, self._errors("written"), self._database:
            if inputs and not self._knows_snapshot(digest):
                self._save_content(digest, _slim_json(inputs.situation.snapshot))
            told = sidecars_to_json(inputs.situation.sidecars) if inputs and inputs.situation.sidecars else None
            told_digest = hashlib.sha256(told).hexdigest() if told else None
            if told and not self._knows_snapshot(told_digest):
                self._save_content(told_digest, told)
            self._database.execute(
                "INSERT INTO decisions (check_id, at, verdict, sentence, wants_move, decision, digest, inputs, version)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.check_id,
                    record.at,
                    decision.verdict.value,
                    decision.sentence,
                    decision.target is not None,
                    decision.model_dump_json(),
                    digest,
                    json.dumps({**_inputs_to_json(inputs), "sidecars": told_digest}) if inputs else None,
                    __version__,
                ),
            )

    def _save_content(self, digest: str | None, content: bytes) -> None:
        self._database.execute("INSERT INTO snapshots VALUES (?, ?)", (digest, zlib.compress(content)))

    def _knows_snapshot(self, digest: str | None) -> bool:
        return self._database.execute("SELECT 1 FROM snapshots WHERE digest = ?", (digest,)).fetchone() is not None

    def checks(
        self,
        *,
        limit: int = 100,
        since: float | None = None,
        before: float | None = None,
        verdict: Verdict | None = None,
        target: Span | None = None,
    ) -> tuple[CheckRecord, ...]:
        """Give the newest checks, newest first, without their inputs.

        Args:
            limit: At most this many; a negative number gives all.
            since: Only those made then or later, seconds since the epoch.
            before: Only those made earlier than this, seconds since the epoch.
            verdict: Only those with this verdict.
            target: Only those that wanted the server there.
        """
        query = (
            f"SELECT check_id, at, decision, {self._version_column} FROM decisions"  # noqa: S608 - a constant
            f" WHERE {_WHERE.format(time='at', text='decision')} AND verdict = coalesce(:verdict, verdict)"
            " ORDER BY id DESC LIMIT :limit"
        )
        values = {"limit": limit, "verdict": verdict, **_where(since, before, target)}
        with self._lock, self._errors("read"):
            rows = self._database.execute(query, values).fetchall()
        return tuple(
            CheckRecord(check, at, self._decision(check, text), None, version) for check, at, text, version in rows
        )

    def check_ids(self, *, limit: int = -1, since: float | None = None, before: float | None = None) -> tuple[str, ...]:
        """Give the ids of the newest checks, oldest first; see `checks` for the arguments."""
        where = _WHERE.format(time="at", text="decision")
        query = f"SELECT check_id FROM decisions WHERE {where} ORDER BY id DESC LIMIT :limit"  # noqa: S608 - a constant
        with self._lock, self._errors("read"):
            rows = self._database.execute(query, {"limit": limit, **_where(since, before, None)}).fetchall()
        return tuple(check_id for (check_id,) in reversed(rows))

    def snapshot(self, digest: str) -> SwarmSnapshot | None:
        """Give a snapshot that checks rested on, without what differs from reading to reading; None if it is not there."""
        with self._lock, self._errors("read"):
            row = self._database.execute("SELECT content FROM snapshots WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        with self._damage(f"snapshot {digest[:12]}"):
            return snapshot_from_json(json.loads(zlib.decompress(row[0])))

    def _decision(self, check_id: str, text: str) -> Decision:
        with self._damage(f"check {check_id}"):
            return Decision.model_validate_json(text)

    @contextmanager
    def _damage(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            reason = printable(f"{type(error).__name__}: {error}", 200)
            remedy = "it was changed by something else, or the file is damaged: leave it out, or move the journal away"
            raise JournalError(f"{what} of the journal {self._path} cannot be read: {reason}", remedy) from error

    def check(self, check_id: str) -> CheckRecord | None:
        """Give one check with its inputs; None if it is not (or no longer) in the journal."""
        query = (
            f"SELECT at, decision, inputs, snapshots.content, told.content, {self._version_column} FROM decisions"  # noqa: S608 - a constant
            " LEFT JOIN snapshots USING (digest)"
            " LEFT JOIN snapshots AS told ON told.digest = json_extract(decisions.inputs, '$.sidecars')"
            " WHERE check_id = ?"
        )
        with self._lock, self._errors("read"):
            row = self._database.execute(query, (check_id,)).fetchone()
        if row is None:
            return None
        at, decision, inputs, content, told, version = row
        with self._damage(f"check {check_id}"):
            read = _inputs_from_json(inputs, content, told) if inputs else None
        return CheckRecord(check_id, at, self._decision(check_id, decision), read, version)

    def wishes_in_a_row(self, *, since: float, limit: int) -> int:
        """Count the newest checks in a row that led to a wanted move.

        Args:
            since: Older checks do not count, seconds since the epoch.
            limit: Count no further than this.
        """
        query = "SELECT wants_move FROM decisions WHERE at >= ? ORDER BY id DESC LIMIT ?"
        with self._lock, self._errors("read"):
            rows = self._database.execute(query, (since, limit)).fetchall()
        count = 0
        for (wants_move,) in rows:
            if not wants_move:
                break
            count += 1
        return count

    def save_move(self, move: Move) -> None:
        """Write the present state of a move down, durably.

        Raises:
            JournalError: If it could not be written; the former state stands.
        """
        row = (move.id, move.started_at, move.step.value, move.step_since, move.model_dump_json())
        with self._lock, self._errors("written"), self._database:
            self._database.execute("INSERT OR REPLACE INTO moves VALUES (?, ?, ?, ?, ?)", row)

    def save_pause(self, pause: Pause | None) -> None:
        """Write down that the operator has paused the sidecar; None that nothing is paused any more.

        Raises:
            JournalError: If it could not be written; what stood there before stands.
        """
        with self._lock, self._errors("written"), self._database:
            self._database.execute("DELETE FROM pauses")
            if pause is not None:
                self._database.execute("INSERT INTO pauses VALUES (1, ?)", (pause.model_dump_json(),))

    def pause(self) -> Pause | None:
        """Give the pause that was last written down, be it over or not; None without one."""
        if not self._has_pauses:
            return None
        with self._lock, self._errors("read"):
            row = self._database.execute("SELECT pause FROM pauses").fetchone()
        if row is None:
            return None
        with self._damage("the pause"):
            return Pause.model_validate_json(row[0])

    def moves(
        self,
        *,
        limit: int = 100,
        since: float | None = None,
        before: float | None = None,
        target: Span | None = None,
    ) -> tuple[Move, ...]:
        """Give the newest moves, oldest first; see `checks` for the arguments."""
        where = _WHERE.format(time="started_at", text="move")
        query = f"SELECT move FROM moves WHERE {where} ORDER BY started_at DESC LIMIT :limit"  # noqa: S608 - a constant
        with self._lock, self._errors("read"):
            rows = self._database.execute(query, {"limit": limit, **_where(since, before, target)}).fetchall()
        return tuple(self._read_move(text) for (text,) in reversed(rows))

    def unfinished_moves(self) -> tuple[Move, ...]:
        """Give the moves that a former process left behind, oldest first."""
        final: Sequence[str] = sorted(step.value for step in FINAL_STEPS)
        marks = ", ".join("?" * len(final))
        query = f"SELECT move FROM moves WHERE step NOT IN ({marks}) ORDER BY started_at"  # noqa: S608 - marks only
        with self._lock, self._errors("read"):
            rows = self._database.execute(query, final).fetchall()
        return tuple(self._read_move(text) for (text,) in rows)

    def _read_move(self, text: str) -> Move:
        with self._damage("a move"):
            return Move.model_validate_json(text)

    def prune(self, *, now: float, keep_seconds: float, max_decisions: int, max_bytes: int) -> int:
        """Remove what is old, and what is too much.

        Args:
            now: Seconds since the epoch.
            keep_seconds: Decisions older than this go; finished moves after ten times as long.
            max_decisions: Of the rest the oldest go beyond this number.
            max_bytes: Where what remains takes more room than this, the oldest decisions go until it takes less by a
                tenth, all but the newest of them. The file keeps its size, and the room is used again.

        Returns:
            How many decisions were removed.
        """
        oldest = "SELECT id FROM decisions ORDER BY id DESC LIMIT -1 OFFSET ?"
        with self._lock, self._errors("written"), self._database:
            removed = self._database.execute(
                f"DELETE FROM decisions WHERE at < ? OR id IN ({oldest})",  # noqa: S608 - a constant
                (now - keep_seconds, max_decisions),
            ).rowcount
            self._forget_unnamed()
            final = ", ".join(f"'{step.value}'" for step in sorted(FINAL_STEPS))
            self._database.execute(
                f"DELETE FROM moves WHERE started_at < ? AND step IN ({final})",  # noqa: S608 - our own step names
                (now - MOVES_KEPT_FACTOR * keep_seconds,),
            )
            if self._used_bytes() > max_bytes:
                removed += self._shrink(max_bytes * (1 - SHRINK_RATIO))
        return removed

    def _shrink(self, bytes_wanted: float) -> int:
        """Remove the oldest decisions, some at a time, until the rest takes no more room than this, or is one."""
        removed = 0
        while self._used_bytes() > bytes_wanted:
            (count,) = self._database.execute("SELECT count(*) FROM decisions").fetchone()
            if count <= 1:
                break
            removed += self._database.execute(
                "DELETE FROM decisions WHERE id IN (SELECT id FROM decisions ORDER BY id LIMIT ?)",
                (max(1, int(count * SHRINK_RATIO)),),
            ).rowcount
            self._forget_unnamed()
        return removed

    def _forget_unnamed(self) -> None:
        """Remove snapshots, and what sidecars told, that no decision names any more."""
        self._database.execute(
            "DELETE FROM snapshots WHERE digest NOT IN (SELECT digest FROM decisions WHERE digest IS NOT NULL)"
            " AND digest NOT IN (SELECT json_extract(inputs, '$.sidecars') FROM decisions"
            " WHERE json_extract(inputs, '$.sidecars') IS NOT NULL)"
        )

    def _used_bytes(self) -> int:
        """Give the room that the content takes, without what was freed and is not used again yet."""
        pages, free, size = (
            int(self._database.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size


def _where(since: float | None, before: float | None, target: Span | None) -> dict[str, float | None]:
    """Give the values of `_WHERE`."""
    start, end = (None, None) if target is None else (target.start, target.end)
    return {"since": since, "before": before, "start": start, "end": end}


def _refuse_if_open(path: Path) -> None:
    """Refuse a journal that anyone could have written: what it says of a move under way is done at the next start."""
    open_how = open_to_everyone(path)
    if open_how is not None:
        raise JournalError(f"the journal {path} is refused", open_how)


def _claim(path: Path) -> int:
    """Make sure that no other sidecar writes this journal, for then both would take up the same move.

    The lock is on a file beside it: closing any other descriptor of SQLite's own file would drop SQLite's locks.
    """
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise JournalError(
            f"the journal {path} is in use by another sidecar", "stop that one, or give each its own journal.path"
        ) from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


_SIDECARS: Final = TypeAdapter(dict[str, Sidecar])


def sidecars_to_json(sidecars: Mapping[str, Sidecar]) -> bytes:
    """Give what sidecars tell as JSON, the same bytes for the same content."""
    return _SIDECARS.dump_json(dict(sorted(sidecars.items())))


def sidecars_from_json(source: bytes) -> dict[str, Sidecar]:
    """Read what `sidecars_to_json` gave."""
    return _SIDECARS.validate_json(source)


def _slim(snapshot: SwarmSnapshot) -> dict[str, object]:
    """Give a snapshot without what its digest and the policies leave out, so that a calm swarm is stored once."""
    content = snapshot_to_json(snapshot)
    for name in ("read_at", "rejected"):
        content.pop(name, None)
    for block in content["blocks"]:
        for record in block["servers"].values():
            extras = record[2] if len(record) > 2 else {}  # noqa: PLR2004 - (state, throughput, extras)
            record[2:] = [{name: extras[name] for name in ("start_block", "end_block") if extras.get(name) is not None}]
    return content


def _slim_json(snapshot: SwarmSnapshot) -> bytes:
    """Write `_slim` as JSON, in pieces: as long as one is written no other thread can go on."""
    content = _slim(snapshot)
    blocks = content.pop("blocks")
    assert isinstance(blocks, list)  # noqa: S101 - of the blocks
    return f'{json.dumps(content)[:-1]}, "blocks": [{", ".join(map(json.dumps, blocks))}]}}'.encode()


def _inputs_to_json(inputs: CheckInputs) -> dict[str, object]:
    situation = inputs.situation
    return {
        "read_at": situation.snapshot.read_at,
        "rejected": dict(situation.snapshot.rejected),
        "own": situation.own.model_dump(mode="json"),
        "settings": situation.settings.model_dump(mode="json"),
        "now": situation.now,
        "seed": situation.seed,
        "view": inputs.view.model_dump(mode="json"),
        "guards": inputs.guards.model_dump(mode="json"),
        "dry_run": inputs.dry_run,
        "claim": inputs.claim.model_dump(mode="json") if inputs.claim else None,
        "pause": inputs.pause.model_dump(mode="json") if inputs.pause else None,
    }


def _inputs_from_json(inputs: str, content: bytes, told: bytes | None) -> CheckInputs:
    source = json.loads(inputs)
    snapshot = json.loads(zlib.decompress(content))
    situation = Situation(
        snapshot=snapshot_from_json({**snapshot, "read_at": source["read_at"], "rejected": source["rejected"]}),
        own=OwnServer.model_validate(source["own"]),
        settings=PolicySettings.model_validate(source["settings"]),
        now=source["now"],
        seed=source["seed"],
        sidecars=sidecars_from_json(zlib.decompress(told)) if told else {},
    )
    claim, pause = source.get("claim"), source.get("pause")  # not in what was written before there were such
    return CheckInputs(
        situation=situation,
        view=GuardView.model_validate(source["view"]),
        guards=GuardSettings.model_validate(source["guards"]),
        dry_run=source["dry_run"],
        claim=ClaimInputs.model_validate(claim) if claim else None,
        pause=Pause.model_validate(pause) if pause else None,
    )
