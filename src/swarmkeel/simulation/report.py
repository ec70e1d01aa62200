"""Comparisons as tables."""

from __future__ import annotations

from rich.table import Table

from swarmkeel.simulation.compare import MEASURES, Comparison, Measure, Summary

_HUNDRED = 100.0
_FEW = 10.0


def format_value(value: float | None, unit: str) -> str:
    """Write a value of a measure for people."""
    if value is None:
        return "-"
    if unit == "%":
        return f"{value * _HUNDRED:.1f} %"
    number = f"{value:.2f}" if abs(value) < _FEW else f"{value:.0f}"
    return f"{number} {unit}".rstrip()


def format_summary(measure: Measure, summary: Summary) -> tuple[str, str]:
    """Write one cell: the median with its quartiles, and how it compares with the first policy."""
    own = format_value(summary.median, measure.unit)
    if summary.median is not None and summary.low != summary.high:
        low, high = (
            format_value(end, measure.unit).removesuffix(f" {measure.unit}") for end in (summary.low, summary.high)
        )
        own = f"{own} ({low} to {high})"
    if summary.better is None or not summary.paired:
        return own, ""
    factor = f"x{summary.factor:.2f}, " if summary.factor is not None else ""
    return own, f"{factor}better on {summary.better} of {summary.paired}"


def comparison_table(comparison: Comparison) -> Table:
    """Make the table of one comparison: a row a measure, a column a policy."""
    table = Table(
        title=f"{comparison.scenario}, {comparison.size.blocks} blocks / {comparison.size.servers} servers, "
        f"{len(comparison.seeds)} seeds: median (quartiles)",
        title_justify="left",
    )
    table.add_column("")
    for policy in comparison.policies:
        table.add_column(policy, justify="right")
    for measure in MEASURES:
        cells = []
        for summaries in comparison.summaries:
            own, against = format_summary(measure, summaries[measure.field])
            cells.append(f"{own}\n[dim]{against}[/dim]" if against else own)
        table.add_row(measure.title, *cells)
    return table
