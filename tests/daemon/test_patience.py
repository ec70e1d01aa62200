from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.balance.policies import get_policy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.daemon.patience import PASSED_OVER_SECONDS, Patience, named_others
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.sidecar import Claim, Sidecar
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

NOW, LIMIT = 1_000_000.0, 150.0
CLAIM = Claim(Span(0, 4), Span(4, 8), NOW, NOW + 60, 1.0)


def told(*peers: str, claiming: str = "") -> dict[str, Sidecar]:
    return {peer: Sidecar(peer, 0.0, 60.0, claim=CLAIM if peer == claiming else None) for peer in peers}


def movable(patience: Patience, *, at: float) -> list[str]:
    return [peer for peer, sidecar in patience.apply(told("a", "b"), now=at).items() if sidecar.movable_at is not None]


def test_a_server_that_is_named_for_too_long_and_does_not_move_is_passed_over_for_a_while() -> None:
    patience = Patience()
    for seconds in (0.0, 100.0, LIMIT):
        patience = patience.after(["a"], told("a", "b"), now=NOW + seconds, limit=LIMIT)
        assert movable(patience, at=NOW + seconds) == ["a", "b"]
    patience = patience.after(["a"], told("a", "b"), now=NOW + 151, limit=LIMIT)
    assert movable(patience, at=NOW + 151) == ["b"]
    assert movable(patience, at=NOW + 151 + PASSED_OVER_SECONDS) == ["a", "b"]
    later = patience.after([], told("a", "b"), now=NOW + 151 + PASSED_OVER_SECONDS, limit=LIMIT)
    assert later == Patience()


def test_one_that_claims_or_is_not_named_once_begins_afresh() -> None:
    named = Patience().after(["a"], told("a"), now=NOW, limit=LIMIT)
    for between in (named.after(["a"], told("a", claiming="a"), now=NOW + 100, limit=LIMIT),
                    named.after([], told("a"), now=NOW + 100, limit=LIMIT)):  # fmt: skip
        again = between.after(["a"], told("a"), now=NOW + 160, limit=LIMIT)
        assert movable(again, at=NOW + 160) == ["a", "b"]
    over = named.after(["a"], told("a"), now=NOW + 200, limit=LIMIT)
    assert movable(over, at=NOW + 200) == ["b"]
    assert movable(over.after([], told("a", claiming="a"), now=NOW + 210, limit=LIMIT), at=NOW + 210) == ["a", "b"]


def test_a_clock_that_was_set_back_passes_nobody_over_for_longer() -> None:
    named = Patience().after(["a"], told("a"), now=NOW, limit=LIMIT)
    back = named.after(["a"], told("a"), now=NOW - 5000, limit=LIMIT)
    assert back.named_since == {"a": NOW - 5000}
    over = named.after(["a"], told("a"), now=NOW + 200, limit=LIMIT)
    assert over.after([], told("a"), now=NOW - 5000, limit=LIMIT) == Patience()


def test_the_hole_is_closed_although_the_server_that_the_plan_names_never_moves() -> None:
    online = ServerInfo(ServerState.ONLINE, 10.0, start_block=0, end_block=4)
    blocks = tuple(
        BlockReading(f"m.{index}", KeyReading.OK, {"QmA": online, "QmB": online} if index < 4 else {})
        for index in range(8)
    )

    def situation(patience: Patience, now: float) -> Situation:
        return Situation(
            snapshot=SwarmSnapshot("m", 0, blocks, now),
            own=OwnServer(peer_id="QmB", span=Span(0, 4), num_blocks=4, throughput=10.0),
            settings=PolicySettings(),
            now=now,
            seed=0,
            sidecars=patience.apply({"QmA": Sidecar("QmA", 0.0, 600.0)}, now=now),
        )

    patience = Patience()
    verdicts = []
    for number in range(6):
        seen = situation(patience, NOW + 60 * number)
        decision = get_policy("coordinated").decide(seen)
        verdicts.append(decision.verdict.value)
        patience = patience.after(named_others(decision, seen), seen.sidecars, now=seen.now, limit=LIMIT)
    assert verdicts == ["balanced"] * 4 + ["moving"] * 2


@given(
    st.lists(st.tuples(st.floats(-300, 300), st.lists(st.sampled_from("ab"), unique=True), st.sampled_from(["", "a"])))
)
def test_nobody_is_passed_over_who_was_not_named_all_the_time(
    checks: list[tuple[float, list[str], str]],
) -> None:
    patience, now = Patience(), NOW
    for wait, named, claiming in checks:
        now += wait
        patience = patience.after(named, told("a", "b", claiming=claiming), now=now, limit=LIMIT)
        assert set(patience.named_since) <= set(named)
        assert claiming not in patience.passed_over_until
        assert all(now < until <= now + PASSED_OVER_SECONDS for until in patience.passed_over_until.values())
        assert all(since <= now for since in patience.named_since.values())
