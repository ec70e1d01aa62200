"""Answer as the installed Petals does, and as Swarmkeel does in Petals' environment.

Reads lines like {"modules": [["model.0", {"QmA": [2, 1.0, {...}]}]], "num_blocks": 2, "peer": "QmA", "quality": 0.75,
"seed": 1}, writes lines like {"petals": [...], "swarmkeel": [...]}.
"""

import json
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import swarmkeel
from swarmkeel.control.petals_hivemind import restore_hivemind_names

restore_hivemind_names()

from hivemind import PeerID  # noqa: E402 - hivemind's names come first
from petals import data_structures  # noqa: E402 - as above
from petals.server import block_selection  # noqa: E402 - as above


class EndlessError(Exception):
    """Petals does not come to an end."""


def give_up(*_: object) -> None:
    raise EndlessError


def answer_or_error(call: Callable[[], Any]) -> Any:
    try:
        # Counted in time of the processor: on a busy machine half a second passes without an answer that would come.
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.5)
        answer = call()
    except Exception as error:
        return type(error).__name__
    else:
        return bool(answer) if isinstance(answer, np.bool_) else answer
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def answers(
    request: dict[str, Any], types: Any, names: Any, peer_id: Callable[[str], Any], **options: Any
) -> list[Any]:
    modules = [
        types.RemoteModuleInfo(
            uid, {peer_id(peer): types.ServerInfo.from_tuple(tuple(record)) for peer, record in servers.items()}
        )
        for uid, servers in request["modules"]
    ]
    return [
        answer_or_error(lambda: names.choose_best_blocks(request["num_blocks"], modules)),
        answer_or_error(
            lambda: names.should_choose_other_blocks(peer_id(request["peer"]), modules, request["quality"], **options)
        ),
    ]


signal.signal(signal.SIGVTALRM, give_up)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    np.random.seed(request["seed"])  # noqa: NPY002 - what Petals draws from
    of_petals = answers(request, data_structures, block_selection, PeerID.from_base58)
    of_swarmkeel = answers(request, swarmkeel, swarmkeel, str, rng=np.random.RandomState(request["seed"]))
    print(json.dumps({"petals": of_petals, "swarmkeel": of_swarmkeel}), flush=True)
