"""The picture of a swarm: nothing that matters is hidden by a narrow terminal, a missing colour or a hostile server."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from swarmkeel.commands.picture import BlockState, SwarmPicture, summarize, view_blocks
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.snapshot import BlockReading, KeyReading, SwarmSnapshot

ONLINE, JOINING, OFFLINE = ServerState.ONLINE, ServerState.JOINING, ServerState.OFFLINE
Server = tuple[int, int, float, ServerState, str | None]


def swarm(total_blocks: int, servers: Sequence[Server], unread: Collection[int] = ()) -> SwarmSnapshot:
    """A snapshot of these (start, end, throughput, state, name) servers; the peer ids end in their numbers."""
    blocks: list[dict[str, ServerInfo]] = [{} for _ in range(total_blocks)]
    for number, (start, end, throughput, state, name) in enumerate(servers):
        info = ServerInfo(state=state, throughput=throughput, start_block=start, end_block=end, public_name=name)
        for block in range(start, min(end, total_blocks)):
            blocks[block][f"QmServer{number:04d}"] = info
    readings = [
        KeyReading.UNKNOWN if index in unread else KeyReading.OK if records else KeyReading.ABSENT
        for index, records in enumerate(blocks)
    ]
    return SwarmSnapshot(
        dht_prefix="llama",
        first_block=0,
        blocks=tuple(
            BlockReading(f"llama.{index}", reading, {} if reading is KeyReading.UNKNOWN else records)
            for index, (reading, records) in enumerate(zip(readings, blocks, strict=True))
        ),
        read_at=0.0,
    )


def draw(picture: SwarmPicture, width: int = 80, encoding: str = "utf-8") -> list[str]:
    """Print without colours, and give the lines."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width, color_system=None, legacy_windows=False).print(picture)
    stream.seek(0)
    return stream.read().splitlines()


def marks(lines: Sequence[str], bar_rows: int = 4) -> str:
    return lines[bar_rows][33:].rstrip()


EXAMPLE = swarm(
    16,
    [
        (0, 6, 10.0, ONLINE, "alice"),
        (2, 6, 30.0, ONLINE, None),
        (7, 10, 5.0, JOINING, None),
        (10, 16, 20.0, ONLINE, None),
        (12, 14, 99.0, OFFLINE, None),
    ],
    unread=[11],
)


def test_every_block_has_its_bar_its_mark_and_its_servers() -> None:
    lines = draw(SwarmPicture(EXAMPLE, own_peer_id="QmServer0001"))
    assert [line[33:].rstrip() for line in lines] == [
        "  ████",
        "  ████",
        "  ████    ██████",
        "██████Xjjj██████",
        "^^    Xjjj ?",
        "0         10",
        "██████           alice",
        "  ████",
        "       ░░░",
        "          ██████",
        "            ··",
    ]
    assert lines[7].split()[:4] == [">ver0001", "2:6", "online", "30"]


def test_the_summary_counts_servers_and_names_the_weak_blocks() -> None:
    assert summarize(EXAMPLE) == (
        "16 blocks, 5 servers (3 online, 1 joining, 1 offline); 1 uncovered (6:7); 3 only joining (7:10); "
        "weakest of the rest 10 RPS at 0:2"
    )
    assert summarize(swarm(4, [(0, 4, 2.0, ONLINE, None)])).endswith("; bottleneck 2 RPS at 0:4")
    assert summarize(swarm(4, [])) == "4 blocks, 0 servers; 4 uncovered (0:4)"
    many_holes = swarm(10, [(block, block + 1, 1.0, ONLINE, None) for block in range(1, 10, 2)])
    assert "5 uncovered (0:1, 2:3, 4:5, 6:7, ...)" in summarize(many_holes)


def test_a_block_that_nobody_could_read_is_no_hole() -> None:
    blocks = view_blocks(swarm(3, [(0, 1, 1.0, ONLINE, None)], unread=[1]))
    assert [block.state for block in blocks] == [BlockState.SERVED, BlockState.UNREAD, BlockState.UNCOVERED]


def test_a_server_without_throughput_covers_nothing() -> None:
    assert view_blocks(swarm(1, [(0, 1, 0.0, ONLINE, None)]))[0].state is BlockState.UNCOVERED


@pytest.mark.parametrize("width", [10, 39, 40, 41, 60, 80, 200])
def test_no_hole_is_hidden_at_any_width(width: int) -> None:
    snapshot = swarm(126, [(0, 61, 5.0, ONLINE, "a"), (62, 126, 5.0, ONLINE, "b" * 300)])
    lines = draw(SwarmPicture(snapshot), width)
    assert all(len(line) <= width for line in lines)
    assert lines[3].count("X") == lines[4].count("X") - ("X nobody" in lines[4]) == 1


