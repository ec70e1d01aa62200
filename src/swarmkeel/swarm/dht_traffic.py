"""What reading the DHT costs its other peers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DhtTraffic:
    """What was asked of other peers, and the bytes of it; what transport and routing need comes on top.

    Attributes:
        finds: Questions for keys, of one or of several.
        pings: Questions whether a peer is there.
        stores: Requests to keep records.
        bytes_received: Bytes of the answers to the questions for keys.
        bytes_sent: Bytes of these questions, and of the records to be kept.
    """

    finds: int = 0
    pings: int = 0
    stores: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
