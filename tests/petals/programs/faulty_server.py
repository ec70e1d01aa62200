"""A server with the adapter that fails on demand. Arguments: a file, then those of swarmkeel.control.petals_server.

Each failure is asked for by writing its name into the file, happens once, and takes the file away.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from hivemind.moe.server.connection_handler import ConnectionHandler

from swarmkeel.control import petals_server
from swarmkeel.control.petals_hivemind import restore_hivemind_names

restore_hivemind_names()

from petals.server import server  # noqa: E402 - hivemind's names come first

_DEMAND = Path(sys.argv[1])
_FAILING_BLOCK = 7
_BALLAST_MB = 100


def demanded() -> str:
    return _DEMAND.read_text() if _DEMAND.exists() else ""


def take(names: dict[str, Callable[[], Any]]) -> None:
    name = demanded()
    if name in names:
        _DEMAND.unlink()
        names[name]()


def cuda_out_of_memory() -> NoReturn:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


LOADING: dict[str, Callable[[], Any]] = {
    "torch out of memory": lambda: torch.empty(2**50, dtype=torch.uint8),
    "Python out of memory": lambda: bytearray(2**62),
    "CUDA out of memory": cuda_out_of_memory,
}
"""Failures while a block is put on its device: the first two are real, whatever the machine has."""


def convert_block(block: Any, index: int, *args: Any, **kwargs: Any) -> Any:
    converted = petals_convert_block(block, index, *args, **kwargs)
    if demanded() in LOADING:
        if index == _FAILING_BLOCK:
            take(LOADING)
        # Blocks of a real size, so that one sees whether they are let go.
        converted.ballast = torch.ones(_BALLAST_MB * 2**20, dtype=torch.uint8)
    return converted


def refuse() -> NoReturn:
    raise OSError("no way to the swarm")


STARTING: dict[str, Callable[[], Any]] = {
    "handler ends": lambda: os._exit(3),
    "handler hangs": lambda: time.sleep(1e6),
}
"""Failures of the process of a handler before it has done anything."""


def run(self: Any) -> None:
    take(STARTING)
    hivemind_run(self)


async def add_p2p_handlers(self: Any, *args: Any, **kwargs: Any) -> None:
    take({"handler is refused": refuse})
    await hivemind_add_p2p_handlers(self, *args, **kwargs)


petals_convert_block, server.convert_block = server.convert_block, convert_block
hivemind_run, ConnectionHandler.run = ConnectionHandler.run, run
hivemind_add_p2p_handlers, ConnectionHandler.add_p2p_handlers = ConnectionHandler.add_p2p_handlers, add_p2p_handlers
petals_server.main(sys.argv[2:])
