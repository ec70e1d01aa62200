"""Petals' rule in C, compiled when it is asked for: the limit that Swarmkeel is measured against."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.result_file import FRESH
from swarmkeel.balance.imbalance import EPSILON, MAX_ROUNDS
from swarmkeel.swarm.remote import RemoteModuleInfo

_SOURCE = Path(__file__).with_name("reference.c")
_RECORD = np.dtype(
    [(name, np.int64) for name in ("server", "block", "state", "start", "end")] + [("throughput", np.float64)]
)
_GOES_ON = 2


@dataclass(frozen=True)
class Packed:
    """A swarm's records in one array, by block and by peer id; servers are numbered in the order of their peer ids."""

    records: NDArray[np.void]
    servers: int
    total_blocks: int
    own: int


def packed(modules: Sequence[RemoteModuleInfo[str]], own: str) -> Packed:
    """Put records into an array."""
    peers = sorted({peer for module in modules for peer in module.servers})
    number = {peer: index for index, peer in enumerate(peers)}
    records = [
        (
            number[peer],
            block,
            info.state.value,
            -1 if info.start_block is None else info.start_block,
            -1 if info.end_block is None else info.end_block,
            info.throughput,
        )
        for block, module in enumerate(modules)
        for peer, info in sorted(module.servers.items(), key=lambda item: item[0])
    ]
    return Packed(np.array(records, dtype=_RECORD), len(peers), len(modules), number[own])


class Reference:
    """The compiled rule."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._before_search, self._one_round = library.before_search, library.one_round
        self._before_search.restype = self._one_round.restype = ctypes.c_int64

    @staticmethod
    def can_be_made() -> bool:
        """Tell whether there is what it takes to compile."""
        return shutil.which("cc") is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()

    @classmethod
    @cache
    def load(cls) -> Reference:
        """Compile and load it."""
        FRESH.mkdir(parents=True, exist_ok=True)
        path = FRESH / "reference.so"
        command = ["cc", "-O2", "-ffp-contract=off", "-fPIC", "-shared", f"-I{sysconfig.get_path('include')}"]
        subprocess.run([*command, str(_SOURCE), "-o", str(path)], check=True)
        return cls(ctypes.CDLL(str(path)))

    def should_choose_other_blocks(self, given: Packed, quality: float, rng: np.random.RandomState) -> bool:
        """Answer as `swarmkeel.should_choose_other_blocks` does, for swarms whose spans are within the blocks."""
        servers, total_blocks = given.servers, given.total_blocks
        blocks, shares = np.empty(total_blocks), np.empty(servers)
        starts, lengths = np.empty(servers, dtype=np.int64), np.empty(servers, dtype=np.int64)
        workspace, scratch = np.empty(4 * servers, dtype=np.int64), np.empty(2 * total_blocks + servers)
        initial = ctypes.c_double()
        size = ctypes.c_int64
        ended = self._before_search(
            _at(given.records), size(len(given.records)), size(servers), size(total_blocks), size(given.own),
            _at(blocks), _at(starts), _at(lengths), _at(shares), ctypes.byref(initial), _at(workspace), _at(scratch),
        )  # fmt: skip
        if ended != _GOES_ON:
            return bool(ended)
        for _ in range(MAX_ROUNDS):
            order = np.arange(servers)
            rng.shuffle(order)
            if not self._one_round(
                _at(blocks), size(total_blocks), _at(starts), _at(lengths), _at(shares), _at(order), size(servers),
                _at(scratch),
            ):  # fmt: skip
                break
        else:
            return False
        reached = float(blocks.min())
        gains = reached >= initial.value and reached >= EPSILON
        return gains and initial.value / reached < quality - EPSILON


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