@pytest.mark.parametrize("blocks", [1, 3, 47, 48, 126, 1000])
def test_marks_stand_below_the_blocks_that_they_mean(blocks: int) -> None:
    hole = blocks // 2
    snapshot = swarm(blocks, [(0, hole, 5.0, ONLINE, None), (hole + 1, blocks, 5.0, ONLINE, None)])
    per_column = -(-blocks // 47)
    assert marks(draw(SwarmPicture(snapshot))).index("X") == hole // per_column


def test_where_colours_are_shown_a_hole_is_red() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", legacy_windows=False)
    with console.capture() as capture:
        console.print(SwarmPicture(EXAMPLE))
    assert "\x1b[1;31mX\x1b[0m" in capture.get()


def test_one_fantastic_claim_does_not_flatten_the_other_bars() -> None:
    servers: list[Server] = [(block, block + 1, 10.0, ONLINE, None) for block in range(7)]
    lines = draw(SwarmPicture(swarm(8, [*servers, (7, 8, 1e300, ONLINE, None)])))
    assert lines[3][33:41] == "████████"


def test_sums_beyond_all_numbers_can_be_drawn() -> None:
    snapshot = swarm(2, [(0, 1, sys.float_info.max, ONLINE, None)] * 2 + [(1, 2, 1.0, ONLINE, None)])
    assert draw(SwarmPicture(snapshot))
    assert summarize(snapshot).endswith("bottleneck 1 RPS at 1:2")


@pytest.mark.parametrize(
    "name", ["[red]bold[/red]", "\x1b[2J\x1b[H", "a\nb\rc", "\u202eabc", "漢字" * 40, "[/]", "😀" * 50]
)
def test_hostile_names_are_shown_as_text_and_cut(name: str) -> None:
    lines = draw(SwarmPicture(swarm(8, [(0, 8, 1.0, ONLINE, name)])))
    assert len(lines) == 7
    assert all(line.isprintable() for line in lines)
    if name.startswith("[red]"):
        assert name in lines[6]


def test_hostile_peer_ids_are_shown_as_text() -> None:
    info = ServerInfo(state=ONLINE, throughput=1.0)
    snapshot = SwarmSnapshot("llama", 0, (BlockReading("llama.0", KeyReading.OK, {"\x1b[31m\n": info}),), 0.0)
    assert all(line.isprintable() for line in draw(SwarmPicture(snapshot)))


def test_a_crowd_of_servers_is_cut_and_the_rest_counted() -> None:
    lines = draw(SwarmPicture(swarm(8, [(0, 8, 1.0, ONLINE, None)] * 30), max_servers=3))
    assert len(lines) == 6 + 3 + 1
    assert lines[-1] == "... and 27 more servers"


def test_terminals_without_unicode_get_plain_characters() -> None:
    lines = draw(SwarmPicture(EXAMPLE), encoding="ascii")
    assert lines[3][33:] == "######Xjjj######"
    assert all(line.isascii() for line in lines)


_servers = st.tuples(
    st.integers(0, 140),
    st.integers(0, 140),
    st.floats(0, sys.float_info.max),
    st.sampled_from(ServerState),
    st.text(max_size=20) | st.none(),
)


@given(
    st.integers(1, 130),
    st.lists(_servers, max_size=6),
    st.sets(st.integers(0, 129)),
    st.integers(1, 150),
    st.integers(1, 6),
)
def test_any_swarm_can_be_drawn_at_any_width(
    total_blocks: int, servers: list[Server], unread: set[int], width: int, bar_rows: int
) -> None:
    snapshot = swarm(total_blocks, servers, unread)
    lines = draw(SwarmPicture(snapshot, own_peer_id="QmServer0000", bar_rows=bar_rows), width)
    assert all(line.isprintable() for line in lines)
    states = [block.state for block in view_blocks(snapshot)]
    labels = 33 if width >= 41 else 0
    per_column = -(-total_blocks // (width - labels))
    columns = [max(states[first : first + per_column]) for first in range(0, total_blocks, per_column)]
    characters = {BlockState.UNCOVERED: "X", BlockState.JOINING: "j", BlockState.UNREAD: "?"}
    for column, state in enumerate(columns):
        if state in characters:
            assert lines[bar_rows][labels + column] == characters[state]
