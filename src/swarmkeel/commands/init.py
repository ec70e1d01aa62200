"""`swarmkeel init`: ask a server that runs what it is, and write the configuration of its sidecar."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as sockets
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import BaseModel, ValidationError

from swarmkeel.commands.reading import patience
from swarmkeel.config import (
    BalanceSection,
    Config,
    ConfigError,
    JournalSection,
    ServerSection,
    SwarmSection,
    load_config,
)
from swarmkeel.config_errors import describe_error
from swarmkeel.config_text import render_config
from swarmkeel.control.client import ControlClient, ServerUnreachable
from swarmkeel.control.protocol import ServerStatus
from swarmkeel.control.unix_socket import SocketPathError, check_socket_path, own_and_root_uids, peer_uid
from swarmkeel.errors import SwarmkeelError, UsageError
from swarmkeel.printable import printable

_SYSTEM_STATE: Final = Path("/var/lib/swarmkeel")

_HEADING: Final = (
    "Configuration of the sidecar of one GPU server, written by swarmkeel init. What stands behind a # is the default. "
    "Check what you change with: swarmkeel check-config FILE\n\n"
    "Durations are numbers of seconds or text like 90s, 15m, 2h, 1d. Any key can be overridden in the environment: "
    "SWARMKEEL_BALANCE__DRY_RUN=false overrides balance.dry_run."
)


def init(
    *,
    socket: Annotated[Path, typer.Option("--socket", "-s", help="The control socket of the server, which runs.")],
    initial_peers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS", help="A DHT peer to join through, such as the server's own; may be given several times."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("swarmkeel.yaml"),
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the journal and the sidecar's key; /var/lib/swarmkeel where that can be written to, else "
            "the user's own."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="How long the server may take to answer, in seconds.")] = 10.0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented configuration for the server at a control socket.

    The server says what model it serves; it is not told to do anything. The configuration is a dry run: the sidecar
    tells what it would do, and moves nothing until balance.dry_run is set to false.
    """
    if output.exists() and not force:
        raise UsageError(f"{output} is there already", "choose another by --output, or overwrite it by --force")
    with patience("asking the server ..."):
        uid, status = _ask(socket.absolute(), timeout)
    typer.echo(f"{printable(str(socket), 200)}: {_describe(status)}, run by user {uid}")
    peers = initial_peers or _ask_for_peers()
    folder = state or _state_folder()
    name = output.stem
    swarm: dict[str, Any] = {
        "dht_prefix": status.dht_prefix,
        "total_blocks": status.total_blocks,
        "initial_peers": peers,
        "identity_path": folder.absolute() / f"{name}.identity",
    }
    server: dict[str, Any] = {"socket": socket.absolute()}
    if uid not in own_and_root_uids():
        server["uids"] = [uid]
    sections = {
        "swarm": _section("swarm", SwarmSection, swarm),
        "server": _section("server", ServerSection, server),
        "balance": BalanceSection(dry_run=True),
        "journal": JournalSection(path=folder.absolute() / f"{name}.sqlite3"),
    }
    text = render_config(sections, heading=_HEADING)
    if status.peer_id is not None:
        # Not set: a server without a key file of its own is another peer after each start.
        text = text.replace("  #peer_id:\n", f"  #peer_id: {printable(status.peer_id)}\n")
    _make_folder(folder)
    _write(output, text, force=force)
    typer.echo(f"written: {output}")
    typer.echo(f"next: swarmkeel snapshot -c {output}, swarmkeel explain -c {output}, then swarmkeel run -c {output}")


def _ask(path: Path, timeout: float) -> tuple[int, ServerStatus]:
    """Give the user who listens at a socket, and what the server there says of itself."""
    remedy = "see that the server runs, and name its control socket by --socket"
    try:
        check_socket_path(path)
    except SocketPathError as error:
        raise UsageError(str(error), remedy) from error
    with sockets.socket(sockets.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
        except OSError as error:
            reason = error.strerror or str(error)
            raise SwarmkeelError(f"no server at {path}: {reason}", remedy) from error
        uid = peer_uid(connection)

    async def ask() -> ServerStatus:
        async with ControlClient(path, request_timeout=timeout, allowed_uids={uid}) as client:
            return await client.status()

    try:
        return uid, asyncio.run(ask())
    except ServerUnreachable as error:
        raise SwarmkeelError(error.problem, remedy) from error


def _describe(status: ServerStatus) -> str:
    blocks = "no blocks yet" if status.span is None else f"blocks {status.span}"
    model = f"{printable(status.dht_prefix)} ({status.total_blocks} blocks)"
    return f"{printable(status.implementation)}, {status.state.value}, {blocks} of {model}"


def _ask_for_peers() -> list[str]:
    if not sys.stdin.isatty():
        raise UsageError(
            "no DHT peer to join through is named",
            "give --initial-peers /ip4/.../tcp/.../p2p/..., as the server was given it or as it logs its own",
        )
    answer: str = typer.prompt("DHT peers to join through, as the server was given them or logs its own")
    return answer.replace(",", " ").split()


def _state_folder() -> Path:
    place = _SYSTEM_STATE if _SYSTEM_STATE.exists() else _SYSTEM_STATE.parent
    if os.access(place, os.W_OK):
        return _SYSTEM_STATE
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "swarmkeel"


def _section(name: str, model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    try:
        return model(**values)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        found["loc"] = (name, *found["loc"])
        where, what = describe_error(found, Config)
        raise UsageError(f"no configuration comes of this: {where} {what}", "swarmkeel init --help") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SwarmkeelError(f"{folder}: {error.strerror or error}", "name another folder by --state") from error


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write the file as a whole or not at all, for its owner alone, and only if it is a configuration."""
    remedy = "name a file that can be written by --output"
    try:
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)  # mode 0600
    except OSError as error:
        raise SwarmkeelError(f"{path}: {error.strerror or error}", remedy) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        try:
            load_config(Path(draft))
        except ConfigError as error:
            where, what = error.findings[0]
            raise UsageError(f"no configuration comes of this: {where}: {what}", "swarmkeel init --help") from error
        if force:
            Path(draft).replace(path)
        else:
            os.link(draft, path)
    except FileExistsError as error:
        raise UsageError(f"{path} is there already", "overwrite it by --force") from error
    except OSError as error:
        raise SwarmkeelError(f"{path}: {error.strerror or error}", remedy) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(draft).unlink()
