"""Print what the image needs beside hivemind: what Swarmkeel and hivemind demand, less what only other parts use.

hivemind demands torch for training, and gRPC's compiler to be built itself. Its DHT, which is all that Swarmkeel takes
from it, uses neither (docs/decisions/0001-hivemind-in-process.md); they would make the image more than twice as large.
"""

import tomllib
from importlib.metadata import requires
from pathlib import Path

LEFT_OUT = ("grpcio-tools", "torch")

ours = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
theirs = [need for need in requires("hivemind") or () if "extra ==" not in need]
for need in sorted({*ours, *theirs}):
    if not need.startswith(("hivemind", *LEFT_OUT)):
        print(need)  # noqa: T201 - its output is what pip reads
