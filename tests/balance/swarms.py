"""Swarms for property tests: honest ones, unequal ones and garbage."""

from __future__ import annotations

from hypothesis import strategies as st

from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, RemoteSpanInfo

PEERS = ("QmA", "QmB", "QmC", "QmD", "Qma", "Qmb", "12D3")

# Few values make ties, which decide more here than sizes do.
throughputs = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, 10.0, 0.3]), st.floats(0.01, 1e4), st.floats(0, 1e300, allow_subnormal=True)
)


@st.composite
def records(draw: st.DrawFn, total_blocks: int) -> ServerInfo:
    """Give a record that Petals accepts, with any published span or none."""
    published = draw(st.integers(0, 4)) > 0
    blocks = st.integers(0, total_blocks + 6)
    return ServerInfo(
        state=draw(st.sampled_from(ServerState)),
        throughput=draw(throughputs),
        start_block=draw(blocks) if published else None,
        end_block=draw(blocks) if published else None,
    )


@st.composite
def garbage_modules(draw: st.DrawFn) -> list[RemoteModuleInfo[str]]:
    """Give blocks under which peers come and go, in any state, with records that contradict each other."""
    total_blocks, first_block = draw(st.integers(1, 7)), draw(st.sampled_from([0, 0, 3]))
    return [
        RemoteModuleInfo(
            f"model.{first_block + block}",
            draw(st.dictionaries(st.sampled_from(PEERS), records(total_blocks), max_size=len(PEERS))),
        )
        for block in range(total_blocks)
    ]


@st.composite
def honest_modules(draw: st.DrawFn) -> list[RemoteModuleInfo[str]]:
    """Give blocks as well-behaved servers announce them: each the same record under each of its blocks."""
    total_blocks, first_block = draw(st.integers(1, 12)), draw(st.sampled_from([0, 0, 3]))
    modules: list[RemoteModuleInfo[str]] = [
        RemoteModuleInfo(f"model.{first_block + block}", {}) for block in range(total_blocks)
    ]
    for peer in draw(st.lists(st.sampled_from(PEERS), unique=True)):
        start = draw(st.integers(0, total_blocks - 1))
        end = draw(st.integers(start + 1, total_blocks))
        info = ServerInfo(
            state=draw(st.sampled_from([ServerState.JOINING, ServerState.ONLINE])),
            throughput=draw(st.one_of(st.sampled_from([1.0, 2.0, 10.0]), st.floats(0.01, 1e4))),
            start_block=first_block + start,
            end_block=first_block + end,
        )
        for module in modules[start:end]:
            module.servers[peer] = info
    return modules


def spans_from(
    *servers: tuple[int, int, float], state: ServerState = ServerState.ONLINE
) -> dict[str, RemoteSpanInfo[str]]:
    """Give the spans of servers named QmA, QmB, ... from (start, end, throughput)."""
    return {
        f"Qm{chr(ord('A') + index)}": RemoteSpanInfo(
            f"Qm{chr(ord('A') + index)}", start, end, ServerInfo(state, throughput)
        )
        for index, (start, end, throughput) in enumerate(servers)
    }


def modules_from(
    total_blocks: int, *servers: tuple[int, int, float], first_block: int = 0
) -> list[RemoteModuleInfo[str]]:
    """Give the records of ONLINE servers named QmA, QmB, ... from (start, end, throughput)."""
    modules: list[RemoteModuleInfo[str]] = [
        RemoteModuleInfo(f"model.{first_block + block}", {}) for block in range(total_blocks)
    ]
    for peer, span in spans_from(*servers).items():
        info = ServerInfo(
            ServerState.ONLINE,
            span.throughput,
            start_block=first_block + span.start,
            end_block=first_block + span.end,
        )
        for module in modules[span.start : span.end]:
            module.servers[peer] = info
    return modules
