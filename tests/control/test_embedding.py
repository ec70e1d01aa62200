"""What somebody who embeds `ControlServer` relies on: no other packages, and an example that works as it stands."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

from swarmkeel.control.client import ControlClient
from swarmkeel.control.protocol import RestartPhase, RestartRequest, RestartStatus, ServerPhase
from swarmkeel.swarm.span import Span

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
MODULES_ADDED = """
import sys
before = set(sys.modules)
import swarmkeel.control.protocol, swarmkeel.control.server
added = {name for name in set(sys.modules) - before if name.partition(".")[0] not in sys.stdlib_module_names}
print(*sorted(added))
"""


def test_the_server_side_imports_the_standard_library_alone() -> None:
    run = subprocess.run([sys.executable, "-c", MODULES_ADDED], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [
        "swarmkeel",
        "swarmkeel.control",
        "swarmkeel.control.fields",
        "swarmkeel.control.handler",
        "swarmkeel.control.http1",
        "swarmkeel.control.private_server",
        "swarmkeel.control.protocol",
        "swarmkeel.control.server",
        "swarmkeel.control.unix_socket",
        "swarmkeel.printable",
        "swarmkeel.swarm",
        "swarmkeel.swarm.span",
    ]


async def test_the_example_of_the_documentation(socket_path: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    script = tmp_path / "embedding.py"
    script.write_text(example)
    path = socket_path.parent / "made by it" / "server.sock"
    process = await asyncio.create_subprocess_exec(sys.executable, script, path)
    try:
        async with asyncio.timeout(60), ControlClient(path, request_timeout=60) as client:
            idle = await client.status()
            assert (idle.state, idle.span, idle.restart) == (ServerPhase.IDLE, None, None)
            request = RestartRequest("first", Span(62, 80), if_span=None, reason="test")
            done = RestartStatus(request.id, request.span, RestartPhase.ONLINE)
            while (await client.restart(request)).restart != done:
                await asyncio.sleep(0.01)
            online = await client.status()
            assert (online.state, online.span) == (ServerPhase.ONLINE, Span(62, 80))
            process.send_signal(signal.SIGINT)
            await process.wait()
        assert not path.exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
