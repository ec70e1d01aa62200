"""Write the section on decisions from what pytest-benchmark has measured: the second half of `make bench`.

.venv/bin/python -m benchmarks.balance_growth build/bench/raw/balance.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from benchmarks.result_file import FRESH, ROOT, Part, Picture, Result, Table, Text, machine, three_digits, write_result

NAME: Final = "decision"
FUNCTIONS: Final = (
    "spans",
    "throughputs",
    "choose_best_blocks",
    "should_choose_other_blocks",
    "records to decision",
    "coordinated decision",
)
IN_C: Final = "the same in C"
WHOLE: Final = "should_choose_other_blocks"
USUAL: Final = {"servers": 1_000, "blocks": 126}
FROM: Final = {"servers": 100, "blocks": 32}
"""Where a curve's growth is fitted from: below, what does not grow takes most of the time."""
TOLERANCE: Final = 0.1
"""By how much a fitted exponent may be above that of n log n before it is called worse: processors' caches fill up."""


@dataclass(frozen=True)
class Time:
    """Median of what one call took."""

    function: str
    kind: str
    servers: int
    blocks: int
    records: int
    rounds: int
    seconds: float


def read_times(path: Path) -> list[Time]:
    """Read what pytest-benchmark wrote."""
    return [
        Time(**one["extra_info"], seconds=one["stats"]["median"]) for one in json.loads(path.read_text())["benchmarks"]
    ]


def table_along(times: Sequence[Time], axis: str, values: Sequence[int]) -> Table:
    """Give milliseconds for each kind and size along one axis."""
    other = next(name for name in USUAL if name != axis)
    rows = []
    for value in values:
        for kind in dict.fromkeys(one.kind for one in times):
            here = {
                one.function: one
                for one in times
                if (one.kind, getattr(one, axis), getattr(one, other)) == (kind, value, USUAL[other])
            }
            if here:
                any_of_it = next(iter(here.values()))
                cells = [three_digits(here[name].seconds * 1000) if name in here else "-" for name in FUNCTIONS]
                rows.append([f"{value:,}", kind, f"{any_of_it.records:,}", f"{any_of_it.rounds}", *cells])
    return Table([axis, "swarm", "records", "rounds", *(f"{name} (ms)" for name in FUNCTIONS)], rows)


def curve(times: Sequence[Time], function: str, axis: str) -> tuple[list[int], list[float]]:
    """Give sizes and seconds of the piled swarms along one axis."""
    other = next(name for name in USUAL if name != axis)
    points = sorted(
        (getattr(one, axis), one.seconds)
        for one in times
        if one.function == function and one.kind == "piled" and getattr(one, other) == USUAL[other]
    )
    return [size for size, _ in points], [seconds for _, seconds in points]


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Fit a power of the size to values, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def growth(times: Sequence[Time], function: str, axis: str) -> tuple[float, float]:
    """Give the fitted exponent along an axis, and that of n log n over the same sizes."""
    sizes, seconds = curve(times, function, axis)
    kept = [(size, second) for size, second in zip(sizes, seconds, strict=True) if size >= FROM[axis]]
    large = [size for size, _ in kept]
    return exponent(large, [second for _, second in kept]), exponent(
        large, [size * float(np.log(size)) for size in large]
    )


def growth_table(times: Sequence[Time]) -> tuple[Table, list[str]]:
    """Give the exponents, and the names of what grows faster than n log n."""
    rows, worse = [], []
    for function in FUNCTIONS:
        cells = []
        for axis in USUAL:
            found, limit = growth(times, function, axis)
            cells += [f"{found:.2f}", f"{limit:.2f}"]
            if found > limit + TOLERANCE:
                worse.append(f"{function} with {axis}")
        rows.append([function, *cells])
    columns = [""]
    for axis in USUAL:
        columns += [f"{axis}: exponent", "n log n would be"]
    return Table(columns, rows), worse


