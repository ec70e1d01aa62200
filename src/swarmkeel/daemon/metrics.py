"""Metrics of the daemon, for Prometheus.

What is copied from elsewhere (the swarm, the server, the newest decision) comes from a collector that builds it at each
scrape from the daemon's state, so that what vanished there vanishes here; what the daemon counts itself are counters.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from swarmkeel.balance.decision import Verdict
from swarmkeel.daemon.loop_watch import LoopWatch
from swarmkeel.daemon.staging import StagingResult
from swarmkeel.daemon.state import ClaimsView, DaemonState, SwarmView
from swarmkeel.swarm.dht_lookup import LookupRejection
from swarmkeel.swarm.dht_traffic import DhtTraffic
from swarmkeel.swarm.record import RejectionReason, ServerState
from swarmkeel.swarm.sidecar import Claim

MOVE_SECONDS_BUCKETS: Final = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0)
TURN_SECONDS_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
CHECK_SECONDS_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

HOLDING_REASONS: Final = (
    "breaker",
    "claim_overtaken",
    "claim_settling",
    "confirmation",
    "cooldown",
    "minimum_uptime",
    "moves_per_day",
    "others_stay",
    "pinned",
    "prefetch_failed",
    "prefetching",
    "restart_running",
    "too_many_moving",
    "waiting_for_others",
)
"""What can hold a wanted move back: the guards, and how far the own claim is."""


class Metrics:
    """The metrics of one daemon, in a registry of their own.

    Args:
        state: What the daemon knows; read at each scrape.
        version: Version of Swarmkeel.
        dht_prefix: Name of the model.
        policy: Gives the name of the policy in force.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        state: DaemonState,
        *,
        version: str,
        dht_prefix: str,
        policy: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_StateCollector(state, version, dht_prefix, policy, clock))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"swarmkeel_{name}", text, labels, registry=self.registry)

        self.snapshots = counter("snapshots", "Readings of the swarm that gave a snapshot.")
        self.snapshot_failures = counter("snapshot_failures", "Readings of the swarm that failed.")
        self.records_rejected = counter("records_rejected", "Records from the DHT that were rejected.", "reason")
        self.decisions = counter("decisions", "Checks of the balance by their verdict.", "verdict")
        self.moves = counter("moves", "Moves that ended with the server verified on its target.")
        self.move_failures = counter("move_failures", "Moves that ended otherwise.")
        self.staging_requests = counter(
            "staging_requests", "Spans that the server was asked to have on disk before they are needed.", "result"
        )
        self.move_duration = Histogram(
            "swarmkeel_move_duration_seconds",
            "Time from the plan of a move to its end.",
            registry=self.registry,
            buckets=MOVE_SECONDS_BUCKETS,
        )
        self.check_duration = Histogram(
            "swarmkeel_check_duration_seconds",
            "Time of one check of the balance, its readings included.",
            registry=self.registry,
            buckets=CHECK_SECONDS_BUCKETS,
        )
        self._loop_turns = Histogram(
            "swarmkeel_event_loop_turn_seconds",
            "Turns of the event loop: for so long nothing else that the sidecar does could go on.",
            registry=self.registry,
            buckets=TURN_SECONDS_BUCKETS,
        )
        self._longest_turn = Gauge(
            "swarmkeel_event_loop_longest_turn_seconds",
            "Longest turn of the event loop in the last five minutes, or in up to twice as long.",
            registry=self.registry,
        )
        # At 0 from the start: Prometheus sees no increase in a series that begins with 1.
        for verdict in Verdict:
            self.decisions.labels(verdict.value)
        for reason in (*RejectionReason, *LookupRejection):
            self.records_rejected.labels(reason.value)
        for result in StagingResult:
            self.staging_requests.labels(result.value)

    def watch_loop(self, watch: LoopWatch) -> None:
        """Show what is measured of the event loop."""
        watch.listen(self._loop_turns.observe)
        self._longest_turn.set_function(watch.longest_lately)

    def count_rejections(self, rejected: Mapping[str, int]) -> None:
        """Count the rejected records of one snapshot by their reasons."""
        for reason, count in rejected.items():
            self.records_rejected.labels(reason).inc(count)


