"""Makes `dashboard.json`, the Grafana dashboard, beside this file: run it after every change.

The swarm is shown as most of its sidecars see it, by the recording rules; the rest is what each sidecar says of itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model

from swarmkeel.balance.decision import Verdict

PATH: Final = Path(__file__).with_name("dashboard.json")

_WIDTH: Final = 24
_COLOURS: Final[Mapping[Verdict, str]] = {
    Verdict.DISABLED: "text",
    Verdict.PAUSED: "purple",
    Verdict.INSUFFICIENT_INFORMATION: "orange",
    Verdict.BALANCED: "green",
    Verdict.HOLDING: "yellow",
    Verdict.WOULD_MOVE: "light-blue",
    Verdict.MOVING: "blue",
    Verdict.FAILED: "red",
}
_SWARM: Final = 'model="$model"'
_SIDECARS: Final = 'job=~"$job",instance=~"$instance"'


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        expression: PromQL.
        legend: What its series are called; Grafana's own name where left out.
    """

    expression: str
    legend: str = ""


def _swarm(metric: str) -> str:
    """Select what most sidecars see: `model:swarmkeel_METRIC:median`."""
    return f"model:swarmkeel_{metric}:median{{{_SWARM}}}"


def _own(metric: str, **labels: str) -> str:
    """Select what the chosen sidecars say: `swarmkeel_METRIC` where these labels match these expressions."""
    matchers = ",".join([_SIDECARS, *(f'{name}=~"{expression}"' for name, expression in labels.items())])
    return f"swarmkeel_{metric}{{{matchers}}}"


def _quantiles(histogram: str) -> Sequence[Query]:
    buckets = f"sum by (le) (increase({_own(f'{histogram}_bucket')}[1h]))"
    return [Query(f"histogram_quantile({share}, {buckets})", f"{share:.0%}") for share in (0.5, 0.95)]


def _verdict_number() -> str:
    """Give each sidecar the number of its verdict: 1 for the first; 0 before the first check."""
    terms = (
        f"{number} * max by (instance) ({_own('verdict', verdict=verdict)})"
        for number, verdict in enumerate(Verdict, 1)
    )
    return " + ".join(terms)


def _block_labels(expression: str) -> str:
    """Write blocks with three digits, since Grafana sorts rows by their names."""
    two = f'label_replace({expression}, "block", "0$1", "block", "(.|..)")'
    return f'label_replace({two}, "block", "0$1", "block", "(..)")'


# The library is published without types: its builders and models are Any here.


def _datasource() -> Any:
    return model.DataSourceRef(type_val="prometheus", uid="${datasource}")


def _thresholds(*steps: tuple[float | None, str]) -> Any:
    return dashboard.ThresholdsConfig().steps([model.Threshold(value, colour) for value, colour in steps])


def _states(texts: Iterable[tuple[str, str]]) -> list[Any]:
    """Map the numbers 0, 1, 2 ... to these texts and colours."""
    results = {
        str(number): model.ValueMappingResult(text=text, color=colour, index=number)
        for number, (text, colour) in enumerate(texts)
    }
    return [model.ValueMap(options=results)]


