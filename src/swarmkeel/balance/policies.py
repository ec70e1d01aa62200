"""The policies by their names in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from swarmkeel.balance.coordinated import CoordinatedPolicy
from swarmkeel.balance.petals import PetalsPolicy
from swarmkeel.balance.policy import Policy
from swarmkeel.errors import UsageError

POLICIES: Final[Mapping[str, Policy]] = {policy.name: policy for policy in (CoordinatedPolicy(), PetalsPolicy())}
"""Every policy; a new one is added here and to `balance.policy` of the configuration."""


def get_policy(name: str) -> Policy:
    """Give the policy of this name.

    Raises:
        UsageError: If there is none.
    """
    policy = POLICIES.get(name)
    if policy is None:
        raise UsageError(f"there is no balance policy {name[:100]!r}", f"choose one of {', '.join(sorted(POLICIES))}")
    return policy
