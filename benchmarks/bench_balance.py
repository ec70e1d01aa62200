"""What a decision is made of, by the size and the kind of the swarm: `make bench` has pytest-benchmark time it.

Processor time, from records in memory. Along one axis servers grow at 126 blocks, along the other blocks at 1,000 servers.
Swarms of more records than a machine should be asked to make up are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.coordinated_plan import situation
from benchmarks.reference import Reference, packed
from benchmarks.swarms import KINDS, Record, Swarm, announced, find_peer
from swarmkeel.balance.coordinated import CoordinatedPolicy
from swarmkeel.balance.decision import Decision
from swarmkeel.balance.imbalance import check_imbalance, should_choose_other_blocks
from swarmkeel.balance.petals import PetalsPolicy
from swarmkeel.balance.policy import OwnServer, PolicySettings, Situation
from swarmkeel.balance.selection import choose_best_blocks
from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.swarm.record import ServerState, parse_block_records
from swarmkeel.swarm.remote import RemoteModuleInfo, RemoteSpanInfo, compute_spans
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot
from swarmkeel.swarm.span import Span

SERVERS: Final = (10, 32, 100, 316, 1_000, 3_162, 10_000)
BLOCKS: Final = (32, 80, 126, 252, 504, 1_000)
USUAL_SERVERS: Final = 1_000
USUAL_BLOCKS: Final = 126
QUALITY: Final = 0.75
SEED: Final = 1
NOW: Final = 1_700_000_000.0


def swarms() -> list[Swarm]:
    """Give the swarms: both axes for piled ones, some points of them for the others."""
    points = [(servers, USUAL_BLOCKS) for servers in SERVERS] + [(USUAL_SERVERS, blocks) for blocks in BLOCKS]
    rare = {(10, 126), (100, 126), (1_000, 126), (10_000, 126), (1_000, 32), (1_000, 80), (1_000, 1_000)}
    return [
        Swarm(kind, *point) for point in dict.fromkeys(points) for kind in KINDS if kind == "piled" or point in rare
    ]


@dataclass(frozen=True)
class Prepared:
    """A swarm's records, and a server whose check goes through the search, if there is one."""

    raw: list[dict[str, Record]]
    modules: list[RemoteModuleInfo[str]]
    spans: dict[str, RemoteSpanInfo[str]]
    peer: str
    rounds: int


@lru_cache(maxsize=1)
def prepared(swarm: Swarm) -> Prepared:
    """Make a swarm; the last one is kept, since all benchmarks of one swarm follow each other."""
    raw = announced(swarm)
    modules = [RemoteModuleInfo(f"model.{block}", parse_block_records(each)[0]) for block, each in enumerate(raw)]
    spans = compute_spans(modules, min_state=ServerState.JOINING)
    rounds: dict[str, int] = {}

    def searches(peer: str) -> bool:
        rng = np.random.RandomState(SEED)
        rounds[peer] = check_imbalance(peer, spans, QUALITY, total_blocks=len(modules), rng=rng).rounds
        return rounds[peer] > 0

    peer = find_peer(raw, searches, tries=100) or next(iter(spans))
    return Prepared(raw, modules, spans, peer, rounds.get(peer, 0))


def compute_the_spans(swarm: Swarm) -> Callable[[], object]:
    """From records to spans."""
    modules = prepared(swarm).modules
    return lambda: compute_spans(modules, min_state=ServerState.JOINING)


def compute_the_throughputs(swarm: Swarm) -> Callable[[], object]:
    """From spans to throughputs."""
    spans = prepared(swarm).spans
    return lambda: compute_throughputs(spans, total_blocks=swarm.blocks)


def choose(swarm: Swarm) -> Callable[[], object]:
    """`choose_best_blocks`."""
    modules = prepared(swarm).modules
    return lambda: choose_best_blocks(max(1, swarm.blocks // 6), modules)


def decide_as_petals(swarm: Swarm) -> Callable[[], object]:
    """`should_choose_other_blocks`."""
    made = prepared(swarm)
    return lambda: should_choose_other_blocks(made.peer, made.modules, QUALITY, rng=np.random.RandomState(SEED))


def decide_in_c(swarm: Swarm) -> Callable[[], object]:
    """The same in C, on records that lie in arrays already."""
    made = prepared(swarm)
    records = packed(made.modules, made.peer)
    reference = Reference.load()
    expected = should_choose_other_blocks(made.peer, made.modules, QUALITY, rng=np.random.RandomState(SEED))
    if reference.should_choose_other_blocks(records, QUALITY, np.random.RandomState(SEED)) is not expected:
        raise ValueError(f"{swarm}: the rule in C does not answer {expected}")
    return lambda: reference.should_choose_other_blocks(records, QUALITY, np.random.RandomState(SEED))


def records_to_decision(swarm: Swarm) -> Callable[[], object]:
    """From what is stored in the DHT, unpacked but not checked, by a snapshot, to the decision of the policy `petals`."""
    made = prepared(swarm)
    span = made.spans[made.peer]
    own = OwnServer(
        peer_id=made.peer, span=Span(span.start, span.end), num_blocks=span.length, throughput=span.throughput
    )

    def decide() -> Decision:
        blocks = tuple(
            BlockReading(f"model.{block}", KeyReading.OK, parse_block_records(records)[0])
            for block, records in enumerate(made.raw)
        )
        given = Situation(
            snapshot=SwarmSnapshot("model", 0, blocks, NOW), own=own, settings=PolicySettings(), now=NOW, seed=SEED
        )
        return PetalsPolicy().decide(given)

    return decide


def decide_coordinated(swarm: Swarm) -> Callable[[], object]:
    """The decision of the policy `coordinated`, its snapshot anew each time."""
    given = situation(swarm)

    def decide() -> Decision:
        old = given.snapshot
        snapshot = SwarmSnapshot(old.dht_prefix, old.first_block, old.blocks, old.read_at)
        return CoordinatedPolicy().decide(given.model_copy(update={"snapshot": snapshot}))

    return decide


FUNCTIONS: Final[dict[str, Callable[[Swarm], Callable[[], object]]]] = {
    "spans": compute_the_spans,
    "throughputs": compute_the_throughputs,
    "choose_best_blocks": choose,
    "should_choose_other_blocks": decide_as_petals,
    "the same in C": decide_in_c,
    "records to decision": records_to_decision,
    "coordinated decision": decide_coordinated,
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
@pytest.mark.parametrize("swarm", swarms(), ids=lambda swarm: f"{swarm.kind}-{swarm.servers}-{swarm.blocks}")
def test_time(benchmark: BenchmarkFixture, swarm: Swarm, function: str) -> None:
    """Time a function on a swarm."""
    if function == "the same in C" and not Reference.can_be_made():
        pytest.skip("NOT MEASURED how far from compiled code this is: there is no C compiler, or no headers of Python")
    call = FUNCTIONS[function](swarm)
    benchmark.extra_info |= {
        "function": function,
        "kind": swarm.kind,
        "servers": swarm.servers,
        "blocks": swarm.blocks,
        "records": sum(map(len, prepared(swarm).raw)),
        "rounds": prepared(swarm).rounds,
    }
    benchmark(call)
