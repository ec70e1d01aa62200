"""`swarmkeel supervise`: any server as a child process that a sidecar can move."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from swarmkeel.control.protocol import ServerStatus
from swarmkeel.control.server import ControlServer, SocketPathError
from swarmkeel.control.supervisor import PASSED_ON, Supervisor, SupervisorSettings
from swarmkeel.control.supervisor_command import CommandTemplate
from swarmkeel.control.supervisor_readiness import AllOf, PatternProbe, PortProbe, Probe, ProbeFactory
from swarmkeel.control.unix_socket import own_and_root_uids, uid_of
from swarmkeel.daemon.logs import configure_logging
from swarmkeel.daemon.move import Announcement
from swarmkeel.durations import parse_duration
from swarmkeel.errors import SwarmkeelError, UsageError
from swarmkeel.swarm.peer_id import peer_id_of_key
from swarmkeel.swarm.snapshot import SwarmSnapshot
from swarmkeel.swarm.span import Span

_ReadSwarm = Callable[[], Awaitable[SwarmSnapshot]]
_DHT_POLL_SECONDS: Final = 2.0
_LONGEST_KEY_FILE: Final = 64 * 1024
_ENDED_BY_SIGNAL: Final = 128
"""What a shell adds to the number of the signal that ended a process."""


def _seconds(text: str) -> float:
    try:
        value = float(str(parse_duration(text)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not 0 <= value < float("inf"):
        raise typer.BadParameter("must be a duration of 0 s or more")
    return value


def _span(text: str) -> Span:
    first, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError("a span is written FIRST:END, the end excluded")  # noqa: TRY301 - handled as the others
        return Span(int(first), int(end))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _pattern(text: str) -> re.Pattern[bytes]:
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise typer.BadParameter(f"no regular expression: {error}") from None


@dataclass(frozen=True)
class _Address:
    host: str
    port: int


def _address(text: str) -> _Address:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise typer.BadParameter("must be HOST:PORT")
    return _Address(host, int(port))


def _user(text: str) -> int:
    try:
        return uid_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _signal(text: str | signal.Signals) -> signal.Signals:
    if isinstance(text, signal.Signals):  # typer gives the default to the parser too
        return text
    name = text.upper().removeprefix("SIG")
    if name not in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2"):
        raise typer.BadParameter("must be TERM, INT, QUIT, HUP, USR1 or USR2")
    return signal.Signals[f"SIG{name}"]


def supervise(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND...",
            help="The server's command, with {start}, {end} (excluded) and perhaps {num_blocks} where it takes its blocks.",
        ),
    ],
    *,
    socket: Annotated[Path, typer.Option(help="The control socket to listen at.")],
    allow_user: Annotated[
        list[int] | None,
        typer.Option(
            parser=_user, metavar="USER", help="Another user who may use it, such as the sidecar's; repeatable."
        ),
    ] = None,
    dht_prefix: Annotated[str, typer.Option(help="Name of the model in the DHT.")],
    total_blocks: Annotated[int, typer.Option(min=1, help="Blocks of the model.")],
    num_blocks: Annotated[int, typer.Option(min=1, help="Blocks that the server holds.")],
    throughput: Annotated[float, typer.Option(min=0, help="Requests a second that the server announces.")] = 1.0,
    identity: Annotated[Path | None, typer.Option(help="The server's key file; its peer id follows from it.")] = None,
    peer_id: Annotated[str | None, typer.Option(help="The server's peer id, where there is no key file.")] = None,
    start: Annotated[
        Span | None, typer.Option(parser=_span, metavar="FIRST:END", help="Blocks to start on; else it is idle first.")
    ] = None,
    idle_limit: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="Idle for so long, start on --fallback.")
    ] = None,
    fallback: Annotated[
        Span | None, typer.Option(parser=_span, metavar="FIRST:END", help="Blocks to start on without a sidecar.")
    ] = None,
    ready_pattern: Annotated[
        re.Pattern[bytes] | None,
        typer.Option(parser=_pattern, metavar="REGEX", help="Ready when a line of its output matches."),
    ] = None,
    ready_port: Annotated[
        _Address | None,
        typer.Option(parser=_address, metavar="HOST:PORT", help="Ready when this TCP port takes connections."),
    ] = None,
    ready_dht: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MADDR", help="Ready when the DHT, joined through this peer, shows it ONLINE; repeatable."
        ),
    ] = None,
    ready_timeout: Annotated[
        float,
        typer.Option(parser=_seconds, metavar="TIME", show_default="15m", help="Not ready for so long, it has failed."),
    ] = 900.0,
    stop_signal: Annotated[
        signal.Signals,
        typer.Option(parser=_signal, metavar="NAME", show_default="TERM", help="Signal that asks it politely to end."),
    ] = signal.SIGTERM,
    stop_grace: Annotated[
        float, typer.Option(parser=_seconds, metavar="TIME", show_default="30s", help="From then until SIGKILL.")
    ] = 30.0,
    pinned: Annotated[bool, typer.Option("--pinned", help="Let no sidecar move it.")] = False,
) -> None:
    """Run any server as a child process and offer the control socket for it.

    A restart on other blocks ends the whole process group and runs the command again with the new blocks. Several
    --ready options must all hold.
    """
    if num_blocks > total_blocks:
        raise UsageError(f"--num-blocks is {num_blocks}", f"the model has {total_blocks} (--total-blocks)")
    for name, span in (("--start", start), ("--fallback", fallback)):
        _check_span(name, span, num_blocks=num_blocks, total_blocks=total_blocks)
    if (idle_limit is None) != (fallback is None):
        raise UsageError("--idle-limit and --fallback need each other", "give both, or none to wait for the sidecar")
    _check_peer(identity, peer_id, is_needed=bool(ready_dht))
    settings = SupervisorSettings(
        command=CommandTemplate(tuple(command)),
        dht_prefix=dht_prefix,
        total_blocks=total_blocks,
        num_blocks=num_blocks,
        throughput=throughput,
        start=start,
        idle_limit=idle_limit,
        fallback=fallback,
        pinned=pinned,
        stop_signal=stop_signal,
        stop_grace=stop_grace,
        ready_timeout=ready_timeout,
    )
    ids = KnownPeerId(identity, peer_id)
    read_swarm = _swarm_reading(ready_dht, dht_prefix, total_blocks) if ready_dht else None
    make_probe = _probe_factory(ready_pattern, ready_port, read_swarm, ids.get)
    allowed = own_and_root_uids().union(allow_user or ())
    code = asyncio.run(_run(settings, make_probe, ids.get, socket, allowed))
    if code:
        raise typer.Exit(code if code > 0 else _ENDED_BY_SIGNAL - code)


def _probe_factory(
    pattern: re.Pattern[bytes] | None,
    address: _Address | None,
    read_swarm: _ReadSwarm | None,
    peer_id: Callable[[], str | None],
) -> ProbeFactory:
    """Give what makes a probe of all that was given."""
    if pattern is None and address is None and read_swarm is None:
        raise UsageError("nothing tells when the server is ready", "give --ready-pattern, --ready-port or --ready-dht")

    def make_probe(span: Span) -> Probe:
        probes: list[Probe] = []
        if pattern is not None:
            probes.append(PatternProbe(pattern))
        if address is not None:
            probes.append(PortProbe(address.host, address.port))
        if read_swarm is not None:
            probes.append(DhtProbe(read_swarm, peer_id, span))
        return AllOf(probes)

    return make_probe


async def _run(
    settings: SupervisorSettings,
    probe: ProbeFactory,
    peer_id: Callable[[], str | None],
    socket: Path,
    allowed_uids: frozenset[int],
) -> int:
    """Supervise until a signal ends it; gives the return code of the server's last run."""
    supervisor = Supervisor(settings, probe, peer_id)
    try:
        ServerStatus.from_json(supervisor.status().to_json())
    except ValueError as error:
        raise UsageError(
            f"no sidecar could read this server's status: {error}", "mend the option of that name"
        ) from error
    configure_logging("info", "auto")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.end, number)
    for number in PASSED_ON:
        loop.add_signal_handler(number, supervisor.pass_on, number)
    try:
        control = ControlServer(socket, supervisor, allowed_uids=allowed_uids)
        control.start()
    except SocketPathError as error:
        raise UsageError(str(error), "give --socket another path") from error
    try:
        return await supervisor.run()
    finally:
        await asyncio.to_thread(control.close)


