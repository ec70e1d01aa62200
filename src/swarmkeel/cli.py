"""The command line: `swarmkeel`, also `python -m swarmkeel`.

Every failure ends in one line on standard error that says what is wrong and what to do. Only the command that is asked
for is imported, and it imports what is heavy (the DHT above all) when it runs, so that help and checks stay quick.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from swarmkeel import __version__
from swarmkeel.errors import SwarmkeelError
from swarmkeel.printable import printable

_FAILED: Final = 1
_LONGEST_PART: Final = 1000

_COMMANDS: Final = (
    *("init", "check-config", "run", "status", "pause", "resume", "check-now"),
    *("snapshot", "explain", "history", "replay", "report", "simulate", "supervise", "demo"),
)
"""As the help lists them; each is a module of `swarmkeel.commands` with a function of the same name."""


@dataclass
class _GlobalOptions:
    debug: bool = False


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's signature
    if value:
        typer.echo(f"swarmkeel {__version__}")
        raise typer.Exit


def _global_options(
    context: typer.Context,
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with every error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep a swarm of GPU servers balanced: no block of the model left thin, no restart for nothing."""
    context.obj.debug = debug


def _make_app(arguments: Sequence[str]) -> typer.Typer:
    """Make the program of the one command that these arguments name, or of all where none stands out."""
    app = typer.Typer(
        name="swarmkeel",
        pretty_exceptions_enable=False,
        context_settings={"max_content_width": 100},
    )
    app.callback()(_global_options)
    completing = _words_to_complete()
    first = next((word for word in completing or arguments if word != "--debug"), None)
    for command in (first,) if first in _COMMANDS else _COMMANDS:
        name = command.replace("-", "_")
        if completing is not None and command != first:
            app.command(command)(_no_command)  # its name is all that is asked for
        else:
            app.command(command)(getattr(import_module(f"swarmkeel.commands.{name}"), name))
    return app


def _words_to_complete() -> list[str] | None:
    """Give the words behind `swarmkeel` that a shell wants completed, or None if none does."""
    if "_SWARMKEEL_COMPLETE" not in os.environ:
        return None
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1:]


def _no_command() -> None:
    """Stand for a command that is not going to run."""


def main() -> NoReturn:
    """Run the command that the process was started with, and exit with its code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to fail
    sys.exit(run_command_line(sys.argv[1:]))


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: What stands behind `swarmkeel`; nothing shows the help.

    Returns:
        The exit code: 0 done, 1 it failed, 2 bad usage or configuration, 130 interrupted.

    Raises:
        SystemExit: If whoever reads our output went away, from typer and rich, which see to it that this is quiet.
    """
    options = _GlobalOptions()
    words = list(arguments) or ["--help"]
    try:
        code = _make_app(words)(words, prog_name="swarmkeel", standalone_mode=False, obj=options)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "swarmkeel"
        _complain(error.format_message().rstrip("."), f"{command} --help shows what is allowed")
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort of the whole program
        if options.debug:
            traceback.print_exception(error)
        known = _known_cause(error)
        if known is None:
            remedy = (
                "report it with the traceback above" if options.debug else "run it again with swarmkeel --debug ..."
            )
            _complain(f"unexpected {type(error).__name__}: {error}", remedy)
            return _FAILED
        _complain(known.problem, known.remedy)
        return known.exit_code
    return code if isinstance(code, int) else 0


def _known_cause(error: BaseException) -> SwarmkeelError | None:
    """Find the error to name: itself, the first one in a task group's bundle, or what the system says of a file."""
    if isinstance(error, SwarmkeelError):
        return error
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str | Path):
        return SwarmkeelError(f"{error.filename}: {error.strerror}", "see that it is there and may be used")
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_known_cause, error.exceptions)), None)
    return None


def _complain(problem: str, remedy: str) -> None:
    typer.echo(f"swarmkeel: {printable(problem, _LONGEST_PART)}: {printable(remedy, _LONGEST_PART)}", err=True)
