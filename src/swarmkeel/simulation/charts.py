"""Comparisons as curves (PNG) and as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from swarmkeel.simulation.compare import MEASURES, Comparison
from swarmkeel.simulation.report import format_summary
from swarmkeel.simulation.scenario import Scenario

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SECONDS_PER_HOUR: Final = 3600.0
_STYLE: Final = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1c2733}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #d7dee5;text-align:right}
td:first-child,th:first-child{text-align:left}small{color:#5b6b7a;display:block}img{max-width:100%}"""


def draw_curves(scenario: Scenario, comparison: Comparison) -> bytes:
    """Draw how each policy fares over time, in the median of the seeds, with the quartiles as a band.

    Returns:
        A PNG.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - in the extra `simulate`; and it takes a second

    figure = Figure(figsize=(10, 5.5), dpi=110, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for policy, row in zip(comparison.policies, comparison.results, strict=True):
        _draw(above, policy, [result.curve for result in row], scenario.duration)
        _draw(below, policy, [result.uncovered_curve for result in row], scenario.duration, band=False)
    for failure in (each for each in scenario.failures if each.at < scenario.duration):
        above.axvline(failure.at / _SECONDS_PER_HOUR, color="0.6", linestyle=":", linewidth=1)
    above.set_title(f"{scenario.name}, {comparison.size.blocks} blocks / {comparison.size.servers} servers")
    above.set_ylabel("serving bottleneck / bound")
    above.set_ylim(0, 1)
    above.legend(loc="lower right", ncols=2)
    below.set_ylabel("seeds with a hole")
    below.set_ylim(0, 1)
    below.set_xlabel("hours")
    below.set_xlim(0, scenario.duration / _SECONDS_PER_HOUR)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, policy: str, curves: Sequence[Sequence[float]], duration: float, *, band: bool = True) -> None:
    columns = [sorted(column) for column in zip(*curves, strict=True)]
    hours = [(index + 0.5) * duration / len(columns) / _SECONDS_PER_HOUR for index in range(len(columns))]
    if not band:
        axes.plot(hours, [sum(column) / len(column) for column in columns], linewidth=1.2)
        return
    (line,) = axes.plot(hours, [median(column) for column in columns], label=policy, linewidth=1.6)
    quarter = len(curves) // 4
    axes.fill_between(
        hours,
        [column[quarter] for column in columns],
        [column[-1 - quarter] for column in columns],
        color=line.get_color(),
        alpha=0.15,
        linewidth=0,
    )


def write_report(folder: Path, scenario: Scenario, comparisons: Sequence[Comparison]) -> None:
    """Write results.json, one PNG a comparison and index.html into a folder, which is made where it is missing.

    Raises:
        OSError: If that cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = [comparison.to_json() for comparison in comparisons]
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    parts = []
    for comparison in comparisons:
        png = draw_curves(scenario, comparison)
        name = f"{comparison.scenario}-{comparison.size.blocks}-{comparison.size.servers}.png"
        (folder / _file_name(name)).write_bytes(png)
        parts.append(_section(comparison, png))
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(scenario.name)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(scenario.name)}</h1><p>{html.escape(scenario.about)}</p>"
        f"{''.join(parts)}</html>\n"
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def _file_name(text: str) -> str:
    return "".join(character if character.isalnum() or character in "-." else "_" for character in text)


def _section(comparison: Comparison, png: bytes) -> str:
    rows = []
    for measure in MEASURES:
        cells = []
        for summaries in comparison.summaries:
            own, against = format_summary(measure, summaries[measure.field])
            cells.append(f"<td>{html.escape(own)}<small>{html.escape(against)}</small></td>")
        rows.append(f"<tr><td>{html.escape(measure.title)}</td>{''.join(cells)}</tr>")
    heads = "".join(f"<th>{html.escape(policy)}</th>" for policy in comparison.policies)
    image = base64.b64encode(png).decode()
    size = f"{comparison.size.blocks} blocks / {comparison.size.servers} servers"
    return (
        f"<h2>{html.escape(size)}, {len(comparison.seeds)} seeds</h2>"
        f"<p>Median (quartiles); below it the comparison with {html.escape(comparison.policies[0])}, seed by seed.</p>"
        f"<table><tr><th></th>{heads}</tr>{''.join(rows)}</table>"
        f'<img alt="curves of {html.escape(size)}" src="data:image/png;base64,{image}">'
    )
