"""Shows the plan that sidecars make together: who moves, what they have told each other, and what would change it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from swarmkeel.balance.coordinated import plan_in
from swarmkeel.balance.decision import Decision, Verdict
from swarmkeel.balance.plan import Plan
from swarmkeel.balance.policy import Situation
from swarmkeel.printable import printable
from swarmkeel.swarm.span import Span

_SHOWN: Final = 12


@dataclass(frozen=True)
class SharedPlan:
    """What the policy coordinated sees, told in full.

    Attributes:
        situation: What it decides on.
        plan: The moves that every sidecar with the same view makes; the best found and not worth it if none is.
        doubts: Claims that were not believed, by `ClaimDoubt`.
        readable: Whether what sidecars tell could be read.
    """

    situation: Situation
    plan: Plan
    doubts: Mapping[str, int]
    readable: bool

    def to_json(self) -> dict[str, object]:
        """Give it as plain JSON values."""
        best, offset = self.plan.best, self.situation.snapshot.first_block
        moves = [
            {
                "peer_id": move.peer_id,
                "origin": {"start": move.origin.start + offset, "end": move.origin.end + offset},
                "target": {"start": move.target.start + offset, "end": move.target.end + offset},
            }
            for move in (best.moves if best else ())
        ]
        return {
            "worth_it": bool(self.plan.moves),
            "moves": moves,
            "gain_rps": best.gain_rps if best else 0.0,
            "cost_rps": best.cost_rps if best else 0.0,
            "covered_in_seconds": best.covered_in_seconds if best and math.isfinite(best.covered_in_seconds) else None,
            "sidecars": len(self.situation.sidecars),
            "claims": sum(sidecar.claim is not None for sidecar in self.situation.sidecars.values()),
            "implausible": dict(self.doubts),
            "readable": self.readable,
        }


def share_plan(situation: Situation, doubts: Mapping[str, int], *, readable: bool) -> SharedPlan:
    """Make the plan once more, to tell it."""
    _, plan = plan_in(situation)
    return SharedPlan(situation, plan, doubts, readable)


def print_plan(shared: SharedPlan, decision: Decision, console: Console) -> None:
    """Print who moves, what is claimed, what is not believed, and what would have to change for a move."""
    situation, plan = shared.situation, shared.plan
    told = situation.sidecars
    can = sum(sidecar.movable_at is not None and sidecar.movable_at <= situation.now for sidecar in told.values())
    line = f"sidecars: {len(told)} others tell of their servers, {can} of them may be moved now"
    console.print(Text(line if shared.readable else "sidecars: what they tell could not be read; each decides alone"))
    moves = plan.moves or (plan.best.moves if plan.best else ())
    if moves:
        gain = plan.best.gain_rps if plan.best else 0.0
        cost = plan.best.cost_rps if plan.best else 0.0
        what = "plan" if plan.moves else "best plan found, not worth it"
        console.print(Text(f"{what}: {len(moves)} moves, +{gain:.4g} RPS, cost {cost:.4g} RPS"))
        if plan.is_emergency and plan.moves and plan.best:
            console.print(Text(f"every block would have a server in about {plan.best.covered_in_seconds:.0f} s"))
        console.print(_moves_table(shared))
    if any(sidecar.claim for sidecar in told.values()):
        console.print(Text("claims of others:"))
        console.print(_claims_table(situation))
    if shared.doubts:
        reasons = ", ".join(f"{name} {count}" for name, count in sorted(shared.doubts.items()))
        console.print(Text(f"claims not believed: {reasons}"))
    for sentence in what_would_change(decision, plan, situation):
        console.print(Text(f"for a move: {sentence}"))


def _moves_table(shared: SharedPlan) -> Table:
    plan, offset = shared.plan, shared.situation.snapshot.first_block
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for heading in ("server", "from", "to", "RPS there", "away"):
        table.add_column(heading, justify="left" if heading == "server" else "right")
    for move in (plan.moves or (plan.best.moves if plan.best else ()))[:_SHOWN]:
        own = " (this one)" if move.peer_id == shared.situation.own.peer_id else ""
        origin, target = (Span(span.start + offset, span.end + offset) for span in (move.origin, move.target))
        table.add_row(
            printable(move.peer_id[-7:]) + own,
            str(origin),
            str(target),
            f"{move.throughput:.4g}",
            f"{move.load_seconds:.0f} s",
        )
    return table


def _claims_table(situation: Situation) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for heading in ("server", "from", "to", "made", "ends"):
        table.add_column(heading, justify="left" if heading == "server" else "right")
    claimed = ((sidecar.claim, peer_id) for peer_id, sidecar in situation.sidecars.items() if sidecar.claim)
    for claim, peer_id in sorted(claimed, key=lambda entry: (entry[0].made_at, entry[1]))[:_SHOWN]:
        table.add_row(
            printable(peer_id[-7:]),
            str(claim.origin or "none"),
            str(claim.target),
            f"{situation.now - claim.made_at:.0f} s ago",
            f"in {claim.expires_at - situation.now:.0f} s",
        )
    return table


def what_would_change(decision: Decision, plan: Plan, situation: Situation) -> Iterator[str]:
    """Say what would have to change for this server to move, in one sentence each; nothing if it moves."""
    if decision.verdict is not Verdict.BALANCED:
        return
    names = {reason.name for reason in decision.reasons}
    best = plan.best
    if "not_worth_it" in names and best is not None:
        missing = best.cost_rps - best.gain_rps
        yield (
            f"the best {len(best.moves)} moves would have to bring {missing:.4g} RPS more; with balance.move_cost below"
            f" {_break_even(best.gain_rps, best.cost_rps, situation.settings.move_cost):.3g} they might be worth it"
        )
    if "no_gain" in names:
        yield "the weakest blocks would have to be reachable: no single place of a movable server raises the bottleneck"
    if "nobody_can_move" in names:
        yield "servers beside which a sidecar runs would have to be ONLINE, not cooling down, and not needed where they are"
    if "holes_stay" in names:
        yield "more servers would have to come: no few moves close every hole"
    if "others_move" in names:
        yield "the servers that the plan names would have to stay where they are; it is made anew at every check"
    if "not_movable" in names:
        yield "this server would have to be ONLINE and movable"


def _break_even(gain_rps: float, cost_rps: float, move_cost: float) -> float:
    """Give the dial at which a plan would about be worth it: most of its cost grows with the dial."""
    return move_cost * gain_rps / cost_rps if cost_rps > 0 else move_cost
