"""`swarmkeel check-config`: every mistake in a configuration at once, or what it amounts to."""

from __future__ import annotations

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
) -> None:
    """Check a configuration without using it; exit code 2 if it has mistakes."""
    try:
        config = load_config(file)
    except ConfigError as error:
        for where, what in error.findings:
            typer.echo(f"{where}: {what}", err=True)
        raise typer.Exit(error.exit_code) from error
    if print_effective:
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        typer.echo(text, nl=False)
    else:
        typer.echo(f"{file}: OK")
