"""What Prometheus sees: every metric of the contract, linted by promtool, with what vanished gone."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from aiohttp import ClientSession
from prometheus_client import generate_latest

from swarmkeel.balance.decision import Decision, Reason, Verdict
from swarmkeel.balance.reasons import SENTENCES
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.daemon.guard import Breaker
from swarmkeel.daemon.http import HttpServer, ListenError
from swarmkeel.daemon.metrics import HOLDING_REASONS, Metrics
from swarmkeel.daemon.move import Move, MoveStep
from swarmkeel.daemon.staging import StagingResult
from swarmkeel.daemon.state import ClaimsView, DaemonState, view_swarm
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Claim
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

NOW = 1000.0


def snapshot() -> SwarmSnapshot:
    """Block 0: ONLINE 5; 1: ONLINE 5 and JOINING 3; 2: JOINING; 3: JOINING, and an OFFLINE record; 4: not read."""
    online = ServerInfo(ServerState.ONLINE, 5.0, start_block=0, end_block=2)
    joining = ServerInfo(ServerState.JOINING, 3.0, start_block=1, end_block=4)
    offline = ServerInfo(ServerState.OFFLINE, 9.0)
    return SwarmSnapshot(
        "m",
        0,
        (
            BlockReading("m.0", KeyReading.OK, {"a": online}),
            BlockReading("m.1", KeyReading.OK, {"a": online, "b": joining}),
            BlockReading("m.2", KeyReading.OK, {"b": joining}),
            BlockReading("m.3", KeyReading.OK, {"c": offline}),
            BlockReading("m.4", KeyReading.UNKNOWN, {}),
        ),
        read_at=NOW - 7,
        rejected={"shape": 2},
    )


def decision() -> Decision:
    return Decision(
        verdict=Verdict.BALANCED,
        reasons=(Reason(name="disabled"),),
        policy="petals",
        peer_id="a",
        own_span=Span(0, 2),
        target=None,
        before=None,
        after=None,
        snapshot_digest="",
        seed=0,
    )


def full_state() -> DaemonState:
    status = ServerStatus("sim/1", "a", "m", 5, 2, 5.0, ServerPhase.ONLINE, Span(0, 2))
    move = Move(
        id="m1",
        peer_id="a",
        origin=Span(2, 4),
        target=Span(0, 2),
        reason="r",
        predicted_gain_rps=2.0,
        realised_gain_rps=1.5,
        started_at=0,
        step=MoveStep.DONE,
        step_since=9,
    )
    return DaemonState(
        started_at=0,
        swarm=view_swarm(snapshot()),
        snapshot_is_good=True,
        ready=True,
        snapshot_seconds=0.25,
        server=status,
        decision=decision(),
        move=move,
        breaker=Breaker(2, NOW + 30),
        last_check_at=NOW,
        check_period_seconds=60,
        last_turn_at=NOW,
        dht_peers=4,
        claims=ClaimsView(sidecars=5, claims=2, implausible=3, rejected=4, readable=True),
        own_claim=Claim(Span(0, 2), Span(2, 4), NOW, NOW + 60, 5.0),
        staged_blocks=3,
    )


def metrics_of(state: DaemonState) -> Metrics:
    return Metrics(state, version="1.2.3", dht_prefix="m", policy=lambda: "petals", clock=lambda: NOW)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"swarmkeel_{name}", labels)


def test_the_swarm_is_exported_as_clients_find_it() -> None:
    metrics = metrics_of(full_state())
    assert [value(metrics, "block_throughput_rps", block=str(block)) for block in range(5)] == [5, 5, 0, 0, 0]
    assert value(metrics, "block_servers", block="1", state="joining") == 1
    assert value(metrics, "block_servers", block="1", state="online") == 1
    assert value(metrics, "block_servers", block="2", state="online") == 0
    assert {state: value(metrics, "swarm_servers", state=state) for state in ("online", "joining", "offline")} == {
        "online": 1,
        "joining": 1,
        "offline": 1,
    }
    # Block 4 was not read: nobody knows whether it is covered.
    assert value(metrics, "swarm_uncovered_blocks") == 2
    assert value(metrics, "swarm_bottleneck_rps") == 0
    assert value(metrics, "swarm_bound_rps") == 3
    assert value(metrics, "swarm_balance_ratio") == 0
    assert value(metrics, "snapshot_age_seconds") == 7
    assert value(metrics, "snapshot_keys_answered_ratio") == 0.8


def test_the_daemon_its_server_and_its_last_move_are_exported() -> None:
    metrics = metrics_of(full_state())
    assert value(metrics, "records_rejected_total", reason="shape") == 0
    assert value(metrics, "records_rejected_total", reason="expired") == 0
    metrics.count_rejections({"shape": 2})
    assert value(metrics, "records_rejected_total", reason="shape") == 2
    assert value(metrics, "up") == value(metrics, "server_up") == value(metrics, "config_last_reload_successful") == 1
    assert (value(metrics, "server_span_start"), value(metrics, "server_span_end")) == (0, 2)
    assert value(metrics, "server_throughput_rps") == 5
    assert value(metrics, "move_predicted_gain_rps") == 2
    assert value(metrics, "move_realised_gain_rps") == 1.5
    assert value(metrics, "dht_peers") == 4
    assert [verdict for verdict in Verdict if value(metrics, "verdict", verdict=verdict)] == [Verdict.BALANCED]
    assert value(metrics, "build_info", version="1.2.3", model="m", policy="petals", python=_python()) == 1


def test_claims_are_told_apart_by_whose_they_are_and_what_they_are_worth() -> None:
    state = full_state()
    metrics = metrics_of(state)
    states = ("own", "others", "implausible", "rejected")
    assert [value(metrics, "claims", state=name) for name in states] == [1, 2, 3, 4]
    assert (value(metrics, "sidecars"), value(metrics, "claims_readable")) == (5, 1)
    state.own_claim = None
    assert value(metrics, "claims", state="own") == 0
    state.claims = None
    assert value(metrics, "claims", state="others") is None


def test_what_is_staged_is_exported_while_anything_may_be() -> None:
    state = full_state()
    metrics = metrics_of(state)
    assert value(metrics, "staged_blocks") == 3
    assert {
        result: value(metrics, "staging_requests_total", result=result) for result in StagingResult
    } == dict.fromkeys(StagingResult, 0)
    state.staged_blocks = None
    assert value(metrics, "staged_blocks") is None


def test_what_holds_a_move_back_is_exported() -> None:
    state = full_state()
    metrics = metrics_of(state)
    assert [name for name in HOLDING_REASONS if value(metrics, "holding", reason=name)] == []
    reasons = (Reason(name="cooldown"), Reason(name="breaker"), Reason(name="raises_bottleneck"))
    state.decision = decision().model_copy(update={"verdict": Verdict.HOLDING, "reasons": reasons})
    assert [name for name in HOLDING_REASONS if value(metrics, "holding", reason=name)] == ["breaker", "cooldown"]
    assert value(metrics, "holding", reason="raises_bottleneck") is None
    assert set(HOLDING_REASONS) <= set(SENTENCES)


def test_the_breaker_closes_when_its_time_is_over_even_if_no_check_has_seen_that() -> None:
    state = full_state()
    metrics = metrics_of(state)
    names = ("breaker_open", "breaker_failures", "breaker_release_timestamp_seconds")
    assert [value(metrics, name) for name in names] == [1, 2, NOW + 30]
    state.breaker = Breaker(2, NOW - 1)
    assert [value(metrics, name) for name in names] == [0, 2, None]
    state.breaker = Breaker()
    assert [value(metrics, name) for name in names] == [0, 0, None]


def _python() -> str:
    import platform  # noqa: PLC0415 - only here

    return platform.python_version()


def test_what_vanished_vanishes() -> None:
    state = full_state()
    metrics = metrics_of(state)
    state.server = None
    state.swarm = None
    assert value(metrics, "server_up") == 0
    assert value(metrics, "server_span_start") is None
    assert value(metrics, "block_throughput_rps", block="0") is None


CONTRACT = [
    "up",
    "build_info",
    "snapshot_age_seconds",
    "snapshot_duration_seconds",
    "snapshot_keys_answered_ratio",
    "snapshots_total",
    "snapshot_failures_total",
    "records_rejected_total",
    "block_throughput_rps",
    "block_servers",
    "swarm_servers",
    "swarm_bottleneck_rps",
    "swarm_bound_rps",
    "swarm_balance_ratio",
    "swarm_uncovered_blocks",
    "server_up",
    "server_span_start",
    "server_span_end",
    "server_throughput_rps",
    "decisions_total",
    "verdict",
    "moves_total",
    "move_failures_total",
    "move_duration_seconds_count",
    "move_predicted_gain_rps",
    "move_realised_gain_rps",
    "claims",
    "sidecars",
    "claims_readable",
    "staged_blocks",
    "staging_requests_total",
    "dht_peers",
    "config_last_reload_successful",
    "last_check_timestamp_seconds",
    "check_period_seconds",
    "holding",
    "breaker_open",
    "breaker_failures",
    "breaker_release_timestamp_seconds",
]


@pytest.mark.parametrize("name", CONTRACT)
def test_every_metric_of_the_contract_is_there(name: str) -> None:
    metrics = metrics_of(full_state())
    metrics.count_rejections({"shape": 1})
    text = generate_latest(metrics.registry).decode()
    assert re.search(rf"^swarmkeel_{name}(\{{.*\}})? ", text, re.MULTILINE)


@pytest.mark.parametrize("state", [full_state(), DaemonState(started_at=0)], ids=["full", "empty"])
def test_promtool_finds_nothing_to_say(state: DaemonState) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    metrics = metrics_of(state)
    metrics.count_rejections({"shape": 1})
    text = generate_latest(metrics.registry)
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


async def test_http_shows_metrics_in_both_formats_and_health() -> None:
    state, now = DaemonState(started_at=0, last_turn_at=NOW), NOW
    server = HttpServer(metrics_of(state).registry, state, stalled_after=lambda: 60, clock=lambda: now)
    port = await server.start(0)
    try:
        async with ClientSession(f"http://127.0.0.1:{port}") as client:

            async def get(path: str, accept: str = "*/*") -> tuple[int, str, str]:
                async with client.get(path, headers={"Accept": accept}) as response:
                    return response.status, response.content_type, await response.text()

            assert (await get("/metrics"))[:2] == (200, "text/plain")
            status, content_type, text = await get("/metrics", "application/openmetrics-text; version=1.0.0")
            assert (status, content_type) == (200, "application/openmetrics-text")
            assert text.endswith("# EOF\n")
            assert (await get("/readyz"))[0] == 503
            state.ready = True
            assert (await get("/readyz"))[0] == 200
            assert (await get("/healthz"))[0] == 200
            now = NOW + 61
            assert (await get("/healthz"))[0] == 503
            assert (await get("/nothing"))[0] == 404
            async with client.post("/metrics") as response:
                assert response.status == 405
        with pytest.raises(ListenError, match="cannot listen"):
            await HttpServer(metrics_of(state).registry, state, stalled_after=lambda: 1, clock=lambda: now).start(port)
    finally:
        await server.close()
