"""Reasons of verdicts: their stable names and the sentences that they are rendered to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

SENTENCES: Final[Mapping[str, str]] = {
    # insufficient_information
    "keys_unanswered": "only {answered} of {asked} block keys could be read, at least {floor:.0%} are needed",
    "records_rejected": "{rejected} of {total} records were rejected, at most {ceiling:.0%} may be",
    "snapshot_stale": "the snapshot is {age_seconds:.0f} s old, at most {limit_seconds:.0f} s are allowed",
    "unread_block_looks_uncovered": "block {block} could not be read, so nobody knows whether it is served",
    "throughput_overflow": "the announced throughputs add up to no finite number: some record lies",
    "own_record_missing": "the record of this server is not in the snapshot",
    "own_record_offline": "the DHT shows this server as OFFLINE",
    "own_span_differs": "the DHT shows this server on {announced}, the server itself says {actual}",
    "server_unreachable": "the server's control socket does not answer: {error}",
    "server_mismatch": "the server is not the configured one: {detail}",
    "server_not_serving": "the server is {state}, not online",
    "snapshot_unavailable": "the DHT could not be read: {error}",
    # balanced
    "leaving_uncovers_block": "leaving {span} would leave block {block} without a server",
    "already_at_best_place": "{span} is the best place for this server",
    "gain_too_small": "the balance quality {quality:.1%} is not below the limit of {limit:.1%}",
    "no_gain": "moving would not raise the bottleneck above {bottleneck_rps:.4g} RPS",
    "no_steady_placement": "the servers found no steady placement within {rounds} rounds",
    "too_many_blocks": "the server holds {num_blocks} blocks, the model has {total_blocks}",
    "others_move": "the plan moves {moves} other servers ({peers})",
    "nobody_can_move": "none of the {movable} movable servers of {servers} has a place to go to",
    "holes_stay": "nobody serves {uncovered} blocks, and the best {moves} moves would leave {left} of them so",
    "not_worth_it": "the best {moves} moves would bring {gain_rps:.4g} RPS and cost {cost_rps:.4g} RPS",
    "not_movable": "this server may not be moved now",
    # wants to move
    "closes_holes_sooner": "a block is without a server for about {seconds:.0f} s more, and {moves} moves can make that"
    " {reached_seconds:.0f} s",
    "closes_holes": "nobody serves {uncovered} blocks, and {moves} moves can give each of them a server",
    "raises_bottleneck": "{moves} moves can raise the bottleneck from {bottleneck_rps:.4g} to {reached_rps:.4g} RPS at a cost"
    " of {cost_rps:.4g} RPS",
    "together_with": "together with {moves} other servers ({peers})",
    "needs_others": "it helps only together with the moves of others who have not claimed them yet ({peers})",
    "imbalance": "the balance quality {quality:.1%} is below the limit of {limit:.1%}",
    "forced": "a balance quality of {limit:.4g} forces a move at every check",
    "first_placement": "the server has no blocks yet and {target} are the weakest",
    # holding: the names of the guards
    "cooldown": "the last move ended {since_seconds:.0f} s ago, the cooldown is {limit_seconds:.0f} s",
    "minimum_uptime": "the span has been served for {since_seconds:.0f} s, at least {limit_seconds:.0f} s are due",
    "moves_per_day": "{moves} moves in the last 24 h, at most {limit} are allowed",
    "confirmation": "{seen} of {needed} snapshots in a row confirm the move",
    "restart_running": "the server is {state} and restart {restart} is not over",
    "pinned": "the server's blocks are pinned by its operator",
    "too_many_moving": "{moving} of {servers} servers are on the move already, more than {limit:.3g}",
    "claim_settling": "the move to {target} is claimed, the others have {seconds:.0f} s more to see it",
    "claim_overtaken": "the claim on {target} is withdrawn: older claims make {other} the better place",
    "waiting_for_others": "the move to {target} waits for the others' claims, for {seconds:.0f} s now",
    "others_stay": "the claim on {target} is withdrawn: the others whose moves it needs have not claimed them",
    "prefetching": "the server fetches the weights of {target} while it serves, for {seconds:.0f} s now",
    "prefetch_failed": "the weights of {target} could not be fetched, the next try is in {remaining_seconds:.0f} s",
    "breaker": "{failures} moves in a row failed, the next may start in {remaining_seconds:.0f} s",
    # paused, would_move, moving, failed, disabled
    "paused": "user {uid} has paused it until {until} ({note}); without that: {would}",
    "dry_run": "dry run: nothing is told to the server",
    "disabled": "balancing is switched off in the configuration",
    "move_under_way": "the move to {target} is under way: {step}",
    "check_failed": "the check itself failed: {error}",
    "move_failed": "the move to {target} failed: {error}",
}
"""Sentence templates by reason; the names are part of the interface, the wording is not."""


_SINGLE: Final = re.compile(r"\b(1 (?:other )?(?:block|move|record|server|snapshot))s\b")


def render_reason(name: str, values: Mapping[str, str | int | float | bool | None]) -> str:
    """Put a reason's values into its sentence.

    An unknown name (a journal written by another version) or missing values give the name and the values as they are,
    so that reading old decisions never fails.
    """
    template = SENTENCES.get(name)
    if template is not None:
        try:
            return _SINGLE.sub(r"\1", template.format(**values))
        except (KeyError, ValueError, TypeError):
            pass
    return f"{name} {dict(values)}" if values else name
