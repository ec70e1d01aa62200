"""Real Petals servers, clients and the local reference, as processes of Petals' own environment.

`make test-petals` makes that environment. Everything these helpers start ends with the block that started it, and all
files are in the folder that they are given.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import ServerPhase, ServerStatus
from swarmkeel.demo.processes import ChildProcess
from swarmkeel.errors import SwarmkeelError
from swarmkeel.swarm.span import Span
from tests.support.sidecars import SidecarProcess
from tests.support.sockets import free_port

ROOT = Path(__file__).parents[2]
PETALS_PYTHON = Path(os.environ.get("PETALS_PYTHON", ROOT / ".venv-petals" / "bin" / "python"))
PROGRAMS = Path(__file__).parent / "programs"
PREFIX = "tinyllama"
BLOCKS = 8
UPDATE_PERIOD = 3.0
"""How often servers announce themselves; their records live for as long again as hivemind's clocks may differ."""
PATIENCE = 240.0

_QUIET = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


_made: dict[str, bytes] = {}


async def make_model(folder: Path) -> Path:
    """Make a tiny Llama with random weights in `folder`, always the same, and give its path."""
    path = folder / "model-petals"
    if not _made:
        process = await ChildProcess.start(
            "make_model",
            [str(PETALS_PYTHON), str(PROGRAMS / "make_model.py"), str(path), str(BLOCKS)],
            folder / "model.log",
        )
        if await process.wait():
            raise process.failure("failed")
        _made.update({file.name: file.read_bytes() for file in path.iterdir()})
    path.mkdir(exist_ok=True)
    for name, content in _made.items():
        (path / name).write_bytes(content)
    return path


def petals_arguments(
    model: Path | str,
    initial_peers: Sequence[str],
    *,
    identity: Path,
    port: int,
    num_blocks: int | None = None,
    block_indices: str | None = None,
    throughput: float = 10.0,
    extra: Sequence[str] = (),
) -> list[str]:
    """Give the arguments of petals.cli.run_server for a small server on this machine.

    Args:
        model: The model's folder, or its name at a hub.
        initial_peers: Peers of the DHT to join through.
        identity: File of its key, made when missing: its peer id.
        port: TCP port of its p2pd.
        num_blocks: How many blocks it holds, wherever.
        block_indices: Which blocks it holds; may hold placeholders such as "{start}:{end}".
        throughput: What it announces.
        extra: Further arguments.
    """
    where = ["--num_blocks", str(num_blocks)] if block_indices is None else ["--block_indices", block_indices]
    settings = {
        "--throughput": throughput,
        "--torch_dtype": "float32",
        "--device": "cpu",
        "--quant_type": "none",
        "--num_handlers": 1,
        "--attn_cache_tokens": 256,
        "--host_maddrs": f"/ip4/127.0.0.1/tcp/{port}",
        "--identity_path": identity,
        "--dht_prefix": PREFIX,
        "--mean_balance_check_period": 3,
        "--update_period": UPDATE_PERIOD,
        "--expiration": 9,
    }
    given = [str(word) for pair in settings.items() for word in pair]
    return [str(model), *where, *given, "--initial_peers", *initial_peers, *extra]


def plain_server_command(arguments: Sequence[str]) -> list[str]:
    """Give the command of Petals' own server, without an adapter."""
    return [str(PETALS_PYTHON), "-u", str(PROGRAMS / "run_server.py"), *arguments]


_ADAPTER = ("-m", "swarmkeel.control.petals_server")


def faulty_adapter(demand: Path) -> tuple[str, ...]:
    """Give what runs the adapter so that it fails in the way that is written into a file."""
    return (str(PROGRAMS / "faulty_server.py"), str(demand))


