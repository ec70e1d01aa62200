"""Snapshots as JSON (format 1): files to look at, to replay or to write by hand, and what the journal keeps.

    {"format": 1, "dht_prefix": "llama-65b-hf", "first_block": 0, "total_blocks": 80, "read_at": 1764000000.0,
     "rejected": {"throughput": 1}, "overdue": ["Qm..."],
     "blocks": [{"uid": "llama-65b-hf.0", "read": "ok",
                 "servers": {"Qm...": [2, 762.9, {"start_block": 0, "end_block": 33}]}}, ...]}

`read`, `read_at`, `rejected` and `overdue` (servers that should have renewed their records by then) may be left out; fields
that are not known are ignored. The records stand there as in the DHT and are checked in the same way: a bad one is left out
and counted. Numbers are as Python's json writes them: a ping that never came back is `Infinity`.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.record import ServerInfo, parse_block_records
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot

_Count = Annotated[int, Field(ge=0)]


_ALLOWED: Final = {
    "missing": "it is missing",
    "model_type": "it should be an object",
    "dict_type": "it should be an object",
    "list_type": "it should be a list",
    "string_pattern_mismatch": 'it should be a name without "." and white space',
}
"""What is allowed, by pydantic's type of error, where its own words do not fit JSON."""


class SnapshotFileError(SwarmkeelError, ValueError):
    """A snapshot cannot be read from its file, or not be written to it."""


class _RecordedBlock(BaseModel):
    model_config = ConfigDict(strict=True)

    uid: str
    read: Literal["ok", "absent", "unknown"] | None = None
    servers: dict[str, Any]


class _RecordedSnapshot(BaseModel):
    model_config = ConfigDict(strict=True)

    format: Literal[1]
    dht_prefix: Annotated[str, Field(pattern=r"^[^.\s]+$")]
    first_block: _Count
    total_blocks: Annotated[int, Field(ge=1)]
    read_at: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    rejected: dict[str, _Count] = {}
    overdue: list[str] = []
    blocks: list[_RecordedBlock]


def snapshot_to_json(snapshot: SwarmSnapshot) -> dict[str, Any]:
    """Give a snapshot as what `json.dumps` takes; `snapshot_from_json` makes an equal snapshot of it."""
    return {
        "format": 1,
        "dht_prefix": snapshot.dht_prefix,
        "first_block": snapshot.first_block,
        "total_blocks": snapshot.total_blocks,
        "read_at": snapshot.read_at,
        "rejected": dict(snapshot.rejected),
        "overdue": sorted(snapshot.overdue),
        "blocks": [
            {
                "uid": block.uid,
                "read": block.reading.value,
                "servers": {peer_id: _record_to_json(info) for peer_id, info in block.servers.items()},
            }
            for block in snapshot.blocks
        ],
    }


def _record_to_json(info: ServerInfo) -> list[Any]:
    state, throughput, extras = info.to_tuple()
    said = {name: value for name, value in extras.items() if value is not None and value != ()}
    if info.adapters:
        said["adapters"] = list(info.adapters)
    return [state, throughput, said]


def snapshot_from_json(source: object, *, name: str = "snapshot") -> SwarmSnapshot:
    """Read what `snapshot_to_json` gave, or what somebody wrote by hand.

    Where `read` is left out, a block with servers counts as read and one without as absent; without `read_at` the
    snapshot is as old as can be.

    Args:
        source: What `json.loads` gave.
        name: What to call it in errors.

    Raises:
        SnapshotFileError: If it is no snapshot of format 1; names the first place and what is allowed there.
    """
    try:
        recorded = _RecordedSnapshot.model_validate(source)
    except ValidationError as error:
        finding = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in finding["loc"]).lstrip(".")
        raise _bad_file(name, place or "(top level)", _ALLOWED.get(finding["type"], finding["msg"])) from None
    if recorded.total_blocks != len(recorded.blocks):
        raise _bad_file(name, "total_blocks", f"there are {len(recorded.blocks)} blocks, so it should be that number")
    rejected = Counter(recorded.rejected)
    blocks = []
    for index, block in enumerate(recorded.blocks):
        uid = f"{recorded.dht_prefix}.{recorded.first_block + index}"
        if block.uid != uid:
            raise _bad_file(name, f"blocks[{index}].uid", f"the blocks stand in order, so it should be {uid!r}")
        accepted, rejected_here = parse_block_records(block.servers)
        rejected.update(rejected_here)
        reading = KeyReading(block.read or ("ok" if block.servers else "absent"))
        blocks.append(BlockReading(uid, reading, accepted))
    return SwarmSnapshot(
        dht_prefix=recorded.dht_prefix,
        first_block=recorded.first_block,
        blocks=tuple(blocks),
        read_at=recorded.read_at,
        rejected=rejected,
        overdue=frozenset(recorded.overdue),
    )


def _bad_file(name: str, place: str, allowed: str) -> SnapshotFileError:
    return SnapshotFileError(f"{name}: {place[:200]}: {allowed}", "mend it, or record the snapshot again")


def read_snapshot_file(path: Path) -> SwarmSnapshot:
    """Read a snapshot's file.

    Raises:
        SnapshotFileError: If it cannot be read or is no snapshot of format 1.
    """
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SnapshotFileError(f"{path}: {error.strerror or error}", "name a file that can be read") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _bad_file(str(path), place, f"it is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # no text, a number of thousands of digits, or nested too deep
        raise _bad_file(str(path), "(whole file)", f"it is not JSON: {error}") from error
    return snapshot_from_json(source, name=str(path))


def write_snapshot_file(snapshot: SwarmSnapshot, path: Path) -> None:
    """Write a snapshot's file; at no time is there half a file under that name.

    Raises:
        SnapshotFileError: If it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with unfinished.open("x", encoding="utf-8") as file:
                json.dump(snapshot_to_json(snapshot), file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise SnapshotFileError(f"{path}: {error.strerror or error}", "name a file that can be written") from error
