"""What the tests of faults found, for the table in docs/reliability.md: written down only when `make reliability` asks."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

FOLDER_VARIABLE: Final = "SWARMKEEL_RELIABILITY"
"""Names the folder that takes the findings; nothing is written where it is not set."""

FAULTS: Final = {
    "any sequence of events": "never two moves at once, no move to where the server is, none that uncovers a block, one fallback, "
    "no move while the breaker holds",
    "DHT outage": "verdict `insufficient_information`; reads again when it is back",
    "bootstrap peer gone": "reads on through the others; a new sidecar joins through them",
    "p2pd of the sidecar killed": "another one is started, and it reads again",
    "p2pd of the sidecar frozen": "the reading ends at its deadline, and it reads again",
    "p2pd of the peers frozen": "verdict `insufficient_information`; reads again when they go on",
    "Python of the peers frozen": "verdict `insufficient_information`; reads again when they go on",
    "half of the keys unreadable": "verdict `insufficient_information`",
    "own record missing": "verdict `insufficient_information`",
    "peers flapping": "reads again each time, in the end all of it",
    "server hangs in JOINING": "`failed` at the deadline; no second move",
    "server dies while moving": "`failed`; no second move",
    "server lies about its state": "what the DHT does not confirm is not `done`; no move on words alone",
    "control socket gone": "verdict `insufficient_information`; used again when it is back",
    "control socket replaced": "the other server is told nothing; a move under way ends `failed`",
    "control socket never answers": "each request ends at its deadline; metrics and health answer on",
    "control socket answers byte by byte": "each request ends at its deadline; metrics and health answer on",
    "disk full": "verdict `failed`, nothing is told to the server; goes on when there is room",
    "journal read-only": "verdict `failed`, nothing is told to the server; goes on when it can write",
    "journal corrupted": "refused in one line at the start, or verdict `failed`; nothing is told to the server",
    "clock jumps back and forth": "the move under way ends `done`; no further move",
    "file descriptors used up": "verdict other than `moving`; goes on when there are some again",
    "SIGTERM at every step of a move": "`abandoned` if it was only planned, else the end that it would have had",
    "SIGKILL at every step of a move": "`abandoned` if it was only planned, else the end that it would have had",
    "SIGSTOP and SIGCONT at every step of a move": "the end that it would have had",
}
"""Every fault that is injected, and what it must end in."""


@dataclass(frozen=True)
class Finding:
    """What one test found.

    Attributes:
        fault: One of `FAULTS`.
        injected: How often the fault was injected.
        happened: What it ended in, in a few words.
        moves: Moves that were begun.
        restarts: Restarts that the server began.
    """

    fault: str
    injected: int
    happened: str
    moves: int = 0
    restarts: int = 0


def note(finding: Finding) -> None:
    """Write a finding down, if somebody wants to know."""
    assert finding.fault in FAULTS
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    # A file for each process: tests run in several at once.
    with (path / f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps(asdict(finding)) + "\n")


def findings(folder: Path) -> list[Finding]:
    """Read all that was written down."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [Finding(**json.loads(line)) for line in lines]
