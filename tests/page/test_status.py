"""What the daemon tells of itself: complete, finite, and with hostile text made harmless to a terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from swarmkeel.balance.decision import Decision, Reason, SwarmNumbers, Verdict
from swarmkeel.config import BalanceSection, Config, JournalSection, ServerSection, SwarmSection
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.describe import describe_daemon, describe_swarm
from swarmkeel.daemon.guard import GuardSettings, GuardView
from swarmkeel.daemon.move import Move, MoveStep
from swarmkeel.daemon.state import ClaimsView, DaemonState, view_swarm
from swarmkeel.daemon.status import BlockState, DaemonStatus, SwarmStatus
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

NOW = 10_000.0
CONFIG = Config(
    swarm=SwarmSection(dht_prefix="m", total_blocks=5, initial_peers=("/ip4/127.0.0.1/tcp/1/p2p/Qm",)),
    server=ServerSection(socket=Path("/run/s")),
    journal=JournalSection(path=Path("/var/j")),
    balance=BalanceSection(check_period=30),
)
LIMITS = GuardSettings(
    cooldown=1200, minimum_uptime=600, moves_per_day=2, confirmations=1, breaker_base=60, breaker_max=120
)


def snapshot() -> SwarmSnapshot:
    """Block 0: ONLINE 5; 1: ONLINE 5, JOINING 3; 2: JOINING; 3: nobody; 4: not read."""
    own = ServerInfo(ServerState.ONLINE, 5.0, start_block=0, end_block=2, public_name="a\x1b[2J<script>")
    joining = ServerInfo(ServerState.JOINING, 3.0, start_block=1, end_block=3)
    gone = ServerInfo(ServerState.OFFLINE, sys.float_info.max, start_block=9, end_block=3)
    servers: tuple[dict[str, ServerInfo], ...] = (
        {"own": own},
        {"own": own, "b": joining},
        {"b": joining},
        {"c": gone},
        {},
    )
    return SwarmSnapshot(
        "m",
        0,
        tuple(
            BlockReading(f"m.{index}", KeyReading.OK if index < 4 else KeyReading.UNKNOWN, found)
            for index, found in enumerate(servers)
        ),
        read_at=NOW - 7,
        rejected={"shape": 2},
    )


def move(name: str, started_at: float, step: MoveStep = MoveStep.DONE, **values: float) -> Move:
    return Move(
        id=name,
        peer_id="own",
        origin=Span(2, 4),
        target=Span(0, 2),
        reason="r",
        started_at=started_at,
        step=step,
        step_since=started_at + 10,
        **values,
    )


def view(**values: object) -> GuardView:
    known: dict[str, object] = {
        "now": NOW - 5,
        "server_state": "online",
        "running_restart": None,
        "pinned": False,
        "span_since": NOW - 100,
        "moves": (),
        "confirmations": 0,
    }
    return GuardView.model_validate(known | values)


def state() -> DaemonState:
    decision = Decision(
        verdict=Verdict.FAILED,
        reasons=(Reason(name="move_failed", values={"target": "0:2", "error": "\u202egnorw"}),),
        policy="coordinated",
        peer_id="own",
        own_span=Span(0, 2),
        target=None,
        before=SwarmNumbers(bottleneck_rps=float("inf"), bound_rps=float("inf"), uncovered_blocks=1),
        after=None,
        snapshot_digest="d",
        seed=0,
    )
    claims = {
        "b": Sidecar("b", None, 60, claim=Claim(Span(1, 3), Span(3, 5), NOW - 9, NOW + 60, 3.0, 1.5)),
        "d": Sidecar("d", 0.0, 60, claim=Claim(Span(1, 3), Span(3, 5), NOW - 90, NOW - 1, 3.0)),
    }
    return DaemonState(
        started_at=0,
        swarm=view_swarm(snapshot()),
        snapshot_is_good=True,
        ready=True,
        server=ServerStatus("sim/1", "own", "m", 5, 2, 5.0, ServerPhase.ONLINE, Span(0, 2)),
        span_since=NOW - 100,
        decision=decision,
        move=move("m3", NOW - 40, MoveStep.REQUESTED),
        claims=ClaimsView(sidecars=2, claims=1, implausible=3, rejected=4, readable=True),
        sidecars=claims,
        guards=(view(), LIMITS),
    )


def describe(now: float = NOW) -> DaemonStatus:
    moves = (move("m1", NOW - 80_000), move("m2", NOW - 1000, predicted_gain_rps=2, realised_gain_rps=1))
    return describe_daemon(state(), CONFIG, moves, version="1.2", now=now)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_every_block_is_shown_as_it_is_served() -> None:
    swarm = describe_swarm(state(), CONFIG)
    assert swarm is not None
    assert [block.state for block in swarm.blocks] == [
        BlockState.SERVED,
        BlockState.SERVED,
        BlockState.JOINING,
        BlockState.UNCOVERED,
        BlockState.UNREAD,
    ]
    assert [block.weakest for block in swarm.blocks] == [True, True, False, False, False]
    assert [(block.online, block.joining) for block in swarm.blocks][:3] == [(1, 0), (1, 1), (0, 1)]
    assert [(server.peer_id, server.span, server.own, server.sidecar is not None) for server in swarm.servers] == [
        ("own", Span(0, 2), True, False),
        ("b", Span(1, 3), False, True),
        ("c", None, False, False),
    ]


def test_guards_say_whether_they_hold_a_move_now_and_when_they_let_go() -> None:
    guards = {guard.name: guard for guard in describe().guards}
    assert {name: guard.releases_at for name, guard in guards.items() if guard.holds} == {
        "moves_per_day": NOW - 1000 + 86_400,  # of three that count, as the one under way does, one may be left
        "cooldown": NOW - 990 + 1200,
        "minimum_uptime": NOW - 100 + 600,
    }
    later = {guard.name for guard in describe(now=NOW + 500).guards if guard.holds}
    assert later == {"moves_per_day"}


def test_moves_are_told_the_newest_first_and_the_one_under_way_by_itself() -> None:
    told = describe()
    assert [entry.id for entry in told.moves] == ["m3", "m2", "m1"]
    assert told.move is not None
    assert told.move.id == "m3"
    assert (told.moves[1].predicted_gain_rps, told.moves[1].realised_gain_rps) == (2, 1)


def test_claims_of_others_that_still_count_are_told() -> None:
    claims = describe().claims
    assert claims is not None
    assert [(claim.peer_id, claim.target, claim.gain_rps) for claim in claims.others] == [("b", Span(3, 5), 1.5)]


def test_hostile_text_and_numbers_are_safe_to_print_and_to_write_as_json() -> None:
    swarm = describe_swarm(state(), CONFIG)
    assert swarm is not None
    assert swarm.servers[0].public_name == "a?[2J<script>"
    told = describe()
    assert told.verdict is not None
    assert "\u202e" not in told.verdict.sentence
    for value in (told, swarm):
        text = value.model_dump_json()
        assert type(value).model_validate(json.loads(text, parse_constant=_refuse)) == value, text
    assert told.verdict.before is not None
    assert told.verdict.before.bound_rps == sys.float_info.max


def test_a_daemon_that_knows_nothing_yet_says_so() -> None:
    empty = DaemonState(started_at=0)
    told = describe_daemon(empty, CONFIG, (), version="1.2", now=NOW)
    assert (told.snapshot, told.server, told.verdict, told.guards, told.moves) == (None, None, None, (), ())
    assert describe_swarm(empty, CONFIG) is None
    assert SwarmStatus.model_fields.keys() >= {"servers", "blocks"}
