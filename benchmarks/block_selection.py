"""How long one imbalance check takes: Swarmkeel beside the plain rules of the tests, and beside Petals' own code.

    python benchmarks/block_selection.py [--servers 1000] [--blocks 126] [--repeats 3] [--petals .../petals]

Each case is a random swarm and a server whose check goes through the whole search. All contenders answer the same
question in turn, within one process, and must agree. The times are processor time, the least of all repeats.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, it finds the rules of the tests

from swarmkeel.balance.imbalance import ImbalanceCheck, check_imbalance, should_choose_other_blocks
from swarmkeel.swarm.record import ServerInfo, ServerState
from swarmkeel.swarm.remote import RemoteModuleInfo, compute_spans
from tests.balance import plain

QUALITY = 0.75
SEED = 1


@dataclass(frozen=True)
class Case:
    """One swarm: how long its servers' spans are and what they announce."""

    name: str
    shortest: int
    longest: int
    same_throughput: bool = False


CASES = (
    Case("spans of 1 to 126 blocks", 1, 126),
    Case("spans of 4 to 40 blocks", 4, 40),
    Case("spans of 10 blocks", 10, 10),
    Case("spans of 4 to 40 blocks, servers equally fast", 4, 40, same_throughput=True),
)


def make_swarm(case: Case, servers: int, total_blocks: int) -> list[RemoteModuleInfo[str]]:
    """Place servers at random, and write down what each announces under each of its blocks."""
    draws = random.Random(SEED)  # noqa: S311 -- a swarm, not a secret
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    modules: list[RemoteModuleInfo[str]] = [RemoteModuleInfo(f"model.{block}", {}) for block in range(total_blocks)]
    for _ in range(servers):
        peer = "Qm" + "".join(draws.choices(alphabet, k=44))
        length = draws.randint(min(case.shortest, total_blocks), min(case.longest, total_blocks))
        start = draws.randint(0, total_blocks - length)
        throughput = 10.0 if case.same_throughput else draws.uniform(1, 100)
        info = ServerInfo(ServerState.ONLINE, throughput, start_block=start, end_block=start + length)
        for module in modules[start : start + length]:
            module.servers[peer] = info
    return modules


def find_longest_check(modules: list[RemoteModuleInfo[str]]) -> tuple[str, ImbalanceCheck]:
    """Find a server whose check goes through the search; most end before it."""
    spans = compute_spans(modules, min_state=ServerState.JOINING)
    for peer in spans:
        check = check_imbalance(peer, spans, QUALITY, total_blocks=len(modules), rng=np.random.RandomState(SEED))
        if check.rounds:
            return peer, check
    raise SystemExit("no server of this swarm wants to move; try more servers")


def load_petals(package: Path) -> Mapping[str, types.ModuleType]:
    """Load the files of Petals that the check needs, without the packages around them, which want much more."""
    import hivemind  # noqa: PLC0415 -- only where Petals' code is there to be measured
    from hivemind.p2p import PeerID  # noqa: PLC0415 -- as above
    from hivemind.utils import get_logger  # noqa: PLC0415 -- as above

    hivemind.PeerID, hivemind.get_logger = PeerID, get_logger  # where Petals looks for them, as older versions had them
    for name in ("petals", "petals.utils", "petals.server"):
        sys.modules[name] = types.ModuleType(name)
    loaded = {}
    for name in ("data_structures", "utils.dht", "server.block_selection"):
        path = package / f"{name.replace('.', '/')}.py"
        spec = importlib.util.spec_from_file_location(f"petals.{name}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise SystemExit(f"{path}: there is no such file of Petals")
        loaded[name] = sys.modules[f"petals.{name}"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    return loaded


def ask_petals(petals: Mapping[str, types.ModuleType], modules: list[RemoteModuleInfo[str]]) -> Callable[[str], Any]:
    """Put the swarm into Petals' own types and give its function."""
    from hivemind.p2p import PeerID  # noqa: PLC0415 -- only where Petals' code is there to be measured

    structures, selection = petals["data_structures"], petals["server.block_selection"]
    selection.logger.setLevel("ERROR")
    their_modules = [
        structures.RemoteModuleInfo(
            module.uid,
            {
                PeerID.from_base58(peer): structures.ServerInfo.from_tuple(info.to_tuple())
                for peer, info in module.servers.items()
            },
        )
        for module in modules
    ]

    def ask(peer: str) -> bool:
        np.random.seed(SEED)  # noqa: NPY002 -- Petals shuffles by the global generator
        return bool(selection.should_choose_other_blocks(PeerID.from_base58(peer), their_modules, QUALITY))

    return ask


def ask_plain(modules: list[RemoteModuleInfo[str]]) -> Callable[[str], bool]:
    """Give the tests' plain rules."""
    return lambda peer: (
        plain.check(peer, plain.spans_of(modules, ServerState.JOINING), QUALITY, len(modules), SEED).should_move
    )


def ask_swarmkeel(modules: list[RemoteModuleInfo[str]]) -> Callable[[str], bool]:
    """Give the function under test."""
    return lambda peer: should_choose_other_blocks(peer, modules, QUALITY, rng=np.random.RandomState(SEED))


def main() -> None:
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=126)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--petals", type=Path, help="directory of the package petals, to measure its own code too")
    options = parser.parse_args()
    petals = load_petals(options.petals) if options.petals else None

    print(f"one imbalance check, {options.servers} servers, {options.blocks} blocks")
    print(f"{'':48}{'records':>8}{'rounds':>7}  {'contender':10}{'ms':>9}{'times':>7}")
    for case in CASES:
        modules = make_swarm(case, options.servers, options.blocks)
        peer, check = find_longest_check(modules)
        contenders: dict[str, Callable[[str], bool]] = {
            "swarmkeel": ask_swarmkeel(modules),
            "plain": ask_plain(modules),
        }
        if petals is not None:
            contenders["petals"] = ask_petals(petals, modules)
        best = dict.fromkeys(contenders, float("inf"))
        for _ in range(options.repeats):
            for name, ask in contenders.items():
                started = time.process_time()
                answer = ask(peer)
                best[name] = min(best[name], time.process_time() - started)
                if answer is not check.should_move:
                    raise SystemExit(f"{case.name}: {name} answers {answer}, swarmkeel {check.should_move}")
        head = f"{case.name:48}{sum(len(module.servers) for module in modules):8}{check.rounds:7}"
        for name, seconds in best.items():
            print(f"{head}  {name:10}{seconds * 1000:9.1f}{seconds / best['swarmkeel']:7.1f}")
            head = " " * len(head)


if __name__ == "__main__":
    main()