def _check_span(name: str, span: Span | None, *, num_blocks: int, total_blocks: int) -> None:
    if span is None:
        return
    if span.end > total_blocks:
        raise UsageError(f"{name} {span} is beyond the model", f"it has the blocks 0:{total_blocks}")
    if len(span) != num_blocks:
        raise UsageError(f"{name} {span} has {len(span)} blocks", f"the server holds {num_blocks} (--num-blocks)")


def _check_peer(identity: Path | None, peer_id: str | None, *, is_needed: bool) -> None:
    if identity is not None and peer_id is not None:
        raise UsageError("--identity and --peer-id exclude each other", "give the key file alone")
    if is_needed and identity is None and peer_id is None:
        raise UsageError("--ready-dht has to know the server's peer id", "give --identity, or --peer-id")


class KnownPeerId:
    """The server's peer id: as given, or from its key file as soon as there is one.

    Args:
        key_file: The server's key file, which it may make itself at its first start.
        given: The peer id that is known without.
    """

    def __init__(self, key_file: Path | None, given: str | None) -> None:
        self._key_file = key_file
        self._known = given

    def get(self) -> str | None:
        """Give the peer id; None while there is no whole key file."""
        if self._known is None and self._key_file is not None:
            with suppress(OSError, ValueError), self._key_file.open("rb") as source:
                self._known = peer_id_of_key(source.read(_LONGEST_KEY_FILE))
        return self._known


