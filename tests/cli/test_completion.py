"""Completion in a real shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_LOADED = "import sys; from swarmkeel.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"


@pytest.fixture(scope="module")
def script() -> str:
    run = subprocess.run(
        [sys.executable, "-m", "swarmkeel", "--show-completion", "bash"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def test_bash_completes_commands_and_their_options(script: str) -> None:
    """Press the tabulator as bash does: it sets these variables and calls the function that the script has named."""
    bash = shutil.which("bash")
    assert bash is not None, "bash is what is tested here"
    presses = []
    for words in (["swarmkeel", "ex"], ["swarmkeel", "explain", "--s"], ["swarmkeel", "history", "--verdict", "would"]):
        line = " ".join(words)
        presses.append(
            f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMPREPLY=()\n"
            f'"$(complete -p swarmkeel | sed "s/.*-F \\([^ ]*\\).*/\\1/")" swarmkeel "{words[-1]}" "{words[-2]}"\n'
            'echo "${COMPREPLY[@]}"'
        )
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    run = subprocess.run(
        [bash, "--norc", "-c", "\n".join([script, *presses])],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": path},
    )
    assert run.stderr == ""
    commands, options, values = run.stdout.splitlines()
    assert commands == "explain"
    assert options.split() == ["--snapshot", "--seed"]
    assert values == "would_move"


def test_completing_a_command_imports_none() -> None:
    environment = {**os.environ, "_SWARMKEEL_COMPLETE": "complete_bash", "COMP_WORDS": "swarmkeel s", "COMP_CWORD": "1"}
    run = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=False, env=environment)
    assert {"snapshot", "simulate", "supervise"} <= set(run.stdout.split())
    loaded = run.stderr.split()
    assert "swarmkeel.cli" in loaded
    assert not [name for name in loaded if name.startswith("swarmkeel.commands.")]
