"""Output that passes through: every byte, whatever it is, and every line seen on the way."""

from __future__ import annotations

import os
import threading
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swarmkeel.control.supervisor_output import LONGEST_REST, LineScanner, OutputRelay


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), max_size=8),
    cuts=st.lists(st.integers(0, 170), max_size=8),
)
def test_lines_are_found_wherever_the_stream_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    seen: list[bytes] = []
    scanner = LineScanner(seen.append)
    borders = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    for start, end in pairwise(borders):
        scanner.feed(stream[start:end])
    wanted = [line for line in lines if line]
    # Beginnings are seen too, so the whole lines are a subsequence.
    position = iter(seen)
    assert all(line in position for line in wanted)
    assert all(any(line.startswith(text) for line in wanted) for text in seen)


def test_a_line_without_an_end_is_seen_and_takes_no_memory() -> None:
    seen: list[bytes] = []
    scanner = LineScanner(seen.append)
    scanner.feed(b"ready> ")
    assert seen == [b"ready> "]
    for _ in range(100):
        scanner.feed(b"x" * LONGEST_REST)
    scanner.feed(b"Star")
    scanner.feed(b"ted\n")
    assert seen[-1].endswith(b"Started")
    assert max(map(len, seen)) <= 2 * LONGEST_REST


def _relay_to(target: int) -> tuple[OutputRelay, int, list[bytes]]:
    source, into = os.pipe()
    seen: list[bytes] = []
    return OutputRelay(source, target, seen.append), into, seen


def test_every_byte_passes_even_to_a_stream_that_does_not_wait() -> None:
    sent = bytes(range(256)) * 4096
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    relay, into, _ = _relay_to(writing)
    got = bytearray()

    def read() -> None:
        while len(got) < len(sent):
            got.extend(os.read(reading, 7777))

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(into, "wb", buffering=0) as stream:
        view = memoryview(sent)
        while view:
            view = view[stream.write(view) :]
    reader.join(60)
    relay.finish(60)
    os.close(reading)
    os.close(writing)
    assert bytes(got) == sent


def test_output_goes_on_being_read_when_nobody_takes_it() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    relay, into, seen = _relay_to(writing)
    for _ in range(100):  # more than a pipe holds: this would block for ever
        os.write(into, b"x" * 4096)
    os.write(into, b"\nlast\n")
    os.close(into)
    relay.finish(60)
    os.close(writing)
    assert seen[-1] == b"last"


def test_the_end_does_not_wait_for_who_else_holds_the_pipe_and_loses_nothing() -> None:
    reading, writing = os.pipe()
    relay, into, _ = _relay_to(writing)
    os.write(into, b"said before the end")
    relay.finish(60)
    assert os.read(reading, 100) == b"said before the end"
    assert not relay._thread.is_alive()
    for end in (into, reading, writing):
        os.close(end)