class _StateCollector(Collector):
    def __init__(
        self,
        state: DaemonState,
        version: str,
        dht_prefix: str,
        policy: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._version = version
        self._dht_prefix = dht_prefix
        self._policy = policy
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Build what is to be shown now."""
        yield self._build_info()
        yield from self._daemon()
        if self._state.swarm is not None:
            yield from self._snapshot(self._state.swarm)
            yield from _blocks(self._state.swarm)
            yield from _swarm(self._state.swarm)
        yield from self._server()
        yield from self._decision()
        yield from self._breaker()
        yield from self._move()
        if self._state.claims is not None:
            yield from _claims(self._state.claims, self._state.own_claim)

    def _build_info(self) -> Metric:
        labels = {
            "version": self._version,
            "python": platform.python_version(),
            "model": self._dht_prefix,
            "policy": self._policy(),
        }
        return InfoMetricFamily("swarmkeel_build", "What runs here.", labels)

    def _daemon(self) -> Iterator[Metric]:
        state = self._state
        yield _gauge("up", "1 if the newest attempt to read the swarm gave a usable snapshot.", state.snapshot_is_good)
        yield _gauge("dht_peers", "Peers in the routing table of the DHT node.", state.dht_peers)
        yield from _traffic(state.dht_traffic)
        yield _gauge(
            "config_last_reload_successful",
            "1 if the configuration in force is the newest that was asked for.",
            state.config_is_current,
        )
        paused = state.pause is not None and state.pause.holds(self._clock())
        yield _gauge("paused", "1 while the operator has paused it: nothing is moved.", paused)
        if state.last_check_at is not None:
            yield _gauge("last_check_timestamp_seconds", "When the newest check ended.", state.last_check_at)
        if state.check_period_seconds is not None:
            text = "Time between two checks by the configuration in force."
            yield _gauge("check_period_seconds", text, state.check_period_seconds)

    def _snapshot(self, view: SwarmView) -> Iterator[Metric]:
        quality = view.snapshot.quality(self._clock())
        yield _gauge("snapshot_age_seconds", "Age of the newest snapshot.", quality.age_seconds)
        yield _gauge(
            "snapshot_keys_answered_ratio", "Share of the block keys that were answered.", quality.keys_answered_ratio
        )
        if self._state.snapshot_seconds is not None:
            yield _gauge("snapshot_duration_seconds", "Time of the newest reading.", self._state.snapshot_seconds)

    def _server(self) -> Iterator[Metric]:
        server = self._state.server
        yield _gauge("server_up", "1 if the server's control socket answers.", server is not None)
        if server is None:
            return
        yield _gauge("server_throughput_rps", "Throughput that the server announces.", server.throughput)
        if server.span is not None:
            yield _gauge("server_span_start", "First block that the server serves.", server.span.start)
            yield _gauge("server_span_end", "Block after the last one that the server serves.", server.span.end)
        if self._state.staged_blocks is not None:
            text = "Blocks that the server was asked to have on disk beside those that it serves, and has."
            yield _gauge("staged_blocks", text, self._state.staged_blocks)

    def _decision(self) -> Iterator[Metric]:
        decision = self._state.decision
        present = decision.verdict if decision else None
        family = GaugeMetricFamily("swarmkeel_verdict", "1 for the verdict of the newest check.", labels=["verdict"])
        for verdict in Verdict:
            family.add_metric([verdict.value], float(verdict is present))
        yield family
        named = {reason.name for reason in decision.reasons} if decision and present is Verdict.HOLDING else set()
        text = "1 for what held a wanted move back in the newest check."
        family = GaugeMetricFamily("swarmkeel_holding", text, labels=["reason"])
        for name in HOLDING_REASONS:
            family.add_metric([name], float(name in named))
        yield family

    def _breaker(self) -> Iterator[Metric]:
        breaker = self._state.breaker
        until = breaker.open_until if breaker.open_until is not None and breaker.open_until > self._clock() else None
        yield _gauge("breaker_open", "1 while failed moves keep the next one from being made.", until is not None)
        yield _gauge("breaker_failures", "Moves that failed since the last that did not.", breaker.failures)
        if until is not None:
            yield _gauge("breaker_release_timestamp_seconds", "When the next move may be made.", until)

    def _move(self) -> Iterator[Metric]:
        move = self._state.move
        if move is None:
            return
        text = "By how much the newest move was to raise the bottleneck."
        yield _gauge("move_predicted_gain_rps", text, move.predicted_gain_rps)
        if move.realised_gain_rps is not None:
            text = "By how much the bottleneck had risen when the newest move was verified."
            yield _gauge("move_realised_gain_rps", text, move.realised_gain_rps)


def _claims(view: ClaimsView, own: Claim | None) -> Iterator[Metric]:
    family = GaugeMetricFamily("swarmkeel_claims", "Claims on moves about to be made.", labels=["state"])
    for state, count in (
        ("own", int(own is not None)),
        ("others", view.claims),
        ("implausible", view.implausible),
        ("rejected", view.rejected),
    ):
        family.add_metric([state], float(count))
    yield family
    yield _gauge("sidecars", "Other sidecars that tell of their servers.", view.sidecars)
    yield _gauge("claims_readable", "1 if what sidecars tell could be read.", view.readable)


def _traffic(traffic: DhtTraffic) -> Iterator[Metric]:
    calls = CounterMetricFamily("swarmkeel_dht_calls", "Calls to other peers of the DHT.", labels=["call"])
    for call, count in (("find", traffic.finds), ("ping", traffic.pings), ("store", traffic.stores)):
        calls.add_metric([call], float(count))
    yield calls
    for name, text, count in (
        ("received", "Bytes of what other peers answered when they were asked for keys.", traffic.bytes_received),
        ("sent", "Bytes of these questions, and of the records that others were to keep.", traffic.bytes_sent),
    ):
        yield CounterMetricFamily(f"swarmkeel_dht_{name}_bytes", text, float(count))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"swarmkeel_{name}", text, float(value))


def _blocks(view: SwarmView) -> Iterator[Metric]:
    throughput = GaugeMetricFamily(
        "swarmkeel_block_throughput_rps", "Throughput of a block by its ONLINE servers.", labels=["block"]
    )
    servers = GaugeMetricFamily("swarmkeel_block_servers", "Servers that announce a block.", labels=["block", "state"])
    first = view.snapshot.first_block
    for index, rps in enumerate(view.block_throughput_rps):
        block = str(first + index)
        throughput.add_metric([block], float(rps))
        for state in (ServerState.JOINING, ServerState.ONLINE):
            servers.add_metric([block, state.name.lower()], float(view.block_servers.get((index, state), 0)))
    yield throughput
    yield servers


def _swarm(view: SwarmView) -> Iterator[Metric]:
    servers = GaugeMetricFamily("swarmkeel_swarm_servers", "Servers of the swarm.", labels=["state"])
    for state in ServerState:
        servers.add_metric([state.name.lower()], float(view.servers.get(state, 0)))
    yield servers
    numbers = view.numbers
    yield _gauge("swarm_bottleneck_rps", "Throughput of the weakest block by ONLINE servers.", numbers.bottleneck_rps)
    text = "What no placement of the servers present can exceed."
    yield _gauge("swarm_bound_rps", text, numbers.bound_rps)
    yield _gauge("swarm_balance_ratio", "Bottleneck over bound.", numbers.balance_ratio)
    text = "Blocks that were read and that no ONLINE server covers."
    yield _gauge("swarm_uncovered_blocks", text, len(view.uncovered_blocks))
