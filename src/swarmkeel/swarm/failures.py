"""What can go wrong between this process and the DHT. Imports nothing of the DHT, so that anyone can catch these."""

from __future__ import annotations

from swarmkeel.errors import SwarmkeelError, UsageError


class SwarmUnreachable(SwarmkeelError):  # noqa: N818 - named for the state of the world, which may pass by itself
    """No peer of the swarm answers; the next attempt starts afresh and may well succeed."""


class DhtNodeError(SwarmkeelError):
    """The node of the DHT inside this process cannot work, whatever the swarm does."""


class ClockDiffersError(DhtNodeError):
    """This machine's clock is not the swarm's: records would look expired, or never expire."""


class InitialPeerError(UsageError):
    """A configured initial peer is no multiaddress of a peer."""


class IdentityError(UsageError):
    """The file with the node's private key cannot be used."""
