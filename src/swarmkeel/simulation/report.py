"""Comparisons as tables."""

from __future__ import annotations

from typing import Final

from rich.table import Table

from swarmkeel.simulation.compare import MEASURES, Comparison, Measure, Summary

_HUNDRED: Final = 100.0
_FEW: Final = 10.0
_MOST_COLUMNS: Final = 3
"""More policies than this are the rows of the table."""


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
    """Make the table of one comparison: a row a measure and a column a policy, or of many policies a row a policy."""
    title = (
        f"{comparison.scenario}, {comparison.size.blocks} blocks / {comparison.size.servers} servers, "
        f"{len(comparison.seeds)} seeds: median (quartiles)"
    )
    table = Table(title=title, title_justify="left")
    if len(comparison.policies) > _MOST_COLUMNS:
        return _with_policies_as_rows(comparison, table)
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


def _with_policies_as_rows(comparison: Comparison, table: Table) -> Table:
    """Put medians alone, but for the first measure, beside each policy."""
    first, *others = MEASURES
    table.add_column("", no_wrap=True)
    table.add_column(first.title, justify="right")
    table.add_column(f"against {comparison.policies[0]}", justify="right")
    for measure in others:
        table.add_column(measure.title, justify="right")
    for policy, summaries in zip(comparison.policies, comparison.summaries, strict=True):
        summary = summaries[first.field]
        factor = "" if summary.factor is None else f"x{summary.factor:.2f}, {summary.better}/{summary.paired}"
        values = [format_value(summaries[measure.field].median, measure.unit) for measure in others]
        table.add_row(policy, format_value(summary.median, first.unit), factor, *values)
    return table
