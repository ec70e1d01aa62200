"""A swarm as a picture: the throughput of every block as a bar, and every server's span beneath it.

The picture fits any width: where there are more blocks than columns, one column stands for several neighbouring blocks
and shows the worst of them, so that scaling hides no hole. Nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from operator import itemgetter
from statistics import median

import numpy as np
from rich.cells import set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from swarmkeel.balance.throughput import compute_throughputs
from swarmkeel.printable import printable
from swarmkeel.swarm.record import ServerState
from swarmkeel.swarm.remote import RemoteSpanInfo
from swarmkeel.swarm.snapshot import KeyReading, SwarmSnapshot


class BlockState(IntEnum):
    """How well one block is served, from best to worst."""

    SERVED = 0
    UNREAD = 1
    """Its key could not be read and no other key shows a server on it."""
    JOINING = 2
    """Only servers that are still loading it."""
    UNCOVERED = 3
    """Nobody, or only servers that claim no throughput."""


@dataclass(frozen=True)
class BlockView:
    """One block as a person wants to see it.

    Attributes:
        state: How well it is served.
        throughput: Sum of the throughputs of its ONLINE servers, requests a second.
        read: Whether its key could be read.
    """

    state: BlockState
    throughput: float
    read: bool


def view_blocks(snapshot: SwarmSnapshot) -> tuple[BlockView, ...]:
    """See every block of a snapshot as its ONLINE servers serve it; JOINING servers serve nothing yet."""
    total = snapshot.total_blocks
    present = snapshot.spans(min_state=ServerState.JOINING)
    online = {peer_id: span for peer_id, span in present.items() if span.state is ServerState.ONLINE}
    # Sums of hostile records may be infinite, which no bar can be drawn for.
    throughputs = np.minimum(compute_throughputs(online, total_blocks=total), np.finfo(np.float64).max).tolist()
    joining = [False] * total
    for span in present.values():
        if span.state is ServerState.JOINING:
            for block in range(span.start, span.end):
                joining[block] = True

    def state(block: int, *, read: bool) -> BlockState:
        if throughputs[block] > 0:
            return BlockState.SERVED
        if joining[block]:
            return BlockState.JOINING
        return BlockState.UNCOVERED if read else BlockState.UNREAD

    reads = [reading.reading is not KeyReading.UNKNOWN for reading in snapshot.blocks]
    return tuple(
        BlockView(state(block, read=read), throughput, read)
        for block, (throughput, read) in enumerate(zip(throughputs, reads, strict=True))
    )


def summarize(snapshot: SwarmSnapshot) -> str:
    """Say in one line how a swarm stands: its servers, its weakest blocks and its holes."""
    blocks = view_blocks(snapshot)
    spans = snapshot.spans(min_state=ServerState.OFFLINE).values()
    counts = [(state, sum(span.state is state for span in spans)) for state in reversed(ServerState)]
    servers = ", ".join(f"{count} {state.name.lower()}" for state, count in counts if count)
    parts = [f"{len(blocks)} blocks, {len(spans)} servers" + (f" ({servers})" if servers else "")]
    for state, name in (
        (BlockState.UNCOVERED, "uncovered"),
        (BlockState.JOINING, "only joining"),
        (BlockState.UNREAD, "unread"),
    ):
        found = [index for index, block in enumerate(blocks) if block.state is state]
        if found:
            parts.append(f"{len(found)} {name} ({_ranges(found)})")
    weakest = _weakest(blocks)
    if weakest:
        # With holes the bottleneck is zero, and somebody wants to know about the rest all the same.
        name = "bottleneck" if all(block.state is BlockState.SERVED for block in blocks) else "weakest of the rest"
        parts.append(f"{name} {_rps(blocks[weakest[0]].throughput)} RPS at {_ranges(weakest)}")
    return "; ".join(parts)


@dataclass(frozen=True)
class _Glyphs:
    levels: str  # from nothing to full
    online: str
    online_from_middle: str  # the span starts inside a column that stands for several blocks
    online_to_middle: str
    joining: str
    offline: str


_UNICODE = _Glyphs(" ▁▂▃▄▅▆▇█", "█", "▐", "▌", "░", "·")
_ASCII = _Glyphs(" .:#", "#", "#", "#", "+", ".")

_MARKS = {BlockState.UNCOVERED: "X", BlockState.JOINING: "j", BlockState.UNREAD: "?"}
_MARK_STYLES = {BlockState.UNCOVERED: "bold red", BlockState.JOINING: "magenta", BlockState.UNREAD: "yellow"}
_WEAKEST_MARK = "^"
_STATE_STYLES = {ServerState.ONLINE: "green", ServerState.JOINING: "yellow", ServerState.OFFLINE: "dim"}
_LABEL_WIDTH = 33  # peer 9, span 8, state 8, throughput 7, and a space
_RPS_WIDTH = 7
_NARROWEST_BAR = 8
_NARROWEST_NAME = 4
_AXIS_STEP = 10  # columns between two numbers of the axis
_SCALE_OVER_MEDIAN = 4.0  # one server's fantastic claim must not flatten all other bars


@dataclass(frozen=True)
class SwarmPicture:
    """A snapshot as something that rich can print.

    Attributes:
        snapshot: What to show.
        own_peer_id: The server to mark with `>`.
        max_servers: Show at most this many servers; all where left out.
        bar_rows: Height of the bars, in lines.
    """

    snapshot: SwarmSnapshot
    own_peer_id: str | None = None
    max_servers: int | None = None
    bar_rows: int = 4

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw for the width at hand."""
        del console
        glyphs = _ASCII if options.ascii_only else _UNICODE
        yield from self._lines(options.max_width, glyphs)

    def _lines(self, width: int, glyphs: _Glyphs) -> Iterator[Text]:
        blocks = view_blocks(self.snapshot)
        frame = _Frame.fit(blocks, width, glyphs)
        yield from self._bars(frame)
        yield frame.labelled(f"X nobody, {_WEAKEST_MARK} weakest", _marks(frame))
        unit = "block" if frame.per_column == 1 else f"{frame.per_column} blocks"
        yield frame.labelled(f"column: {unit}", _axis(frame))

        spans = self.snapshot.spans(min_state=ServerState.OFFLINE)
        rows = sorted(spans.values(), key=lambda span: (span.start, span.end, span.peer_id))
        shown = rows if self.max_servers is None else rows[: self.max_servers]
        for span in shown:
            yield self._server(span, frame)
        if len(shown) < len(rows):
            yield Text(f"... and {len(rows) - len(shown)} more servers", style="dim")

    def _bars(self, frame: _Frame) -> Iterator[Text]:
        served = [block.throughput for block in frame.blocks if block.state is BlockState.SERVED]
        top = min(max(served), _SCALE_OVER_MEDIAN * median(served)) if served else 0.0
        weakest = min(served, default=0.0)
        levels = frame.glyphs.levels
        steps = len(levels) - 1
        heights = [_height(column, top, self.bar_rows * steps) for column in frame.columns]
        for row in reversed(range(self.bar_rows)):
            cells = []
            for column, height in zip(frame.columns, heights, strict=True):
                worst = max(block.state for block in column)
                if worst is not BlockState.SERVED and row == 0:
                    cells.append((_MARKS[worst], _MARK_STYLES[worst]))
                    continue
                lowest = min(block.throughput for block in column)
                level = min(max(height - row * steps, 0), steps)
                cells.append((levels[level], "yellow" if lowest <= weakest else "cyan"))
            label = f"RPS a block, {_rps(top)} at the top" if row == self.bar_rows - 1 else ""
            yield frame.labelled(label, _runs(cells))

    def _server(self, span: RemoteSpanInfo[str], frame: _Frame) -> Text:
        own = span.peer_id == self.own_peer_id
        style = _STATE_STYLES[span.state]
        line = Text(no_wrap=True, overflow="crop")
        if frame.labels:
            peer = printable(span.peer_id[-7:], 7)
            line.append(set_cell_size((">" if own else " ") + peer, 9), style="bold" if own else "")
            line.append(set_cell_size(f"{span.start}:{span.end}", 8))
            line.append(set_cell_size(span.state.name.lower(), 8), style=style)
            line.append(f"{_rps(span.throughput):>{_RPS_WIDTH}} ")
        line.append("".join(_span_glyphs(span, frame)), style=style)
        name_width = frame.width - frame.labels - len(frame.columns) - 1
        if span.server_info.public_name and name_width >= _NARROWEST_NAME:
            name = printable(span.server_info.public_name, name_width)
            line.append(" " + set_cell_size(name, name_width).rstrip(), style="dim")
        return line


