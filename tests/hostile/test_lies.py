"""Records that are well formed and not true. docs/security.md says which of them can cost something, and what."""

from __future__ import annotations

import math
import time

import pytest

from swarmkeel.balance.decision import Verdict
from swarmkeel.swarm.dht_codec import encode_value
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.sidecar_record import sidecar_to_wire
from swarmkeel.swarm.span import Span
from tests.hostile.besieged import BOARD, HONEST, KEYS, OWN, RPS, Besieged, Sight, besieged
from tests.support.dht import wait_until
from tests.support.sidecars import TOTAL_BLOCKS, short_folder

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("hostile")]

LIAR = "QmLiar"
HOLE = Span(4, 8)
ONLINE, JOINING, OFFLINE = ServerState.ONLINE, ServerState.JOINING, ServerState.OFFLINE


def tell(swarm: Besieged, peer_id: str, claim: Claim | None) -> None:
    """Put on the board what a sidecar beside that server would tell."""
    swarm.plant(BOARD, peer_id, encode_value(sidecar_to_wire(Sidecar(peer_id, None, 1.0, claim=claim))))


def claim(origin: Span | None, target: Span, *, made_at: float, lasts: float, throughput: float = RPS) -> Claim:
    return Claim(origin, target, made_at, time.time() + lasts, throughput)


def assert_nothing_moves(swarm: Besieged, sight: Sight) -> None:
    assert all(math.isfinite(server["throughput_rps"]) for server in sight.servers.values())
    assert not any(name for name, told in sight.servers.items() if name in HONEST and not told["span"])
    swarm.assert_unharmed()


BOASTS = {
    "1e300 requests a second": (HOLE, 1e300, ONLINE),
    "every block, and much": (Span(0, TOTAL_BLOCKS), 1e6, ONLINE),
    "every block, and all there is": (Span(0, TOTAL_BLOCKS), 1e300, ONLINE),
    "every block, soon": (Span(0, TOTAL_BLOCKS), 1e300, JOINING),
    "nothing, everywhere": (Span(0, TOTAL_BLOCKS), 0.0, ONLINE),
    "a denormal number": (Span(0, TOTAL_BLOCKS), 5e-324, ONLINE),
}


@pytest.mark.parametrize("name", BOASTS)
async def test_a_server_that_boasts_moves_nobody(swarm: Besieged, name: str) -> None:
    span, rps, state = BOASTS[name]
    swarm.plant_server(LIAR, Span(0, TOTAL_BLOCKS), 0.0, OFFLINE)  # what the last case left is gone
    swarm.plant_server(LIAR, span, rps, state)
    sight = await swarm.look(times=3)
    assert all(sight.sees(peer_id) for peer_id in HONEST)
    assert sight.check.verdict is Verdict.BALANCED, sight.check.sentence
    assert_nothing_moves(swarm, sight)


SPANS = {"backwards": (6, 2), "far outside": (10**9, 10**15), "of all numbers": (0, 2**63), "of nothing": (3, 3)}


@pytest.mark.parametrize("name", SPANS)
async def test_spans_that_cannot_be(swarm: Besieged, name: str) -> None:
    start, end = SPANS[name]
    for key in KEYS:
        swarm.plant(key, LIAR, encode_value((2, 5.0, {"start_block": start, "end_block": end})))
    sight = await swarm.look(times=2)
    assert all(sight.sees(peer_id) for peer_id in HONEST)
    assert_nothing_moves(swarm, sight)


@pytest.mark.parametrize(
    ("span", "rps", "state", "reason"),
    [
        (HONEST[OWN], RPS, OFFLINE, "own_record_offline"),
        (HOLE, RPS, ONLINE, "own_span_differs"),
        (HONEST[OWN], 1e300, ONLINE, None),
        (HONEST[OWN], 0.0, ONLINE, None),
    ],
    ids=["offline", "elsewhere", "mighty", "weak"],
)
async def test_who_overwrites_our_servers_record_moves_nobody(
    swarm: Besieged, span: Span, rps: float, state: ServerState, reason: str | None
) -> None:
    """It can be kept from moving for as long as that lasts: what the DHT shows is not what the server says."""
    swarm.plant_server(OWN, span, rps, state)
    sight = await swarm.look(times=3)
    if reason is not None:
        assert sight.check.verdict is Verdict.INSUFFICIENT_INFORMATION
        assert sight.check.reasons[0].name == reason
    assert_nothing_moves(swarm, sight)
    swarm.plant_server(OWN, Span(0, TOTAL_BLOCKS), RPS, OFFLINE)
    swarm.plant_server(OWN, HONEST[OWN])
    assert (await swarm.look()).check.verdict is Verdict.BALANCED


async def test_claims_in_the_names_of_others_lure_nobody(swarm: Besieged) -> None:
    """Both servers of 4:8 seem to leave: a hole that there is only if they keep their word."""
    now = time.time()
    for peer_id in ("QmHonest3", "QmHonest4"):
        tell(swarm, peer_id, claim(HOLE, Span(0, 4), made_at=now - 5, lasts=30))
    tell(swarm, OWN, claim(HONEST[OWN], HOLE, made_at=now - 9, lasts=800))
    sight = await swarm.look(times=3)
    assert sight.check.verdict is not Verdict.MOVING
    assert_nothing_moves(swarm, sight)
    for peer_id in ("QmHonest3", "QmHonest4", OWN):
        tell(swarm, peer_id, None)
    assert (await swarm.look()).check.verdict is Verdict.BALANCED


async def test_at_a_real_hole_lies_can_delay_the_move_and_no_longer_than_they_hold() -> None:
    """Also shows that the sidecar of these tests does move when it should: nobody serves 4:8 any more."""
    with short_folder() as folder:
        async with besieged(folder) as swarm:
            now = time.time()
            # Made-up newcomers would take the hole, again and again; nobody who is there believes them.
            for number in range(50):
                tell(swarm, f"QmNew{number}".replace("0", "o"), claim(None, HOLE, made_at=now - 100, lasts=800))
            # Claims that would last for years, or promise more than their servers have, count for nothing.
            tell(swarm, "QmHonest2", claim(HONEST["QmHonest2"], HOLE, made_at=now - 100, lasts=3e9))
            tell(swarm, LIAR, claim(Span(0, 4), HOLE, made_at=now - 100, lasts=800, throughput=1e300))
            for peer_id in ("QmHonest3", "QmHonest4"):
                swarm.plant_server(peer_id, HOLE, RPS, OFFLINE)
            # This one could be true, and holds for a moment.
            ends = time.time() + 10
            swarm.plant_server("QmForged", Span(0, 4))
            tell(swarm, "QmForged", claim(Span(0, 4), HOLE, made_at=now - 100, lasts=ends - time.time()))
            sight = await swarm.look(times=2)
            if time.time() < ends:  # as on any machine that is not far too busy
                assert sight.check.target is None
                swarm.assert_unharmed()
            await wait_until(lambda: time.time() > ends)
            await swarm.look(times=3)
            await wait_until(lambda: [request.span for request in swarm.own.requests] == [HOLE])
            assert swarm.daemon.process.is_running
            assert {"too_many", "too_long"} <= swarm.said("claims_not_believed")
