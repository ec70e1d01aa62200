"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

from typing import Final

import typer
from typer.cli import get_docs_for_click

from swarmkeel import cli

_INTRODUCTION: Final = """\
# Commands

Exit codes: 0 done, 1 it failed, 2 bad usage or configuration, 130 interrupted. Every failure is one line on standard error:
what is wrong, and what to do; a traceback comes with `swarmkeel --debug ...` alone. What takes over a second shows on a
terminal that it goes on. Commands that read take `--json`.

`swarmkeel --install-completion` lets your shell complete commands and options; `--show-completion bash` (or `zsh`, `fish`)
prints what it would install.

This page is made from the code by `make docs-generate`.
"""


def commands_page() -> str:
    """Write the page: the program itself, and one section a command."""
    program = typer.main.get_command(cli._make_app([]))  # noqa: SLF001 - the whole program, which runs nowhere else
    context = typer.Context(program, info_name="swarmkeel")
    reference = get_docs_for_click(obj=program, ctx=context, name="swarmkeel", indent=1)
    return f"{_INTRODUCTION}\n{reference.rstrip()}\n"
