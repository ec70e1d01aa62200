"""Petals' rules once more, written to be read rather than to be fast; the yardstick for `swarmkeel.balance`.

One server and one block at a time, with plain lists of floats; nothing here is shared with the code under test but the
value types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, RemoteSpanInfo

SURPLUS = 1e-3
ROUNDS = 200


@dataclass
class Place:
    """Where a server stands."""

    start: int
    end: int
    throughput: float


def spans_of(modules: Sequence[RemoteModuleInfo[str]], min_state: ServerState) -> dict[str, RemoteSpanInfo[str]]:
    """Compute every server's span on its own, then put them into the order in which they were first seen."""
    peers = {peer for module in modules for peer in module.servers}
    first_seen: list[tuple[int, str]] = []
    spans = {}
    for peer in peers:
        seen = [
            (block, module.servers[peer])
            for block, module in enumerate(modules)
            if peer in module.servers and module.servers[peer].state.value >= min_state.value
        ]
        if seen:
            first_seen.append((seen[0][0], peer))
            spans[peer] = _span_of(peer, seen, modules)
    return {peer: spans[peer] for _, peer in sorted(first_seen)}


def _span_of(
    peer: str, seen: list[tuple[int, ServerInfo]], modules: Sequence[RemoteModuleInfo[str]]
) -> RemoteSpanInfo[str]:
    highest = max(info.state.value for _, info in seen)
    in_highest_state = [(block, info) for block, info in seen if info.state.value == highest]
    block, info = in_highest_state[0]
    start, end = block, block + 1
    if info.start_block is not None and info.end_block is not None:
        offset = int(modules[0].uid.rsplit(".", 1)[1])
        start = max(info.start_block - offset, 0)
        end = min(info.end_block - offset, len(modules))
    later = [other + 1 for other, _ in in_highest_state[1:]]
    return RemoteSpanInfo(peer, start, max([end, *later]), info)


def throughputs_of(spans: Mapping[str, RemoteSpanInfo[str]], total_blocks: int) -> list[float]:
    """Add up block by block, servers by name."""
    blocks = [0.0] * total_blocks
    for peer in sorted(spans):
        for block in range(total_blocks)[spans[peer].start : spans[peer].end]:
            blocks[block] += spans[peer].throughput
    return blocks


def best_start(blocks: Sequence[float], length: int) -> int:
    """Sort every window."""
    windows = [sorted(blocks[start : start + length]) for start in range(len(blocks) - length + 1)]
    return windows.index(min(windows))


@dataclass(frozen=True)
class Outcome:
    """Petals' answer, and the weakest block before and after the search, where there was one."""

    should_move: bool
    present: float | None = None
    reached: float | None = None


def check(
    local_peer: str,
    spans: Mapping[str, RemoteSpanInfo[str]],
    quality: float,
    total_blocks: int,
    seed: int,
) -> Outcome:
    """Let the server, then all servers, take better places, and see what the weakest block gains."""
    if quality > 1:
        return Outcome(should_move=True)
    blocks = throughputs_of(spans, total_blocks)
    places = {peer: Place(span.start, span.end, span.throughput) for peer, span in spans.items()}
    present = min(blocks)

    own = places[local_peer]
    add(blocks, own, -own.throughput * (1 + SURPLUS))
    if present > SURPLUS and any(block <= 0 for block in blocks):
        return Outcome(should_move=False, present=present)
    if not take_best_place(blocks, own):
        return Outcome(should_move=False, present=present)

    shuffler = np.random.RandomState(seed)
    for _ in range(ROUNDS):
        peers = list(places)
        shuffler.shuffle(peers)
        movers = []
        for peer in peers:
            place = places[peer]
            add(blocks, place, -place.throughput * (1 + SURPLUS))
            if take_best_place(blocks, place):
                movers.append(peer)
        if not movers:
            break
    else:
        return Outcome(should_move=False, present=present)
    reached = min(blocks)
    gains = reached >= present and reached >= SURPLUS
    return Outcome(gains and present / reached < quality - SURPLUS, present, reached)


def add(blocks: list[float], place: Place, amount: float) -> None:
    """Add to every block of a place."""
    for block in range(len(blocks))[place.start : place.end]:
        blocks[block] += amount


def take_best_place(blocks: list[float], place: Place) -> bool:
    """Put a server that was taken out to its best place; says whether that is another one."""
    length = place.end - place.start
    start = best_start(blocks, length)
    add(blocks, place, place.throughput * SURPLUS)
    moved = start != place.start
    if moved:
        place.start, place.end = start, start + length
    add(blocks, place, place.throughput)
    return moved
