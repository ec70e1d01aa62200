"""Ports for servers that cannot say which one the system gave them."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Find a TCP port that is free and that the system does not give to anyone who connects (below 32768)."""
    while True:
        port = random.randint(20_000, 32_000)  # noqa: S311 - tests in parallel must not all try the same
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