def draw(times: Sequence[Time], axis: str) -> Picture:
    """Draw the curves along an axis, beside n log n."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for function in (*FUNCTIONS, IN_C):
        sizes, seconds = curve(times, function, axis)
        if sizes:
            axes.plot(sizes, [second * 1000 for second in seconds], marker="o", markersize=4, label=function)
    sizes, seconds = curve(times, WHOLE, axis)
    scale = seconds[-1] / (sizes[-1] * np.log(sizes[-1]))
    axes.plot(sizes, [scale * size * np.log(size) * 1000 for size in sizes], "k:", label="n log n")
    axes.set(xscale="log", yscale="log", xlabel=axis, ylabel="processor time of one call (ms)")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    file = f"{NAME}-by-{axis}.svg"
    figure.savefig(FRESH / file, metadata={"Date": None})
    return Picture(
        file, f"Processor time of each function over the number of {axis}, both logarithmic, beside n log n."
    )


def limit_table(times: Sequence[Time]) -> Table:
    """Compare with C."""
    in_c = {(one.kind, one.servers, one.blocks): one.seconds for one in times if one.function == IN_C}
    rows = [
        [
            f"{one.servers:,}",
            f"{one.blocks:,}",
            one.kind,
            f"{one.rounds}",
            three_digits(one.seconds * 1000),
            three_digits(in_c[one.kind, one.servers, one.blocks] * 1000),
            three_digits(one.seconds / in_c[one.kind, one.servers, one.blocks]),
        ]
        for one in times
        if one.function == WHOLE and (one.kind, one.servers, one.blocks) in in_c
    ]
    return Table(["servers", "blocks", "swarm", "rounds", "Swarmkeel (ms)", "in C (ms)", "ratio"], rows)


_HOW: Final = """\
Processor time of one call in one process, medians of pytest-benchmark, from records in memory. Along one axis the servers grow, at
126 blocks; along the other the blocks, at 1,000 servers, each of which holds between a thirtieth and a third of the model, so
that records grow with both. In `balanced` swarms each server has gone where coverage was least, in `piled` ones a third of
them begin at the first block, and in `holed` ones nobody has a tenth of the blocks. The server to decide about is one whose check
goes through the whole search, where there is one; the rounds of the search are told.

`records to decision` starts from what is stored in the DHT: it checks every record, makes a snapshot of them and has the policy
`petals` decide; most of it is the checking of records. `coordinated decision` is the policy `coordinated` on a snapshot, with
four servers of five that may be moved."""


def result_of(times: Sequence[Time]) -> Result:
    """Make the section."""
    exponents, worse = growth_table(times)
    verdict = (
        f"Worse than n log n, by more than {TOLERANCE}: {', '.join(worse)}."
        if worse
        else f"Nothing grows faster than n log n (by more than {TOLERANCE} in the exponent, which is noise and caches)."
    )
    parts: list[Part] = [
        Text(_HOW),
        Text("### By servers, at 126 blocks"),
        table_along(times, "servers", (10, 100, 1_000, 10_000)),
        draw(times, "servers"),
        Text("### By blocks, at 1,000 servers"),
        table_along(times, "blocks", (32, 80, 126, 1_000)),
        draw(times, "blocks"),
        Text(
            f"### Growth\n\nExponents fitted to the piled swarms, from {FROM['servers']} servers and {FROM['blocks']} blocks on. {verdict}"
        ),
        exponents,
        Text("### How far from the limit"),
    ]
    limits = limit_table(times)
    if limits.rows:
        text = """\
The same rule with the same answers in C, on records that lie in arrays already, shuffled by the same numpy. What Swarmkeel takes
longer goes into reading the records, which are objects of Python; the search itself is the same compiled code where the
kernel is installed ([decision 15](decisions/0015-compiled-search.md))."""
        parts += [Text(text), limits]
    else:
        parts.append(Text("Not measured: there was no C compiler, or there were no headers of Python."))
    figures = {"times": [vars(one) for one in times], "worse_than_n_log_n": worse}
    return Result(NAME, "A decision", 10, "make bench", machine(), parts, figures)


def print_table(table: Table) -> None:
    """Print a table so that it can be read."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print()


def main() -> None:
    """Print the tables and write the section."""
    result = result_of(read_times(Path(sys.argv[1])))
    for part in result.parts:
        if isinstance(part, Table):
            print_table(part)
        elif isinstance(part, Text) and part.text.startswith("###"):
            print(part.text.replace("### ", ""))
    print(write_result(result).relative_to(ROOT))


if __name__ == "__main__":
    main()