@dataclass(frozen=True)
class _Frame:
    """How the blocks are laid out on a width of cells.

    Attributes:
        blocks: All blocks.
        columns: The blocks that each column stands for.
        per_column: How many those are; the last column may have fewer.
        labels: Cells to the left of the first column; 0 where there is no room for labels.
        width: All cells of a line.
        glyphs: Characters to draw with.
    """

    blocks: Sequence[BlockView]
    columns: Sequence[Sequence[BlockView]]
    per_column: int
    labels: int
    width: int
    glyphs: _Glyphs

    @classmethod
    def fit(cls, blocks: Sequence[BlockView], width: int, glyphs: _Glyphs) -> _Frame:
        """Lay the blocks out with as few blocks a column as fit."""
        labels = _LABEL_WIDTH if width >= _LABEL_WIDTH + _NARROWEST_BAR else 0
        per_column = max(math.ceil(len(blocks) / max(width - labels, 1)), 1)
        columns = [blocks[first : first + per_column] for first in range(0, len(blocks), per_column)]
        return cls(blocks, columns, per_column, labels, width, glyphs)

    def labelled(self, label: str, content: Text) -> Text:
        """Put a label before a line, where there is room for labels."""
        line = Text(no_wrap=True, overflow="crop")
        if self.labels:
            line.append(set_cell_size(f"{label:>{self.labels - 1}}", self.labels), style="dim")
        return line.append_text(content)