class DhtProbe:
    """Ready when the DHT shows the server ONLINE on exactly its blocks.

    A record that a former run left under the same peer id, on the same blocks, counts too until it expires.

    Args:
        read_swarm: Takes a snapshot.
        peer_id: Gives the server's peer id.
        span: The blocks.
    """

    def __init__(self, read_swarm: _ReadSwarm, peer_id: Callable[[], str | None], span: Span) -> None:
        self._read_swarm = read_swarm
        self._peer_id = peer_id
        self._span = span

    def look_at(self, text: bytes) -> None:
        """Do nothing: the output tells nothing of the DHT."""

    async def wait(self) -> None:
        """Wait until the server is there."""
        from swarmkeel.daemon.mover import find_announcement  # noqa: PLC0415 - all commands would wait for what it imports

        while True:
            peer_id = self._peer_id()
            with suppress(SwarmkeelError):  # a DHT that does not answer may do so later
                if (
                    peer_id is not None
                    and find_announcement(await self._read_swarm(), peer_id, self._span) is Announcement.ONLINE
                ):
                    return
            await asyncio.sleep(_DHT_POLL_SECONDS)


def _swarm_reading(initial_peers: list[str], dht_prefix: str, total_blocks: int) -> _ReadSwarm:
    """Give what takes snapshots of the swarm; each with a node of its own, so that none is there but while it is needed."""
    from swarmkeel.swarm.reader import SwarmReader  # noqa: PLC0415 - only --ready-dht needs the DHT

    async def read() -> SwarmSnapshot:
        reader = SwarmReader(initial_peers, dht_prefix, total_blocks)
        try:
            return await reader.read()
        finally:
            await reader.close()

    return read
