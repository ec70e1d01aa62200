"""The machine fails: no room, no right to write, no file descriptors, a damaged journal, a clock that jumps."""

from __future__ import annotations

import resource
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from swarmkeel.balance.decision import Verdict
from swarmkeel.config import load_config
from swarmkeel.daemon.journal import Journal, JournalError
from swarmkeel.daemon.move import MoveStep
from swarmkeel.daemon.service import Sidecar
from tests.faults.vocabulary import (
    HIGH,
    Scene,
    given_a_running_sidecar,
    given_a_sidecar_process,
    given_a_sidecar_that_finds_all_well,
    given_a_swarm,
    given_a_swarm_with_a_hole,
    then_all_is_well_again,
    then_it_checks_on,
    then_it_says,
    then_nothing_is_lost,
    then_the_move_ends,
    then_the_server_is_on,
    then_the_server_was_told_nothing,
    when_the_clock_is_set,
)
from tests.support.dht import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR, DAY = 3600.0, 86_400.0


async def given_a_move_that_only_a_pin_holds_back(scene: Scene) -> None:
    await given_a_swarm_with_a_hole(scene)
    scene.own.present = replace(scene.own.present, pinned=True)


def when_the_pin_is_gone(scene: Scene) -> None:
    scene.own.present = replace(scene.own.present, pinned=False)


@pytest.mark.fault("disk full")
async def test_the_disk_is_full_and_has_room_again(scene: Scene) -> None:
    await given_a_move_that_only_a_pin_holds_back(scene)
    await given_a_sidecar_process(scene)
    await scene.forked.shows("verdict", 1, verdict="holding")
    # No file may be written to any more, the log neither.
    before = resource.prlimit(scene.forked.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    scene.injected += 1
    when_the_pin_is_gone(scene)
    await scene.forked.shows("verdict", 1, verdict="failed")
    scene.saw("`failed`")
    failed = await scene.forked.metric("decisions_total", verdict="failed") or 0
    await scene.forked.shows("decisions_total", failed + 3, verdict="failed")
    then_the_server_was_told_nothing(scene)
    resource.prlimit(scene.forked.pid, resource.RLIMIT_FSIZE, before)
    await then_the_move_ends(scene, MoveStep.DONE)
    then_the_server_is_on(scene, HIGH)
    then_nothing_is_lost(scene)


@pytest.mark.fault("journal read-only")
async def test_the_journal_cannot_be_written(scene: Scene) -> None:
    await given_a_move_that_only_a_pin_holds_back(scene)
    await given_a_running_sidecar(scene)
    await then_it_says(scene, Verdict.HOLDING, "pinned")
    when_the_journal_is_read_only(scene, yes=True)
    when_the_pin_is_gone(scene)
    await then_it_says(scene, Verdict.FAILED, "check_failed")
    then_the_server_was_told_nothing(scene)
    when_the_journal_is_read_only(scene, yes=False)
    await then_the_move_ends(scene, MoveStep.DONE)
    then_the_server_is_on(scene, HIGH)
    then_nothing_is_lost(scene)


def when_the_journal_is_read_only(scene: Scene, *, yes: bool) -> None:
    scene.injected += yes
    journal = scene.daemon._journal
    with journal._lock:
        journal._database.execute(f"PRAGMA query_only = {int(yes)}")


@pytest.mark.fault("journal corrupted")
@pytest.mark.parametrize("damage", ["header", "move", "empty"])
async def test_a_damaged_journal_is_refused_at_the_start(scene: Scene, damage: str) -> None:
    await given_a_swarm_with_a_hole(scene)
    with Journal(scene.journal):
        pass
    scene.injected += 1
    if damage == "header":
        with scene.journal.open("r+b") as file:
            file.write(b"\xa5" * 512)
    elif damage == "empty":
        with closing(sqlite3.connect(scene.journal)) as database, database:
            database.execute("DROP TABLE moves")
    else:
        with closing(sqlite3.connect(scene.journal)) as database, database:
            database.execute("INSERT INTO moves VALUES ('m', 1, 'requested', 1, '{\"id\": \"m\"')")
    config = scene.folder / "c.yaml"
    with pytest.raises(JournalError) as refused:
        await Sidecar(load_config(config), config_path=config).run()
    assert "\n" not in str(refused.value)
    scene.saw("refused in one line")
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene, journal_is_lost=True)


@pytest.mark.fault("journal corrupted")
async def test_a_journal_that_is_damaged_under_a_running_sidecar_stops_it_from_moving(scene: Scene) -> None:
    await given_a_move_that_only_a_pin_holds_back(scene)
    await given_a_running_sidecar(scene)
    await then_it_says(scene, Verdict.HOLDING, "pinned")
    journal = scene.daemon._journal
    scene.injected += 1
    with journal._lock:
        journal._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with scene.journal.open("r+b") as file:
            size = file.seek(0, 2)
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
        journal._database.execute("PRAGMA shrink_memory")
    when_the_pin_is_gone(scene)
    await then_it_says(scene, Verdict.FAILED, "check_failed")
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene, journal_is_lost=True)


@pytest.mark.fault("file descriptors used up")
async def test_there_are_no_file_descriptors_left(scene: Scene) -> None:
    await given_a_swarm(scene, {"server": {"request_timeout": 0.5}})
    await given_a_sidecar_process(scene)
    await scene.forked.shows("verdict", 1, verdict="balanced")
    pid = scene.forked.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    scene.injected += 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    # Nobody can connect to it now, so the log has to tell.
    await wait_until(lambda: scene.forked.events("check")[-1]["verdict"] != "balanced", seconds=120)
    scene.saw(f"`{scene.forked.events('check')[-1]['verdict']}`")
    seen = len(scene.forked.events("check"))
    await wait_until(lambda: len(scene.forked.events("check")) > seen + 2, seconds=120)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    await scene.forked.shows("verdict", 1, verdict="balanced")
    scene.saw("`balanced`")
    assert {event["verdict"] for event in scene.forked.events("check")}.isdisjoint({"moving", "would_move"})
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)


@pytest.mark.fault("clock jumps back and forth")
@pytest.mark.parametrize(
    "ahead", [DAY, -DAY, HOUR, -HOUR], ids=["a-day-on", "a-day-back", "an-hour-on", "an-hour-back"]
)
async def test_the_clock_jumps_while_the_server_moves(scene: Scene, ahead: float) -> None:
    await given_a_swarm_with_a_hole(scene)
    scene.own.loads = lambda _: "waits"
    await given_a_running_sidecar(scene)
    await wait_until(lambda: scene.daemon.state.move is not None and scene.daemon.state.move.acknowledged)
    when_the_clock_is_set(scene, ahead=ahead)
    await then_it_checks_on(scene)
    scene.own.finish()
    when_the_clock_is_set(scene, ahead=0)
    await then_the_move_ends(scene, MoveStep.DONE)
    then_the_server_is_on(scene, HIGH)
    then_nothing_is_lost(scene)


@pytest.mark.fault("clock jumps back and forth")
async def test_the_clock_jumps_while_nothing_is_to_be_done(scene: Scene) -> None:
    await given_a_swarm(scene)
    await given_a_sidecar_that_finds_all_well(scene)
    for ahead in (DAY, -DAY, 0.0):
        when_the_clock_is_set(scene, ahead=ahead)
        await then_it_checks_on(scene)
    await then_all_is_well_again(scene)
    then_the_server_was_told_nothing(scene)
    then_nothing_is_lost(scene)