def _runs(cells: Iterable[tuple[str, str]]) -> Text:
    """Put (character, style) cells together, one style change where neighbours share a style."""
    return Text.assemble(
        *(("".join(character for character, _ in run), style) for style, run in groupby(cells, key=itemgetter(1)))
    )


def _height(column: Sequence[BlockView], top: float, steps: int) -> int:
    lowest = min(block.throughput for block in column)
    if lowest <= 0 or top <= 0:
        return 0
    return max(round(min(lowest / top, 1.0) * steps), 1)


def _marks(frame: _Frame) -> Text:
    weakest = _weakest(frame.blocks)
    bottleneck = frame.blocks[weakest[0]].throughput if weakest else 0.0
    cells = []
    for column in frame.columns:
        worst = max(block.state for block in column)
        if worst is BlockState.SERVED and not all(block.read for block in column):
            worst = BlockState.UNREAD
        if worst is not BlockState.SERVED:
            cells.append((_MARKS[worst], _MARK_STYLES[worst]))
        elif min(block.throughput for block in column) == bottleneck:
            cells.append((_WEAKEST_MARK, "bold yellow"))
        else:
            cells.append((" ", ""))
    return _runs(cells)


def _axis(frame: _Frame) -> Text:
    columns = len(frame.columns)
    numbers = (f"{column * frame.per_column:<{_AXIS_STEP}}" for column in range(0, columns, _AXIS_STEP))
    return Text("".join(numbers)[:columns], style="dim")


def _span_glyphs(span: RemoteSpanInfo[str], frame: _Frame) -> Iterator[str]:
    glyphs = frame.glyphs
    for first in range(0, len(frame.blocks), frame.per_column):
        end = min(first + frame.per_column, len(frame.blocks))
        if span.end <= first or span.start >= end or span.end <= span.start:
            yield " "
        elif span.state is ServerState.JOINING:
            yield glyphs.joining
        elif span.state is ServerState.OFFLINE:
            yield glyphs.offline
        elif span.start > first:
            yield glyphs.online_from_middle
        else:
            yield glyphs.online_to_middle if span.end < end else glyphs.online


def _weakest(blocks: Sequence[BlockView]) -> list[int]:
    """Find the served blocks with the lowest throughput."""
    lowest = min((block.throughput for block in blocks if block.state is BlockState.SERVED), default=None)
    return [
        index for index, block in enumerate(blocks) if block.state is BlockState.SERVED and block.throughput == lowest
    ]


def _ranges(blocks: Sequence[int], limit: int = 4) -> str:
    """Write ascending block numbers as spans, such as `3:5, 9:10`; the end is excluded as everywhere."""
    spans: list[list[int]] = []
    for block in blocks:
        if spans and spans[-1][1] == block:
            spans[-1][1] = block + 1
        else:
            spans.append([block, block + 1])
    text = ", ".join(f"{start}:{end}" for start, end in spans[:limit])
    return text if len(spans) <= limit else f"{text}, ..."


def _rps(throughput: float) -> str:
    text = f"{throughput:.4g}"
    return text if len(text) <= _RPS_WIDTH else f"{throughput:.0e}"
