"""`explain` on a snapshot's file: what would be decided about one server of it, and why."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.cli import run_command_line
from swarmkeel.commands.plan_view import print_plan, share_plan
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.recorded import write_snapshot_file
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

PILED, ALONE, GONE = (f"Qm{letter * 44}" for letter in "abc")
OTHER = f"Qm{'b' * 43}a"


def _info(state: ServerState, start: int) -> ServerInfo:
    return ServerInfo(state, 10.0, start_block=start, end_block=start + 4)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Twelve blocks: a pile of two servers on 0:4, one alone on 8:12, a hole at 4:8 where one was."""
    online = ServerState.ONLINE
    servers: list[dict[str, ServerInfo]] = [
        *[{PILED: _info(online, 0), OTHER: _info(online, 0)}] * 4,
        *[{GONE: _info(ServerState.OFFLINE, 4)}] * 4,
        *[{ALONE: _info(online, 8)}] * 4,
    ]
    blocks = tuple(BlockReading(f"llama.{index}", KeyReading.OK, records) for index, records in enumerate(servers))
    path = tmp_path / "snapshot.json"
    write_snapshot_file(SwarmSnapshot("llama", 0, blocks, 1_700_000_000.0), path)
    return path


def explain_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run_command_line(["explain", "--json", *arguments]) == 0
    decision = json.loads(capsys.readouterr().out)
    assert isinstance(decision, dict)
    return decision


def test_a_server_of_the_pile_would_move_into_the_hole(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decision = explain_json(capsys, "--snapshot", str(file), "--peer", PILED)
    assert decision["verdict"] == "moving"
    assert decision["own_span"] == {"start": 0, "end": 4}
    assert decision["target"] == {"start": 4, "end": 8}
    assert decision["before"]["uncovered_blocks"] == 4
    assert decision["after"]["uncovered_blocks"] == 0
    assert decision["sentence"].startswith("moving: ")
    assert decision["quality"] == {
        "keys_asked": 12,
        "keys_answered": 12,
        "records_accepted": 16,
        "rejected": {},
        "age_seconds": 0.0,
        "own_record_found": True,
    }


def test_the_verdict_comes_first_then_the_numbers(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run_command_line(["explain", "--snapshot", str(file), "--peer", PILED, "--policy", "petals", "--seed", "7"])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("moving: ")
    cells = {line[:16].strip(): line[16:].split() for line in lines[2:8]}
    assert cells["blocks"] == ["0:4", "4:8"]
    assert cells["bottleneck, RPS"] == ["0", "10"]
    assert cells["uncovered blocks"] == ["4", "0"]
    assert f"server:  {PILED}" in lines
    assert "policy:  petals, seed 7" in lines


def test_an_ending_of_the_peer_id_is_enough(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain_json(capsys, "--snapshot", str(file), "--peer", "ba")["peer_id"] == OTHER


@pytest.mark.parametrize(
    ("peer", "found"), [("z", "no server"), ("", "no server"), ("Qm", "no server"), ("a", "several servers")]
)
def test_a_server_that_is_not_there_is_an_error_that_names_those_that_are(
    file: Path, capsys: pytest.CaptureFixture[str], peer: str, found: str
) -> None:
    assert run_command_line(["explain", "--snapshot", str(file), "--peer", peer]) == 2
    error = capsys.readouterr().err
    assert f"the snapshot has {found} whose peer id ends in {peer!r}: there are " in error
    assert PILED[-7:] in error


def test_a_server_that_is_gone_would_get_its_first_blocks(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decision = explain_json(capsys, "--snapshot", str(file), "--peer", GONE)
    assert decision["own_span"] is None
    assert decision["verdict"] == "moving"
    assert decision["target"] == {"start": 4, "end": 8}


def test_policy_and_quality_can_be_tried(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--snapshot", str(file), "--peer", ALONE, "--policy", "petals")
    assert explain_json(capsys, *arguments)["reasons"][0]["name"] == "already_at_best_place"
    assert explain_json(capsys, *arguments, "--quality", "2")["reasons"][0]["name"] == "forced"
    assert run_command_line(["explain", *arguments, "--quality", "inf"]) == 2
    assert "'--quality': must be a number: " in capsys.readouterr().err
    assert run_command_line(["explain", *arguments, "--policy", "none"]) == 2
    assert "there is no balance policy 'none'" in capsys.readouterr().err


def test_the_shared_plan_is_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["explain", "--snapshot", str(file), "--peer", PILED]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "policy:  coordinated, seed 0" in lines
    assert "sidecars: what they tell could not be read; each decides alone" in lines
    assert "plan: 1 moves, +10 RPS, cost 0 RPS" in lines
    assert "every block would have a server in about 600 s" in lines
    assert any(line.split() == ["aaaaaaa", "(this", "one)", "0:4", "4:8", "10", "600", "s"] for line in lines)
    plan = explain_json(capsys, "--snapshot", str(file), "--peer", ALONE)["plan"]
    assert (plan["worth_it"], plan["moves"], plan["sidecars"]) == (False, [], 0)


def test_what_would_have_to_change_for_a_move_is_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["explain", "--snapshot", str(file), "--peer", ALONE]) == 0
    out = capsys.readouterr().out
    assert out.startswith("balanced: none of the 1 movable servers of 3 has a place to go to")
    assert "for a move: servers beside which a sidecar runs would have to be ONLINE" in out


def test_claims_of_others_and_those_not_believed_are_told() -> None:
    online = ServerInfo(ServerState.ONLINE, 10.0, start_block=0, end_block=4)
    blocks = tuple(BlockReading(f"m.{index}", KeyReading.OK, {PILED: online, OTHER: online}) for index in range(4))
    hole = tuple(BlockReading(f"m.{index}", KeyReading.ABSENT, {}) for index in range(4, 8))
    claim = Claim(Span(0, 4), Span(4, 8), 1990.0, 2100.0, 10.0)
    situation = Situation(
        snapshot=SwarmSnapshot("m", 0, (*blocks, *hole), 2000.0),
        own=OwnServer(peer_id=PILED, span=Span(0, 4), num_blocks=4, throughput=10.0),
        settings=PolicySettings(),
        now=2000.0,
        seed=0,
        sidecars={OTHER: Sidecar(OTHER, 0.0, 60.0, claim=claim)},
    )
    decision = get_policy("coordinated").decide(situation)
    shared = share_plan(situation, {"throughput": 2}, readable=True)
    console = Console(record=True, file=io.StringIO(), width=100)
    print_plan(shared, decision, console)
    lines = console.export_text().splitlines()
    assert "sidecars: 1 others tell of their servers, 1 of them may be moved now" in lines
    assert "claims not believed: throughput 2" in lines
    assert any(line.split() == [OTHER[-7:], "0:4", "4:8", "10", "s", "ago", "in", "100", "s"] for line in lines)
    assert shared.to_json()["claims"] == 1


def test_a_reader_that_goes_away_is_no_error(file: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "swarmkeel", "explain", "--snapshot", str(file), "--peer", ALONE]
    run = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (run.returncode, run.stderr) == (1, "")


def test_a_broken_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text('{"format": 2}')
    assert run_command_line(["explain", "--snapshot", str(path), "--peer", "x"]) != 0
    assert capsys.readouterr().err.count("\n") == 1
