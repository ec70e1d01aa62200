"""Swarmkeel keeps a swarm of GPU servers balanced.

These names are the public Python API: Petals' functions and types under Petals' names, so that code written for Petals
works with another import. They are imported when they are first asked for: a GPU server that embeds
`swarmkeel.control.server` must get by with the standard library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarmkeel.balance.imbalance import should_choose_other_blocks
    from swarmkeel.balance.selection import choose_best_blocks
    from swarmkeel.balance.throughput import compute_throughputs
    from swarmkeel.swarm.record import ServerInfo, ServerState
    from swarmkeel.swarm.remote import RemoteModuleInfo, RemoteSpanInfo, compute_spans

    __version__: str

__all__ = [
    "RemoteModuleInfo",
    "RemoteSpanInfo",
    "ServerInfo",
    "ServerState",
    "__version__",
    "choose_best_blocks",
    "compute_spans",
    "compute_throughputs",
    "should_choose_other_blocks",
]

_MODULES = {
    "RemoteModuleInfo": "swarmkeel.swarm.remote",
    "RemoteSpanInfo": "swarmkeel.swarm.remote",
    "ServerInfo": "swarmkeel.swarm.record",
    "ServerState": "swarmkeel.swarm.record",
    "choose_best_blocks": "swarmkeel.balance.selection",
    "compute_spans": "swarmkeel.swarm.remote",
    "compute_throughputs": "swarmkeel.balance.throughput",
    "should_choose_other_blocks": "swarmkeel.balance.imbalance",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("swarmkeel")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