class _Page:
    """Fills a dashboard with panels, from left to right."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self._panels = 0

    def row(self, title: str) -> None:
        self._panels += 1
        self._builder.with_row(dashboard.Row(title).id(self._panels))

    def number(self, title: str, description: str, query: Query, unit: str, thresholds: Any) -> None:
        panel = stat.Panel().graph_mode(common_model.BigValueGraphMode.AREA).thresholds(thresholds).unit(unit)
        panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        self._add(panel, title, description, [query], width=4, height=5)

    def lines(
        self, title: str, description: str, unit: str, *queries: Query, width: int = 8, stacked: bool = False
    ) -> None:
        tooltip = common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI)
        panel = timeseries.Panel().unit(unit).min(0).tooltip(tooltip)
        panel.fill_opacity(25 if stacked else 5).show_points(common_model.VisibilityMode.NEVER)
        if stacked:
            panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
        self._add(panel, title, description, queries, width=width)

    def states(
        self,
        title: str,
        description: str,
        query: Query,
        texts: Iterable[tuple[str, str]],
        *,
        width: int = 12,
        height: int = 8,
    ) -> None:
        panel = statetimeline.Panel().mappings(_states(texts)).merge_values(merge_values=True).row_height(0.9)
        panel.show_value(common_model.VisibilityMode.NEVER)
        self._add(panel, title, description, [query], width=width, height=height)

    def heat(self, title: str, description: str, query: Query, unit: str) -> None:
        """Show a row for each series, coloured by its value, with red for 0."""
        colours = dashboard.FieldColor().mode(model.FieldColorModeId.CONTINUOUS_RD_YL_GR)
        panel = statetimeline.Panel().unit(unit).min(0).color_scheme(colours).row_height(1).line_width(0)
        panel.show_value(common_model.VisibilityMode.NEVER).merge_values(merge_values=True)
        panel.legend(common.VizLegendOptions().show_legend(show_legend=False))
        self._add(panel, title, description, [query], width=_WIDTH, height=12)

    def _add(
        self, panel: Any, title: str, description: str, queries: Iterable[Query], *, width: int, height: int = 8
    ) -> None:
        self._panels += 1
        panel.id(self._panels).title(title).description(description).datasource(_datasource())
        panel.span(width).height(height)
        for reference, query in zip("ABCDEFGH", queries, strict=False):
            target = prometheus.Dataquery().expr(query.expression).ref_id(reference).datasource(_datasource())
            panel.with_target(target.legend_format(query.legend) if query.legend else target)
        self._builder.with_panel(panel)


def _variables(builder: Any) -> None:
    def choice(name: str, label: str, query: str) -> Any:
        variable = dashboard.QueryVariable(name).label(label).datasource(_datasource()).query(query)
        return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)

    builder.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    builder.with_variable(choice("model", "Model", "label_values(swarmkeel_build_info, model)"))
    for name, label, query in (
        ("job", "Job", 'label_values(swarmkeel_build_info{model="$model"}, job)'),
        ("instance", "Sidecar", 'label_values(swarmkeel_build_info{model="$model",job=~"$job"}, instance)'),
    ):
        everything = model.VariableOption(selected=True, text="All", value="$__all")
        builder.with_variable(
            choice(name, label, query).multi(multi=True).include_all(include_all=True).current(everything)
        )


def _swarm_panels(page: _Page) -> None:
    page.row("The swarm, as most sidecars see it")
    bad_above_0 = _thresholds((None, "green"), (1, "red"))
    plain = _thresholds((None, "text"))
    ratio = _thresholds((None, "red"), (0.5, "yellow"), (0.8, "green"))
    page.number(
        "Uncovered blocks",
        "Blocks that no ONLINE server serves. Requests fail while there are any.",
        Query(_swarm("swarm_uncovered_blocks")),
        "none",
        bad_above_0,
    )
    page.number(
        "Balance",
        "The bottleneck over the bound, which not every swarm can reach.",
        Query(_swarm("swarm_balance_ratio")),
        "percentunit",
        ratio,
    )
    page.number(
        "Bottleneck",
        "Throughput of the weakest block: what the swarm as a whole serves.",
        Query(_swarm("swarm_bottleneck_rps")),
        "reqps",
        plain,
    )
    online = f'model_state:swarmkeel_swarm_servers:median{{{_SWARM},state="online"}}'
    page.number("Servers online", "Servers that announce themselves as ONLINE.", Query(online), "none", plain)
    sidecars = f"model:swarmkeel_sidecars:count{{{_SWARM}}}"
    page.number("Sidecars", "Sidecars that Prometheus gets metrics from.", Query(sidecars), "none", plain)
    firing = 'count(ALERTS{alertname=~"Swarmkeel.*",alertstate="firing"}) or vector(0)'
    page.number("Alerts", "Alerts of Swarmkeel that fire, of any model.", Query(firing), "none", bad_above_0)
    page.lines(
        "Bottleneck and bound",
        "What the weakest block has, and what no placement of these servers can exceed.",
        "reqps",
        Query(_swarm("swarm_bottleneck_rps"), "bottleneck"),
        Query(_swarm("swarm_bound_rps"), "bound"),
    )
    page.lines(
        "Uncovered blocks",
        "Blocks that no ONLINE server serves.",
        "none",
        Query(_swarm("swarm_uncovered_blocks"), "uncovered"),
    )
    page.lines(
        "Servers by state",
        "What the servers announce of themselves.",
        "none",
        Query(f"model_state:swarmkeel_swarm_servers:median{{{_SWARM}}}", "{{state}}"),
        stacked=True,
    )
    throughput = f"model_block:swarmkeel_block_throughput_rps:median{{{_SWARM}}}"
    page.heat(
        "Throughput of each block",
        "By ONLINE servers; red is nobody.",
        Query(_block_labels(throughput), "{{block}}"),
        "reqps",
    )


def _sidecar_panels(page: _Page) -> None:
    page.row("Sidecars and their servers")
    page.states(
        "Verdicts",
        "What each sidecar's newest check ended in; the README says what the verdicts mean.",
        Query(_verdict_number(), "{{instance}}"),
        [("none yet", "text"), *((verdict.value, _COLOURS[verdict]) for verdict in Verdict)],
    )
    page.lines(
        "What holds wanted moves back",
        "How many sidecars want to move and may not, by what holds them.",
        "none",
        Query(f"sum by (reason) ({_own('holding')}) > 0 or vector(0)", "{{reason}}"),
        width=12,
        stacked=True,
    )
    page.states(
        "Servers answer",
        "Whether the server answers at its control socket.",
        Query(_own("server_up"), "{{instance}}"),
        [("no", "red"), ("yes", "green")],
        width=8,
    )
    page.lines(
        "First blocks",
        "The first block that each server serves: where it steps, the server has moved.",
        "none",
        Query(_own("server_span_start"), "{{instance}}"),
    )
    page.lines(
        "Throughput of servers",
        "What each server announces.",
        "reqps",
        Query(_own("server_throughput_rps"), "{{instance}}"),
    )


def _move_panels(page: _Page) -> None:
    page.row("Moves")
    page.lines(
        "Moves within an hour",
        "Moves of the chosen sidecars that were verified, and those that ended otherwise.",
        "none",
        Query(f"sum(increase({_own('moves_total')}[1h]))", "done"),
        Query(f"sum(increase({_own('move_failures_total')}[1h]))", "failed"),
    )
    page.lines(
        "Gain of the newest move",
        "By how much it was to raise the bottleneck, and by how much the bottleneck had risen when it was verified; other"
        " servers' moves are in that too.",
        "reqps",
        Query(_own("move_predicted_gain_rps"), "{{instance}} predicted"),
        Query(_own("move_realised_gain_rps"), "{{instance}} realised"),
    )
    page.lines(
        "Time of moves", "From the plan to the end, of the last hour.", "s", *_quantiles("move_duration_seconds")
    )
    page.lines(
        "Claims",
        "Claims on moves about to be made: own ones of the chosen sidecars, and the most that one of them sees of"
        " others.",
        "none",
        Query(f"sum({_own('claims', state='own')})", "own"),
        Query(f"max by (state) ({_own('claims', state='others|implausible|rejected')})", "{{state}}"),
    )
    page.states(
        "Breaker",
        "Open while failed moves keep the next one from being made.",
        Query(_own("breaker_open"), "{{instance}}"),
        [("closed", "green"), ("open", "red")],
        width=8,
    )
    page.lines(
        "Staging",
        "Spans within an hour that servers were asked to have on disk before they are needed, by what came of it.",
        "none",
        Query(f"sum by (result) (increase({_own('staging_requests_total')}[1h]))", "{{result}}"),
        Query(f"sum({_own('staged_blocks')})", "blocks on disk"),
    )


def _reading_panels(page: _Page) -> None:
    page.row("Reading the swarm")
    page.lines(
        "Age of snapshots",
        "Of the newest snapshot of each sidecar; a saw between 0 and the check period.",
        "s",
        Query(_own("snapshot_age_seconds"), "{{instance}}"),
    )
    page.lines(
        "Time of readings",
        "How long the newest reading of the swarm took.",
        "s",
        Query(_own("snapshot_duration_seconds"), "{{instance}}"),
    )
    page.lines("Time of checks", "Readings included, of the last hour.", "s", *_quantiles("check_duration_seconds"))
    page.lines(
        "Longest turn of the event loop",
        "For so long nothing else that the sidecar does could go on, at worst in the last five to ten minutes.",
        "s",
        Query(_own("event_loop_longest_turn_seconds"), "{{instance}}"),
    )
    page.lines(
        "Load on the DHT",
        "What other peers answered to its questions for keys.",
        "Bps",
        Query(f"rate({_own('dht_received_bytes_total')}[10m])", "{{instance}}"),
    )
    page.lines(
        "Keys answered",
        "Share of the block keys that the DHT answered in the newest reading.",
        "percentunit",
        Query(_own("snapshot_keys_answered_ratio"), "{{instance}}"),
    )
    page.lines(
        "Failed readings within an hour",
        "Readings of the swarm that gave no snapshot.",
        "none",
        Query(f"increase({_own('snapshot_failures_total')}[1h])", "{{instance}}"),
    )
    page.lines(
        "Rejected records",
        "Records from the DHT that were rejected in a second, by reason.",
        "none",
        Query(f"sum by (reason) (rate({_own('records_rejected_total')}[$__rate_interval]))", "{{reason}}"),
        stacked=True,
    )
    page.lines(
        "Peers in the DHT",
        "Peers in each sidecar's routing table.",
        "none",
        Query(_own("dht_peers"), "{{instance}}"),
    )
    page.lines(
        "Versions and policies",
        "How many sidecars run which.",
        "none",
        Query(f"count by (version, policy) ({_own('build_info')})", "{{version}} {{policy}}"),
        stacked=True,
    )
    page.states(
        "Configuration",
        "Whether the newest reload of the configuration succeeded.",
        Query(_own("config_last_reload_successful"), "{{instance}}"),
        [("old", "red"), ("current", "green")],
        width=8,
    )


def render() -> str:
    """Give the dashboard as Grafana imports it."""
    builder = dashboard.Dashboard("Swarmkeel").uid("swarmkeel").tags(["swarmkeel"]).editable()
    builder.description("Made by deploy/prometheus/dashboard.py.").refresh("30s").time("now-3h", "now")
    builder.tooltip(model.DashboardCursorSync.CROSSHAIR)
    _variables(builder)
    page = _Page(builder)
    for fill in (_swarm_panels, _sidecar_panels, _move_panels, _reading_panels):
        fill(page)
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(render())
