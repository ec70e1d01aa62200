"""What the demo takes from a reading of the DHT."""

from __future__ import annotations

from swarmkeel.demo.optimum import BestPossible
from swarmkeel.demo.report import Healing, Milestone, Report, what_is_missing
from swarmkeel.demo.sight import MoveCounter, Sight
from swarmkeel.swarm.record import ServerState
from tests.demo.swarms import Placed, snapshot

JOINING = ServerState.JOINING


def test_only_servers_that_serve_count() -> None:
    sight = Sight.take(snapshot(4, [Placed("a", 0, 4, 5.0), Placed("b", 0, 2, 7.0), Placed("c", 2, 4, 9.0, JOINING)]))
    assert (sight.bottleneck_rps, sight.uncovered_blocks) == (5.0, 0)
    assert (set(sight.online), set(sight.joining)) == ({"a", "b"}, {"c"})
    loading = Sight.take(snapshot(4, [Placed("a", 0, 3), Placed("c", 2, 4, state=JOINING)]))
    assert (loading.bottleneck_rps, loading.uncovered_blocks) == (0.0, 1)


def test_the_dead_do_not_count_though_the_dht_still_shows_them() -> None:
    reading = snapshot(4, [Placed("a", 0, 4, 5.0), Placed("b", 2, 4, 7.0)])
    sight = Sight.take(reading, {"a"})
    assert (sight.bottleneck_rps, sight.uncovered_blocks, sight.believed_dead) == (0.0, 2, 1)
    assert "a" not in sight.snapshot.blocks[0].servers
    assert Sight.take(snapshot(4, [Placed("b", 2, 4)]), {"a"}).believed_dead == 0


def test_a_move_is_counted_once_when_the_server_serves_again() -> None:
    counter = MoveCounter()

    def look(*servers: Placed) -> list[str]:
        return counter.look(Sight.take(snapshot(8, servers)))

    assert look(Placed("a", 0, 4, state=JOINING, name="one")) == []
    assert look(Placed("a", 0, 4, name="one"), Placed("b", 0, 8)) == []
    assert look(Placed("b", 0, 8)) == []  # between OFFLINE and JOINING it is nowhere
    assert look(Placed("a", 4, 8, state=JOINING, name="one")) == ["one loads 4:8 instead of 0:4"]
    assert look(Placed("a", 4, 8, state=JOINING, name="one")) == []
    assert counter.moves == 0
    assert look(Placed("a", 4, 8, name="one")) == ["one serves 4:8"]
    assert look(Placed("a", 4, 8, name="one")) == []
    assert counter.moves == 1


def test_a_move_that_fell_back_is_none() -> None:
    counter = MoveCounter()
    for server in (Placed("a", 0, 4), Placed("a", 4, 8, state=JOINING), Placed("a", 0, 4, state=JOINING)):
        counter.look(Sight.take(snapshot(8, [server])))
    assert counter.look(Sight.take(snapshot(8, [Placed("a", 0, 4)]))) == []
    assert counter.moves == 0


def test_what_is_missing_is_said_in_one_line() -> None:
    best = BestPossible(20.0, is_exact=True)

    def missing(*servers: Placed) -> str | None:
        return what_is_missing(Sight.take(snapshot(4, servers)), best)

    assert missing(Placed("a", 0, 4, 16.0)) is None
    assert missing(Placed("a", 0, 3, 99.0)) == "1 of 4 blocks are served by nobody"
    assert missing(Placed("a", 0, 4, 15.9)) == (
        "the bottleneck is 15.9 RPS, 79.5% of the 20 RPS that are possible; 80% are needed"
    )


def test_the_report_is_plain_json() -> None:
    milestone = Milestone("healed", 61.5, 6, 16.0, BestPossible(20.0, is_exact=False), 0, 12)
    assert Report(7, "petals", ("server-1", "server-2"), (milestone,), "not steady").to_json() == {
        "seed": 7,
        "policy": "petals",
        "goal": 0.8,
        "victims": ["server-1", "server-2"],
        "missing": "not steady",
        "milestones": [
            {
                "name": "healed",
                "seconds": 61.5,
                "servers": 6,
                "bottleneck_rps": 16.0,
                "best": {"bound_rps": 20.0, "is_exact": False},
                "uncovered_blocks": 0,
                "moves": 12,
                "share": 0.8,
            }
        ],
    }
    assert Milestone("nothing", 0.0, 0, 0.0, BestPossible(0.0, is_exact=True), 4, 0).share == 0


def test_a_report_tells_how_long_each_healing_took_and_what_it_cost() -> None:
    def milestone(name: str, seconds: float, moves: int, rps: float = 0.0) -> Milestone:
        return Milestone(name, seconds, 6, rps, BestPossible(20.0, is_exact=True), 0, moves)

    bad, balanced = milestone("placed badly", 10.0, 0), milestone("balanced", 35.0, 7, 19.0)
    killed, healed = milestone("two killed", 36.0, 7), milestone("healed", 50.0, 9, 16.0)
    assert Report(0, "p", (), (bad, balanced, killed, healed)).healing() == (
        Healing(25.0, 7, 0.95),
        Healing(14.0, 2, 0.8),
    )
    assert Report(0, "p", (), (bad, balanced, killed)).healing() == (Healing(25.0, 7, 0.95), None)
    assert Report(0, "p", (), (bad,)).healing() == (None, None)