class PetalsServer:
    """A running Petals server.

    Attributes:
        process: Its main process.
        socket: Its control socket; None without an adapter.
    """

    def __init__(self, process: ChildProcess, socket: Path | None) -> None:
        self.process = process
        self.socket = socket

    @property
    def log(self) -> str:
        """All that it wrote."""
        return self.process.log_path.read_text(errors="replace")

    async def wait_until_started(self, times: int = 1) -> None:
        """Wait until its blocks serve, the first or a later time."""
        await wait_for(lambda: self.log.count(" Started\n") >= times, self.process)

    async def maddr(self) -> str:
        """Wait until it has joined the DHT, and give its address there."""
        address = re.compile(r"Running a server on \['([^']+)'")
        await wait_for(lambda: address.search(self.log), self.process)
        found = address.search(self.log)
        assert found is not None
        return found[1]

    async def status(self) -> ServerStatus:
        """Ask for its status, as a sidecar does."""
        assert self.socket is not None, "this server has no adapter"
        async with ControlClient(self.socket, request_timeout=PATIENCE) as client:
            return await client.status()

    async def wait_for_status(self, condition: Any, seconds: float = PATIENCE) -> ServerStatus:
        """Wait until its status meets a condition, and give it."""
        assert self.socket is not None, "this server has no adapter"
        status: ServerStatus | None = None
        try:
            async with asyncio.timeout(seconds), ControlClient(self.socket, request_timeout=2) as client:
                while True:
                    with suppress(SwarmkeelError):
                        status = await client.status()
                        if condition(status):
                            return status
                    if not self.process.is_running:
                        raise self.process.failure("ended")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise self.process.failure(f"is not as expected but {status}") from None

    async def wait_until_online(self, span: Span | None = None) -> ServerStatus:
        """Wait until it serves these blocks, or any."""
        return await self.wait_for_status(
            lambda status: status.state is ServerPhase.ONLINE and span in (None, status.span)
        )

    async def crash(self) -> None:
        """Kill it with -9, with all its processes, as if the machine had died."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def petals_server(
    folder: Path,
    name: str,
    command: Sequence[str],
    *,
    socket: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[PetalsServer]:
    """Run a Petals server, however it is started, until the end of the block."""
    assignments = _assignments(folder, environment or {})
    process = await ChildProcess.start(
        name, ["env", "--default-signal=INT", *assignments, *command], folder / f"{name}.log"
    )
    try:
        yield PetalsServer(process, socket)
    finally:
        await process.end(seconds=20)


@asynccontextmanager
async def adapted_server(
    model: Path | str,
    initial_peers: Sequence[str],
    folder: Path,
    name: str,
    *options: str,
    num_blocks: int | None = 4,
    block_indices: str | None = None,
    throughput: float = 10.0,
    extra: Sequence[str] = (),
    adapter: Sequence[str] = _ADAPTER,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[PetalsServer]:
    """Run a Petals server with the adapter until the end of the block.

    Args:
        model: The model's folder, or its name at a hub.
        initial_peers: Peers of the DHT to join through.
        folder: Takes its socket NAME.sock, its key NAME.key and its log NAME.log; its path must be short.
        name: What to call it.
        options: Further options of the adapter.
        num_blocks, block_indices, throughput, extra: See `petals_arguments`.
        adapter: What Petals' Python runs.
        environment: Variables that it gets besides the usual ones.
    """
    socket = folder / f"{name}.sock"
    arguments = petals_arguments(
        model,
        initial_peers,
        identity=folder / f"{name}.key",
        port=free_port(),
        num_blocks=num_blocks,
        block_indices=block_indices,
        throughput=throughput,
        extra=extra,
    )
    command = [str(PETALS_PYTHON), "-u", *adapter, "--control-socket", str(socket), *options, *arguments]
    async with petals_server(folder, name, command, socket=socket, environment=environment) as server:
        yield server


class Conversation:
    """A program that answers lines of JSON with lines of JSON."""

    def __init__(self, process: ChildProcess, pipes: asyncio.subprocess.Process) -> None:
        self.process = process
        self._pipes = pipes

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        assert self._pipes.stdin is not None
        self._pipes.stdin.write(json.dumps(request).encode() + b"\n")
        await self._pipes.stdin.drain()
        return await self.read()

    async def read(self) -> dict[str, Any]:
        """Wait for the next answer."""
        answer: dict[str, Any] = json.loads(await self.process.read_line(PATIENCE))
        return answer

    async def generate(self, prompt: Sequence[int], count: int) -> list[int]:
        """Have text generated; an error of the program fails the test."""
        answer = await self.ask(prompt=list(prompt), count=count)
        assert "tokens" in answer, answer
        return list(answer["tokens"])


@asynccontextmanager
async def _conversation(folder: Path, name: str, program: str, *arguments: str) -> AsyncIterator[Conversation]:
    command = ["env", *_assignments(folder, {}), str(PETALS_PYTHON), str(PROGRAMS / program), *arguments]
    log_path = folder / f"{name}.log"
    with log_path.open("ab") as log:
        pipes = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    process = ChildProcess(name, log_path, pipes)
    try:
        conversation = Conversation(process, pipes)
        assert await conversation.read() == {"ready": True}
        yield conversation
    finally:
        await process.end()


@asynccontextmanager
async def petals_client(
    model: Path, initial_peers: Sequence[str], folder: Path, *, attempts: int = 30, name: str = "client"
) -> AsyncIterator[Conversation]:
    """Run a real Petals client, which tries each request so many times, until the end of the block."""
    async with _conversation(folder, name, "client.py", str(model), PREFIX, str(attempts), *initial_peers) as client:
        yield client


@asynccontextmanager
async def local_reference(model: Path, folder: Path) -> AsyncIterator[Conversation]:
    """Run the whole model in one process, by transformers alone, until the end of the block."""
    async with _conversation(folder, "local", "generate_locally.py", str(model)) as local:
        yield local


async def wait_for(condition: Any, process: ChildProcess, seconds: float = PATIENCE) -> None:
    """Wait for a condition while a process runs."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                if not process.is_running:
                    raise process.failure("ended")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise process.failure("is not where the test waits for it") from None


async def wait_until_moved(sidecar: SidecarProcess) -> None:
    """Wait until a sidecar has moved its server and seen it in the DHT."""
    await wait_for(lambda: any(event["step"] == "done" for event in sidecar.events("move_step")), sidecar.process)


def _assignments(folder: Path, environment: Mapping[str, str]) -> list[str]:
    caches = {"HF_HOME": str(folder / "cache"), "PETALS_CACHE": str(folder / "cache")}
    return [f"{name}={value}" for name, value in (_QUIET | caches | dict(environment)).items()]
