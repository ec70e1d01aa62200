"""History, replay and report on what real sidecars in a dry run wrote down."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

from swarmkeel.balance.decision import Verdict
from swarmkeel.daemon.service import Sidecar
from swarmkeel.swarm.announcer import Announcer
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.span import Span
from tests.admin.commands import Commands, swarmkeel_process
from tests.support.dht import DhtPeers, wait_until
from tests.support.sidecars import MODEL, ObedientServer, sidecar, write_config

LOW, HIGH = Span(0, 4), Span(4, 8)
NAMES = ("one", "two", "three")


async def announce(peers: DhtPeers, index: int, span: Span, rps: float = 10.0) -> None:
    info = ServerInfo(ServerState.ONLINE, rps, start_block=span.start, end_block=span.end)
    assert (await Announcer(peers.node(index), MODEL).announce(info, range(span.start, span.end), 600)).complete


def verdict(daemon: Sidecar) -> Verdict | None:
    return daemon.state.decision.verdict if daemon.state.decision else None


async def test_three_dry_runs_want_together_what_they_would_do_together_and_all_of_it_is_told(
    folder: Path, swarmkeel: Commands
) -> None:
    journals = {name: folder / f"{name}.sqlite" for name in NAMES}
    began = time.time()
    async with DhtPeers(4) as peers, AsyncExitStack() as stack:
        servers, daemons = [], []
        for index in range(len(NAMES)):
            await announce(peers, index, LOW)
        for index, name in enumerate(NAMES):
            servers.append(ObedientServer(folder / f"{name}.server", peers.node(index).peer_id, LOW))
            stack.enter_context(servers[-1].listening())
            config = write_config(
                folder / f"{name}.yaml",
                folder / f"{name}.server",
                peers.initial_peers,
                balance={"policy": "coordinated", "dry_run": True, "load_seconds": 1},
                journal={"path": str(journals[name])},
            )
            daemons.append(await stack.enter_async_context(sidecar(config)))
        # As soon as each has seen the others, one of them would close the hole and the others leave that to it.
        wanted = sorted([Verdict.WOULD_MOVE, Verdict.BALANCED, Verdict.BALANCED])
        await wait_until(
            lambda: (
                sorted(filter(None, map(verdict, daemons))) == wanted
                and all(len(daemon.state.sidecars) == 2 for daemon in daemons)
            )
        )
        (mover,) = (daemon for daemon in daemons if verdict(daemon) is Verdict.WOULD_MOVE)
        chosen = mover.state.server.peer_id if mover.state.server else None
        for daemon in daemons:
            assert all(told.movable_at is not None for told in daemon.state.sidecars.values())
        # A newcomer closes the hole, and does as much there as the three do together.
        newcomer = peers.node(3).peer_id
        await announce(peers, 3, HIGH, 30.0)
        await wait_until(lambda: all(verdict(daemon) is Verdict.BALANCED for daemon in daemons))
        addresses = [f"http://127.0.0.1:{daemon._http.port}" for daemon in daemons]
        from_all = json.loads(await swarmkeel_process("report", *addresses, "--since", "1h", "--json"))
        in_use = await swarmkeel_process("history", "-c", folder / "one.yaml", "-n", "1000", "--json")
        assert all(server.requests == [] for server in servers)
    from_files = json.loads(await swarmkeel("report", *journals.values(), "--since", "1h", "--json"))
    for told in (from_all, from_files):
        assert [part["peer_id"] for part in told["sidecars"]] == [server.present.peer_id for server in servers]
        assert told["moves"] == []
        # The one that they agreed on wanted it until the newcomer was seen.
        last = max(told["wishes"], key=lambda wish: wish["last_at"])
        assert (last["peer_id"], last["target"], last["closes_holes"]) == (chosen, {"start": 4, "end": 8}, True)
        (hole,) = told["holes"]
        assert (hole["blocks"], hole["is_open"]) == (4, False)
        assert began < hole["since"] < hole["until"] < time.time()
        assert chosen in [wish["peer_id"] for wish in hole["closers"]]
        assert 0 < told["balance"]["hole_seconds"] <= told["balance"]["observed_seconds"]
    came = {"peer_id": newcomer, "origin": None, "target": {"start": 4, "end": 8}}
    assert [{name: change[name] for name in came} for change in from_files["changes"]] == [came]
    assert {wish["seconds"] for wish in from_files["wishes"]} == {1.0}
    shown = await swarmkeel("report", *journals.values())
    assert "3 sidecars would have made" in shown
    assert "4 blocks had no server: it would have been closed by" in shown

    await history_filters(swarmkeel, folder / "one.yaml", in_use)
    await replays(swarmkeel, journals["one"], len(in_use.splitlines()))


async def history_filters(swarmkeel: Commands, config: Path, in_use: str) -> None:
    checks = [json.loads(line) for line in in_use.splitlines()]

    async def shown(*options: str) -> list[str]:
        out = await swarmkeel("history", "-c", config, "-n", "10000", "--json", *options)
        return [json.loads(line)["check_id"] for line in out.splitlines()]

    everything = await shown()
    assert everything[: len(checks)] == [check["check_id"] for check in checks]
    middle = checks[len(checks) // 2]
    moment = datetime.fromtimestamp(middle["at"], UTC).isoformat()
    later, sooner = await shown("--since", moment), await shown("--until", moment)
    assert sooner + later == everything
    assert middle["check_id"] in (later[0], sooner[-1])  # the clock has more digits than the text
    assert await shown("--since", "1h") == everything
    assert await shown("--until", "1h") == []
    with_target = await shown("--target", "4:8")
    assert set(with_target) >= {check["check_id"] for check in checks if check["target"] == {"start": 4, "end": 8}}
    assert await shown("--target", "0:4") == []
    balanced = await shown("--verdict", "balanced", "--since", "1h")
    assert balanced == [one for one in everything if one in set(balanced)]
    assert balanced
    assert await shown("--moves", "--since", "1h", "--target", "4:8") == []
    table = await swarmkeel("history", "-c", config, "-n", "1")
    assert table.count("\n") >= 2
    for wrong in (("--since", "yesterday"), ("--target", "4-8"), ("--target", "8:4")):
        assert wrong[0] in await swarmkeel("history", "-c", config, *wrong, code=2)


async def replays(swarmkeel: Commands, journal: Path, checks: int) -> None:
    out = await swarmkeel("replay", journal, "--json")
    told = [json.loads(line) for line in out.splitlines()]
    assert len(told) >= checks
    assert {each["result"] for each in told} <= {"same", "nothing_decided"}
    same = [each for each in told if each["result"] == "same"]
    assert {"would_move", "balanced"} & {each["verdict"] for each in same}
    assert {each["version"] for each in told} == {"0.1.0"}
    assert f"{len(told)} checks: {len(same)} decided again the same, bit for bit" in await swarmkeel("replay", journal)
    one, other, third = (each["check_id"] for each in same[-3:])
    out = await swarmkeel("replay", journal, one)
    assert "deciding again gives the same, bit for bit" in out
    assert "no check 'nope'" in await swarmkeel("replay", journal, "nope", code=1)

    with closing(sqlite3.connect(journal)) as database, database:
        # The last bit of one number: SQLite's own JSON functions would round it.
        (text,) = database.execute("SELECT decision FROM decisions WHERE check_id = ?", (one,)).fetchone()
        decision = json.loads(text)
        truth = decision["before"]["bottleneck_rps"]
        decision["before"]["bottleneck_rps"] = lie = math.nextafter(truth, math.inf)
        database.execute("UPDATE decisions SET decision = ? WHERE check_id = ?", (json.dumps(decision), one))
        database.execute("UPDATE decisions SET inputs = json_remove(inputs, '$.own.span') WHERE check_id = ?", (other,))
        database.execute(
            "UPDATE decisions SET decision = json_set(decision, '$.policy', 'oracle') WHERE check_id = ?", (third,)
        )
    told_of = json.loads(await swarmkeel("replay", journal, one, "--json", code=1))
    assert told_of["result"] == "different"
    (difference,) = told_of["differences"]
    assert difference == {"place": "before.bottleneck_rps", "recorded": repr(lie), "replayed": repr(truth)}
    shown = await swarmkeel("replay", journal, code=1)
    assert f"1 come out otherwise: {one}" in shown
    assert "before.bottleneck_rps" in shown
    assert f"1 cannot be read: {other}" in shown
    assert f"1 were decided by a policy that this version does not have: {third}" in shown
