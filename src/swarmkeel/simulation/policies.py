"""Which policies a simulation compares, and how they are named on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from swarmkeel.errors import UsageError
from swarmkeel.printable import printable

KINDS: Final = {
    "none": "servers choose blocks as Petals does when they come, and never move",
    "petals": "every server runs Petals' own loop",
    "coordinated": "sidecars run the policy coordinated, with claims",
    "petals-sidecar": "sidecars run the policy petals, with exact targets and guards",
}
_PATTERN: Final = re.compile(r"([a-z-]+)(?:@(\d{1,3}))?(?::(\d+(?:\.\d+)?))?")
_WHOLE: Final = 100


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """One policy in a comparison.

    Attributes:
        name: As given.
        kind: One of `KINDS`.
        adoption: Share of servers with a sidecar; None: as the scenario says.
        move_cost: What a move must bring; None: as the scenario says.
    """

    name: str
    kind: str
    adoption: float | None = None
    move_cost: float | None = None

    @property
    def uses_sidecars(self) -> bool:
        """Whether sidecars decide."""
        return self.kind in ("coordinated", "petals-sidecar")


def parse_policy(text: str) -> PolicySpec:
    """Read a policy such as `coordinated`, `coordinated@25` (25 % adopt it) or `coordinated@25:0.1` (move cost 0.1).

    Raises:
        UsageError: If it is none.
    """
    match = _PATTERN.fullmatch(text)
    kind = match[1] if match else ""
    adoption = int(match[2]) / _WHOLE if match and match[2] else None
    if match is None or kind not in KINDS or (adoption is not None and adoption > 1):
        raise UsageError(
            f"no policy is called {printable(text, 80)!r}",
            f"choose of {', '.join(KINDS)}; coordinated@25 lets 25 % adopt it, coordinated:0.1 sets its move cost",
        )
    spec = PolicySpec(text, kind, adoption, float(match[3]) if match[3] else None)
    if not spec.uses_sidecars and (match[2] or match[3]):
        raise UsageError(f"the policy {kind} has no sidecars to adopt it", f"name it {kind} alone")
    return spec


def with_adoptions(policies: Sequence[PolicySpec], adoptions: Sequence[float]) -> tuple[PolicySpec, ...]:
    """Put each policy that has sidecars at each share of adoption, where it names none itself.

    Args:
        policies: As named.
        adoptions: Shares, 0 to 1; none leaves the policies as they are.
    """
    spread: list[PolicySpec] = []
    for policy in policies:
        if not adoptions or not policy.uses_sidecars or policy.adoption is not None:
            spread.append(policy)
            continue
        cost = "" if policy.move_cost is None else f":{policy.move_cost:g}"
        spread += [parse_policy(f"{policy.kind}@{round(share * _WHOLE)}{cost}") for share in adoptions]
    return tuple(spread)
