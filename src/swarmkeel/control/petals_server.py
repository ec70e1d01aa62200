"""Petals' own server with a control socket: `python -m swarmkeel.control.petals_server --control-socket S ...`.

All other arguments are those of `petals.cli.run_server`. Needs Petals and the standard library: it is installed into
Petals' environment with `pip install --no-deps swarmkeel`.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from swarmkeel.control.petals_hivemind import restore_hivemind_names
from swarmkeel.control.unix_socket import uid_of

_IDLE_LIMIT_SECONDS = 120.0
_SIDECAR_LOST_SECONDS = 600.0
_START_LIMIT_SECONDS = 300.0


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds from 0")
    return seconds


def _user(text: str) -> int:
    try:
        return uid_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m swarmkeel.control.petals_server",
        description="Run a Petals server that a Swarmkeel sidecar can move.",
        epilog="All other arguments are those of petals.cli.run_server.",
        allow_abbrev=False,
    )
    parser.add_argument("--control-socket", required=True, help="path of the control socket")
    parser.add_argument(
        "--allow-user",
        dest="allowed_uids",
        type=_user,
        action="append",
        default=[],
        metavar="USER",
        help="name or number of another user who may use the control socket, such as the sidecar's; repeatable (default: "
        "only the server's own and root)",
    )
    parser.add_argument(
        "--idle-limit",
        type=_seconds,
        default=_IDLE_LIMIT_SECONDS,
        help="seconds to wait for the sidecar's first choice before choosing as Petals does (default: %(default)g)",
    )
    parser.add_argument(
        "--sidecar-lost-after",
        type=_seconds,
        default=_SIDECAR_LOST_SECONDS,
        help="seconds without a request after which Petals' own rebalancing is back (default: %(default)g)",
    )
    parser.add_argument(
        "--start-limit",
        type=_seconds,
        default=_START_LIMIT_SECONDS,
        help="seconds that the processes which serve loaded blocks may take to start, before the load counts as failed "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--prefetch",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fetch the weights of other blocks before the present ones are stopped; without, disk space for one span "
        "is enough (default: on)",
    )
    return parser.parse_known_args(arguments)


def _end_like_ctrl_c() -> None:
    """Have SIGTERM end the server as SIGINT does: with a goodbye to the swarm, and with all its processes."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the second ends it whatever it does
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # Petals ends its own processes by SIGTERM, too: for them it means what it always did.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server until it is told to end."""
    options, petals_arguments = _parse(sys.argv[1:] if arguments is None else arguments)
    restore_hivemind_names()
    # Petals and what needs it can only be imported now that hivemind's names are in their places.
    from petals.cli import run_server  # noqa: PLC0415 - as said

    from swarmkeel.control.petals_steering import SteeredServer, SteeringOptions  # noqa: PLC0415 - as said

    logging.getLogger("swarmkeel").setLevel(logging.INFO)
    run_server.Server = functools.partial(SteeredServer, options=SteeringOptions(**vars(options)))
    run_server.validate_version = _say_version
    _end_like_ctrl_c()
    sys.argv = ["petals.cli.run_server", *petals_arguments]
    run_server.main()


def _say_version() -> None:
    """Stand in for Petals' look at a website for newer versions, which can hold up a start without network."""
    import petals  # noqa: PLC0415 - only after hivemind's names are in their places

    logging.getLogger(__name__).info("running Petals %s", petals.__version__)


if __name__ == "__main__":
    main()
