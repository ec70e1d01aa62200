"""`swarmkeel check-config`: every mistake in a configuration at once, or what it amounts to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from swarmkeel.config import ConfigError, load_config


def check_config(
    file: Annotated[Path, typer.Argument(help="The YAML configuration.")],
    *,
    print_effective: Annotated[
        bool, typer.Option("--print", help="Show what is in force: the file, the environment and all defaults.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the mistakes as JSON, or with --print what is in force.")
    ] = False,
) -> None:
    """Check a configuration without using it; exit code 2 if it has mistakes."""
    try:
        config = load_config(file)
    except ConfigError as error:
        if as_json:
            typer.echo(_findings_json(file, error.findings))
        else:
            for where, what in error.findings:
                typer.echo(f"{where}: {what}", err=True)
        raise typer.Exit(error.exit_code) from error
    if print_effective:
        effective = config.model_dump(mode="json")
        text = (
            json.dumps(effective) + "\n" if as_json else yaml.safe_dump(effective, sort_keys=False, allow_unicode=True)
        )
        typer.echo(text, nl=False)
    elif as_json:
        typer.echo(_findings_json(file, ()))
    else:
        typer.echo(f"{file}: OK")


def _findings_json(file: Path, findings: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(
        {
            "file": str(file),
            "ok": not findings,
            "findings": [{"where": where, "what": what} for where, what in findings],
        }
    )
